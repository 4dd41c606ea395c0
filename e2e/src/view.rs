//! What the demo shows while it runs: one [`Picture`] a moment, drawn on a terminal or printed as a line.
//!
//! Pure: a picture in, characters out. Gathering pictures is [`crate::demo`]'s work, the terminal is [`terminal`]'s.

pub mod screen;
pub mod terminal;

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::load;
use crate::summary::Target;

/// Everything that is shown at one moment.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// What is going on, such as `replaying azure-conv-2023.csv.gz`.
    pub stage: String,
    /// Virtual seconds since the replay began.
    pub elapsed_secs: f64,
    /// Length of the replay, in virtual seconds.
    pub length_secs: f64,
    /// Virtual seconds in one real second.
    pub scale: f64,
    /// In alphabetical order.
    pub sites: Vec<SiteView>,
    /// The pool.
    pub pool: PoolView,
    /// The pool's objectives with the values of the last five virtual minutes.
    pub objectives: Vec<ObjectiveView>,
    /// Requests, as their sender sees them.
    pub requests: load::Snapshot,
    /// Requests that wait in the router because nothing serves.
    pub queued: usize,
    /// Newest first.
    pub decisions: Vec<DecisionView>,
}

/// One site.
#[derive(Clone, Debug, Default)]
pub struct SiteView {
    /// Its name.
    pub name: String,
    /// `Owned`, `Managed` or `Hosted`.
    pub ownership: String,
    /// Its condition in one word or line.
    pub summary: String,
    /// Cost per hour, with currency.
    pub cost_per_hour: String,
    /// In alphabetical order.
    pub groups: Vec<GroupView>,
}

/// One group of servers.
#[derive(Clone, Debug, Default)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// Such as `M2 Ultra 192 GiB`.
    pub machine: String,
    /// Most servers.
    pub max: u32,
    /// What each server is doing.
    pub servers: BTreeMap<ServerView, u32>,
    /// Requests in flight on its replicas.
    pub in_flight: u32,
    /// Paid leases.
    pub leases: u32,
    /// Cost per hour, with currency.
    pub cost_per_hour: String,
}

/// What one server is doing, in the order in which it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerView {
    /// Its replica takes requests.
    Serving,
    /// Its replica finishes what it has.
    Draining,
    /// Its replica loads the model.
    Loading,
    /// It is there and runs nothing.
    Idle,
    /// It is on its way.
    Coming,
    /// It is being given back, or cleaned.
    Leaving,
}

impl ServerView {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Serving,
        Self::Draining,
        Self::Loading,
        Self::Idle,
        Self::Coming,
        Self::Leaving,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Loading => "loading",
            Self::Idle => "idle",
            Self::Coming => "coming",
            Self::Leaving => "leaving",
        }
    }
}

/// The pool, as its status says.
#[derive(Clone, Debug, Default)]
pub struct PoolView {
    /// `namespace/name`.
    pub id: String,
    /// Replicas wanted.
    pub target: u32,
    /// Replicas that take requests.
    pub serving: u32,
    /// Replicas being drained.
    pub draining: u32,
    /// Measured demand, requests/s.
    pub demand: String,
    /// What the serving replicas sustain, requests/s.
    pub sustainable: String,
    /// The one-line reason of its Ready condition.
    pub summary: String,
    /// Cost per hour, with currency.
    pub cost_per_hour: String,
}

/// One objective and where it stands.
#[derive(Clone, Debug)]
pub struct ObjectiveView {
    /// What is asked.
    pub target: Target,
    /// The value at the percentile, in ms, over the last five virtual minutes.
    pub value_ms: Option<f64>,
}

/// One decision.
#[derive(Clone, Debug, Default)]
pub struct DecisionView {
    /// Virtual seconds since the replay began; negative before.
    pub at_secs: f64,
    /// Its reason.
    pub reason: String,
    /// Of what, such as `ServerPool chat`.
    pub subject: String,
    /// With figures.
    pub message: String,
    /// How often it was said.
    pub count: u32,
}

impl Picture {
    /// Servers in one state, at all sites.
    pub fn servers(&self, state: ServerView) -> u32 {
        let groups = self.sites.iter().flat_map(|site| &site.groups);
        groups.filter_map(|group| group.servers.get(&state)).sum()
    }

