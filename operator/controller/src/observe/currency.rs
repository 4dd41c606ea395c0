//! One currency per hub: amounts in different ones cannot be compared or added.

use pomarium_api::group::ServerGroup;
use pomarium_api::pool::ServerPool;
use pomarium_api::site::ServerSite;
use pomarium_api::validate::{Currency, one_currency};
use pomarium_kernel::names::{GroupName, PoolId, SiteName};
use pomarium_kernel::reason::Problem;

use crate::world::{Invalid, World};

/// An object that may state a currency.
#[derive(Clone, Copy)]
enum Priced<'a> {
    Site(&'a SiteName, &'a ServerSite),
    Group(&'a GroupName, &'a ServerGroup),
    Pool(&'a PoolId, &'a ServerPool),
}

fn check_all(objects: &[Priced<'_>]) -> Result<Currency, Problem> {
    let sites = objects.iter().filter_map(|object| match object {
        Priced::Site(_, site) => Some(*site),
        _ => None,
    });
    let groups = objects.iter().filter_map(|object| match object {
        Priced::Group(_, group) => Some(*group),
        _ => None,
    });
    let pools = objects.iter().filter_map(|object| match object {
        Priced::Pool(_, pool) => Some(*pool),
        _ => None,
    });
    one_currency(sites, groups, pools)
}

/// The hub's currency, and the objects that state another one than the first object that states any.
pub(super) fn check(world: &World) -> (String, Invalid) {
    let mut objects: Vec<Priced<'_>> = Vec::new();
    objects.extend(world.sites.iter().map(|(name, seen)| Priced::Site(name, &seen.object)));
    objects.extend(world.groups.iter().map(|(name, group)| Priced::Group(name, group)));
    objects.extend(world.pools.iter().map(|(id, pool)| Priced::Pool(id, pool)));
    if let Ok(currency) = check_all(&objects) {
        return (currency.as_str().to_owned(), Invalid::default());
    }

    // The shortest list that disagrees ends with the first offender; the first to disagree with it set the currency.
    let (mut agreeing, mut disagreeing) = (0, objects.len());
    while disagreeing - agreeing > 1 {
        let middle = usize::midpoint(agreeing, disagreeing);
        if check_all(&objects[..middle]).is_ok() {
            agreeing = middle;
        } else {
            disagreeing = middle;
        }
    }
    let offender = objects[disagreeing - 1];
    let Some(first) = objects[..disagreeing - 1]
        .iter()
        .find(|object| check_all(&[**object, offender]).is_err())
    else {
        return (Currency::default().as_str().to_owned(), Invalid::default());
    };
    let currency = check_all(&[*first]).unwrap_or_default();
    let mut invalid = Invalid::default();
    for object in &objects {
        let Err(problem) = check_all(&[*first, *object]) else {
            continue;
        };
        match *object {
            Priced::Site(name, _) => drop(invalid.sites.insert(name.clone(), problem)),
            Priced::Group(name, _) => drop(invalid.groups.insert(name.clone(), problem)),
            Priced::Pool(id, _) => drop(invalid.pools.insert(id.clone(), problem)),
        }
    }
    (currency.as_str().to_owned(), invalid)
}
