//! What a replay has to tell: results as JSON, as a table for the terminal, and as one page to look at.
//!
//! Pure: everything is made from what ran; nothing is read or written here. The same input gives the same bytes, but for the
//! planners' own times.

mod comparison;
mod page;
mod result;
mod series;
mod table;

use pomarium_kernel::snapshot::{Discipline, Metric, Objective, Survive};

pub use comparison::{Compared, Comparison, compare};
pub use result::{PolicyResult, Results};

use crate::lengths::Lengths;
use crate::setting::Setting;
use crate::sweep::{Goal, Run};
use crate::timeline::Timeline;
use crate::world::Figures;

/// Where requests come from. Said next to every number.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceFacts {
    /// Name of the file.
    pub name: String,
    /// `REAL`, `SAMPLED`, `COMPOSITE`, or whatever its user says; may be empty.
    pub label: String,
    /// Requests that are simulated, after scaling.
    pub requests: u64,
    /// From the first moment to the last request, in hours; history included.
    pub hours: f64,
    /// Hours of history before the scored part.
    pub history_hours: f64,
    /// The first moment, in hours from the start of the file.
    pub from_hour: f64,
    /// How many jittered copies are superposed.
    pub rate_scale: f64,
}

/// One policy, as it was replayed.
#[derive(Clone, Debug)]
pub struct Played {
    /// Policy, knob and outcome.
    pub run: Run,
    /// What the knob is; `None` for a policy without.
    pub knob: Option<String>,
    /// How good its forecasts and plans were.
    pub figures: Figures,
    /// What happened when; only if a page was asked for.
    pub timeline: Option<Timeline>,
}

/// Everything that a report is made from.
pub struct Report<'a> {
    /// Where requests come from.
    pub trace: TraceFacts,
    /// Their lengths.
    pub lengths: &'a Lengths,
    /// Pool and groups.
    pub setting: &'a Setting,
    /// Of all amounts.
    pub currency: String,
    /// Of the trace's scaling and of everything random.
    pub seed: u64,
    /// The command line that makes this report again.
    pub command: String,
    /// Of the program.
    pub version: String,
    /// What else must be said, such as documents that were ignored.
    pub notes: Vec<String>,
    /// What a comparison holds equal, and what it compares.
    pub goal: Goal,
    /// In the order in which policies were asked for.
    pub played: Vec<Played>,
    /// Every run of every sweep, in a fixed order; empty if nothing was swept.
    pub runs: Vec<Run>,
    /// What no policy can cost less than, if it is known.
    pub bound: Option<f64>,
}

impl Report<'_> {
    /// Everything that a reader must know before the numbers: what is left out, what is impossible, what was ignored.
    pub fn remarks(&self) -> Vec<String> {
        let unreachable = self.setting.unreachable.iter().map(|problem| {
            format!(
                "no group can meet its objectives, not even unloaded: {}",
                problem.message
            )
        });
        let left_out = self.setting.left_out.iter().map(|left| format!("left out: {left}"));
        unreachable.chain(left_out).chain(self.notes.iter().cloned()).collect()
    }
}

/// The short name of a metric.
fn metric(metric: Metric) -> &'static str {
    match metric {
        Metric::TimeToFirstToken => "TTFT",
        Metric::InterTokenLatency => "ITL",
    }
}

/// Such as `TTFT p95`.
fn short(objective: &Objective) -> String {
    format!(
        "{} p{}",
        metric(objective.metric),
        (objective.percentile.get() * 1e4).round() / 1e2
    )
}

/// Such as `TTFT p95 ≤ 12s in every 24h`.
fn describe(objective: &Objective) -> String {
    format!(
        "{} ≤ {} in every {}",
        short(objective),
        objective.threshold,
        objective.window
    )
}

fn discipline(discipline: Discipline) -> &'static str {
    match discipline {
        Discipline::LeastWork => "LeastWork",
        Discipline::Weighted => "Weighted",
    }
}

fn survive(survive: Survive) -> &'static str {
    match survive {
        Survive::None => "None",
        Survive::Server => "Server",
        Survive::Site => "Site",
    }
}

/// A whole number with its thousands set apart.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A knob's value: three figures are enough.
fn knob(value: f64) -> String {
    if value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').to_owned()
    }
}
