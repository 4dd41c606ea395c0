//! Ways to have less of a server.

use super::Unit;
use super::grid::{Grid, Term};

/// Courses of a server that pay for less than `terms`, the boldest first.
pub(super) fn shorter(grid: &Grid, class: usize, unit: Unit, terms: &[Term]) -> Vec<Vec<Term>> {
    let mut found = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        let with = |term: Option<Term>| {
            let mut terms = terms.to_vec();
            match term {
                Some(term) => terms[index] = term,
                None => drop(terms.remove(index)),
            }
            terms
        };
        let earliest = match (term.given, unit) {
            (true, Unit::Fixed { .. }) => continue,
            (true, _) => grid.given(unit).map_or(0, |given| given.to()),
            (false, _) => {
                found.push(with(None));
                grid.leased(class, term.from).to()
            }
        };
        // Half of what is too much, then half of that.
        let mut to = earliest;
        while to < term.to() {
            found.push(with(Some(term.until(to))));
            to += (term.to() - to).div_ceil(2);
        }
        if term.given {
            continue;
        }
        let mut from = term.from;
        let latest = (term.from + 1..grid.slots)
            .take_while(|&from| {
                let later = grid.leased(class, from);
                later.serves.first < term.to() && later.to() <= term.to()
            })
            .last()
            .unwrap_or(term.from);
        let mut starts = Vec::new();
        while from < latest {
            from += (latest - from).div_ceil(2);
            starts.push(from);
        }
        starts.reverse();
        if latest > term.from {
            starts.push(term.from + 1);
        }
        starts.dedup();
        for from in starts {
            found.push(with(Some(grid.leased(class, from).until(term.to()))));
        }
    }
    found
}
