//! A fixed number of servers, always on: what teams do that do not trust an autoscaler.
//!
//! The first `n` machines in the order of placement, from the start to the end. Knob: `n`.

use super::Rule;
use super::autoscaler::ceil;
use super::need::Need;
use crate::world::View;

pub(crate) struct StaticPeak {
    servers: u32,
}

impl StaticPeak {
    pub(crate) fn new(servers: f64) -> Self {
        Self { servers: ceil(servers) }
    }
}

impl Rule for StaticPeak {
    fn need(&mut self, view: &View<'_>) -> Need {
        Need::replicas(self.servers, view.groups)
    }

    fn reason(&self) -> String {
        format!("always {} servers", self.servers)
    }
}
