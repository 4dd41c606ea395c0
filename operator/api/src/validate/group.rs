//! `ServerGroup` → [`Group`].

use chrono::NaiveDate;
use kube::ResourceExt;
use pomarium_kernel::calendar::{NotAWindow, Window};
use pomarium_kernel::catalogue::Catalogue;
use pomarium_kernel::names::SiteName;
use pomarium_kernel::reason::Problem;
use pomarium_kernel::snapshot::{
    Approved, Delivery, Disruption, Group, LeadTime, MachineKey, Power, Pricing, ProviderTraits, SizeRange,
};
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_kernel::units::Money;

use super::{
    GroupSeen, Reading, at_least_one, count, invalid, mode, money, ordered, paused, positive_span, span_or_zero,
};
use crate::group::{self, PowerControl, ServerGroup};

/// The group as of `now`, with its defaults filled in and its windows and memory evaluated.
pub fn group(object: &ServerGroup, seen: GroupSeen, now: Timestamp) -> Result<Group, Problem> {
    let group = group_as_known(object, seen, now);
    match group.problem {
        None => Ok(group),
        Some(problem) => Err(problem),
    }
}

/// The group as of `now` as far as its spec can be used. `problem` says what cannot; nothing is done with such a group,
/// but what runs there counts.
pub fn group_as_known(object: &ServerGroup, seen: GroupSeen, now: Timestamp) -> Group {
    let spec = &object.spec;
    let mut reading = Reading::default();
    let memory = object.status.as_ref().and_then(|status| status.memory.as_ref());
    let machine = MachineKey {
        chip: spec.machine.chip.clone(),
        gpu_cores: reading.or(at_least_one("spec.machine.gpuCores", spec.machine.gpu_cores), 0),
        memory_gib: reading.or(at_least_one("spec.machine.memoryGiB", spec.machine.memory_gib), 0),
    };
    Group {
        site: SiteName::from(spec.site_ref.name.as_str()),
        labels: object.labels().clone(),
        power: reading.or(power(spec.power.as_ref(), &machine), NO_POWER),
        machine,
        size: reading.or(size(&spec.size), SizeRange { min: 0, max: 0 }),
        deliveries: reading.or(deliveries(&spec.deliveries), Vec::new()),
        provider: reading.or(provider(&spec.provider), NO_PROVIDER),
        pricing: reading.or(pricing(spec.pricing.as_ref()), FREE),
        lead_time: spec.lead_time.as_ref().map_or(AT_ONCE, |lead| LeadTime {
            provision: span_or_zero(lead.provision),
            recycle: span_or_zero(lead.recycle),
        }),
        disruption: reading.or(disruption(spec.disruption.as_ref(), now), NEVER),
        mode: mode(spec.mode),
        approved: Approved::default(),
        inventory: seen.inventory,
        out_of_stock_since: memory
            .and_then(|memory| memory.out_of_stock_since.as_deref())
            .and_then(Timestamp::parse),
        memory: memory.map(Into::into).unwrap_or_default(),
        problem: reading.problem,
        overlap: None,
        paused: paused(object),
        deleting: object.metadata.deletion_timestamp.is_some(),
    }
}

const NO_POWER: Power = Power {
    idle_watts: 0.0,
    busy_watts: 0.0,
};

const NO_PROVIDER: ProviderTraits = ProviderTraits {
    grows: false,
    releases_chosen: false,
    always_on: true,
};

const FREE: Pricing = Pricing {
    hourly: Money::ZERO,
    minimum_lease: Span::ZERO,
};

const NEVER: Disruption = Disruption {
    max_unavailable: 0,
    window_open: false,
};

const AT_ONCE: LeadTime = LeadTime {
    provision: Span::ZERO,
    recycle: Span::ZERO,
};

fn size(size: &group::Size) -> Result<SizeRange, Problem> {
    let range = SizeRange {
        min: count("spec.size.min", size.min.unwrap_or(0))?,
        max: count("spec.size.max", size.max)?,
    };
    ordered("spec.size", range.min, range.max)?;
    Ok(range)
}

/// Sorted by date.
fn deliveries(ordered: &[group::Delivery]) -> Result<Vec<Delivery>, Problem> {
    let mut deliveries = ordered
        .iter()
        .enumerate()
        .map(|(index, delivery)| {
            let path = format!("spec.deliveries[{index}]");
            Ok(Delivery {
                at: midnight(&format!("{path}.date"), &delivery.date)?,
                servers: at_least_one(&format!("{path}.servers"), delivery.servers)?,
            })
        })
        .collect::<Result<Vec<_>, Problem>>()?;
    deliveries.sort_by_key(|delivery| delivery.at);
    Ok(deliveries)
}

