//! The planner's constants, each with its reason.

use crate::time::Span;

/// Percentiles and loads of engines are measured over so long.
pub(crate) const MEASURED_OVER: Span = Span::from_minutes(5);

/// Replicas are added when demand exceeds this share of what they sustain.
///
/// The sustainable rate already holds the objectives; the rest is for bursts within the minute that demand is measured
/// over, until the next replica serves.
pub(crate) const TARGET_UTILIZATION: f64 = 0.85;

/// A replica is taken out only if the rest is loaded below this share. The gap to [`TARGET_UTILIZATION`] is the
/// hysteresis: demand must rise by more than a tenth before what was taken out is needed again.
pub(crate) const SHRINK_UTILIZATION: f64 = 0.75;

/// Measurements older than this are unknown: eight scrapes of 15 s.
pub(crate) const MEASURE_MAX_AGE: Span = Span::from_minutes(2);

/// Fewer replicas must do for so long before an own one is taken out: it is back within its load time.
pub(crate) const HOLD_DOWN: Span = Span::from_minutes(5);

/// The same for a leased one: to want it back costs a lead time and a new minimum lease.
pub(crate) const HOLD_DOWN_HOSTED: Span = Span::from_minutes(10);

/// If replicas were wanted back within this time of a removal, nothing is taken out for as long after that: demand that wobbles around what fewer
/// sustain does so again, and each turn costs a load and a drain.
pub(crate) const WANTED_BACK: Span = Span::from_hours(1);

/// Between two voluntary removals of one pool, so that measurements show the effect of the first.
pub(crate) const REMOVAL_STEP: Span = Span::from_secs(30);

/// An objective must be missed for so long before the reactive rule adds to what the model says.
pub(crate) const REACT_AFTER: Span = Span::from_minutes(1);

/// After an addition the reactive rule waits: percentiles are measured over five minutes and still show the time before.
pub(crate) const REACT_COOLDOWN: Span = Span::from_minutes(5);

/// The reactive rule adds until there are so many times the replicas there were when the objective began to be missed, or
/// until the model sees so many times the demand carried. The model is believed within this factor: beyond it, something else
/// is wrong, and more of the same is no cure.
pub(crate) const REACT_MOST: u32 = 2;

/// Servers must be missing for so long before one is paid for: longer than a wrong sample or a burst stays in the shorter one of the two windows
/// that demand is measured over, and little beside a lead time and a lease.
pub(crate) const PURCHASE_DWELL: Span = Span::from_secs(90);

/// Lengths whose means and root mean squares differ by less from the remembered ones are the same: capacity differs by as much at most.
pub(crate) const LENGTHS_TOLERANCE: f64 = 0.1;

/// Fewer requests than this say nothing about a percentile.
pub(crate) const MIN_SAMPLES: u64 = 20;

/// While a measured percentile is above this share of its threshold, something is taken out only if the rest is certain to
/// stay below [`NO_COMFORT`].
pub(crate) const COMFORT: f64 = 0.8;

/// Nothing is taken out if a percentile would be above this share of its threshold then: what is measured now, and the
/// model for the difference. Some objectives are close to what an idle server does, and no number of servers changes that.
pub(crate) const NO_COMFORT: f64 = 0.95;

/// A model that predicts less than half of what is measured is not used to take capacity away. One that predicts more
/// errs on the safe side.
pub(crate) const MISPREDICTED: f64 = 2.0;

/// The plan ahead is doubted when objectives are missed for so long, and more often than it can explain: long enough for the plan to have
/// answered a surge of demand, and for its servers to have come from most groups.
pub(crate) const DISTRUST_AFTER: Span = Span::from_minutes(30);

/// So many times more often than the capacity curves say, as for [`MISPREDICTED`] …
pub(crate) const DISTRUST_FACTOR: f64 = 2.0;

/// … and so many times more often than the objective allows: below that, chance and buckets of histograms explain it.
pub(crate) const DISTRUST_LEAST: f64 = 3.0;

/// A server that the plan ahead gives up stays while the rest would be loaded beyond this share of saturation: from there on queues grow.
pub(crate) const OVERLOADED: f64 = 0.97;

/// After a refusal for want of machines a group is not asked for so long.
pub(crate) const OUT_OF_STOCK_HOLD_DOWN: Span = Span::from_minutes(10);

/// An unused server is given back after so long.
pub(crate) const SERVER_IDLE_HOLD_DOWN: Span = Span::from_minutes(5);

/// How long a drain usually takes: long answers stream for a minute or two. A paid lease serves until then; what the
/// drain takes longer is billed by the second.
pub(crate) const DRAIN_ESTIMATE: Span = Span::from_minutes(2);

/// What has to go and is held for longer than this needs people: the object says that it is stalled, and why.
pub(crate) const HELD_LIMIT: Span = Span::from_hours(1);

/// How long before its paid term ends the work of a leased server moves to an own one: load, then drain.
pub(crate) const RETURN_LEAD: Span = Span::from_minutes(5);

/// A site that does not answer is believed to serve on for so long, if nothing is measured to the contrary.
pub(crate) const LOST_GRACE: Span = Span::from_minutes(2);

/// Servers that were seen last in a group which cannot be looked at now (its provider does not list them, its spec is
/// broken, people paused it) are expected for so long, and not bought a second time elsewhere. More than a provider's API
/// is away for a roll-out, less than most servers take to come.
pub(crate) const EXPECTED_GRACE: Span = Span::from_minutes(10);

/// A Ready replica whose engine does not answer for so long is out of capacity: two looks of 15 s.
pub(crate) const SILENT_AFTER: Span = Span::from_secs(30);

/// What a replica may take to become ready beside three load times: an image is pulled, weights are fetched.
pub(crate) const START_ALLOWANCE: Span = Span::from_minutes(10);

/// What is burnt is compared with what is expected at so many times the measured rate: a burst is felt for some time after it.
pub(crate) const AFTER_BURST: f64 = 1.5;
