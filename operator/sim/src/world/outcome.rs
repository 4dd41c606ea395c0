//! What a simulation came to.

use crate::machines::Paid;
use crate::score::{ObjectiveScore, Requests};

/// What a simulation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Requests by what became of them.
    pub requests: Requests,
    /// In the order of the scenario.
    pub objectives: Vec<ObjectiveScore>,
    /// Per group, in the order of the scenario.
    pub paid: Vec<Paid>,
    /// Most machines serving at once.
    pub peak: u32,
    /// Replicas started and drained by decision.
    pub moves: u64,
    /// Simulated time, scored part only, in days.
    pub days: f64,
    /// Commands that were impossible; a policy that gives any has a defect.
    pub refused: u64,
    /// Leases that were refused because there was no stock.
    pub out_of_stock: u64,
    /// Machines that died.
    pub deaths: u64,
}

/// Which costs count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accounting {
    /// Leases and energy to the trace's end.
    ToTheEnd,
    /// And what minimum leases still cost then.
    WithObligations,
}

/// Over which span an objective must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The whole trace.
    Trace,
    /// Each of its own windows, of those with enough requests to tell.
    Windows,
}

impl Outcome {
    fn sum(&self, of: impl Fn(&Paid) -> f64) -> f64 {
        self.paid.iter().map(of).sum()
    }

    /// What leases cost, to the trace's end.
    pub fn leases(&self) -> f64 {
        self.sum(|paid| paid.leases)
    }

    /// What electricity cost.
    pub fn energy(&self) -> f64 {
        self.sum(|paid| paid.energy)
    }

    /// What minimum leases still cost after the trace's end.
    pub fn obligations(&self) -> f64 {
        self.sum(|paid| paid.obligations)
    }

    /// Leases and energy, and what `accounting` adds.
    pub fn cost(&self, accounting: Accounting) -> f64 {
        let obligations = match accounting {
            Accounting::ToTheEnd => 0.0,
            Accounting::WithObligations => self.obligations(),
        };
        self.leases() + self.energy() + obligations
    }

    /// Machines given back before the end of their minimum lease.
    pub fn early_releases(&self) -> u32 {
        self.paid.iter().map(|paid| paid.early_releases).sum()
    }

    /// Replicas started and drained, per day.
    pub fn moves_per_day(&self) -> f64 {
        if self.days > 0.0 {
            self.moves as f64 / self.days
        } else {
            0.0
        }
    }

    /// By how much the objective that is met worst exceeds its percentile; negative if one is missed.
    pub fn margin(&self, over: Over) -> f64 {
        let margin = |score: &ObjectiveScore| {
            let attained = match over {
                Over::Trace => score.attainment,
                Over::Windows => score.worst_window.unwrap_or(score.attainment),
            };
            attained - score.percentile
        };
        self.objectives.iter().map(margin).fold(1.0, f64::min)
    }

    /// Whether every objective holds.
    pub fn attains(&self, over: Over) -> bool {
        self.margin(over) >= 0.0
    }
}
