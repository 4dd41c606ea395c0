//! Whether a member cluster answers: a small state machine over rounds of probes.

use pomarium_kernel::snapshot::Contact;
use pomarium_kernel::time::Timestamp;

/// Rounds that must fail one after the other before contact counts as lost. One may be a hiccup; while it lasts, what is
/// seen is seconds old, as any cache may be.
const PATIENCE: u32 = 2;

/// Follows the rounds of one connection.
///
/// A round is good when the API server answered and every cache is complete and current. Bad news needs [`PATIENCE`]
/// rounds, good news one: a round proves what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rounds {
    contact: Contact,
    last_good: Timestamp,
    failures: u32,
}

impl Rounds {
    /// Not in contact yet; it counts as lost since `since`.
    pub(super) fn new(since: Timestamp) -> Self {
        Self {
            contact: Contact::Lost {
                since,
                message: "it is being connected".to_owned(),
            },
            last_good: since,
            failures: 0,
        }
    }

    /// Takes in how a round at `now` went.
    pub(super) fn take(&mut self, round: Result<(), String>, now: Timestamp) -> &Contact {
        match round {
            Ok(()) => {
                self.failures = 0;
                self.last_good = now;
                self.contact = Contact::Reachable;
            }
            Err(message) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= PATIENCE || matches!(self.contact, Contact::Lost { .. }) {
                    self.contact = Contact::Lost {
                        since: self.last_good,
                        message,
                    };
                }
            }
        }
        &self.contact
    }

    /// Rounds that failed since the last good one.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

/// Whether two contacts differ in more than the wording.
pub(super) fn differ(one: &Contact, other: &Contact) -> bool {
    match (one, other) {
        (Contact::Reachable, Contact::Reachable) => false,
        (Contact::Lost { since, .. }, Contact::Lost { since: other, .. }) => since != other,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn bad() -> Result<(), String> {
        Err("no answer".to_owned())
    }

    #[test]
    fn contact_is_lost_after_two_bad_rounds_since_the_last_good_one() {
        let mut rounds = Rounds::new(at(0));
        assert_eq!(rounds.take(Ok(()), at(3)), &Contact::Reachable);
        assert_eq!(rounds.take(bad(), at(6)), &Contact::Reachable, "a hiccup");
        assert_eq!(rounds.take(Ok(()), at(9)), &Contact::Reachable);
        assert_eq!(rounds.take(bad(), at(12)), &Contact::Reachable, "counted anew");
        let lost = Contact::Lost {
            since: at(9),
            message: "no answer".to_owned(),
        };
        assert_eq!(rounds.take(bad(), at(15)), &lost);
        assert_eq!(rounds.take(bad(), at(18)), &lost, "it does not move on");
        assert_eq!(
            rounds.take(Ok(()), at(21)),
            &Contact::Reachable,
            "one good round heals it"
        );
    }

    #[test]
    fn a_cluster_that_never_answered_is_lost_from_the_start_and_says_why() {
        let mut rounds = Rounds::new(at(5));
        let Contact::Lost { since, message } = rounds.take(bad(), at(8)) else {
            panic!("it never answered");
        };
        assert_eq!((*since, message.as_str()), (at(5), "no answer"));
    }

    #[test]
    fn wording_alone_is_no_change_of_contact() {
        let lost = |message: &str, since| Contact::Lost {
            since,
            message: message.to_owned(),
        };
        assert!(!differ(&lost("a", at(1)), &lost("b", at(1))));
        assert!(differ(&lost("a", at(1)), &lost("a", at(2))));
        assert!(differ(&lost("a", at(1)), &Contact::Reachable));
        assert!(!differ(&Contact::Reachable, &Contact::Reachable));
    }
}
