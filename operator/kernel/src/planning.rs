//! From a snapshot to a plan.

use crate::plan::Plan;
use crate::snapshot::Snapshot;
use crate::time::Timestamp;

/// Plans what every site, group and pool needs right now.
pub fn plan(_snapshot: &Snapshot, _now: Timestamp) -> Plan {
    Plan::default()
}
