//! What a strategic plan expects, in sentences for people.

use pomarium_api::plan::PlanOutlook;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::snapshot::{Metric, Snapshot};
use pomarium_kernel::strategy::ahead::{Ahead, PoolAhead};
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Fraction;

use super::Context;

/// Most lines of each list: a plan stays short however many windows there are.
const LINES: usize = 8;

/// What is expected of one pool if `ahead` is followed.
pub(super) fn outlook(
    id: &PoolId,
    planned: &PoolAhead,
    ahead: &Ahead,
    snapshot: &Snapshot,
    context: &Context<'_>,
) -> PlanOutlook {
    let money = |amount: f64| format!("{:.2} {}", amount.clamp(-1e9, 1e9), context.currency);
    let hour = planned
        .forecast
        .as_ref()
        .and_then(|forecast| forecast.over(context.now, context.now + Span::from_hours(1)));
    let objectives = snapshot
        .pools
        .get(id)
        .map(|pool| pool.objectives.as_slice())
        .unwrap_or_default();
    let current = planned.windows.first().map(|(_, burnt)| burnt);
    // Of requests that are still to come, so many may miss without any burning more than it should.
    let share = current.map(|burnt| (burnt.expected / burnt.budget.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0));
    let attainment = share.into_iter().flat_map(|share| {
        objectives.iter().map(move |objective| {
            let least = 100.0 * (1.0 - share * (1.0 - objective.percentile.get()));
            let metric = match objective.metric {
                Metric::TimeToFirstToken => "TTFT",
                Metric::InterTokenLatency => "ITL",
            };
            let percentile = objective.percentile.get() * 100.0;
            format!(
                "p{percentile:.0} {metric} ≤ {}: at least {least:.1} % of what is still to come",
                objective.threshold
            )
        })
    });
    let spent = planned.windows.iter().map(|(start, burnt)| {
        let percent = 100.0 * burnt.expected / burnt.budget.max(f64::MIN_POSITIVE);
        format!(
            "{:.0} % of what is left of the window that began {start}",
            percent.min(9_999.0)
        )
    });
    let spending = planned.spending.iter().map(|period| {
        let planned = format!("{:.2} of", period.planned);
        format!("{planned} {} that are left until {}", money(period.left), period.to)
    });
    let missing = planned.missing.iter().map(|missing| {
        format!(
            "about {:.0} requests more than allowed miss an objective in the window that began {}, which costs {}",
            missing.requests,
            missing.window,
            money(missing.cost)
        )
    });
    let forgone = (planned.forgone > 0.0).then(|| {
        let servers = money(planned.forgone);
        format!("servers for {servers} are not leased because the budget does not allow them")
    });
    PlanOutlook {
        made_at: ahead.made_at.to_string(),
        cost: money(planned.cost),
        total_cost: money(ahead.cost),
        bound: money(ahead.bound),
        gap_percent: format!("{:.1}", ahead.gap() * 100.0),
        demand: hour.map(|quantiles| {
            let rate = |level| quantiles.at(Fraction::new(level)).as_per_second();
            format!(
                "in the next hour {:.2} requests/s ({:.2} to {:.2})",
                rate(0.5),
                rate(0.05),
                rate(0.95)
            )
        }),
        attainment: attainment.take(LINES).collect(),
        error_budget: spent.take(LINES).collect(),
        spending: spending.take(LINES).collect(),
        shortfall: missing.chain(forgone).take(LINES).collect(),
    }
}
