//! Conditions by the kstatus conventions.
//!
//! Pure. `Ready` is always there. `Reconciling` and `Stalled` are there only while they are true. The time of the last
//! transition changes only when the status does, and an unchanged condition stays byte for byte.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as ApiCondition, Time};
use pomarium_kernel::plan::{Condition, ConditionKind, Truth};
use pomarium_kernel::reason::{Problem, Reason};

use super::steady::steady;

/// Longest message that the API accepts.
const LONGEST: usize = 32_768;

/// The name of a condition.
pub(super) fn name(kind: ConditionKind) -> &'static str {
    match kind {
        ConditionKind::Ready => "Ready",
        ConditionKind::Reconciling => "Reconciling",
        ConditionKind::Stalled => "Stalled",
        ConditionKind::SLOMet => "SLOMet",
        ConditionKind::WithinBudget => "WithinBudget",
        ConditionKind::CapacityAvailable => "CapacityAvailable",
        ConditionKind::MetricsAvailable => "MetricsAvailable",
        ConditionKind::RoutingReady => "RoutingReady",
    }
}

/// Conditions as they are to be written, from those that the object has and those that are wanted.
pub(super) fn conditions(
    old: &[ApiCondition],
    mut wanted: Vec<Condition>,
    generation: Option<i64>,
    clock: &Time,
) -> Vec<ApiCondition> {
    if !wanted.iter().any(|condition| condition.kind == ConditionKind::Ready) {
        wanted.push(Condition {
            kind: ConditionKind::Ready,
            status: Truth::Unknown,
            reason: Reason::Starting,
            message: "nothing is known yet".to_owned(),
        });
    }
    // Abnormal while true, absent otherwise.
    wanted.retain(|condition| {
        !matches!(condition.kind, ConditionKind::Reconciling | ConditionKind::Stalled)
            || condition.status == Truth::True
    });
    wanted.sort_by_key(|condition| condition.kind);
    wanted.dedup_by_key(|condition| condition.kind);
    wanted
        .into_iter()
        .map(|condition| one(old, condition, generation, clock))
        .collect()
}

fn one(old: &[ApiCondition], wanted: Condition, generation: Option<i64>, clock: &Time) -> ApiCondition {
    let type_ = name(wanted.kind);
    let status = match wanted.status {
        Truth::True => "True",
        Truth::False => "False",
        Truth::Unknown => "Unknown",
    };
    let before = old.iter().find(|condition| condition.type_ == type_);
    let same_case = before.filter(|old| old.status == status && old.reason == wanted.reason.as_str());
    let mut message = wanted.message;
    while message.len() > LONGEST {
        message.pop();
    }
    ApiCondition {
        last_transition_time: before
            .filter(|old| old.status == status)
            .map_or_else(|| clock.clone(), |old| old.last_transition_time.clone()),
        message: steady(same_case.map(|old| old.message.as_str()), message),
        observed_generation: generation,
        reason: wanted.reason.as_str().to_owned(),
        status: status.to_owned(),
        type_: type_.to_owned(),
    }
}

/// What an object says that cannot be used as it is.
pub(super) fn stalled(problem: &Problem) -> Vec<Condition> {
    let say = |kind, status| Condition {
        kind,
        status,
        reason: problem.reason,
        message: problem.message.clone(),
    };
    vec![
        say(ConditionKind::Ready, Truth::False),
        say(ConditionKind::Stalled, Truth::True),
    ]
}

/// The one line that is printed: the reason of `Ready`.
pub(super) fn summary(conditions: &[ApiCondition]) -> Option<String> {
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some(ready.reason.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn time(secs: i64) -> Time {
        Time(Timestamp::from_second(secs).unwrap())
    }

    fn wanted(kind: ConditionKind, status: Truth, reason: Reason, message: &str) -> Condition {
        Condition {
            kind,
            status,
            reason,
            message: message.to_owned(),
        }
    }

    #[test]
    fn the_transition_time_is_kept_until_the_status_flips() {
        let ready = |status, reason, message| vec![wanted(ConditionKind::Ready, status, reason, message)];
        let first = conditions(
            &[],
            ready(Truth::False, Reason::ReplicasLoading, "1 of 2"),
            Some(1),
            &time(10),
        );
        let second = conditions(
            &first,
            ready(Truth::False, Reason::ServersComing, "2 of 2"),
            Some(1),
            &time(20),
        );
        assert_eq!(
            second[0].last_transition_time,
            time(10),
            "the reason changed, the status did not"
        );
        assert_eq!(second[0].reason, "ServersComing");
        let third = conditions(&second, ready(Truth::True, Reason::OnTarget, ""), Some(2), &time(30));
        assert_eq!(
            (third[0].last_transition_time.clone(), third[0].observed_generation),
            (time(30), Some(2))
        );
        let fourth = conditions(&third, ready(Truth::True, Reason::OnTarget, ""), Some(2), &time(40));
        assert_eq!(fourth, third, "nothing changed, to the byte");
    }

    #[test]
    fn ready_is_there_from_the_first_time_and_the_abnormal_ones_only_while_true() {
        let seen = conditions(
            &[],
            vec![
                wanted(ConditionKind::Stalled, Truth::False, Reason::InvalidSpec, ""),
                wanted(ConditionKind::Reconciling, Truth::True, Reason::Starting, ""),
            ],
            Some(1),
            &time(1),
        );
        let names: Vec<_> = seen.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        assert_eq!(names, [("Ready", "Unknown"), ("Reconciling", "True")]);
    }
}
