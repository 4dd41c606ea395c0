//! The peers' rules, re-implemented with their published constants, to compare with.
//!
//! # Layout
//! Each rule is one file that implements [`Rule`], and one line in [`BASELINES`]. A rule only says how much it needs;
//! `actuator` buys, for all of them alike, and `need` says how a peer's count of equal replicas maps to unequal machines.
//! `autoscaler` is the behaviour of the Kubernetes autoscaler that three of them act through.
//!
//! Each has one knob that trades cost for latency, and two variants: *plain*, which gives a machine back as soon as the rule
//! wants fewer and pays out its minimum lease, and *lease-aware*, which keeps a leased machine serving until its paid term
//! ends, because it costs nothing more. None of the peers does the latter; without it they would pay a day for every flap.
//!
//! All but the static one never go below the machines that have no hourly price, as their users would set `minReplicas`.

mod actuator;
mod autoscaler;
mod dynamo;
mod hpa;
mod keda_slo;
mod need;
pub mod optimum;
pub mod pomarium;
mod skyserve;
mod static_peak;
mod work;
mod wva;

use crate::world::{Policy, Scenario, View};

use actuator::Actuator;
use need::Need;

/// A peer's rule: how much it needs, at every tick.
pub(crate) trait Rule: Send {
    /// What it needs now.
    fn need(&mut self, view: &View<'_>) -> Need;

    /// Why, in its own figures.
    fn reason(&self) -> String;
}

/// A rule to compare with.
#[derive(Clone, Copy)]
pub struct Baseline {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What its knob is.
    pub knob: &'static str,
    /// The knob that its authors publish, or the nearest thing to it.
    pub published: fn(&Scenario) -> f64,
    /// Values of the knob to sweep, in ascending order.
    knobs: fn(&Scenario) -> Vec<f64>,
    /// The knob is a fixed number of servers: whole, and never given back.
    pub whole: bool,
    rule: fn(&Scenario, f64) -> Box<dyn Rule>,
}

/// All of them, in the order of the reports.
pub const BASELINES: [Baseline; 6] = [
    Baseline {
        name: "hpa",
        knob: "requests in flight per replica",
        published: |_| 4.0,
        knobs: |_| geometric(1.0, 32.0, 11),
        whole: false,
        rule: |_, knob| Box::new(hpa::Hpa::new(knob)),
    },
    Baseline {
        name: "keda-slo",
        knob: "scale of the objectives' thresholds",
        published: |_| 1.0,
        knobs: |_| geometric(0.2, 4.0, 11),
        whole: false,
        rule: |scenario, knob| Box::new(keda_slo::KedaSlo::new(&scenario.objectives, knob)),
    },
    Baseline {
        name: "wva",
        knob: "target utilisation of the model's capacity",
        published: |_| 1.0,
        knobs: |_| geometric(0.25, 2.5, 11),
        whole: false,
        rule: |scenario, knob| Box::new(wva::Wva::new(&scenario.objectives, knob)),
    },
    Baseline {
        name: "dynamo",
        knob: "factor on the predicted load",
        published: |_| 1.0,
        knobs: |_| geometric(0.4, 4.0, 11),
        whole: false,
        rule: |scenario, knob| Box::new(dynamo::Dynamo::new(&scenario.objectives, knob)),
    },
    Baseline {
        name: "skyserve",
        knob: "requests per second per replica of the first group",
        published: skyserve::saturation,
        knobs: skyserve::knobs,
        whole: false,
        rule: |scenario, knob| Box::new(skyserve::SkyServe::new(scenario, knob)),
    },
    Baseline {
        name: "static-peak",
        knob: "servers",
        published: |scenario| f64::from(need::most(&scenario.groups)),
        knobs: |scenario| (1..=need::most(&scenario.groups)).map(f64::from).collect(),
        whole: true,
        rule: |_, knob| Box::new(static_peak::StaticPeak::new(knob)),
    },
];

/// The baseline of this name.
pub fn baseline(name: &str) -> Option<&'static Baseline> {
    BASELINES.iter().find(|baseline| baseline.name == name)
}

/// The baseline called `name` with its knob at `knob`; `None` if there is none of that name.
pub fn build(name: &str, lease_aware: bool, knob: f64, scenario: &Scenario) -> Option<Box<dyn Policy>> {
    baseline(name).map(|baseline| baseline.build(lease_aware, knob, scenario))
}

impl Baseline {
    /// Values of the knob to sweep, in ascending order; [`crate::sweep`] looks between them where it matters.
    pub fn knobs(&self, scenario: &Scenario) -> Vec<f64> {
        (self.knobs)(scenario)
    }

    /// The variants that differ, as `lease_aware`: a rule that never gives anything back has only one.
    pub fn variants(&self) -> &'static [bool] {
        if self.whole { &[false] } else { &[false, true] }
    }

    /// The policy, with its knob at `knob`.
    pub fn build(&self, lease_aware: bool, knob: f64, scenario: &Scenario) -> Box<dyn Policy> {
        Box::new(Actuator::new(self.name, (self.rule)(scenario, knob), lease_aware))
    }
}

/// `count` values from `low` to `high`, each the same factor above the one before.
fn geometric(low: f64, high: f64, count: u32) -> Vec<f64> {
    let step = (high / low).powf(1.0 / f64::from(count.max(2) - 1));
    (0..count).map(|index| low * step.powf(f64::from(index))).collect()
}
