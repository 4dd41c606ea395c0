#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]
use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::snapshot::{Metric, Objective};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Fraction;
use pomarium_sim::machines::{GroupModel, Phase};
use pomarium_sim::trace::TraceReader;
use pomarium_sim::world::{Command, Policy, Scenario, View, World};
struct All(bool);
impl Policy for All {
    fn name(&self) -> &str { "all" }
    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        if std::mem::replace(&mut self.0, true) { return Vec::new(); }
        (0..view.machines.len()).filter(|&m| view.machines[m].phase == Phase::Idle).map(|machine| Command::Serve { machine }).collect()
    }
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let n: u32 = args[2].parse().unwrap();
    let g = |name: &str, a: f64, b: f64, d: f64, max| GroupModel { name: name.into(), times: StepTimes { alpha_ns: (a*1e6) as u64, beta_ns: (b*1e6) as u64, delta_ns: (d*1e6) as u64, kv_tokens: 400_000, max_batch: 16, prefill_chunk: 256 }, load_ms: 30_000, lead_ms: 0, recycle_ms: 0, minimum_lease_ms: 0, hourly: 0.0, idle_watts: 10.0, busy_watts: 295.0, price_per_kwh: 0.15, max, always_on: true };
    let o = |metric, secs: u64| Objective { metric, percentile: Fraction::new(0.95), threshold: Span::from_millis(secs), window: Span::from_hours(24) };
    let s = Scenario { groups: vec![g("m2", 10.2, 2.5, 1.0, n)], objectives: vec![o(Metric::TimeToFirstToken, 12_000), o(Metric::InterTokenLatency, 250)], context_tokens: 16384, mean_output_tokens: 211.0, start_ms: -60_000, score_from_ms: 0, tick_ms: 15_000, grace_ms: 3_600_000 };
    let t = std::time::Instant::now();
    let out = World::new(&s, None).run(TraceReader::open(&args[1]).unwrap(), &mut All(false)).unwrap();
    println!("{:.2}s {out:#?}", t.elapsed().as_secs_f64());
}
