//! How much memory a replay takes: what its duration needs, and not what its requests would.
//!
//! A process of its own, because memory that was ever in use is counted by the process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::snapshot::{Metric, Objective};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Fraction;
use pomarium_sim::machines::GroupModel;
use pomarium_sim::policy;
use pomarium_sim::policy::optimum::Foreseen;
use pomarium_sim::trace::{Excerpt, Trace, TraceFile};
use pomarium_sim::world::{Scenario, World};

/// Superposed copies.
const COPIES: u32 = 4;

/// Requests of the long trace, before copies are superposed.
const REQUESTS: u64 = 150_000;

/// The most that was ever resident, in kB.
fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn scenario() -> Scenario {
    let group = GroupModel {
        name: "owned".to_owned(),
        times: StepTimes {
            alpha_ns: 10_000_000,
            beta_ns: 1_000_000,
            delta_ns: 100_000,
            kv_tokens: 400_000,
            max_batch: 16,
            prefill_chunk: 256,
        },
        load_ms: 0,
        lead_ms: 0,
        recycle_ms: 0,
        minimum_lease_ms: 0,
        hourly: 0.0,
        idle_watts: 10.0,
        busy_watts: 295.0,
        price_per_kwh: 0.15,
        max: 2,
        always_on: true,
    };
    let objective = Objective {
        metric: Metric::TimeToFirstToken,
        percentile: Fraction::new(0.95),
        threshold: Span::from_secs(2),
        window: Span::from_hours(1),
    };
    Scenario {
        start_ms: -60_000,
        ..Scenario::new(vec![group], vec![objective], 2.0)
    }
}

/// Writes a request each 200 ms to `path`, and replays four times as many.
fn replay(path: &Path, requests: u64) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    writeln!(file, "arrival_ms,prompt_tokens,output_tokens").unwrap();
    for index in 0..requests {
        writeln!(file, "{},{},2", index * 200, 1 + index % 50).unwrap();
    }
    file.flush().unwrap();
    let trace = Excerpt::scan(TraceFile::open(path).unwrap(), 0..u64::MAX, |_| ()).unwrap();
    let trace = trace.at_rate(f64::from(COPIES), 1);
    Foreseen::of(trace.requests().unwrap(), requests).unwrap();
    let scenario = scenario();
    let mut policy = policy::build("static-peak", false, 2.0, &scenario).unwrap();
    let outcome = World::new(&scenario, None)
        .run(trace.requests().unwrap(), policy.as_mut())
        .unwrap();
    // But for the copies that would come after the end.
    assert!(outcome.requests.completed > u64::from(COPIES) * requests * 99 / 100);
}

#[test]
fn ten_times_as_many_requests_take_no_more_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.csv");
    replay(&path, REQUESTS / 10);
    let before_kb = peak_kb();
    replay(&path, REQUESTS);
    let more_kb = peak_kb() - before_kb;
    let kept_kb = u64::from(COPIES) * REQUESTS * 16 / 1_024;
    assert!(
        more_kb < kept_kb / 4,
        "{more_kb} kB more; all requests are {kept_kb} kB"
    );
}
