//! Kubernetes events: once per decision.
//!
//! A decision stands from the pass that makes it until a pass does not make it any more; it is published once in that
//! time. Publishing never fails a pass: an event is a courtesy.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use pomarium_kernel::names::PoolId;
use pomarium_kernel::plan::{Action, Decision, Plan};
use pomarium_kernel::reason::{Problem, Reason};

use crate::member::Hub;
use crate::world::World;

/// Longest note that the API accepts.
const LONGEST_NOTE: usize = 1_000;
/// Events published in one pass at most: a mass move must not flood the API server.
const MOST: usize = 50;
/// An event that takes longer is not worth waiting for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Publishes decisions as events.
pub struct Events {
    recorder: Recorder,
    standing: BTreeSet<String>,
}

impl Events {
    /// Publishes in the hub, as `instance`.
    pub fn new(hub: &Hub, instance: String) -> Self {
        let reporter = Reporter {
            controller: "pomarium.dev/controller".to_owned(),
            instance: Some(instance),
        };
        Self {
            recorder: Recorder::new(hub.write.clone(), reporter),
            standing: BTreeSet::new(),
        }
    }

    /// Publishes what `plan` decides and the pass before did not.
    pub async fn publish(&mut self, plan: &Plan, world: &World) {
        for (event, reference) in self.news(plan, world) {
            let published = tokio::time::timeout(PATIENCE, self.recorder.publish(&event, &reference)).await;
            match published {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an event was not published"),
                // The others would wait as long.
                Err(_) => return,
            }
        }
    }

    fn news(&mut self, plan: &Plan, world: &World) -> Vec<(Event, ObjectReference)> {
        let mut news: Vec<_> = plan
            .decisions
            .iter()
            .filter(|decision| !self.standing.contains(&key(decision)))
            .filter_map(|decision| Some((event(decision), subject(&decision.action, world)?)))
            .take(MOST)
            .collect();
        for (id, problem) in &world.unreadable {
            let reference = world.pools.get(id).map(|object| object.object_ref(&()));
            if let Some(reference) = reference.filter(|_| !self.standing.contains(&lost_key(id))) {
                news.push((lost(problem), reference));
            }
        }
        self.standing = plan.decisions.iter().map(key).collect();
        self.standing.extend(world.unreadable.keys().map(lost_key));
        news
    }
}

/// What makes two decisions the same one: figures in the message and deadlines do not.
fn key(decision: &Decision) -> String {
    let (name, target) = name(&decision.action);
    format!("{name} {target} {}", decision.reason)
}

/// The same for a past of which something cannot be read.
fn lost_key(pool: &PoolId) -> String {
    format!("Remember {pool} {}", Reason::HistoryUnreadable)
}

fn lost(problem: &Problem) -> Event {
    Event {
        type_: EventType::Warning,
        reason: problem.reason.as_str().to_owned(),
        note: Some(note(problem.message.clone())),
        action: "Remember".to_owned(),
        secondary: None,
    }
}

fn note(mut text: String) -> String {
    while text.len() > LONGEST_NOTE {
        text.pop();
    }
    text
}

fn event(decision: &Decision) -> Event {
    let (name, target) = name(&decision.action);
    let note = note(format!("{target}: {}", decision.message));
    let alarming = matches!(
        decision.reason,
        Reason::ReplicaLost
            | Reason::DeadlineCut
            | Reason::DeadlineKept
            | Reason::LeaseLate
            | Reason::NoLongerPermitted
    );
    Event {
        type_: if alarming {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: decision.reason.as_str().to_owned(),
        note: Some(note),
        action: name.to_owned(),
        secondary: Some(related(&decision.action)),
    }
}

/// The server or replica that is acted upon. Without it the recorder takes decisions about several of them for one that
/// repeats, and keeps the first one's note.
fn related(action: &Action) -> ObjectReference {
    let (kind, namespace, name) = match action {
        Action::RequestServer { server, .. }
        | Action::DrainServer { server, .. }
        | Action::UndrainServer { server, .. }
        | Action::ReleaseServer { server, .. }
        | Action::StartReplica { server, .. } => ("Node", None, server.to_string()),
        Action::OpenReplica { pool, replica }
        | Action::DrainReplica { pool, replica, .. }
        | Action::RemoveReplica { pool, replica, .. } => ("Pod", Some(&pool.namespace), replica.name.to_string()),
    };
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        namespace: namespace.cloned(),
        name: Some(name),
        ..ObjectReference::default()
    }
}

