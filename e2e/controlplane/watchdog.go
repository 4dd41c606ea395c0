package main

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"syscall"
)

// watchdog ends what a dead parent left behind.
//
// The parent names its children and folders on our standard input, one order a
// line: "kill PID" and "remove DIR" add, "spare PID" and "keep DIR" take back.
// The pipe closes when the parent ends, however it ends, and then everything
// still named goes: process groups first, so that nobody writes into a folder
// while it is removed. No signal handler and no exit hook of the parent could
// do this after a SIGKILL.
func watchdog(orders io.Reader, kill func(pid int), remove func(dir string) error) int {
	pids := map[int]struct{}{}
	dirs := map[string]struct{}{}
	lines := bufio.NewScanner(orders)
	for lines.Scan() {
		verb, what, _ := strings.Cut(lines.Text(), " ")
		pid, err := strconv.Atoi(what)
		switch {
		case verb == "kill" && err == nil && pid > 1:
			pids[pid] = struct{}{}
		case verb == "spare" && err == nil:
			delete(pids, pid)
		case verb == "remove" && what != "":
			dirs[what] = struct{}{}
		case verb == "keep":
			delete(dirs, what)
		}
	}
	for pid := range pids {
		kill(pid)
	}
	status := 0
	for dir := range dirs {
		if remove(dir) != nil {
			status = 1
		}
	}
	return status
}

// killGroup ends the process group that pid leads. SIGKILL ends stopped processes too.
func killGroup(pid int) {
	_ = syscall.Kill(-pid, syscall.SIGKILL)
}
