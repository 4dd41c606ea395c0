//! `ServerPool` → [`Pool`].

use std::collections::BTreeSet;

use kube::Resource;
use pomarium_kernel::forecast::Event;
use pomarium_kernel::reason::Problem;
use pomarium_kernel::snapshot::{
    Budget, Discipline, DrainPolicy, MeasuredPerformance, Metric, Model, Objective, OnDeadline, Period, Placement,
    PlacementOrder, Pool, ReplicaRange, Survive, Trust, Use,
};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::{Fraction, Money};

use super::site::{jurisdictions, trust};
use super::{
    PoolSeen, at_least_one, count, invalid, mode, money, ordered, paused, positive, positive_span, revision, time,
};
use crate::pool::{self, ServerPool, ServerPoolSpec};

/// The length of an event without an end: a hundred years.
const FOR_EVER: Span = Span::from_hours(24 * 36_525);
/// How long a drain may take unless the pool says otherwise.
const DRAIN_TIMEOUT: Span = Span::from_minutes(15);
/// The window of an objective unless it says otherwise.
const OBJECTIVE_WINDOW: Span = Span::from_hours(24);
/// What a missed request costs unless the pool says otherwise: little enough that no server is leased for it, and enough that error budgets are not
/// spent to save cents. An own server that is switched off saves about three cents of energy an hour; it stays on if three hundred requests
/// would miss otherwise. What is left of an error budget when something happens that no plan has foreseen saves a lease.
const MISS_PENALTY: Money = Money::from_micros(100);

/// The pool, with its defaults filled in and its memory read.
pub fn pool(object: &ServerPool, seen: PoolSeen) -> Result<Pool, Problem> {
    let spec = &object.spec;
    Ok(Pool {
        usage: match spec.r#use.unwrap_or_default() {
            pool::PoolUse::Production => Use::Production,
            pool::PoolUse::Development => Use::DevelopmentOnly,
        },
        model: model(&spec.model)?,
        objectives: objectives(&spec.objectives)?,
        miss_penalty: match &spec.miss_penalty {
            Some(penalty) => money("spec.missPenalty", penalty)?,
            None => MISS_PENALTY,
        },
        budget: spec.budget.as_ref().map(budget).transpose()?,
        degrade_order: count("spec.degradeOrder", spec.degrade_order.unwrap_or(0))?,
        priority: spec.priority.unwrap_or(0),
        placement: placement(spec),
        replicas: replicas(&spec.replicas)?,
        drain: drain(spec.drain.as_ref())?,
        mode: mode(spec.mode),
        approved: BTreeSet::new(),
        discipline: match spec
            .routing
            .as_ref()
            .and_then(|routing| routing.discipline)
            .unwrap_or_default()
        {
            pool::Discipline::LeastWork => Discipline::LeastWork,
            pool::Discipline::Weighted => Discipline::Weighted,
        },
        performance: spec
            .performance
            .iter()
            .enumerate()
            .map(|(index, figures)| performance(&format!("spec.performance[{index}]"), figures))
            .collect::<Result<_, _>>()?,
        revision: revision(spec),
        namespace_at: seen.namespace_at,
        routable_at: spec
            .routing
            .as_ref()
            .and_then(|routing| routing.http_route.as_ref())
            .map(|_| seen.local_sites),
        demand: seen.demand,
        measured: seen.measured,
        engines: seen.engines,
        running: seen.running,
        memory: object
            .status
            .as_ref()
            .and_then(|status| status.memory.as_ref())
            .map(Into::into)
            .unwrap_or_default(),
        events: events(&spec.events)?,
        past: seen.past,
        paused: paused(object),
        deleting: object.meta().deletion_timestamp.is_some(),
    })
}

fn model(model: &pool::Model) -> Result<Model, Problem> {
    let parameters_billions = positive("spec.model.parametersBillions", &model.parameters_billions)?;
    let active_parameters_billions = match &model.active_parameters_billions {
        Some(active) => {
            let path = "spec.model.activeParametersBillions";
            let billions = positive(path, active)?;
            if billions > parameters_billions {
                let most = format_args!("at most spec.model.parametersBillions, which is {parameters_billions}");
                return Err(invalid(path, active, most));
            }
            billions
        }
        None => parameters_billions,
    };
    Ok(Model {
        name: model.name.clone(),
        quantization: model.quantization.clone(),
        parameters_billions,
        active_parameters_billions,
        weights_gib: positive("spec.model.weightsGiB", &model.weights_gib)?,
        context_tokens: at_least_one("spec.model.contextTokens", model.context_tokens)?,
        kv_bytes_per_token: positive_i64("spec.model.kvBytesPerToken", model.kv_bytes_per_token)?,
    })
}

fn positive_i64(path: &str, number: i64) -> Result<u64, Problem> {
    u64::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| invalid(path, number, "a whole number from 1 on"))
}

