//! From CSV to the catalogue.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Benchmark, Catalogue, Machine, Offer, usable_memory_gib};
use crate::snapshot::MachineKey;
use crate::time::Span;
use crate::units::Money;

/// A table of the catalogue is malformed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// A row does not have the right columns, or not the right kind of value in one.
    #[error("reading a table of the catalogue")]
    Row(#[from] csv::Error),
    /// A row's memory sizes are not numbers separated by `;`.
    #[error("reading the memory sizes {0:?}")]
    Memory(String),
}

#[derive(Deserialize)]
struct ChipRow {
    chip: String,
    memory_gb: String,
    mem_bw_gbs: f64,
    gpu_cores: u32,
    fp16_tflops: Option<f64>,
    pp512_q4_tok_s: Option<f64>,
    tg128_q4_tok_s: Option<f64>,
    pp512_f16: Option<f64>,
    tg128_f16: Option<f64>,
    idle_w: Option<f64>,
    max_w: Option<f64>,
    source: String,
}

#[derive(Deserialize)]
struct HostRow {
    provider: String,
    r#type: String,
    chip: String,
    usd_per_hour: Option<Money>,
    min_lease_h: Option<u64>,
    provision_min: Option<u64>,
    scrub_min: Option<u64>,
    source: String,
}

/// Reads both tables.
pub(super) fn catalogue(chips: &str, hosts: &str) -> Result<Catalogue, CatalogueError> {
    let mut machines = BTreeMap::new();
    for row in csv::Reader::from_reader(chips.as_bytes()).deserialize() {
        let row: ChipRow = row?;
        for size in row.memory_gb.split(';') {
            let memory_gib = size
                .trim()
                .parse()
                .map_err(|_| CatalogueError::Memory(row.memory_gb.clone()))?;
            let key = MachineKey {
                chip: row.chip.clone(),
                gpu_cores: row.gpu_cores,
                memory_gib,
            };
            machines.insert(key, machine(&row, memory_gib));
        }
    }
    let offers = csv::Reader::from_reader(hosts.as_bytes())
        .deserialize()
        .map(|row| row.map(offer))
        .collect::<Result<_, _>>()?;
    Ok(Catalogue { machines, offers })
}

fn machine(row: &ChipRow, memory_gib: u32) -> Machine {
    Machine {
        bandwidth_gbs: row.mem_bw_gbs,
        fp16_tflops: row.fp16_tflops,
        q4_0: Benchmark {
            prefill_per_second: row.pp512_q4_tok_s,
            decode_per_second: row.tg128_q4_tok_s,
        },
        f16: Benchmark {
            prefill_per_second: row.pp512_f16,
            decode_per_second: row.tg128_f16,
        },
        idle_watts: row.idle_w,
        busy_watts: row.max_w,
        usable_memory_gib: usable_memory_gib(memory_gib),
        source: row.source.clone(),
    }
}

fn offer(row: HostRow) -> Offer {
    Offer {
        provider: row.provider,
        name: row.r#type,
        machine: row.chip,
        hourly_usd: row.usd_per_hour,
        minimum_lease: row.min_lease_h.map(Span::from_hours),
        provision: row.provision_min.map(Span::from_minutes),
        recycle: row.scrub_min.map(Span::from_minutes),
        source: row.source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHIPS: &str = "chip,memory_gb,mem_bw_gbs,gpu_cores,fp16_tflops,pp512_q4_tok_s,tg128_q4_tok_s,pp512_f16,\
                         tg128_f16,idle_w,max_w,source\n";
    const HOSTS: &str = "provider,type,chip,usd_per_hour,min_lease_h,provision_min,scrub_min,source\n";

    #[test]
    fn a_malformed_row_is_refused() {
        for (row, why) in [
            ("M1,8,fast,7,,,,,,,,x\n", "bandwidth is no number"),
            ("M1,8,68,7,,,,,,,x\n", "a column is missing"),
            ("M1,8;lots,68,7,,,,,,,,x\n", "memory is no number"),
        ] {
            assert!(catalogue(&format!("{CHIPS}{row}"), HOSTS).is_err(), "{why}");
        }
        assert!(catalogue(CHIPS, &format!("{HOSTS}aws,m,M1,cheap,,,,x\n")).is_err());
        assert!(catalogue(CHIPS, HOSTS).is_ok_and(|empty| empty == Catalogue::default()));
    }
}
