//! How the next hours are cut into slots, and how much of every window's error budget is left for them. All pools share slots; each has windows of its
//! own.

use std::ops::Range;

use crate::time::{Span, Timestamp};

/// How far the strategic plan looks ahead.
pub const LENGTH: Span = Span::from_hours(36);

/// Slots are so long up to so far ahead: what is decided soon is planned finely.
const STEPS: [(Span, Span); 4] = [
    (Span::from_hours(1), Span::from_minutes(5)),
    (Span::from_hours(6), Span::from_minutes(15)),
    (Span::from_hours(24), Span::from_minutes(30)),
    (LENGTH, Span::from_hours(1)),
];

/// Slots of one plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Where slots begin and end; the first is now.
    pub boundaries: Vec<Timestamp>,
}

/// Windows of one pool's objectives that overlap a horizon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// When each begins, and its slots; a slot that reaches into two belongs to the one that has more of it.
    pub all: Vec<(Timestamp, Range<usize>)>,
    /// How long each is.
    pub length: Span,
}

impl Horizon {
    /// From `now` on. No slot reaches beyond the end of a window of the length `cut`; see [`start_of`].
    pub fn new(now: Timestamp, cut: Span) -> Self {
        let cut = cut.max(Span::from_minutes(5));
        let mut boundaries = vec![now];
        let mut at = now;
        let mut window_end = start_of(now, cut) + cut;
        let end = now + LENGTH;
        while at < end {
            let ahead = at.since(now);
            let step = STEPS
                .iter()
                .find(|(until, _)| ahead < *until)
                .map_or(Span::from_hours(1), |(_, step)| *step);
            // A rest of less than a quarter of a slot is not worth one of its own.
            let next = if window_end < at + step + Span::from_millis(step.as_millis() / 4) {
                window_end
            } else {
                at + step
            };
            boundaries.push(next);
            at = next;
            if at == window_end {
                window_end = window_end + cut;
            }
        }
        Self { boundaries }
    }

    /// Seconds from now, per boundary.
    pub fn seconds(&self) -> Vec<f64> {
        let now = self.boundaries[0];
        self.boundaries.iter().map(|at| at.since(now).as_secs_f64()).collect()
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.boundaries.len() - 1
    }

    /// The windows of this `length`.
    pub fn windows(&self, length: Span) -> Windows {
        let length = length.max(Span::from_minutes(5));
        let mut all: Vec<(Timestamp, Range<usize>)> = Vec::new();
        for (slot, pair) in self.boundaries.windows(2).enumerate() {
            let middle = pair[0] + Span::from_millis(pair[1].since(pair[0]).as_millis() / 2);
            let start = start_of(middle, length);
            match all.last_mut() {
                Some((last, slots)) if *last == start => slots.end = slot + 1,
                _ => all.push((start, slot..slot + 1)),
            }
        }
        Windows { all, length }
    }

    /// What one of these `windows` may burn within the horizon, when `requests` are expected in it and `carried` is left over from the window
    /// so far (below zero if more was burnt than allowed).
    ///
    /// Of a window that reaches beyond the horizon, what is left over is spread evenly over the rest of it.
    pub fn budget(&self, windows: &Windows, index: usize, requests: f64, carried: f64, share: f64) -> f64 {
        let Some((start, slots)) = windows.all.get(index) else {
            return 0.0;
        };
        let from = self.boundaries[slots.start];
        let inside = self.boundaries[slots.end].since(from).as_secs_f64();
        let left = (*start + windows.length).since(from).as_secs_f64();
        let spread = if left > 0.0 { (inside / left).min(1.0) } else { 1.0 };
        requests * share + carried * spread
    }
}

/// When the window that contains `at` begins: windows are aligned with midnight UTC of 1 January 1970.
pub fn start_of(at: Timestamp, window: Span) -> Timestamp {
    let length = i64::try_from(window.as_millis().max(1)).unwrap_or(i64::MAX);
    Timestamp::from_millis(at.as_millis().div_euclid(length).saturating_mul(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn horizon(now_minutes: i64, window_hours: u64) -> Horizon {
        Horizon::new(
            Timestamp::from_millis(now_minutes * 60_000),
            Span::from_hours(window_hours),
        )
    }

    #[test]
    fn slots_are_fine_at_first_and_no_window_ends_inside_one() {
        for (now, window) in [(0, 24), (7, 24), (1_433, 24), (1_439, 1), (33, 1), (600, 168)] {
            let horizon = horizon(now, window);
            let lengths: Vec<u64> = horizon
                .boundaries
                .windows(2)
                .map(|pair| pair[1].since(pair[0]).as_millis())
                .collect();
            assert!(
                lengths.iter().all(|length| (1..=75 * 60_000).contains(length)),
                "{lengths:?}"
            );
            assert!(lengths[0] <= 375_000, "{lengths:?}");
            let windows = horizon.windows(Span::from_hours(window)).all;
            let covered: usize = windows.iter().map(|(_, slots)| slots.len()).sum();
            assert_eq!(covered, horizon.slots());
            for (start, slots) in &windows {
                assert!(horizon.boundaries[slots.start] >= *start);
                assert!(horizon.boundaries[slots.end] <= *start + Span::from_hours(window));
            }
        }
    }

    #[test]
    fn what_a_long_window_has_left_is_spread_over_the_rest_of_it() {
        let week = horizon(0, 168 * 2);
        let share = week.budget(&week.windows(Span::from_hours(168 * 2)), 0, 100.0, 336.0, 1.0);
        // 1970 began on a Thursday: windows of two weeks are aligned with it.
        assert!((share - 136.0).abs() < 1.0, "{share}");
        let day = horizon(600, 24);
        let left = day.budget(&day.windows(Span::from_hours(24)), 0, 100.0, -30.0, 0.8);
        assert!((left - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_pool_with_longer_windows_than_those_that_cut_the_slots_has_windows_of_its_own() {
        let horizon = horizon(1_380, 1);
        let hours = horizon.windows(Span::from_hours(1)).all;
        let days = horizon.windows(Span::from_hours(24)).all;
        assert_eq!(hours.len(), 36);
        let slots: Vec<_> = days.iter().map(|(_, slots)| slots.clone()).collect();
        assert_eq!(
            slots,
            [
                0..hours[0].1.end,
                hours[0].1.end..hours[24].1.end,
                hours[24].1.end..horizon.slots()
            ]
        );
        // Slots of half an hour do not end with windows of seven hours: each belongs to one of them.
        let odd = horizon.windows(Span::from_hours(7)).all;
        assert!(odd.windows(2).all(|pair| pair[0].1.end == pair[1].1.start));
        assert_eq!(odd.last().map(|(_, slots)| slots.end), Some(horizon.slots()));
    }
}
