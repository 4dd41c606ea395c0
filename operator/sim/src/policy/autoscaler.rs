//! The Kubernetes autoscaler's behaviour: stabilisation windows and limits on steps.
//!
//! As in `kubernetes/pkg/controller/podautoscaler/horizontal.go` and the documentation of `behavior`: within its window, the
//! lowest recommendation counts for growing and the highest for shrinking; then a step is limited by what changed within
//! the policy's period.

use std::collections::VecDeque;

/// `behavior.scaleUp` or `behavior.scaleDown`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scaling {
    /// `stabilizationWindowSeconds`, in ms.
    pub(crate) stabilisation_ms: i64,
    /// A policy of type `Percent`, as a share; the larger of both counts.
    pub(crate) share: f64,
    /// A policy of type `Pods`.
    pub(crate) pods: u32,
    /// `periodSeconds` of both, in ms.
    pub(crate) period_ms: i64,
}

/// One autoscaler.
#[derive(Clone, Debug)]
pub(crate) struct Autoscaler {
    up: Scaling,
    down: Scaling,
    least: u32,
    most: u32,
    replicas: u32,
    recommendations: VecDeque<(i64, u32)>,
    /// Changes made, with their signs.
    changes: VecDeque<(i64, i64)>,
}

impl Autoscaler {
    /// With one replica.
    pub(crate) fn new(up: Scaling, down: Scaling) -> Self {
        Self {
            up,
            down,
            least: 1,
            most: u32::MAX,
            replicas: 1,
            recommendations: VecDeque::new(),
            changes: VecDeque::new(),
        }
    }

    /// Sets `minReplicas` and `maxReplicas`. Both hold at once, whatever the metrics say or do not say.
    pub(crate) fn bound(&mut self, least: u32, most: u32) {
        (self.least, self.most) = (least, most.max(least));
        self.replicas = self.replicas.clamp(self.least, self.most);
    }

    pub(crate) fn replicas(&self) -> u32 {
        self.replicas
    }

    /// One sync, for which the metrics say `recommended`.
    pub(crate) fn sync(&mut self, now_ms: i64, recommended: u32) -> u32 {
        let recommended = recommended.clamp(self.least, self.most);
        let stabilised = self.stabilise(now_ms, recommended);
        let next = self.limit(now_ms, stabilised);
        if next != self.replicas {
            self.changes
                .push_back((now_ms, i64::from(next) - i64::from(self.replicas)));
            self.replicas = next;
        }
        next
    }

    fn stabilise(&mut self, now_ms: i64, recommended: u32) -> u32 {
        let longest_ms = self.up.stabilisation_ms.max(self.down.stabilisation_ms);
        while let Some((at_ms, _)) = self.recommendations.front()
            && now_ms - at_ms > longest_ms
        {
            self.recommendations.pop_front();
        }
        self.recommendations.push_back((now_ms, recommended));
        let within = |window_ms: i64| {
            self.recommendations
                .iter()
                .filter(move |(at_ms, _)| now_ms - at_ms <= window_ms)
                .map(|(_, count)| *count)
        };
        let lowest = within(self.up.stabilisation_ms).min().unwrap_or(recommended);
        let highest = within(self.down.stabilisation_ms).max().unwrap_or(recommended);
        self.replicas.max(lowest).min(highest)
    }

    fn limit(&mut self, now_ms: i64, wanted: u32) -> u32 {
        let longest_ms = self.up.period_ms.max(self.down.period_ms);
        while let Some((at_ms, _)) = self.changes.front()
            && now_ms - at_ms >= longest_ms
        {
            self.changes.pop_front();
        }
        let changed = |period_ms: i64, sign: i64| -> i64 {
            let recent = self.changes.iter().filter(|(at_ms, _)| now_ms - at_ms < period_ms);
            recent
                .map(|(_, change)| *change)
                .filter(|change| change.signum() == sign)
                .sum()
        };
        let count = |value: i64| u32::try_from(value.max(0)).unwrap_or(u32::MAX);
        if wanted > self.replicas {
            let start = count(i64::from(self.replicas) - changed(self.up.period_ms, 1));
            wanted.min(start + steps(start, self.up)).max(self.replicas)
        } else {
            let start = count(i64::from(self.replicas) - changed(self.down.period_ms, -1));
            wanted
                .max(start.saturating_sub(steps(start, self.down)))
                .min(self.replicas)
        }
    }
}

fn steps(start: u32, scaling: Scaling) -> u32 {
    let share = ceil(f64::from(start) * scaling.share);
    scaling.pods.max(share)
}

/// Rounded up to a count.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates; a negative count is none"
)]
pub(crate) fn ceil(value: f64) -> u32 {
    // A product of decimal factors may exceed a whole number by rounding only.
    (value - 1e-9).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn hpa() -> Autoscaler {
        let up = Scaling {
            stabilisation_ms: 0,
            share: 1.0,
            pods: 4,
            period_ms: 15_000,
        };
        let down = Scaling {
            stabilisation_ms: 5 * MINUTE,
            share: 1.0,
            pods: 0,
            period_ms: 15_000,
        };
        Autoscaler::new(up, down)
    }

    #[test]
    fn it_grows_by_four_or_doubles_per_sync() {
        let mut hpa = hpa();
        let steps: Vec<u32> = (0..5).map(|sync| hpa.sync(sync * 15_000, 100)).collect();
        assert_eq!(steps, [5, 10, 20, 40, 80]);
    }

    #[test]
    fn it_shrinks_to_the_highest_recommendation_of_five_minutes() {
        let mut hpa = hpa();
        hpa.sync(0, 5);
        let counts: Vec<u32> = (1..=22)
            .map(|sync| hpa.sync(sync * 15_000, if sync < 3 { 4 } else { 2 }))
            .collect();
        assert!(counts[..20].iter().all(|&count| count == 5), "{counts:?}");
        // The 5 of t = 0 is out of the window at 315 s, the 4 of 30 s at 345 s.
        assert_eq!(counts[20..], [4, 4]);
        assert_eq!(hpa.sync(23 * 15_000, 2), 2);
    }

    #[test]
    fn a_limit_of_pods_counts_what_changed_within_its_period() {
        let slow = Scaling {
            stabilisation_ms: 0,
            share: 0.0,
            pods: 1,
            period_ms: 2 * MINUTE,
        };
        let mut autoscaler = Autoscaler::new(slow, slow);
        let counts: Vec<u32> = (0..6).map(|minute| autoscaler.sync(minute * MINUTE, 9)).collect();
        assert_eq!(counts, [2, 2, 3, 3, 4, 4]);
        autoscaler.bound(1, 2);
        assert_eq!(autoscaler.sync(6 * MINUTE, 9), 2);
        autoscaler.bound(6, 9);
        assert_eq!(autoscaler.sync(7 * MINUTE, 1), 6);
    }
}