fn objectives(declared: &[pool::Objective]) -> Result<Vec<Objective>, Problem> {
    if declared.is_empty() {
        return Err(invalid("spec.objectives", declared, "at least one objective"));
    }
    declared
        .iter()
        .enumerate()
        .map(|(index, objective)| {
            let path = format!("spec.objectives[{index}]");
            if !(1..=99).contains(&objective.percentile) {
                let path = format!("{path}.percentile");
                return Err(invalid(&path, objective.percentile, "a whole number from 1 to 99"));
            }
            Ok(Objective {
                metric: match objective.metric {
                    pool::ObjectiveMetric::TimeToFirstToken => Metric::TimeToFirstToken,
                    pool::ObjectiveMetric::InterTokenLatency => Metric::InterTokenLatency,
                },
                percentile: Fraction::new(f64::from(objective.percentile) / 100.0),
                threshold: positive_span(&format!("{path}.threshold"), objective.threshold)?,
                window: match objective.window {
                    Some(window) => positive_span(&format!("{path}.window"), window)?,
                    None => OBJECTIVE_WINDOW,
                },
            })
        })
        .collect()
}

fn budget(budget: &pool::Budget) -> Result<Budget, Problem> {
    Ok(Budget {
        amount: money("spec.budget.amount", &budget.amount)?,
        period: match budget.period.unwrap_or_default() {
            pool::BudgetPeriod::Day => Period::Day,
            pool::BudgetPeriod::Week => Period::Week,
            pool::BudgetPeriod::Month => Period::Month,
        },
    })
}

fn placement(spec: &ServerPoolSpec) -> Placement {
    let declared = spec.placement.clone().unwrap_or_default();
    Placement {
        order: match declared.order.unwrap_or_default() {
            pool::PlacementOrder::OwnedFirst => PlacementOrder::OwnedFirst,
            pool::PlacementOrder::Cheapest => PlacementOrder::Cheapest,
        },
        residency: jurisdictions(&declared.residency),
        minimum_trust: declared.minimum_trust.map_or(Trust::None, trust),
        group_labels: declared.group_selector.unwrap_or_default().match_labels,
        survive_loss_of: match declared.survive_loss_of.unwrap_or_default() {
            pool::Survive::None => Survive::None,
            pool::Survive::Server => Survive::Server,
            pool::Survive::Site => Survive::Site,
        },
    }
}

fn replicas(replicas: &pool::Replicas) -> Result<ReplicaRange, Problem> {
    let range = ReplicaRange {
        min: count("spec.replicas.min", replicas.min.unwrap_or(1))?,
        max: count("spec.replicas.max", replicas.max)?,
    };
    ordered("spec.replicas", range.min, range.max)?;
    Ok(range)
}

fn drain(drain: Option<&pool::DrainSpec>) -> Result<DrainPolicy, Problem> {
    let declared = drain.cloned().unwrap_or_default();
    Ok(DrainPolicy {
        timeout: match declared.timeout {
            Some(timeout) => positive_span("spec.drain.timeout", timeout)?,
            None => DRAIN_TIMEOUT,
        },
        on_deadline: match declared.on_deadline.unwrap_or_default() {
            pool::OnDeadline::Keep => OnDeadline::Keep,
            pool::OnDeadline::Cut => OnDeadline::Cut,
        },
    })
}

/// More sequences at once than any engine on one machine runs. The work of the capacity model grows with it.
const MAX_BATCH: u32 = 1_024;

fn bounded(path: &str, number: u32, most: u32) -> Result<u32, Problem> {
    if number <= most {
        return Ok(number);
    }
    Err(invalid(path, number, format_args!("a whole number from 1 to {most}")))
}

fn performance(path: &str, figures: &pool::Performance) -> Result<MeasuredPerformance, Problem> {
    let at = |field: &str| format!("{path}.{field}");
    let ms =
        |field: &str, text: &Option<String>| text.as_deref().map(|text| super::number(&at(field), text)).transpose();
    let number = |field: &str, number: Option<i32>| number.map(|number| at_least_one(&at(field), number)).transpose();
    Ok(MeasuredPerformance {
        chip: figures.machine.chip.clone(),
        gpu_cores: at_least_one(&at("machine.gpuCores"), figures.machine.gpu_cores)?,
        memory_gib: number("machine.memoryGiB", figures.machine.memory_gib)?,
        alpha_ms: ms("alphaMs", &figures.alpha_ms)?,
        beta_ms: ms("betaMs", &figures.beta_ms)?,
        delta_ms: ms("deltaMs", &figures.delta_ms)?,
        kv_tokens: figures
            .kv_tokens
            .map(|tokens| positive_i64(&at("kvTokens"), tokens))
            .transpose()?,
        max_batch: number("maxBatch", figures.max_batch)?
            .map(|batch| bounded(&at("maxBatch"), batch, MAX_BATCH))
            .transpose()?,
        prefill_chunk: number("prefillChunk", figures.prefill_chunk)?,
        load_time: figures.load_time.map(Into::into),
    })
}

/// Events without an end last for ever, as far as any plan is concerned.
fn events(events: &[pool::Event]) -> Result<Vec<Event>, Problem> {
    let event = |(index, event): (usize, &pool::Event)| {
        let path = format!("spec.events[{index}]");
        let start = time(&format!("{path}.start"), &event.start)?;
        let demand_factor = positive(&format!("{path}.demandFactor"), &event.demand_factor)?;
        let end = match &event.end {
            None => start + FOR_EVER,
            Some(text) => {
                let end_path = format!("{path}.end");
                let end = time(&end_path, text)?;
                if end <= start {
                    let wanted = format_args!("a time after {path}.start, which is {start}");
                    return Err(invalid(&end_path, text, wanted));
                }
                end
            }
        };
        Ok(Event {
            start,
            end,
            demand_factor,
        })
    };
    events.iter().enumerate().map(event).collect()
}
