//! What servers sustain for a pool's traffic while every objective holds.
//!
//! The engine of [`crate::engine`] serves requests that arrive at random. [`predict`] gives the latencies at a rate, and
//! [`sustainable`] the largest rate at which every objective holds. Neither is a sum over servers: under
//! [`Discipline::LeastWork`] a request meets the server that is least busy, so many servers wait less than few at the same load;
//! under [`Discipline::Weighted`] it meets a random one, busy or not, and pooling gains nothing.
//!
//! # Assumptions
//! Poisson arrivals; lengths independent of each other and drawn from the mix; a router that knows prompts. `queue` has the
//! approximations; the tests compare them with the engine itself.
//!
//! # Guarantees
//! Pure arithmetic with a fixed number of iterations: the same input gives the same bits.

mod mix;
mod percentiles;
mod queue;
#[cfg(test)]
mod simulation;

use std::fmt;

use crate::performance::Performance;
use crate::snapshot::{Discipline, LengthMix, Metric, Objective};
use crate::units::{Fraction, Rate};

pub use percentiles::Percentiles;

use percentiles::{Component, Extra};

/// Servers of one kind that serve one pool.
#[derive(Clone, Copy, Debug)]
pub struct Servers<'a> {
    /// What one of them does.
    pub performance: &'a Performance,
    /// How many there are.
    pub count: u32,
}

/// Latencies at one rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// TTFT in ms.
    pub ttft_ms: Percentiles,
    /// ITL in ms: the mean of one request, over requests.
    pub itl_ms: Percentiles,
    /// The rate over the highest rate that the servers can finish at all.
    pub utilization: Fraction,
}

impl Prediction {
    /// The distribution that `metric` is about.
    pub fn of(&self, metric: Metric) -> &Percentiles {
        match metric {
            Metric::TimeToFirstToken => &self.ttft_ms,
            Metric::InterTokenLatency => &self.itl_ms,
        }
    }

    /// Whether `objective` holds.
    pub fn meets(&self, objective: &Objective) -> bool {
        self.of(objective.metric).within(milliseconds(objective)) >= objective.percentile
    }
}

/// An objective that no server of this kind meets, not even idle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unreachable {
    /// Which.
    pub objective: Objective,
    /// The value at its percentile on an idle server, in ms.
    pub value_ms: f64,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Objective {
            metric,
            percentile,
            threshold,
            ..
        } = self.objective;
        let metric = match metric {
            Metric::TimeToFirstToken => "TTFT",
            Metric::InterTokenLatency => "ITL",
        };
        let (percentile, value) = (percentile.get() * 100.0, duration(self.value_ms));
        write!(
            f,
            "{metric} p{percentile} {threshold} is unreachable: {value} on an idle server"
        )
    }
}

/// Latencies at `rate`. `None` if the servers cannot finish that many requests, or there are none.
pub fn predict(servers: &[Servers], mix: &LengthMix, discipline: Discipline, rate: Rate) -> Option<Prediction> {
    queue::Station::new(servers, mix, discipline).predict(rate.as_per_second())
}

/// The largest rate at which every objective holds; zero if there is none.
///
/// More servers never sustain less: if slow servers would only spoil the percentiles of fast ones, the rate is that of the
/// fast ones alone.
pub fn sustainable(servers: &[Servers], mix: &LengthMix, objectives: &[Objective], discipline: Discipline) -> Rate {
    let mut by_speed: Vec<Servers> = servers.iter().copied().filter(|kind| kind.count > 0).collect();
    by_speed.sort_by_key(|kind| queue::fastest_first(kind.performance, mix));
    let best = (1..=by_speed.len())
        .map(|kinds| sustained_by_all(&by_speed[..kinds], mix, objectives, discipline))
        .fold(0.0, f64::max);
    Rate::per_second(best)
}

/// Bisection steps: the rate is exact to a millionth of what the servers can finish at all.
const BISECTIONS: u32 = 20;

