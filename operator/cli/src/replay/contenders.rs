//! Which policies are replayed, from their names.

use pomarium_kernel::strategy::envelope::SPEND;
use pomarium_sim::policy::pomarium::Ablation;
use pomarium_sim::policy::{BASELINES, Baseline};
use pomarium_sim::world::Scenario;

/// What a policy's name ends with in its lease-aware variant.
const LEASES: &str = "+leases";

/// One policy to replay.
#[derive(Clone, Copy)]
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    /// Lease-aware or not; both without.
    pub(crate) lease_aware: Option<bool>,
    /// The knob; swept without.
    pub(crate) knob: Option<f64>,
}

/// What kind of policy it is.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// A peer's rule.
    Peer(&'static Baseline),
    /// Pomarium's plan, whole or without an ingredient.
    Pomarium(Ablation),
    /// A schedule that knows the future.
    Optimum,
}

const WHOLE: Ablation = Ablation {
    forecast: false,
    leases: false,
    percentiles: false,
};

/// Pomarium, and what it is without one of its ingredients.
const POMARIUM: [(&str, Ablation); 4] = [
    ("pomarium", WHOLE),
    (
        "pomarium-without-forecast",
        Ablation {
            forecast: true,
            ..WHOLE
        },
    ),
    ("pomarium-without-leases", Ablation { leases: true, ..WHOLE }),
    (
        "pomarium-without-percentiles",
        Ablation {
            percentiles: true,
            ..WHOLE
        },
    ),
];

const OPTIMUM: &str = "optimum";

impl Contender {
    /// Its name on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Peer(baseline) => baseline.name,
            Kind::Pomarium(ablation) => POMARIUM
                .iter()
                .find(|(_, known)| *known == ablation)
                .map_or("pomarium", |(name, _)| name),
            Kind::Optimum => OPTIMUM,
        }
    }

    /// What its knob is.
    pub(crate) fn knob_name(&self) -> &'static str {
        match self.kind {
            Kind::Peer(baseline) => baseline.knob,
            Kind::Pomarium(_) => "share of the error budget that is planned to be spent",
            Kind::Optimum => "predicted burn over the error budget",
        }
    }

    /// The knob without any sweep.
    pub(crate) fn published(&self, scenario: &Scenario) -> f64 {
        match self.kind {
            Kind::Peer(baseline) => (baseline.published)(scenario),
            Kind::Pomarium(_) => SPEND,
            Kind::Optimum => 1.0,
        }
    }

    /// How many variants a sweep runs.
    pub(crate) fn variants(&self) -> usize {
        match (self.kind, self.lease_aware) {
            (Kind::Peer(baseline), None) => baseline.variants().len(),
            _ => 1,
        }
    }
}

/// All names, for `--help` and errors.
pub(crate) fn names() -> Vec<&'static str> {
    let ours = POMARIUM.iter().map(|(name, _)| *name);
    let peers = BASELINES.iter().map(|baseline| baseline.name);
    ours.chain(peers).chain([OPTIMUM]).collect()
}

/// The policies that `text` names, such as `all`, `hpa,wva` or `hpa+leases=2.5`.
pub(crate) fn parse(text: &str) -> Result<Vec<Contender>, String> {
    if text == "all" {
        let ours = bare(Kind::Pomarium(Ablation::default()));
        let peers = BASELINES.iter().map(|baseline| bare(Kind::Peer(baseline)));
        return Ok(std::iter::once(ours)
            .chain(peers)
            .chain([bare(Kind::Optimum)])
            .collect());
    }
    text.split(',').map(|name| one(name.trim())).collect()
}

fn bare(kind: Kind) -> Contender {
    Contender {
        kind,
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
    let ours = POMARIUM.iter().find(|(known, _)| *known == name);
    let peer = BASELINES.iter().find(|baseline| baseline.name == name);
    let kind = match (ours, peer) {
        (Some((_, ablation)), _) => Kind::Pomarium(*ablation),
        (None, Some(baseline)) => Kind::Peer(baseline),
        (None, None) if name == OPTIMUM => Kind::Optimum,
        (None, None) => {
            return Err(format!(
                "there is no policy {name:?}; there are all, {}",
                names().join(", ")
            ));
        }
    };
    let contender = bare(kind);
    if leases && !matches!(kind, Kind::Peer(baseline) if baseline.variants().contains(&true)) {
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
                contender.knob_name(),
                2.5
            )
        })
    });
    let knob = knob.transpose()?;
    Ok(Contender {
        // A knob without "+leases" is the plain rule with exactly that knob.
        lease_aware: (leases || knob.is_some()).then_some(leases),
        knob,
        ..contender
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_name_is_one_policy_and_no_two_are_the_same() {
        for name in names() {
            let [contender] = &parse(name).unwrap()[..] else {
                panic!("{name} is several")
            };
            assert_eq!(contender.name(), name);
        }
        for (index, (name, ablation)) in POMARIUM.iter().enumerate() {
            assert!(POMARIUM[..index].iter().all(|(_, other)| other != ablation), "{name}");
        }
    }
}
