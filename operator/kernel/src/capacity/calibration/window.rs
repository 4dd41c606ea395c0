//! Samples of the last hour, and their median.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{LEAST_SAMPLES, MOST_SAMPLES, SPACING, WINDOW};
use crate::time::Timestamp;

/// Decimals that are kept: short, and the same after it was written and read.
const DECIMALS: f64 = 1e4;

/// Positive numbers with the times at which they were measured, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Window(VecDeque<(Timestamp, f64)>);

impl Window {
    /// Adds a sample, unless it comes too soon after the last one, or before it.
    pub(super) fn push(&mut self, at: Timestamp, value: f64) {
        let soon = self.newest().is_some_and(|newest| at < newest + SPACING);
        if soon || !value.is_finite() || value <= 0.0 {
            return;
        }
        self.0.push_back((at, (value * DECIMALS).round().max(1.0) / DECIMALS));
        while self.0.len() > MOST_SAMPLES || self.0.front().is_some_and(|(oldest, _)| at.since(*oldest) > WINDOW) {
            self.0.pop_front();
        }
    }

    /// The quartiles of what was measured within the window before `now`; `None` with too few samples.
    pub(super) fn quartiles(&self, now: Timestamp) -> Option<[f64; 3]> {
        let recent = self.0.iter().filter(|(at, _)| now.since(*at) <= WINDOW);
        let mut values: Vec<f64> = recent.map(|(_, value)| *value).collect();
        if values.len() < LEAST_SAMPLES {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        let at = |quarters: usize| f64::midpoint(values[last * quarters / 4], values[(last * quarters).div_ceil(4)]);
        Some([1, 2, 3].map(at))
    }

    /// The median.
    pub(super) fn median(&self, now: Timestamp) -> Option<f64> {
        self.quartiles(now).map(|[_, median, _]| median)
    }

    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.0.back().map(|(at, _)| *at)
    }
}
