//! A live decision with everything that it was made from, to be planned again elsewhere.
//!
//! Nothing is kept for it: whoever asks wakes the loop and the strategist, and gets the next strategic plan with its snapshot, and the pass
//! that first followed it with its own. Only figures, names and states: no Secret and no address of one ever enters a snapshot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pomarium_kernel::plan::Plan;
use pomarium_kernel::planning;
use pomarium_kernel::snapshot::Snapshot;
use pomarium_kernel::strategy::ahead::{Ahead, look_ahead};
use pomarium_kernel::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::latest::Trigger;
use crate::pass::Pass;
use crate::strategist::{self, Made};

/// A decision as it is written to a file. What was decided may be missing: then there is nothing to compare with.
#[derive(Clone, Debug, Deserialize)]
pub struct Exported {
    /// The virtual time of the pass.
    pub now: Timestamp,
    /// What was planned on.
    pub snapshot: Snapshot,
    /// What was decided.
    #[serde(default)]
    pub plan: Option<Plan>,
    /// The strategic plan that the snapshot contains, and what it was made from.
    #[serde(default)]
    pub strategic: Option<ExportedAhead>,
}

/// A strategic plan as it is written to a file.
#[derive(Clone, Debug, Deserialize)]
pub struct ExportedAhead {
    /// When it was made.
    pub now: Timestamp,
    /// What it was made from.
    pub snapshot: Snapshot,
    /// The plan.
    pub ahead: Ahead,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decided {
    /// The plan of the pass.
    pub plan: Plan,
    /// The strategic plan: of its own snapshot if that was exported, else of the pass's.
    pub ahead: Ahead,
}

impl Exported {
    /// Plans all of it again.
    pub fn replan(&self) -> Decided {
        let (now, snapshot) = match &self.strategic {
            Some(strategic) => (strategic.now, &strategic.snapshot),
            None => (self.now, &self.snapshot),
        };
        Decided {
            plan: planning::plan(&self.snapshot, self.now),
            ahead: look_ahead(snapshot, now, &mut strategist::memo(), strategist::EFFORT),
        }
    }

    /// What was decided live, if all of it was exported.
    pub fn decided(&self) -> Option<Decided> {
        Some(Decided {
            plan: self.plan.clone()?,
            ahead: self.strategic.as_ref()?.ahead.clone(),
        })
    }
}

/// The same with borrowed content.
#[derive(Serialize)]
struct Writing<'a> {
    now: Timestamp,
    snapshot: &'a Snapshot,
    plan: &'a Plan,
    strategic: WritingAhead<'a>,
}

#[derive(Serialize)]
struct WritingAhead<'a> {
    now: Timestamp,
    snapshot: &'a Snapshot,
    ahead: &'a Ahead,
}

/// Those who wait for a decision. Clones are the same.
#[derive(Clone, Default)]
pub struct Exporter {
    waiting: Arc<Mutex<Vec<oneshot::Sender<String>>>>,
    trigger: Trigger,
}

impl Exporter {
    /// Nobody waits. `trigger` is pulled when somebody does.
    pub fn new(trigger: Trigger) -> Self {
        Self {
            waiting: Arc::default(),
            trigger,
        }
    }

    /// The next decision, as JSON; `None` if there will not be one.
    pub async fn next(&self) -> Option<String> {
        let (sender, receiver) = oneshot::channel();
        self.lock().push(sender);
        self.trigger.wake();
        receiver.await.ok()
    }

    /// Whether somebody waits.
    pub(crate) fn is_wanted(&self) -> bool {
        let mut waiting = self.lock();
        waiting.retain(|sender| !sender.is_closed());
        !waiting.is_empty()
    }

    /// Sends everybody away without an answer.
    pub(crate) fn refuse(&self) {
        self.lock().clear();
    }

    /// Gives everybody who waits the decision of `pass`, which follows `made`. Written on a thread of its own: it may be long.
    pub(crate) fn give(&self, pass: &Pass, made: Made) {
        let waiting = std::mem::take(&mut *self.lock());
        let Pass {
            now, snapshot, plan, ..
        } = pass;
        let (now, snapshot, plan) = (*now, Arc::clone(snapshot), Arc::clone(plan));
        tokio::task::spawn_blocking(move || match text(now, &snapshot, &plan, &made) {
            Ok(text) => {
                for sender in waiting {
                    // Who has gone meanwhile misses nothing.
                    let _ = sender.send(text.clone());
                }
            }
            Err(error) => tracing::error!(%error, "a decision cannot be written"),
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<oneshot::Sender<String>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A decision as text.
pub(crate) fn text(now: Timestamp, snapshot: &Snapshot, plan: &Plan, made: &Made) -> serde_json::Result<String> {
    serde_json::to_string(&Writing {
        now,
        snapshot,
        plan,
        strategic: WritingAhead {
            now: made.now,
            snapshot: &made.snapshot,
            ahead: &made.ahead,
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use pomarium_kernel::forecast::Counts;
    use pomarium_kernel::strategy::due::Due;
    use pomarium_kernel::strategy::past::Past;
    use pomarium_kernel::time::Span;

    use super::*;
    use crate::fixture::{NOW, chat, snapshot, world};

    /// A day with a peak in the afternoon, up to now.
    fn past() -> Past {
        let mut past = Past::default();
        for round in 0..288_i64 {
            let from = NOW - Span::from_minutes(5 * (288 - round.unsigned_abs()));
            let requests = 300 + if (140..190).contains(&round) { 1_500 } else { 0 };
            let counts = Counts {
                requests,
                prompt_tokens: requests * 700,
                output_tokens: requests * 150,
            };
            past.arrived(from, from + Span::from_minutes(5), counts, &[]);
        }
        past
    }

    #[test]
    fn a_decision_that_was_exported_is_made_again_to_the_byte() {
        let mut seen = world();
        seen.pasts.insert(chat(), Arc::new(past()));
        let before = Arc::new(snapshot(&seen));
        let ahead = Arc::new(look_ahead(&before, NOW, &mut strategist::memo(), strategist::EFFORT));
        assert!(ahead.pools.contains_key(&chat()), "there is something to plan");
        seen.ahead = Some(Arc::clone(&ahead));
        let made = Made {
            now: NOW,
            snapshot: before,
            ahead,
            due: Due::First,
            took: Duration::ZERO,
        };
        let (later, snapshot) = (NOW + Span::from_secs(15), snapshot(&seen));
        let plan = planning::plan(&snapshot, later);
        let text = text(later, &snapshot, &plan, &made).unwrap();

        let exported: Exported = serde_json::from_str(&text).unwrap();
        let decided = exported.decided().unwrap();
        assert_eq!(decided.plan, plan);
        let bytes = |decided: &Decided| serde_json::to_string(decided).unwrap();
        assert_eq!(bytes(&exported.replan()), bytes(&decided));
    }

    #[tokio::test]
    async fn who_asks_wakes_the_loop_and_gets_the_next_decision_or_none() {
        let trigger = Trigger::default();
        let exporter = Exporter::new(trigger.clone());
        assert!(!exporter.is_wanted());
        let asking = tokio::spawn({
            let exporter = exporter.clone();
            async move { exporter.next().await }
        });
        trigger.changed().await;
        assert!(exporter.is_wanted());
        exporter.refuse();
        assert_eq!(asking.await.unwrap(), None);
        assert!(!exporter.is_wanted());
    }
}