/// The first instant of a day, in UTC.
fn midnight(path: &str, date: &str) -> Result<Timestamp, Problem> {
    NaiveDate::parse_from_str(date, "%Y-%m-%d")
        .ok()
        .and_then(|day| day.and_hms_opt(0, 0, 0))
        .map(|midnight| Timestamp::from_millis(midnight.and_utc().timestamp_millis()))
        .ok_or_else(|| invalid(path, date, "a day of the calendar, such as 2027-02-01"))
}

fn provider(provider: &group::Provider) -> Result<ProviderTraits, Problem> {
    match (&provider.r#static, &provider.scale, &provider.simulated) {
        (Some(nodes), None, None) => Ok(ProviderTraits {
            grows: false,
            releases_chosen: false,
            always_on: nodes.power.unwrap_or_default() == PowerControl::None,
        }),
        // A scale subresource takes a number and no name: its owner picks the victim.
        (None, Some(_), None) => Ok(ProviderTraits {
            grows: true,
            releases_chosen: false,
            always_on: false,
        }),
        (None, None, Some(_)) => Ok(ProviderTraits {
            grows: true,
            releases_chosen: true,
            always_on: false,
        }),
        (None, None, None) => Err(invalid("spec.provider", "none", ONE_PROVIDER)),
        _ => Err(invalid("spec.provider", "more than one", ONE_PROVIDER)),
    }
}

const ONE_PROVIDER: &str = "exactly one of static, scale and simulated";

/// The group's own watts, else the catalogue's.
fn power(power: Option<&group::Power>, machine: &MachineKey) -> Result<Power, Problem> {
    let known = Catalogue::builtin().power(machine);
    let watts = |path, own: Option<i32>, known: f64| own.map_or(Ok(known), |own| count(path, own).map(f64::from));
    let idle_watts = watts(
        "spec.power.idleWatts",
        power.and_then(|power| power.idle_watts),
        known.idle_watts,
    )?;
    let busy_watts = watts(
        "spec.power.busyWatts",
        power.and_then(|power| power.busy_watts),
        known.busy_watts,
    )?;
    Ok(Power {
        idle_watts,
        // One of the two may be the group's own.
        busy_watts: busy_watts.max(idle_watts),
    })
}

fn pricing(pricing: Option<&group::Pricing>) -> Result<Pricing, Problem> {
    Ok(match pricing {
        Some(pricing) => Pricing {
            hourly: money("spec.pricing.hourly", &pricing.hourly)?,
            minimum_lease: span_or_zero(pricing.minimum_lease),
        },
        None => FREE,
    })
}

fn disruption(disruption: Option<&group::Disruption>, now: Timestamp) -> Result<Disruption, Problem> {
    let Some(disruption) = disruption else {
        return Ok(Disruption {
            max_unavailable: 1,
            window_open: true,
        });
    };
    let mut window_open = disruption.windows.is_empty();
    for (index, window) in disruption.windows.iter().enumerate() {
        window_open |= self::window(&format!("spec.disruption.windows[{index}]"), window)?.is_open(now);
    }
    Ok(Disruption {
        max_unavailable: count(
            "spec.disruption.maxUnavailable",
            disruption.max_unavailable.unwrap_or(1),
        )?,
        window_open,
    })
}

fn window(path: &str, window: &group::DisruptionWindow) -> Result<Window, Problem> {
    let duration = positive_span(&format!("{path}.duration"), window.duration)?;
    let zone = window.time_zone.as_deref().unwrap_or("UTC");
    Window::parse(&window.schedule, zone, duration).map_err(|error| match error {
        NotAWindow::Zone(zone) => invalid(
            &format!("{path}.timeZone"),
            zone,
            "an IANA time zone, such as America/Los_Angeles",
        ),
        NotAWindow::Never(schedule) => invalid(
            &format!("{path}.schedule"),
            schedule,
            "a schedule that comes round, such as \"0 9 * * 1-5\"",
        ),
        NotAWindow::Schedule { schedule, message } => invalid(
            &format!("{path}.schedule"),
            schedule,
            format_args!("five fields of cron, such as \"0 9 * * 1-5\" ({message})"),
        ),
    })
}
