//! The Kubernetes Horizontal Pod Autoscaler on concurrency.
//!
//! `desired = ceil(current · metric / target)` with the metric *requests in flight per replica*, which is
//! `ceil(in flight / target)`; nothing is done within the tolerance of 0.1 around the target. Sync period 15 s; growing at
//! most by the larger of 100 % and 4 Pods per 15 s, shrinking after a stabilisation of 300 s: the defaults of
//! `autoscaling/v2` (Kubernetes documentation, "Horizontal Pod Autoscaling").
//!
//! The gauge is averaged over a minute, as metrics adapters commonly do: on the bare gauge it would chase single requests.
//! Knob: the target.

use super::Rule;
use super::autoscaler::{Autoscaler, Scaling, ceil};
use super::need::{Need, least, most};
use crate::world::View;

const TOLERANCE: f64 = 0.1;
const METRIC_SECONDS: f64 = 60.0;

pub(crate) struct Hpa {
    target: f64,
    autoscaler: Autoscaler,
    in_flight: f64,
}

impl Hpa {
    pub(crate) fn new(target: f64) -> Self {
        let up = Scaling {
            stabilisation_ms: 0,
            share: 1.0,
            pods: 4,
            period_ms: 15_000,
        };
        let down = Scaling {
            stabilisation_ms: 300_000,
            share: 1.0,
            pods: 0,
            period_ms: 15_000,
        };
        Self {
            target,
            autoscaler: Autoscaler::new(up, down),
            in_flight: 0.0,
        }
    }
}

impl Rule for Hpa {
    fn need(&mut self, view: &View<'_>) -> Need {
        self.autoscaler.bound(least(view.groups), most(view.groups));
        // Without metrics it does nothing.
        if let Some(window) = view.scrapes.window(METRIC_SECONDS) {
            self.in_flight = window.in_flight;
            let current = self.autoscaler.replicas();
            let ratio = self.in_flight / (f64::from(current) * self.target);
            let desired = if (ratio - 1.0).abs() <= TOLERANCE {
                current
            } else {
                ceil(self.in_flight / self.target)
            };
            self.autoscaler.sync(view.now_ms, desired);
        }
        Need::replicas(self.autoscaler.replicas(), view.groups)
    }

    fn reason(&self) -> String {
        let (in_flight, target, replicas) = (self.in_flight, self.target, self.autoscaler.replicas());
        format!("{in_flight:.1} requests in flight at a target of {target:.1} per replica: {replicas} replicas")
    }
}
