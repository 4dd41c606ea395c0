//! The distribution of a latency over requests.

use super::quantiles::Quantiles;
use crate::units::Fraction;

/// The distribution of one latency: any percentile of it, and the share of requests within any bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Percentiles(Shape);

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    /// From formulas. A mixture: each component is one kind of request on one kind of server.
    Mixture(Vec<Component>),
    /// From a simulation.
    Measured(Quantiles),
}

/// One kind of request: what it takes at least, plus what it may have to wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Component {
    /// Share of requests, relative to the other components.
    pub(super) weight: f64,
    /// What it takes in any case, in ms.
    pub(super) base_ms: f64,
    /// What comes on top: the two terms add up to its tail.
    pub(super) extra: [Extra; 2],
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
    /// It is never more than this, in ms.
    pub(super) most_ms: f64,
}

impl Extra {
    /// Never anything.
    pub(super) const NONE: Self = Self {
        probability: 0.0,
        mean_ms: 0.0,
        stages: 1,
        most_ms: 0.0,
    };

    /// The tail of the sum of two independent waits of one stage each, as two terms that add up to it.
    ///
    /// With the probabilities `p`, `q` and means `a`, `b`: `p(1−q)·e^(−t/a) + q(1−p)·e^(−t/b) + pq·(a·e^(−t/a) − b·e^(−t/b))/(a−b)`.
    /// The second term's factor may be negative; the sum is not.
    pub(super) fn sum(first: Self, second: Self) -> [Self; 2] {
        let (p, q) = (first.probability, second.probability);
        let (mut a, b) = (first.mean_ms, second.mean_ms);
        if a <= 0.0 || b <= 0.0 {
            return [first, second];
        }
        if (a - b).abs() < 1e-3 * b {
            // The limit exists but not by this formula; a thousandth does not matter.
            a = b * 1.001;
        }
        let both = p * q / (a - b);
        let term = |probability, mean_ms| Self {
            probability,
            mean_ms,
            stages: 1,
            most_ms: f64::INFINITY,
        };
        [term(p * (1.0 - q) + both * a, a), term(q * (1.0 - p) - both * b, b)]
    }

    /// Probability that it is more than `ms`, which is not negative.
    fn beyond(&self, ms: f64) -> f64 {
        if self.mean_ms <= 0.0 || ms >= self.most_ms {
            return 0.0;
        }
        let x = ms / self.mean_ms * f64::from(self.stages);
        let (mut term, mut sum) = (1.0, 1.0);
        for stage in 1..self.stages {
            term *= x / f64::from(stage);
            sum += term;
        }
        self.probability * sum * libm::exp(-x)
    }
}

impl Component {
    /// Probability that such a request takes more than `ms`.
    fn beyond(&self, ms: f64) -> f64 {
        let rest = ms - self.base_ms;
        if rest < 0.0 {
            1.0
        } else {
            self.extra.iter().map(|extra| extra.beyond(rest)).sum()
        }
    }
}

/// The share of requests within a bound, one component at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    all: f64,
    beyond: f64,
}

impl Share {
    pub(super) fn add(&mut self, component: &Component, ms: f64) {
        self.all += component.weight;
        self.beyond += component.weight * component.beyond(ms);
    }

    /// All of none.
    pub(super) fn within(self) -> Fraction {
        Fraction::new(if self.all > 0.0 {
            1.0 - self.beyond / self.all
        } else {
            1.0
        })
    }
}

impl Percentiles {
    pub(super) fn new(components: Vec<Component>) -> Self {
        Self(Shape::Mixture(components))
    }

    pub(super) fn measured(quantiles: Quantiles) -> Self {
        Self(Shape::Measured(quantiles))
    }

    /// Share of requests within `ms`. All of none.
    pub fn within(&self, ms: f64) -> Fraction {
        let components = match &self.0 {
            Shape::Mixture(components) => components,
            Shape::Measured(quantiles) => return Fraction::new(quantiles.within(ms)),
        };
        let mut share = Share::default();
        for component in components {
            share.add(component, ms);
        }
        share.within()
    }

    /// The least latency in ms that this share of requests stays within; zero of no requests.
    pub fn at(&self, share: Fraction) -> f64 {
        let components = match &self.0 {
            Shape::Mixture(components) => components,
            Shape::Measured(quantiles) => return quantiles.at(share.get()),
        };
        self.narrow(components, share, |_, _| false)
    }

    /// Whether the latency that this share of requests stays within is below `ms`: as [`Self::at`] says it, in fewer steps.
    pub fn is_below(&self, share: Fraction, ms: f64) -> bool {
        match &self.0 {
            // What is left lies between both bounds.
            Shape::Mixture(components) => self.narrow(components, share, |low, high| high < ms || low >= ms) < ms,
            Shape::Measured(quantiles) => quantiles.at(share.get()) < ms,
        }
    }

    /// The upper one of two bounds that are brought together until `enough`, or as near as makes no difference.
    fn narrow(&self, components: &[Component], share: Fraction, enough: impl Fn(f64, f64) -> bool) -> f64 {
        let worst = |of: fn(&Component) -> f64| components.iter().map(of).fold(0.0, f64::max);
        // So many means of the worst wait on top of the worst base bound every percentile that one asks for.
        let mut high = worst(|component| component.base_ms)
            + 32.0 * worst(|component| component.extra[0].mean_ms.max(component.extra[1].mean_ms));
        let mut low = 0.0;
        for _ in 0..60 {
            if enough(low, high) {
                break;
            }
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
