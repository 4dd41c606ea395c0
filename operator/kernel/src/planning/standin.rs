//! Stand-in until the capacity part lands.
use crate::engine::StepTimes;
use crate::reason::{Problem, Reason};
use crate::snapshot::*;
use crate::time::Span;
use crate::units::Rate;
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Performance { pub times: StepTimes, pub load_time: Span, pub source: String }
pub(crate) struct Servers<'a> { pub performance: &'a Performance, pub count: u32 }
pub(crate) fn sustainable(s: &[Servers<'_>], _m: &LengthMix, _o: &[Objective], _d: Discipline) -> Rate {
    Rate::per_second(s.iter().map(|s| f64::from(s.count) * 0.5e6 / s.performance.times.delta_ns as f64).sum())
}
pub(crate) fn check(pool: &Pool, group: &Group, site: &Site) -> Result<Performance, Problem> {
    if site.trust < pool.placement.minimum_trust { return Err(Problem::new(Reason::TrustTooLow, "trust")); }
    if !pool.placement.residency.is_empty() && pool.placement.residency.is_disjoint(&site.residency) { return Err(Problem::new(Reason::ResidencyForbidden, "residency")); }
    if pool.usage == Use::Production && site.permitted_use == Use::DevelopmentOnly { return Err(Problem::new(Reason::UseForbidden, "use")); }
    let delta_ns = if group.machine.chip == "M2 Ultra" { 1_000_000 } else { 2_300_000 };
    Ok(Performance { times: StepTimes { alpha_ns: 10_000_000, beta_ns: 2_000_000, delta_ns, kv_tokens: 400_000, max_batch: 16, prefill_chunk: 512 }, load_time: Span::from_secs(30), source: "standin".into() })
}
