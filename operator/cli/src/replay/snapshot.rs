//! Plans an exported snapshot again, and compares with what was decided live.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use pomarium_controller::export::{Decided, Exported};
use pomarium_kernel::names::PoolId;
use pomarium_kernel::plan::{Action, Plan};
use pomarium_kernel::strategy::ahead::{Ahead, GroupAhead, PoolAhead};
use pomarium_kernel::units::Rate;
use serde_json::Value;

/// Differences that are shown.
const MOST_DIFFERENCES: usize = 10;

/// What came of planning again.
pub(super) struct Replanned {
    /// Both plans as JSON, on one line.
    pub(super) json: String,
    /// Both plans for people, and how they compare with what was decided live.
    pub(super) text: String,
    /// Whether they are what was decided live; `None` if that was not exported.
    pub(super) identical: Option<bool>,
}

/// Plans the snapshot in `file` again.
pub(super) fn plan(file: &Path) -> anyhow::Result<Replanned> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading snapshot {}", file.display()))?;
    let mut json = serde_json::Deserializer::from_str(&text);
    let exported: Exported = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| anyhow::anyhow!("snapshot {}: {}: {}", file.display(), error.path(), error.inner()))?;
    let again = exported.replan();
    let json = bytes(&again)?;
    let decided = exported.decided();
    let identical = decided.as_ref().map(bytes).transpose()?.map(|live| live == json);
    let mut text = describe(&exported, &again);
    match (&decided, identical) {
        (Some(_), Some(true)) => text.push_str("\nidentical to what was decided live\n"),
        (Some(live), _) => {
            text.push_str("\nNOT what was decided live (live → again):\n");
            let mut differences = Vec::new();
            let value = |decided: &Decided| serde_json::to_value(decided).context("comparing plans");
            compare(&value(live)?, &value(&again)?, "", &mut differences);
            for line in differences.iter().take(MOST_DIFFERENCES) {
                let _ = writeln!(text, "  {line}");
            }
            if differences.len() > MOST_DIFFERENCES {
                let _ = writeln!(text, "  … and {} more", differences.len() - MOST_DIFFERENCES);
            }
        }
        (None, _) => text.push_str("\nwhat was decided live is not in the file: nothing to compare with\n"),
    }
    Ok(Replanned {
        json: json + "\n",
        text,
        identical,
    })
}

fn bytes(decided: &Decided) -> anyhow::Result<String> {
    serde_json::to_string(decided).context("writing the plan as JSON")
}

fn describe(exported: &Exported, again: &Decided) -> String {
    let mut text = String::new();
    let Plan { decisions, .. } = &again.plan;
    let _ = writeln!(text, "pass at {}: {} decisions", exported.now, decisions.len());
    for decision in decisions {
        let _ = writeln!(
            text,
            "  {:<44} {:<20} {}",
            action(&decision.action),
            decision.reason,
            decision.message
        );
        for rejected in &decision.rejected {
            let _ = writeln!(
                text,
                "    not {}: {}: {}",
                rejected.alternative, rejected.reason, rejected.message
            );
        }
    }
    ahead(&mut text, &again.ahead);
    text
}

fn action(action: &Action) -> String {
    match action {
        Action::RequestServer { server, .. } => format!("RequestServer {server}"),
        Action::DrainServer { server, .. } => format!("DrainServer {server}"),
        Action::UndrainServer { server, .. } => format!("UndrainServer {server}"),
        Action::ReleaseServer { server, .. } => format!("ReleaseServer {server}"),
        Action::StartReplica { pool, server, .. } => format!("StartReplica {pool} on {server}"),
        Action::OpenReplica { replica, .. } => format!("OpenReplica {replica}"),
        Action::DrainReplica { replica, step, .. } => format!("DrainReplica {replica} ({step:?})"),
        Action::RemoveReplica { replica, .. } => format!("RemoveReplica {replica}"),
    }
}

fn ahead(text: &mut String, ahead: &Ahead) {
    let _ = writeln!(
        text,
        "\nstrategic plan of {}: {:.2} over 36 hours, no plan costs less than {:.2} (gap {:.1} %)",
        ahead.made_at,
        ahead.cost,
        ahead.bound,
        ahead.gap() * 100.0
    );
    for (name, group) in &ahead.groups {
        let GroupAhead {
            servers,
            buyers,
            later,
            until,
            ..
        } = group;
        let _ = write!(text, "  group {name}: {servers} servers");
        for (pool, count) in buyers {
            let _ = write!(text, "; ask for {count} for {pool}");
        }
        for (at, count) in later {
            let _ = write!(text, "; {count} more at {at}");
        }
        for (server, at) in until {
            let _ = write!(text, "; {server} until {at}");
        }
        text.push('\n');
    }
    for (id, planned) in &ahead.pools {
        pool(text, id, planned);
    }
}

fn pool(text: &mut String, id: &PoolId, planned: &PoolAhead) {
    let replicas: Vec<String> = planned
        .replicas
        .iter()
        .map(|(group, count)| format!("{count} of {group}"))
        .collect();
    let _ = write!(text, "  pool {id}: {}; {:.2}", replicas.join(", "), planned.cost);
    if let Some([low, median, high]) = planned.expected() {
        let [low, median, high] = [low, median, high].map(Rate::as_per_second);
        let _ = write!(text, "; expects {median:.2} requests/s ({low:.2} to {high:.2})");
    }
    for (start, burnt) in &planned.windows {
        let share = 100.0 * burnt.expected / burnt.budget.max(f64::MIN_POSITIVE);
        let _ = write!(text, "; window of {start}: {share:.0} % of what is left is spent");
    }
    text.push('\n');
}

/// Where two values differ, by path.
fn compare(live: &Value, again: &Value, path: &str, differences: &mut Vec<String>) {
    match (live, again) {
        (Value::Object(live), Value::Object(again)) => {
            let keys: std::collections::BTreeSet<&String> = live.keys().chain(again.keys()).collect();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&of(live), &of(again), &format!("{path}.{key}"), differences);
            }
        }
        (Value::Array(live), Value::Array(again)) if live.len() == again.len() => {
            for (index, (live, again)) in live.iter().zip(again).enumerate() {
                compare(live, again, &format!("{path}[{index}]"), differences);
            }
        }
        (live, again) if live != again => {
            differences.push(format!("{}: {live} → {again}", path.trim_start_matches('.')));
        }
        _ => {}
    }
}