    /// Where the replay is, such as `12:00 / 58:21`; after its end `58:21 + 02:00`.
    pub(crate) fn progress(&self) -> String {
        let over = self.elapsed_secs - self.length_secs;
        if over > 0.0 {
            format!("{} + {}", clock(self.length_secs), clock(over))
        } else {
            format!("{} / {}", clock(self.elapsed_secs), clock(self.length_secs))
        }
    }

    /// One line for logs.
    pub fn line(&self) -> String {
        let mut line = self.progress();
        let _ = write!(
            line,
            "  {} sent, {} in flight",
            self.requests.sent, self.requests.in_flight
        );
        if self.requests.cut + self.requests.failed > 0 {
            let _ = write!(line, ", {} CUT, {} FAILED", self.requests.cut, self.requests.failed);
        }
        let PoolView {
            target,
            serving,
            draining,
            demand,
            sustainable,
            ..
        } = &self.pool;
        let _ = write!(line, "; {serving}/{target} replicas");
        if *draining > 0 {
            let _ = write!(line, " ({draining} draining)");
        }
        let _ = write!(line, "; demand {} of {}/s", or_dash(demand), or_dash(sustainable));
        for objective in &self.objectives {
            let _ = write!(line, "; {}", objective.text());
        }
        for site in &self.sites {
            let servers: u32 = site
                .groups
                .iter()
                .flat_map(|group| &group.servers)
                .filter(|(state, _)| **state != ServerView::Leaving)
                .map(|(_, count)| count)
                .sum();
            let _ = write!(
                line,
                "; {} {servers} servers {}/h",
                site.name,
                or_dash(&site.cost_per_hour)
            );
        }
        line
    }
}

impl ObjectiveView {
    /// Such as `p95 TTFT 3.1 s of 10 s`.
    pub fn text(&self) -> String {
        let value = match self.value_ms {
            Some(value) if value.is_finite() => duration(value),
            Some(_) => "lost".to_owned(),
            None => "–".to_owned(),
        };
        let Target {
            metric,
            percentile,
            threshold_ms,
        } = &self.target;
        format!(
            "p{percentile} {} {value} of {}",
            metric.short(),
            duration(*threshold_ms as f64)
        )
    }
}

/// At most `most` of `decisions`, which are newest first. The same about several servers in a row is told once, by the
/// newest, with a count.
pub(crate) fn told(decisions: Vec<DecisionView>, most: usize) -> Vec<DecisionView> {
    let mut told: Vec<DecisionView> = Vec::new();
    for decision in decisions {
        let same = |last: &&mut DecisionView| last.reason == decision.reason && last.subject == decision.subject;
        if let Some(last) = told.last_mut().filter(same) {
            last.count += decision.count;
        } else if told.len() < most {
            told.push(decision);
        } else {
            break;
        }
    }
    told
}

/// `mm:ss` of virtual time.
fn clock(secs: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to what a replay may last"
    )]
    let secs = secs.clamp(0.0, 1e9) as u64;
    format!("{:02}:{:02}", secs / 60, secs % 60)
}

fn duration(ms: f64) -> String {
    if ms < 1_000.0 {
        format!("{ms:.0} ms")
    } else if (ms / 1_000.0).fract() < 0.05 {
        format!("{:.0} s", ms / 1_000.0)
    } else {
        format!("{:.1} s", ms / 1_000.0)
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_decision_about_several_servers_is_told_once_by_the_newest() {
        let decision = |reason: &str, message: &str| DecisionView {
            reason: reason.into(),
            message: message.into(),
            count: 1,
            ..DecisionView::default()
        };
        let newest_first = vec![
            decision("DemandGrew", "to 9"),
            decision("DemandGrew", "to 8"),
            decision("ReplicaReady", "7"),
            decision("DemandGrew", "to 7"),
            decision("BelowMinimum", "to 6"),
        ];
        let told: Vec<_> = told(newest_first, 3)
            .into_iter()
            .map(|told| (told.message, told.count))
            .collect();
        assert_eq!(told, [("to 9".into(), 2), ("7".into(), 1), ("to 7".into(), 1)]);
    }
}
