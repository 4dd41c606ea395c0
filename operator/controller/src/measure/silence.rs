//! Engines that do not answer any more.
//!
//! Pure. Only those that have answered before count: one that never did may have no metrics at all. And only from the
//! second look in a row on: a single one that was missed says little, above all under compressed time.

use std::collections::{BTreeMap, BTreeSet};

use pomarium_kernel::time::Timestamp;

/// Looks in a row that have to be missed.
const ENOUGH: u32 = 2;

/// What earlier looks have found, by uid of the Pod.
#[derive(Default)]
pub(super) struct Silence {
    answered: BTreeSet<String>,
    /// When the first look that was missed began, and how many were missed since.
    missed: BTreeMap<String, (Timestamp, u32)>,
}

impl Silence {
    /// Takes in what a look that began at `asked_at` has found.
    pub(super) fn note(&mut self, uid: &str, answered: bool, asked_at: Timestamp) {
        if answered {
            self.missed.remove(uid);
            self.answered.insert(uid.to_owned());
        } else if self.answered.contains(uid) {
            let (_, looks) = self.missed.entry(uid.to_owned()).or_insert((asked_at, 0));
            *looks += 1;
        }
    }

    /// Forgets the Pods that are gone.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.answered.retain(|uid| keep(uid));
        self.missed.retain(|uid, _| keep(uid));
    }

    /// Since when an engine does not answer.
    pub(super) fn since(&self, uid: &str) -> Option<Timestamp> {
        let (since, looks) = self.missed.get(uid)?;
        (*looks >= ENOUGH).then_some(*since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000)
    }

    #[test]
    fn an_engine_is_silent_from_the_second_missed_look_on_and_only_if_it_ever_spoke() {
        let mut silence = Silence::default();
        silence.note("spoke", true, at(0));
        for look in [15, 30, 45] {
            silence.note("spoke", false, at(look));
            silence.note("never", false, at(look));
            assert_eq!(silence.since("never"), None, "it may have no metrics at all");
            assert_eq!(silence.since("spoke"), (look > 15).then(|| at(15)));
        }
        silence.note("spoke", true, at(60));
        silence.note("spoke", false, at(75));
        assert_eq!(silence.since("spoke"), None, "it answered in between");
        silence.note("spoke", false, at(90));
        silence.retain(|uid| uid != "spoke");
        assert_eq!(silence.since("spoke"), None, "its Pod is gone");
    }
}
