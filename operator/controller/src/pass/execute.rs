//! Builds, applies and reports what a pass has planned: the second half of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;

use super::{Execute, Pass, Tally};
use crate::apply::{Applier, Hands};
use crate::build::{self, Context};
use crate::events::Events;
use crate::member::Hub;
use crate::status::{self, Done, Said, StatusWriter};

/// The real thing.
pub(crate) struct Executor {
    hub: Hub,
    applier: Applier,
    events: Events,
    statuses: StatusWriter,
}

impl Executor {
    /// Acts with `hands`; events name `identity`.
    pub(crate) fn new(hands: Hands, identity: String) -> Self {
        Self {
            events: Events::new(&hands.hub, identity),
            hub: hands.hub.clone(),
            applier: Applier::new(hands),
            statuses: StatusWriter::default(),
        }
    }
}

impl Execute for Executor {
    async fn execute(&mut self, pass: Pass) -> Vec<Tally> {
        let Pass {
            now,
            world,
            snapshot,
            plan,
        } = pass;
        let context = Context {
            hub_uid: &self.hub.uid,
            namespace: &self.hub.namespace,
            currency: &world.currency,
            now,
        };
        let effects = build::effects(&plan, &snapshot, &world, &context);
        let applied = self.applier.apply(effects).await;
        let done = Done::new(&applied);
        let statuses = status::statuses(&Said {
            plan: &plan,
            snapshot: &snapshot,
            world: &world,
            done: &done,
            currency: &world.currency,
            now,
            clock: Time(jiff::Timestamp::now()),
        });
        let written = self.statuses.write(&self.hub, &statuses, &world).await;
        self.events.publish(&plan, &world).await;

        let tally = |kind, outcome| Tally { kind, outcome };
        let mut tallies: Vec<Tally> = applied
            .iter()
            .map(|applied| tally(applied.effect.name(), applied.outcome.name()))
            .collect();
        tallies.extend((0..written.done).map(|_| tally("WriteStatus", "done")));
        tallies.extend((0..written.failed).map(|_| tally("WriteStatus", "failed")));
        tallies
    }
}
