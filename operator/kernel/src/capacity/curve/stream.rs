//! Requests that arrive at random, chosen to be as typical as random requests can be.
//!
//! Near saturation a queue remembers hundreds of arrivals, so that the waits of a short simulation say more about its seed
//! than about the servers. Two things make a few thousand requests enough:
//!
//! - The stream is a **circle**. Rotated to the moment at which a queue would be empty, it begins as it ends, and nothing of
//!   it is spent on warming up.
//! - Of several circles the one is taken whose own waits, at a single server of the same load, have the mean and the mean
//!   square that the formulas of Pollaczek, Khinchine and Takács give for an endless stream.

use crate::random::SplitMix;

/// Circles looked at, at most.
const CANDIDATES: u64 = 64;

/// Relative error of the moments that is good enough.
const GOOD_ENOUGH: f64 = 0.02;

/// One circle of requests.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// Arrivals, in mean times between arrivals; the circle closes at their number.
    pub(super) arrivals: Vec<f64>,
    /// Index of the class of each.
    pub(super) classes: Vec<usize>,
}

impl Stream {
    /// A circle of `requests` of equally likely classes, which bring `work` each, at servers that are busy to the share `load`.
    pub(super) fn typical(work: &[f64], load: f64, requests: usize, seed: u64) -> Self {
        let requests = requests.max(work.len()).max(1);
        let mean = work.iter().sum::<f64>() / work.len().max(1) as f64;
        let work: Vec<f64> = work
            .iter()
            .map(|work| work / mean.max(f64::MIN_POSITIVE) * load)
            .collect();
        let target = Moments::endless(&work);

        // Every quantile of the exponential distribution, and every class, as often as it should occur.
        let mut gaps: Vec<f64> = (0..requests)
            .map(|index| -libm::log((index as f64 + 0.5) / requests as f64))
            .collect();
        let mut classes: Vec<usize> = (0..requests).map(|index| index % work.len().max(1)).collect();
        let mut random = SplitMix::new(seed);
        let mut best: Option<(f64, Self)> = None;
        for _ in 0..CANDIDATES {
            random.shuffle(&mut gaps);
            random.shuffle(&mut classes);
            let start = emptiest(&gaps, &classes, &work);
            let error = target.error(&Moments::on_circle(&gaps, &classes, &work, start));
            if best.as_ref().is_none_or(|(least, _)| error < *least) {
                best = Some((error, Self::rotated(&gaps, &classes, start)));
            }
            if error < GOOD_ENOUGH {
                break;
            }
        }
        best.map_or_else(|| Self::rotated(&gaps, &classes, 0), |(_, stream)| stream)
    }

    /// From the request `start` on. `gaps[i]` is the time before request `i`.
    fn rotated(gaps: &[f64], classes: &[usize], start: usize) -> Self {
        let mut at = 0.0;
        let circle = |index: usize| (start + index) % gaps.len();
        Self {
            arrivals: (0..gaps.len())
                .map(|index| {
                    at += gaps[circle(index)];
                    at
                })
                .collect(),
            classes: (0..gaps.len()).map(|index| classes[circle(index)]).collect(),
        }
    }

    /// The request `index`, counted on around the circle in both directions: when it arrives, and its class.
    pub(super) fn at(&self, index: i64) -> (f64, usize) {
        let count = i64::try_from(self.arrivals.len()).unwrap_or(i64::MAX);
        let within = usize::try_from(index.rem_euclid(count)).unwrap_or(0);
        let rounds = index.div_euclid(count) as f64;
        (self.arrivals[within] + rounds * count as f64, self.classes[within])
    }
}

/// The request that finds the emptiest queue.
fn emptiest(gaps: &[f64], classes: &[usize], work: &[f64]) -> usize {
    let (mut backlog, mut least, mut emptiest) = (0.0, f64::INFINITY, 0);
    for (index, (gap, class)) in gaps.iter().zip(classes).enumerate() {
        backlog -= gap;
        if backlog < least {
            (least, emptiest) = (backlog, index);
        }
        backlog += work[*class];
    }
    emptiest
}

/// Mean and mean square of the wait at a single server.
#[derive(Clone, Copy, Debug)]
struct Moments {
    mean: f64,
    square: f64,
}

impl Moments {
    /// Of an endless stream, one request per unit of time.
    fn endless(work: &[f64]) -> Self {
        let count = work.len().max(1) as f64;
        let moment = |power: fn(f64) -> f64| work.iter().map(|work| power(*work)).sum::<f64>() / count;
        let idle = (1.0 - moment(|work| work)).max(f64::MIN_POSITIVE);
        let mean = moment(|work| work * work) / (2.0 * idle);
        Self {
            mean,
            square: 2.0 * mean * mean + moment(|work| work * work * work) / (3.0 * idle),
        }
    }

    /// Of a circle that begins with an empty queue.
    fn on_circle(gaps: &[f64], classes: &[usize], work: &[f64], start: usize) -> Self {
        let (mut wait, mut mean, mut square) = (0.0_f64, 0.0, 0.0);
        let (head, tail) = (start..gaps.len(), 0..start);
        for index in head.chain(tail) {
            wait = (wait - gaps[index]).max(0.0);
            mean += wait;
            square += wait * wait;
            wait += work[classes[index]];
        }
        let count = gaps.len() as f64;
        Self {
            mean: mean / count,
            square: square / count,
        }
    }

    fn error(&self, of: &Self) -> f64 {
        let relative = |got: f64, wanted: f64| (got / wanted.max(f64::MIN_POSITIVE) - 1.0).abs();
        relative(of.mean, self.mean) + 0.5 * relative(of.square, self.square)
    }
}
