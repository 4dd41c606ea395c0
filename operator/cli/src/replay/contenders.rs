//! Which policies are replayed, from their names.

use pomarium_sim::policy::{BASELINES, Baseline};
use pomarium_sim::world::{Policy, Scenario};

/// What a policy's name ends with in its lease-aware variant.
const LEASES: &str = "+leases";

/// One policy to replay.
#[derive(Clone, Copy)]
pub(crate) struct Contender {
    pub(crate) baseline: &'static Baseline,
    /// Lease-aware or not; both without.
    pub(crate) lease_aware: Option<bool>,
    /// The knob; swept without.
    pub(crate) knob: Option<f64>,
}

impl Contender {
    /// The policy with its knob at `knob`.
    pub(crate) fn build(&self, lease_aware: bool, knob: f64, scenario: &Scenario) -> Box<dyn Policy> {
        self.baseline.build(lease_aware, knob, scenario)
    }
}

/// All names, for `--help` and errors.
pub(crate) fn names() -> Vec<&'static str> {
    BASELINES.iter().map(|baseline| baseline.name).collect()
}

/// The policies that `text` names, such as `all`, `hpa,wva` or `hpa+leases=2.5`.
pub(crate) fn parse(text: &str) -> Result<Vec<Contender>, String> {
    if text == "all" {
        return Ok(BASELINES.iter().map(plain).collect());
    }
    text.split(',').map(|name| one(name.trim())).collect()
}

fn plain(baseline: &'static Baseline) -> Contender {
    Contender {
        baseline,
        lease_aware: None,
        knob: None,
    }
}

fn one(text: &str) -> Result<Contender, String> {
    let (name, knob) = match text.split_once('=') {
        Some((name, knob)) => (name, Some(knob)),
        None => (text, None),
    };
    let (name, leases) = match name.strip_suffix(LEASES) {
        Some(name) => (name, true),
        None => (name, false),
    };
    let Some(baseline) = BASELINES.iter().find(|baseline| baseline.name == name) else {
        return Err(format!(
            "there is no policy {name:?}; there are all, {}",
            names().join(", ")
        ));
    };
    if leases && !baseline.variants().contains(&true) {
        return Err(format!("{name}{LEASES}: {name} has no lease-aware variant"));
    }
    let knob = knob.map(|knob| {
        let number = knob
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite() && *number > 0.0);
        number.ok_or_else(|| {
            format!(
                "{name}={knob}: the knob ({}) is a number above 0, such as {name}={:?}",
                baseline.knob, 2.5
            )
        })
    });
    let knob = knob.transpose()?;
    Ok(Contender {
        // A knob without "+leases" is the plain rule with exactly that knob.
        lease_aware: (leases || knob.is_some()).then_some(leases),
        knob,
        ..plain(baseline)
    })
}
