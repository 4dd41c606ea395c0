package main

import (
	"slices"
	"strings"
	"testing"
)

func TestWatchdogEndsOnlyWhatIsStillNamedWhenTheParentIsGone(t *testing.T) {
	orders := strings.NewReader("kill 41\nkill 42\nremove /a\nspare 41\nremove /b\nkeep /a\nkill 1\nkill -7\nkill x\n")
	var killed []int
	var removed []string
	status := watchdog(orders, func(pid int) { killed = append(killed, pid) },
		func(dir string) error { removed = append(removed, dir); return nil })
	if status != 0 || !slices.Equal(killed, []int{42}) || !slices.Equal(removed, []string{"/b"}) {
		t.Fatalf("status %d, killed %v, removed %v", status, killed, removed)
	}
}
