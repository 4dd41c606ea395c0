//! Runs a stream of requests through engines.

use super::stream::Stream;
use crate::capacity::quantiles::Quantiles;
use crate::engine::StepTimes;
use crate::engine::skipping::SkippingEngine;
use crate::random::SplitMix;
use crate::snapshot::LengthMix;

/// Requests that an engine finishes while its throughput is measured.
const FULL_REQUESTS: usize = 2_048;

/// Latencies at one load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Latencies {
    pub(super) ttft: Quantiles,
    pub(super) itl: Quantiles,
}

/// One server and what the router knows of it.
struct Server {
    engine: SkippingEngine,
    /// Router's estimate of the work of what has been sent here and has not ended.
    outstanding_ns: u64,
    /// When the batch changes next; the end of time if idle.
    change_ns: u64,
}

/// Serves one circle of `stream` at `rate` per second. The router sends each request to the server with the least outstanding
/// work; it knows the prompt, and expects the mean output.
///
/// The requests just before and after the circle are served too, but not counted, so that it meets engines as busy as they are
/// in the middle of it.
pub(super) fn serve(servers: &[StepTimes], mix: &LengthMix, stream: &Stream, rate: f64) -> Latencies {
    let mut fleet: Vec<Server> = servers
        .iter()
        .map(|times| Server {
            engine: SkippingEngine::new(*times),
            outstanding_ns: 0,
            change_ns: u64::MAX,
        })
        .collect();
    let mean_output = mix.means().1;
    // Per server and class.
    let work: Vec<Vec<u64>> = servers
        .iter()
        .map(|times| {
            mix.classes
                .iter()
                .map(|class| times.estimated_work_ns(class.0, mean_output))
                .collect()
        })
        .collect();

    let count = stream.arrivals.len();
    let slots: usize = servers.iter().map(|times| slots(times, mix)).sum();
    let before = i64::try_from(slots.min(count)).unwrap_or(0);
    let mut to_count = count;
    let mut requests: Vec<(u64, usize, usize)> = Vec::with_capacity(count + 2 * slots);
    let (mut ttft, mut itl) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut finished = Vec::new();
    let origin = stream.at(-before).0;
    let counted = slots.min(count)..slots.min(count) + count;

    let mut index = -before;
    // Engines that are not overloaded finish the circle within another one.
    while to_count > 0 && index < 3 * i64::try_from(count).unwrap_or(0) {
        let (arrival, class) = stream.at(index);
        let at_ns = nanoseconds((arrival - origin) / rate);
        // What ends before, ends first: the router knows.
        while let Some(server) = (0..fleet.len()).min_by_key(|&server| fleet[server].change_ns)
            && fleet[server].change_ns <= at_ns
        {
            let change_ns = fleet[server].change_ns;
            settle(&mut fleet[server], change_ns, &mut finished);
            for done in finished.drain(..) {
                let id = usize::try_from(done.request).unwrap_or(usize::MAX);
                let (arrived_ns, class, at_server) = requests[id];
                fleet[server].outstanding_ns -= work[at_server][class];
                if counted.contains(&id) {
                    to_count -= 1;
                    ttft.push(done.first_token_ns - arrived_ns);
                    if done.output > 1 {
                        itl.push((done.last_token_ns - done.first_token_ns) / u64::from(done.output - 1));
                    }
                }
            }
            fleet[server].change_ns = fleet[server].engine.next_change_ns().unwrap_or(u64::MAX);
        }
        let chosen = (0..fleet.len())
            .min_by_key(|&server| fleet[server].outstanding_ns)
            .unwrap_or(0);
        let (prompt, output) = mix.classes[class];
        let server = &mut fleet[chosen];
        settle(server, at_ns, &mut finished);
        let id = requests.len();
        requests.push((at_ns, class, chosen));
        if server.engine.submit(at_ns, id as u64, prompt, output).is_ok() {
            server.outstanding_ns += work[chosen][class];
        } else if counted.contains(&id) {
            to_count -= 1;
        }
        server.change_ns = server.engine.next_change_ns().unwrap_or(u64::MAX);
        index += 1;
    }
    Latencies {
        ttft: Quantiles::of(&mut ttft),
        itl: Quantiles::of(&mut itl),
    }
}

/// Books iterations up to `at_ns`; nothing can have ended before the next change.
fn settle(server: &mut Server, at_ns: u64, finished: &mut Vec<crate::engine::skipping::Finished>) {
    server.engine.advance(at_ns, finished);
}

/// Requests per second that one engine finishes that is always full.
pub(super) fn saturation(times: &StepTimes, mix: &LengthMix) -> f64 {
    // What does not fit no engine finishes.
    let fits = |class: &&(u32, u32)| u64::from(class.0) + u64::from(class.1) <= times.kv_tokens;
    let fitting: Vec<(u32, u32)> = mix.classes.iter().filter(fits).copied().collect();
    if fitting.is_empty() {
        return 0.0;
    }
    let mut engine = SkippingEngine::new(*times);
    let mut order: Vec<(u32, u32)> = fitting.iter().copied().cycle().take(FULL_REQUESTS).collect();
    SplitMix::new(0).shuffle(&mut order);
    let slots = slots(times, mix);
    let mut finished = Vec::new();
    let (mut submitted, mut ended, mut now_ns) = (0, 0, 0);
    // From when the first batch is through, to when the circle has been once around.
    let mut from_ns = 0;
    while ended < FULL_REQUESTS + 2 * slots {
        while submitted < ended + 2 * slots {
            let (prompt, output) = order[submitted % FULL_REQUESTS];
            if engine.submit(now_ns, submitted as u64, prompt, output).is_err() {
                return 0.0;
            }
            submitted += 1;
        }
        let Some(change_ns) = engine.next_change_ns() else {
            break;
        };
        engine.advance(change_ns, &mut finished);
        now_ns = change_ns;
        if ended < 2 * slots && ended + finished.len() >= 2 * slots {
            from_ns = now_ns;
        }
        ended += finished.len();
        finished.clear();
    }
    FULL_REQUESTS as f64 / (now_ns - from_ns).max(1) as f64 * 1e9
}

/// Requests that an engine runs at once.
pub(super) fn slots(times: &StepTimes, mix: &LengthMix) -> usize {
    let (prompt, output) = mix.means();
    let by_memory = times.kv_tokens as f64 / (prompt + output).max(1.0);
    let slots = f64::from(times.max_batch.max(1)).min(by_memory).max(1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a u32")]
    let slots = slots as usize;
    slots
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates; not negative"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}
