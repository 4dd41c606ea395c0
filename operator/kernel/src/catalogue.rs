//! What is known about Apple-silicon machines, with sources.
//!
//! Two tables are embedded in the binary; `data/README.md` describes their columns and origins. What nobody has
//! published stays `None`: a made-up figure would be planned with as if it were measured.

mod parse;
mod power;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::snapshot::MachineKey;
use crate::time::Span;
use crate::units::Money;

pub use parse::CatalogueError;

const CHIPS: &str = include_str!("../data/chips.csv");
const HOSTS: &str = include_str!("../data/hosts.csv");

/// Machines by chip, GPU cores and memory, and what lessors offer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    machines: BTreeMap<MachineKey, Machine>,
    offers: Vec<Offer>,
}

/// One kind of machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Nominal memory bandwidth in 10⁹ bytes/s.
    pub bandwidth_gbs: f64,
    /// Arithmetic of the GPU in half precision, in TFLOPS.
    pub fp16_tflops: Option<f64>,
    /// Speed with LLaMA-2 7B in `Q4_0`.
    pub q4_0: Benchmark,
    /// Speed with LLaMA-2 7B in `F16`.
    pub f16: Benchmark,
    /// Watts at the wall without work.
    pub idle_watts: Option<f64>,
    /// Watts at the wall under stress: a safe bound on inference.
    pub busy_watts: Option<f64>,
    /// Memory that the GPU may use, in GiB. See [`usable_memory_gib`].
    pub usable_memory_gib: f64,
    /// Where the figures come from.
    pub source: String,
}

/// Speed of one request alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Benchmark {
    /// Prompt tokens per second in a prompt of 512 (`pp512`).
    pub prefill_per_second: Option<f64>,
    /// Output tokens per second over 128 tokens (`tg128`).
    pub decode_per_second: Option<f64>,
}

/// A kind of machine that somebody leases.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Such as `aws-ec2-mac`.
    pub provider: String,
    /// The lessor's name for it, such as `mac-m4pro.metal`.
    pub name: String,
    /// Chip and memory as the lessor states them.
    pub machine: String,
    /// Per hour, in USD.
    pub hourly_usd: Option<Money>,
    /// The shortest lease.
    pub minimum_lease: Option<Span>,
    /// From the request to a machine that is up.
    pub provision: Option<Span>,
    /// From the release until it can be leased again.
    pub recycle: Option<Span>,
    /// Where the figures come from.
    pub source: String,
}

impl Catalogue {
    /// The tables that come with this build.
    ///
    /// Whether they parse is a test's business. If they ever did not, a running operator would have an empty
    /// catalogue, say that it knows too little of every machine, and still work with figures from `spec.performance`.
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Catalogue> = LazyLock::new(|| parse::catalogue(CHIPS, HOSTS).unwrap_or_default());
        &BUILTIN
    }

    /// The machine of this chip, GPU cores and memory.
    pub fn machine(&self, key: &MachineKey) -> Option<&Machine> {
        self.machines.get(key)
    }

    /// All machines, sorted by chip, GPU cores and memory.
    pub fn machines(&self) -> impl Iterator<Item = (&MachineKey, &Machine)> {
        self.machines.iter()
    }

    /// What lessors offer, in the order of the table.
    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }
}

/// Memory that the GPU of a machine with `memory_gib` may use, in GiB.
///
/// macOS lets the GPU wire about two thirds of a smaller machine's memory and three quarters of a larger one's. Sources
/// differ on where the switch is: above 32 GiB (llama.cpp issue 2182) or above 36 GiB (`LLMKube`). This is the lower reading:
/// a model that is refused can be forced with `iogpu.wired_limit_mb` and `spec.performance[].kvTokens`; one that does not
/// fit ends in a crash loop.
pub fn usable_memory_gib(memory_gib: u32) -> f64 {
    let fraction = if memory_gib <= 36 { 2.0 / 3.0 } else { 0.75 };
    f64::from(memory_gib) * fraction
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn key(chip: &str, gpu_cores: u32, memory_gib: u32) -> MachineKey {
        MachineKey {
            chip: chip.to_owned(),
            gpu_cores,
            memory_gib,
        }
    }

    #[test]
    fn the_built_in_tables_are_complete() {
        let parsed = parse::catalogue(CHIPS, HOSTS).unwrap();
        assert_eq!(&parsed, Catalogue::builtin());
        let sizes: usize = CHIPS
            .lines()
            .skip(1)
            .map(|row| row.split(',').nth(1).unwrap().split(';').count())
            .sum();
        assert_eq!(parsed.machines.len(), sizes, "a key occurs twice");
        assert_eq!(parsed.offers.len(), HOSTS.lines().count() - 1);
        for (key, machine) in parsed.machines() {
            assert!(machine.bandwidth_gbs > 0.0, "{key:?}");
            assert!(!machine.source.is_empty(), "{key:?}");
            let (usable, memory) = (machine.usable_memory_gib, f64::from(key.memory_gib));
            assert!(usable > 0.6 * memory && usable < 0.8 * memory, "{key:?}");
        }
    }

    #[test]
    fn bandwidth_differs_within_one_chip_name() {
        let bandwidth = |key| Catalogue::builtin().machine(&key).unwrap().bandwidth_gbs;
        for (machine, expected) in [
            (key("M4 Max", 32, 36), 410.0),
            (key("M4 Max", 40, 128), 546.0),
            (key("M6", 12, 16), 153.0),
            (key("M6", 12, 32), 170.0),
        ] {
            assert!((bandwidth(machine) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn what_nobody_published_is_unknown() {
        let catalogue = Catalogue::builtin();
        let m5_ultra = catalogue.machine(&key("M5 Ultra", 80, 256)).unwrap();
        assert_eq!(m5_ultra.q4_0, Benchmark::default());
        assert_eq!(m5_ultra.busy_watts.map(f64::to_bits), Some(385.0_f64.to_bits()));
        assert_eq!(
            catalogue.machine(&key("M5", 10, 16)).unwrap().q4_0.prefill_per_second,
            None
        );
        assert_eq!(catalogue.machine(&key("M4 Ultra", 80, 256)), None);
        assert_eq!(catalogue.machine(&key("M2 Ultra", 76, 96)), None);
        let unpriced = catalogue.offers().iter().find(|offer| offer.name == "M4-S").unwrap();
        assert_eq!((unpriced.hourly_usd, unpriced.provision), (None, None));
        assert_eq!(unpriced.minimum_lease, Some(Span::from_hours(24)));
    }

    #[test]
    fn prices_are_read_as_exact_money() {
        let offer = |name| {
            Catalogue::builtin()
                .offers()
                .iter()
                .find(|offer| offer.name == name)
                .unwrap()
        };
        assert_eq!(offer("mac-m4pro.metal").hourly_usd, Some(Money::from_micros(1_970_000)));
        assert_eq!(offer("mac-m4pro.metal").recycle, Some(Span::from_minutes(110)));
    }

    #[test]
    fn smaller_machines_give_the_gpu_less() {
        for (memory, usable) in [(24, 16.0), (36, 24.0), (48, 36.0), (192, 144.0)] {
            assert!((usable_memory_gib(memory) - usable).abs() < 1e-9, "{memory}");
        }
    }
}
