//! One currency per hub: sums and budgets would be meaningless otherwise.

use std::fmt;

use kube::ResourceExt;
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::units::Money;

use crate::group::ServerGroup;
use crate::pool::ServerPool;
use crate::site::ServerSite;

/// An ISO 4217 code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Currency(String);

impl Currency {
    /// The code, such as `USD`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What amounts without a currency are in.
impl Default for Currency {
    fn default() -> Self {
        Self("USD".to_owned())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The one currency of all amounts. An amount of zero that names no currency has none.
///
/// # Errors
///
/// Names two fields that disagree.
pub fn one_currency<'a>(
    sites: impl IntoIterator<Item = &'a ServerSite>,
    groups: impl IntoIterator<Item = &'a ServerGroup>,
    pools: impl IntoIterator<Item = &'a ServerPool>,
) -> Result<Currency, Problem> {
    let sites = sites.into_iter().filter_map(|site| {
        let energy = site.spec.energy.as_ref()?;
        let code = stated(energy.currency.as_deref(), energy.price_per_kwh.as_deref())?;
        Some((format!("ServerSite {} spec.energy.currency", site.name_any()), code))
    });
    let groups = groups.into_iter().filter_map(|group| {
        let pricing = group.spec.pricing.as_ref()?;
        let code = stated(pricing.currency.as_deref(), Some(&pricing.hourly))?;
        Some((format!("ServerGroup {} spec.pricing.currency", group.name_any()), code))
    });
    let pools = pools.into_iter().filter_map(|pool| {
        let budget = pool.spec.budget.as_ref()?;
        let code = stated(budget.currency.as_deref(), Some(&budget.amount))?;
        let namespace = pool.namespace().unwrap_or_default();
        Some((
            format!("ServerPool {namespace}/{} spec.budget.currency", pool.name_any()),
            code,
        ))
    });

    let mut stated = sites.chain(groups).chain(pools);
    let Some((first_field, first)) = stated.next() else {
        return Ok(Currency::default());
    };
    match stated.find(|(_, code)| *code != first) {
        None => Ok(Currency(first)),
        Some((field, code)) => Err(Problem::new(
            Reason::InvalidSpec,
            format!("{field} is {code}, but {first_field} is {first}; allowed: one currency for the whole hub"),
        )),
    }
}

/// The currency that an amount is in, if it says or matters.
fn stated(currency: Option<&str>, amount: Option<&str>) -> Option<String> {
    let nothing = amount.is_none_or(|amount| amount.parse() == Ok(Money::ZERO));
    match currency {
        Some(code) => Some(code.to_owned()),
        None if nothing => None,
        None => Some(Currency::default().0),
    }
}
