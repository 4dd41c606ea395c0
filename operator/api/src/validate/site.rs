//! `ServerSite` → [`Site`].

use std::collections::BTreeSet;

use pomarium_kernel::names::Jurisdiction;
use pomarium_kernel::reason::Problem;
use pomarium_kernel::snapshot::{Contact, Energy, Maintenance, Ownership, Site, Trust, Use};
use pomarium_kernel::units::Money;

use super::{Reading, invalid, money, number, paused};
use crate::site::{self, ServerSite};

/// The site, with its defaults filled in.
pub fn site(object: &ServerSite, contact: Contact) -> Result<Site, Problem> {
    let site = site_as_known(object, contact);
    match site.problem {
        None => Ok(site),
        Some(problem) => Err(problem),
    }
}

/// The site as far as its spec can be used. `problem` says what cannot; nothing is done at such a site, but what runs
/// there counts.
pub fn site_as_known(object: &ServerSite, contact: Contact) -> Site {
    let spec = &object.spec;
    let mut reading = Reading::default();
    reading.or(connection(spec), ());
    let energy = reading.or(spec.energy.as_ref().map_or(Ok(FREE), energy), FREE);
    let ownership = match spec.ownership {
        site::Ownership::Owned => Ownership::Owned,
        site::Ownership::Managed => Ownership::Managed,
        site::Ownership::Hosted => Ownership::Hosted,
    };
    Site {
        ownership,
        residency: jurisdictions(&spec.residency),
        trust: spec.trust.map_or(Trust::None, trust),
        permitted_use: match (spec.permitted_use, ownership) {
            (Some(site::PermittedUse::Production), _) | (None, Ownership::Owned | Ownership::Managed) => {
                Use::Production
            }
            (Some(site::PermittedUse::DevelopmentOnly), _) | (None, Ownership::Hosted) => Use::DevelopmentOnly,
        },
        energy,
        maintenance: match spec.maintenance.unwrap_or_default() {
            site::Maintenance::Active => Maintenance::Active,
            site::Maintenance::Cordoned => Maintenance::Cordoned,
            site::Maintenance::Draining => Maintenance::Draining,
        },
        contact,
        problem: reading.problem,
        paused: paused(object),
    }
}

fn connection(spec: &site::ServerSiteSpec) -> Result<(), Problem> {
    let connection = &spec.connection;
    if connection.local.is_some() == connection.kubeconfig_secret_ref.is_some() {
        let found = if connection.local.is_some() { "both" } else { "none" };
        return Err(invalid(
            "spec.connection",
            found,
            "exactly one of local and kubeconfigSecretRef",
        ));
    }
    Ok(())
}

const FREE: Energy = Energy {
    price_per_kwh: Money::ZERO,
    pue: 1.0,
    power_limit_watts: None,
};

fn energy(energy: &site::Energy) -> Result<Energy, Problem> {
    let price_per_kwh = match &energy.price_per_kwh {
        Some(price) => money("spec.energy.pricePerKwh", price)?,
        None => FREE.price_per_kwh,
    };
    let pue = match &energy.pue {
        Some(text) => {
            let pue = number("spec.energy.pue", text)?;
            if pue < 1.0 {
                return Err(invalid(
                    "spec.energy.pue",
                    text,
                    "a decimal number from 1 on, such as 1.2",
                ));
            }
            pue
        }
        None => FREE.pue,
    };
    let power_limit_watts = match energy.power_limit_watts {
        Some(watts) if watts < 1 => {
            return Err(invalid(
                "spec.energy.powerLimitWatts",
                watts,
                "a whole number from 1 on",
            ));
        }
        watts => watts.map(|watts| watts as f64),
    };
    Ok(Energy {
        price_per_kwh,
        pue,
        power_limit_watts,
    })
}

pub(super) fn trust(trust: site::Trust) -> Trust {
    match trust {
        site::Trust::None => Trust::None,
        site::Trust::Verified => Trust::Verified,
        site::Trust::Attested => Trust::Attested,
    }
}

pub(super) fn jurisdictions(names: &[String]) -> BTreeSet<Jurisdiction> {
    names.iter().map(|name| Jurisdiction::from(name.as_str())).collect()
}