/// What an action is called, and what it is done to.
pub(crate) fn name(action: &Action) -> (&'static str, String) {
    match action {
        Action::RequestServer { server, .. } => ("RequestServer", server.to_string()),
        Action::DrainServer { server, .. } => ("DrainServer", server.to_string()),
        Action::UndrainServer { server, .. } => ("UndrainServer", server.to_string()),
        Action::ReleaseServer { server, .. } => ("ReleaseServer", server.to_string()),
        Action::StartReplica { server, .. } => ("StartReplica", server.to_string()),
        Action::OpenReplica { replica, .. } => ("OpenReplica", replica.to_string()),
        Action::DrainReplica { replica, step, .. } => ("DrainReplica", format!("{replica} ({step:?})")),
        Action::RemoveReplica { replica, .. } => ("RemoveReplica", replica.to_string()),
    }
}

/// The object that people look at when they ask why.
fn subject(action: &Action, world: &World) -> Option<ObjectReference> {
    match action {
        Action::RequestServer { group, .. }
        | Action::DrainServer { group, .. }
        | Action::UndrainServer { group, .. }
        | Action::ReleaseServer { group, .. } => Some(world.groups.get(group)?.object_ref(&())),
        Action::StartReplica { pool, .. }
        | Action::OpenReplica { pool, .. }
        | Action::DrainReplica { pool, .. }
        | Action::RemoveReplica { pool, .. } => Some(world.pools.get(pool)?.object_ref(&())),
    }
}

#[cfg(test)]
mod tests {
    use pomarium_kernel::names::{GroupName, ServerName};
    use pomarium_kernel::plan::Verdict;

    use super::*;
    use crate::fixture::{chat, empty_client, hub, world};

    fn decision(server: &str, message: &str) -> Decision {
        Decision {
            action: Action::RequestServer {
                group: GroupName::from("hosted"),
                server: ServerName::from(server),
            },
            reason: Reason::ServersNeeded,
            message: message.to_owned(),
            verdict: Verdict::Act,
            rejected: Vec::new(),
        }
    }

    fn plan(decisions: &[Decision]) -> Plan {
        Plan {
            decisions: decisions.to_vec(),
            ..Plan::default()
        }
    }

    #[tokio::test]
    async fn a_decision_is_published_once_while_it_stands() {
        let world = world();
        let hub = hub(&empty_client());
        let mut events = Events::new(&hub, "one".to_owned());
        let mut published = |decisions: &[Decision]| events.news(&plan(decisions), &world).len();

        assert_eq!(published(&[decision("hosted-0", "5.0 requests/s")]), 1);
        assert_eq!(published(&[decision("hosted-0", "5.1 requests/s")]), 0, "it stands");
        assert_eq!(
            published(&[decision("hosted-0", "5.1 requests/s"), decision("hosted-1", "")]),
            1,
            "another one"
        );
        let related = |server: &str| event(&decision(server, "")).secondary;
        assert_ne!(
            related("hosted-0"),
            related("hosted-1"),
            "told apart by the recorder too"
        );
        assert_eq!(published(&[]), 0);
        assert_eq!(published(&[decision("hosted-0", "again")]), 1, "made anew");

        let problem = Problem::new(Reason::HistoryUnreadable, "history: damaged");
        let forgetful = World {
            unreadable: [(chat(), problem)].into(),
            ..world
        };
        let mut told = || events.news(&plan(&[]), &forgetful).len();
        assert_eq!((told(), told()), (1, 0), "what cannot be read is said once, too");
    }
}
