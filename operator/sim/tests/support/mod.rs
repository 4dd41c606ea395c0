//! What the tests of policies share: the objects that a simulated group stands for.

use pomarium_kernel::snapshot::{Group, LeadTime, MachineKey, MeasuredPerformance, Pricing};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Money;
use pomarium_sim::machines::GroupModel;

/// The group that `model` plays with servers like `machine`, and the figures that are declared of those: step times `wrong` times as long as
/// they are.
pub(crate) fn declare(model: &GroupModel, machine: MachineKey, wrong: f64) -> (Group, MeasuredPerformance) {
    let ms = |ns: u64| Some(ns as f64 / 1e6 * wrong);
    let figures = MeasuredPerformance {
        chip: machine.chip.clone(),
        gpu_cores: machine.gpu_cores,
        memory_gib: Some(machine.memory_gib),
        alpha_ms: ms(model.times.alpha_ns),
        beta_ms: ms(model.times.beta_ns),
        delta_ms: ms(model.times.delta_ns),
        kv_tokens: Some(model.times.kv_tokens),
        max_batch: Some(model.times.max_batch),
        prefill_chunk: Some(model.times.prefill_chunk),
        load_time: Some(Span::from_millis(model.load_ms)),
    };
    let group = Group {
        machine,
        pricing: Pricing {
            hourly: Money::from_f64(model.hourly),
            minimum_lease: Span::from_millis(model.minimum_lease_ms),
        },
        lead_time: LeadTime {
            provision: Span::from_millis(model.lead_ms),
            recycle: Span::from_millis(model.recycle_ms),
        },
        ..Group::hosted(&model.name, model.max)
    };
    (group, figures)
}
