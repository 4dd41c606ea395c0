//! Watts to plan with, also of machines of which nobody has published any.

use super::{Catalogue, Machine};
use crate::snapshot::{MachineKey, Power};

impl Catalogue {
    /// Watts of one machine at the wall: its own figures; for one that is missing the most of its chip with any number of
    /// cores, else the most of all machines. Unknown is not free: a site's power limit and the order by cost must not be
    /// fooled by a gap in a table.
    pub fn power(&self, key: &MachineKey) -> Power {
        let watts = |figure: fn(&Machine) -> Option<f64>| {
            let most = |same_chip: bool| {
                self.machines()
                    .filter(|(other, _)| !same_chip || other.chip == key.chip)
                    .filter_map(|(_, machine)| figure(machine))
                    .reduce(f64::max)
            };
            let own = self.machine(key).and_then(figure);
            own.or_else(|| most(true)).or_else(|| most(false)).unwrap_or_default()
        };
        let idle_watts = watts(|machine| machine.idle_watts);
        Power {
            idle_watts,
            busy_watts: watts(|machine| machine.busy_watts).max(idle_watts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_watts_are_the_most_of_the_chip_and_else_of_all() {
        for (chip, gpu_cores, memory_gib, idle_watts, busy_watts) in [
            ("M2 Ultra", 76, 192, 10.0, 295.0),
            // Published for 32 GPU cores only.
            ("M4 Max", 40, 128, 6.0, 145.0),
            // Not known at all.
            ("M9 Ultra", 99, 999, 13.0, 385.0),
        ] {
            let key = MachineKey {
                chip: chip.to_owned(),
                gpu_cores,
                memory_gib,
            };
            let expected = Power { idle_watts, busy_watts };
            assert_eq!(Catalogue::builtin().power(&key), expected, "{chip}");
        }
    }
}
