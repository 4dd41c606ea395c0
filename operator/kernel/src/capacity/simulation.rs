//! The engine itself under random traffic: what the formulas are held against.

use crate::engine::Engine;
use crate::performance::Performance;
use crate::random::SplitMix;
use crate::snapshot::{Discipline, LengthMix, Metric, Objective};

/// Uniform in (0, 1].
fn above_zero(random: &mut SplitMix) -> f64 {
    ((random.bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// Latencies of the requests of one run, in ms, sorted.
pub(super) struct Run {
    pub(super) ttft_ms: Vec<f64>,
    pub(super) itl_ms: Vec<f64>,
}

impl Run {
    pub(super) fn at(&self, metric: Metric, share: f64) -> f64 {
        let latencies = match metric {
            Metric::TimeToFirstToken => &self.ttft_ms,
            Metric::InterTokenLatency => &self.itl_ms,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let index = (share * latencies.len() as f64) as usize;
        latencies[index.min(latencies.len() - 1)]
    }

    pub(super) fn meets(&self, objective: &Objective) -> bool {
        self.at(objective.metric, objective.percentile.get()) <= objective.threshold.as_millis() as f64
    }
}

struct Request {
    arrived: u64,
    server: usize,
    output: u32,
    work: f64,
    first: u64,
}

struct Server {
    engine: Engine,
    /// End of the iteration under way, and the tokens that it will yield.
    under_way: Option<(u64, crate::engine::Step)>,
    outstanding: f64,
}

/// Serves `count` requests that arrive at `rate` per second; the first tenth is not counted.
pub(super) fn run(
    servers: &[&Performance],
    mix: &LengthMix,
    discipline: Discipline,
    rate: f64,
    count: usize,
    seed: u64,
) -> Run {
    let mut random = SplitMix::new(seed);
    let mut fleet: Vec<Server> = servers
        .iter()
        .map(|performance| Server {
            engine: Engine::new(performance.times),
            under_way: None,
            outstanding: 0.0,
        })
        .collect();
    let mean_output = mix.means().1;
    let mut requests: Vec<Request> = Vec::with_capacity(count);
    let mut run = Run {
        ttft_ms: Vec::new(),
        itl_ms: Vec::new(),
    };
    let mut arrival = 0.0_f64;
    loop {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time in ns")]
        let next_arrival = if requests.len() < count {
            arrival as u64
        } else {
            u64::MAX
        };
        let next_end = fleet
            .iter()
            .enumerate()
            .filter_map(|(index, server)| server.under_way.as_ref().map(|(end, _)| (*end, index)))
            .min();
        match next_end {
            None if next_arrival == u64::MAX => break,
            Some((end, index)) if end <= next_arrival => {
                let server = &mut fleet[index];
                let Some((_, step)) = server.under_way.take() else {
                    break;
                };
                for token in step.tokens {
                    let id = usize::try_from(token.request).unwrap_or(0);
                    let request = &mut requests[id];
                    let counted = id >= count / 10;
                    if token.first {
                        request.first = end;
                        if counted {
                            run.ttft_ms.push((end - request.arrived) as f64 / 1e6);
                        }
                    }
                    if token.last {
                        server.outstanding -= request.work;
                        if counted && request.output > 1 {
                            run.itl_ms
                                .push((end - request.first) as f64 / 1e6 / f64::from(request.output - 1));
                        }
                    }
                }
                server.under_way = server.engine.step().map(|step| (end + step.duration_ns, step));
            }
            _ => {
                let (prompt, output) = mix.classes[random.below(mix.classes.len())];
                let index = match discipline {
                    Discipline::Weighted => random.below(fleet.len()),
                    Discipline::LeastWork => (0..fleet.len())
                        .min_by(|a, b| fleet[*a].outstanding.total_cmp(&fleet[*b].outstanding))
                        .unwrap_or(0),
                };
                let server = &mut fleet[index];
                let times = server.engine.times();
                let prompt_work = f64::from(prompt) * times.delta_ns as f64;
                let output_work =
                    mean_output * (times.beta_ns as f64 + times.alpha_ns as f64 / f64::from(times.max_batch));
                server.outstanding += prompt_work + output_work;
                let id = requests.len() as u64;
                requests.push(Request {
                    arrived: next_arrival,
                    server: index,
                    output,
                    work: prompt_work + output_work,
                    first: 0,
                });
                assert!(server.engine.submit(id, prompt, output).is_ok());
                if server.under_way.is_none() {
                    server.under_way = server.engine.step().map(|step| (next_arrival + step.duration_ns, step));
                }
                arrival += -libm::log(above_zero(&mut random)) / rate * 1e9;
            }
        }
    }
    assert!(requests.iter().all(|request| request.server < fleet.len()));
    run.ttft_ms.sort_by(f64::total_cmp);
    run.itl_ms.sort_by(f64::total_cmp);
    run
}