fn sustained_by_all(servers: &[Servers], mix: &LengthMix, objectives: &[Objective], discipline: Discipline) -> f64 {
    let station = queue::Station::new(servers, mix, discipline);
    let holds = |rate: f64| {
        station
            .predict(rate)
            .is_some_and(|prediction| objectives.iter().all(|objective| prediction.meets(objective)))
    };
    let (mut low, mut high) = (0.0, station.saturation());
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// Whether every objective holds at least on an idle server.
pub fn unloaded(performance: &Performance, mix: &LengthMix, objectives: &[Objective]) -> Result<(), Unreachable> {
    let times = &performance.times;
    let alone = |metric| {
        let components = mix.classes.iter().map(|&(prompt, _)| Component {
            weight: 1.0,
            base_ms: match metric {
                Metric::TimeToFirstToken => prefill_alone_ms(performance, prompt),
                Metric::InterTokenLatency => (times.alpha_ns + times.beta_ns) as f64 / 1e6,
            },
            extra: Extra::NONE,
        });
        Percentiles::new(components.collect())
    };
    for objective in objectives {
        let latencies = alone(objective.metric);
        if latencies.within(milliseconds(objective)) < objective.percentile {
            return Err(Unreachable {
                objective: *objective,
                value_ms: latencies.at(objective.percentile),
            });
        }
    }
    Ok(())
}

/// TTFT of a prompt on an idle server, in ms: one fixed part per chunk, and each token.
pub fn prefill_alone_ms(performance: &Performance, prompt: u32) -> f64 {
    let times = &performance.times;
    let chunks = f64::from(prompt.max(1).div_ceil(times.prefill_chunk.max(1)));
    (chunks * times.alpha_ns as f64 + f64::from(prompt.max(1)) * times.delta_ns as f64) / 1e6
}

fn milliseconds(objective: &Objective) -> f64 {
    objective.threshold.as_millis() as f64
}

/// A duration for people: three figures are enough.
pub(crate) fn duration(ms: f64) -> String {
    if ms < 1_000.0 {
        format!("{ms:.0}ms")
    } else {
        format!("{:.1}s", ms / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::engine::StepTimes;
    use crate::time::Span;

    fn machine(alpha_ms: f64, beta_ms: f64, delta_ms: f64) -> Performance {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time in ns")]
        let ns = |ms: f64| (ms * 1e6) as u64;
        Performance {
            times: StepTimes {
                alpha_ns: ns(alpha_ms),
                beta_ns: ns(beta_ms),
                delta_ns: ns(delta_ms),
                kv_tokens: 400_000,
                max_batch: 16,
                prefill_chunk: 256,
            },
            load_time: Span::from_secs(30),
            source: "test".to_owned(),
        }
    }

    fn m2_ultra() -> Performance {
        machine(10.2, 2.5, 1.0)
    }

    fn m4_pro() -> Performance {
        machine(18.4, 4.6, 2.3)
    }

    fn objectives(ttft_ms: u64, itl_ms: u64) -> Vec<Objective> {
        [(Metric::TimeToFirstToken, ttft_ms), (Metric::InterTokenLatency, itl_ms)]
            .map(|(metric, threshold)| Objective {
                metric,
                percentile: Fraction::new(0.95),
                threshold: Span::from_millis(threshold),
                window: Span::from_hours(24),
            })
            .to_vec()
    }

    #[test]
    #[ignore = "exploration"]
    #[allow(clippy::disallowed_methods)]
    fn explore() {
        let mix = LengthMix::assumed();
        let (m2, m4) = (m2_ultra(), m4_pro());
        for (name, fast, slow) in [
            ("m2", 1, 0),
            ("m2", 4, 0),
            ("m2", 8, 0),
            ("m2", 24, 0),
            ("m4", 0, 8),
            ("mixed", 4, 4),
        ] {
            let mut fleet = vec![&m2; fast];
            fleet.extend(vec![&m4; slow]);
            let kinds = [
                Servers {
                    performance: &m2,
                    count: u32::try_from(fast).unwrap(),
                },
                Servers {
                    performance: &m4,
                    count: u32::try_from(slow).unwrap(),
                },
            ];
            for discipline in [Discipline::LeastWork, Discipline::Weighted] {
                for (t, i) in [
                    (10_000, 250),
                    (12_000, 250),
                    (20_000, 400),
                    (6_000, 200),
                    (10_000, 5_000),
                    (100_000, 200),
                ] {
                    let objectives = objectives(t, i);
                    let got = sustainable(&kinds, mix, &objectives, discipline).as_per_second();
                    let most = queue::Station::new(&kinds, mix, discipline).saturation();
                    let sim = simulation::sustainable(&fleet, mix, &objectives, discipline, most * 1.1, 20_000);
                    println!(
                        "R {name} {fast}+{slow} {discipline:?} {t}/{i}: model {got:.3} sim {sim:.3} ratio {:.2} sat {most:.2}",
                        got / sim
                    );
                }
                let most = queue::Station::new(&kinds, mix, discipline).saturation();
                for load in [0.3, 0.5, 0.7, 0.8, 0.9] {
                    let rate = load * most;
                    let run = simulation::run(&fleet, mix, discipline, rate, 20_000, 3);
                    let Some(p) = predict(&kinds, mix, discipline, Rate::per_second(rate)) else {
                        println!("L {name} {load} none");
                        continue;
                    };
                    print!("L {name} {fast}+{slow} {discipline:?} load {load}:");
                    for (label, metric) in [("ttft", Metric::TimeToFirstToken), ("itl", Metric::InterTokenLatency)] {
                        for share in [0.5, 0.95, 0.99] {
                            print!(
                                " {label}{share} {:.0}/{:.0}",
                                p.of(metric).at(Fraction::new(share)),
                                run.at(metric, share)
                            );
                        }
                    }
                    println!();
                }
            }
        }
        let kinds = [
            Servers {
                performance: &m2,
                count: 30,
            },
            Servers {
                performance: &m4,
                count: 20,
            },
        ];
        let start = std::time::Instant::now();
        for _ in 0..100 {
            sustainable(&kinds, mix, &objectives(10_000, 250), Discipline::LeastWork);
        }
        println!("{:?} per call", start.elapsed() / 100);
    }
}
