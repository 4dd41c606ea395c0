//! A sample of `operator/docs/capacity.md`: what is predicted is what the simulator says, up to 90 % load.

use pomarium_kernel::capacity::published;
use pomarium_kernel::capacity::{Curves, Effort, Servers, Traffic};
use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::performance::Performance;
use pomarium_kernel::snapshot::{Discipline, Metric};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::{Fraction, Rate};
use pomarium_sim::steady::Steady;

fn machine(alpha_us: u64, beta_us: u64, delta_us: u64) -> Performance {
    Performance {
        times: StepTimes {
            alpha_ns: alpha_us * 1_000,
            beta_ns: beta_us * 1_000,
            delta_ns: delta_us * 1_000,
            kv_tokens: 400_000,
            max_batch: 16,
            prefill_chunk: 256,
        },
        load_time: Span::from_secs(30),
        source: String::new(),
    }
}

#[test]
fn predicted_percentiles_are_within_a_tenth_of_the_simulators() {
    let (m2_ultra, m4_pro) = (machine(10_200, 2_500, 1_000), machine(18_400, 4_600, 2_300));
    let figures = [Metric::TimeToFirstToken, Metric::InterTokenLatency]
        .map(|metric| [(metric, 0.5), (metric, 0.95)])
        .concat();
    for (name, fast, slow, load, discipline) in [
        ("azure-conv", 8, 0, 0.9, Discipline::LeastWork),
        ("azure-conv", 4, 4, 0.8, Discipline::LeastWork),
        ("azure-conv", 3, 0, 0.6, Discipline::Weighted),
        ("azure-code", 0, 4, 0.7, Discipline::LeastWork),
        ("servegen", 16, 0, 0.8, Discipline::LeastWork),
        ("chat", 0, 2, 0.5, Discipline::LeastWork),
    ] {
        let mix = published::mixes()
            .into_iter()
            .find(|mix| mix.name == name)
            .map(|published| published.mix);
        let Some(mix) = mix else { panic!("{name} is published") };
        let servers = [(&m2_ultra, fast), (&m4_pro, slow)].map(|(performance, count)| Servers { performance, count });
        let curve = Curves::new(Effort::USUAL, 8).curve(&servers, &Traffic::new(&mix, discipline, &[]));
        let rate = load * curve.saturation().as_per_second();
        let seen = Steady {
            servers: &servers.map(|kind| (kind.performance.times, kind.count)),
            mix: &mix,
            discipline,
            rate,
            requests: 80_000,
            seed: 0xCAFE,
        }
        .latencies(&figures);
        let prediction = curve.prediction(Rate::per_second(rate));
        for ((metric, share), seen) in figures.iter().zip(seen) {
            let predicted = prediction.of(*metric);
            let got = predicted.at(Fraction::new(*share));
            // On a cliff a percentile jumps and the share of requests does not.
            let near = |ms| (predicted.within(ms).get() - share).abs() < 0.01;
            let context =
                format!("{fast} + {slow}, {name} at {load}: {metric:?} at {share}: {got:.1}, simulator {seen:.1} ms");
            assert!(
                (got / seen - 1.0).abs() < 0.10 || near(seen * 0.99) || near(seen * 1.01),
                "{context}"
            );
        }
    }
}
