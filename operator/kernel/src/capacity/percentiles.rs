//! The distribution of a latency over requests.

use crate::units::Fraction;

/// The distribution of one latency: any percentile of it, and the share of requests within any bound.
///
/// A mixture: each component is one kind of request on one kind of server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Percentiles {
    components: Vec<Component>,
}

/// One kind of request: what it takes at least, plus what it may have to wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Component {
    /// Share of requests, relative to the other components.
    pub(super) weight: f64,
    /// What it takes in any case, in ms.
    pub(super) base_ms: f64,
    /// What comes on top.
    pub(super) extra: Extra,
}

/// A wait that not every request has. Where there is one, it is the sum of `stages` equal exponential stages (Erlang's
/// distribution): one for a queue, more for what is the sum of many small ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extra {
    /// That there is any.
    pub(super) probability: f64,
    /// Its mean where there is any, in ms.
    pub(super) mean_ms: f64,
    /// At least one.
    pub(super) stages: u32,
}

impl Extra {
    /// Never anything.
    pub(super) const NONE: Self = Self {
        probability: 0.0,
        mean_ms: 0.0,
        stages: 1,
    };

    /// Probability that it is more than `ms`.
    fn beyond(&self, ms: f64) -> f64 {
        if ms < 0.0 {
            return 1.0;
        }
        if self.mean_ms <= 0.0 {
            return 0.0;
        }
        let x = ms / self.mean_ms * f64::from(self.stages);
        let (mut term, mut sum) = (1.0, 1.0);
        for stage in 1..self.stages {
            term *= x / f64::from(stage);
            sum += term;
        }
        self.probability * sum * (-x).exp()
    }
}

impl Percentiles {
    pub(super) fn new(components: Vec<Component>) -> Self {
        Self { components }
    }

    /// Share of requests within `ms`. All of none.
    pub fn within(&self, ms: f64) -> Fraction {
        let (mut all, mut beyond) = (0.0, 0.0);
        for component in &self.components {
            all += component.weight;
            beyond += component.weight * component.extra.beyond(ms - component.base_ms);
        }
        Fraction::new(if all > 0.0 { 1.0 - beyond / all } else { 1.0 })
    }

    /// The least latency in ms that this share of requests stays within; zero of no requests.
    pub fn at(&self, share: Fraction) -> f64 {
        let worst = |of: fn(&Component) -> f64| self.components.iter().map(of).fold(0.0, f64::max);
        // The 99.99999th percentile of the worst wait on top of the worst base bounds every percentile asked for.
        let mut high = worst(|component| component.base_ms) + 16.0 * worst(|component| component.extra.mean_ms);
        let mut low = 0.0;
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if self.within(middle) >= share {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }
}
