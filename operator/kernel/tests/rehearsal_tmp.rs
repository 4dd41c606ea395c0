#![allow(clippy::all, clippy::pedantic, clippy::disallowed_methods, clippy::unwrap_used)]
use pomarium_kernel::fixture::*;
use pomarium_kernel::snapshot::*;
use pomarium_kernel::time::*;
use pomarium_kernel::units::*;
#[test]
fn hour() {
    let text = std::fs::read_to_string("/tmp/planner_arrivals.txt").unwrap();
    let arrivals: Vec<f64> = text.lines().map(|l| l.parse::<f64>().unwrap()).collect();
    let mut hosted = Group::hosted("lease", 8).minimum_lease(Span::from_minutes(20));
    hosted.machine = machine("M4 Max", 40, 128);
    hosted.lead_time = LeadTime {
        provision: Span::from_minutes(3),
        recycle: Span::from_minutes(5),
    };
    hosted.disruption.max_unavailable = 2;
    let mut pool = Pool::fixture().surviving(Survive::Server).replicas(6, 20);
    pool.performance = vec![
        MeasuredPerformance {
            chip: "M2 Ultra".into(),
            gpu_cores: 76,
            memory_gib: None,
            alpha_ms: Some(10.2),
            beta_ms: Some(2.5),
            delta_ms: Some(1.0),
            kv_tokens: Some(400000),
            max_batch: Some(16),
            prefill_chunk: Some(256),
            load_time: None,
        },
        MeasuredPerformance {
            chip: "M4 Max".into(),
            gpu_cores: 40,
            memory_gib: None,
            alpha_ms: Some(12.0),
            beta_ms: Some(2.9),
            delta_ms: Some(1.4),
            kv_tokens: Some(400000),
            max_batch: Some(16),
            prefill_chunk: Some(256),
            load_time: None,
        },
    ];
    let mut ultra = Group::owned("cupertino", "ultra", 12);
    ultra.disruption.max_unavailable = 2;
    let mut stage = Stage::new(START)
        .site("cupertino", Site::fixture(Ownership::Owned))
        .site("lease", Site::fixture(Ownership::Hosted))
        .group("ultra", ultra)
        .group("m4", hosted)
        .pool("chat", pool);
    let t0 = std::time::Instant::now();
    let mut passes = 0;
    for tick in 0..(75 * 4) {
        let t = tick as f64 * 15.0;
        let rate = |w: f64| {
            let w2 = w.min(t.max(15.0));
            arrivals.iter().filter(|a| **a < t && **a >= t - w2).count() as f64 / w2
        };
        let (a, b) = (rate(60.0), rate(300.0));
        stage.seen_mut("chat").demand = Demand::Known(Arrivals {
            rate_1m: Rate::per_second(a),
            rate_5m: Rate::per_second(b),
            lengths: Some(LengthMix::assumed().clone()),
            at: stage.now,
        });
        let plan = stage.step();
        passes += 1;
        for d in &plan.decisions {
            println!(
                "{:5.2}m {:.2} {:.2} {:<20} {:?} | {}",
                t / 60.0,
                a,
                b,
                d.reason,
                d.action,
                d.message
            );
        }
        if tick % 20 == 0 {
            let o = &plan.pools[&pool_id("chat")];
            println!(
                "== {:.1}m {:?} {:?} target {} {:?}",
                t / 60.0,
                o.demand,
                o.sustainable,
                o.target,
                o.by_group
            );
        }
    }
    println!("{} passes {:?}", passes, t0.elapsed());
}
