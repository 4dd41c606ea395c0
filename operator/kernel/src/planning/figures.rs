//! Figures for people: rounded, so that a status changes when something has changed.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::names::GroupName;
use crate::units::{Fraction, Rate};

/// `value` with two significant digits.
pub(crate) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    // Powers of ten as text and back: the nearest double to the figure, not to a product.
    format!("{value:.1e}").parse().unwrap_or(0.0)
}

/// `value` with two significant digits, as text: `5.3`, `12`, `0.042`, `120`.
pub(crate) fn two(value: f64) -> String {
    let rounded = round(value);
    if rounded == 0.0 {
        return "0".to_owned();
    }
    let magnitude = libm::log10(rounded.abs()).floor();
    if magnitude >= 1.0 {
        format!("{rounded:.0}")
    } else {
        // Between 1 and 12 decimals: smaller figures than that do not occur.
        let decimals = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
            .into_iter()
            .find(|&decimals| f64::from(decimals) >= 1.0 - magnitude)
            .unwrap_or(12);
        let decimals = usize::try_from(decimals).unwrap_or(12);
        format!("{rounded:.decimals$}")
    }
}

/// A rate for a status.
pub(crate) fn rate(rate: Rate) -> Rate {
    Rate::per_second(round(rate.as_per_second()))
}

/// A share for a status.
pub(crate) fn fraction(fraction: Fraction) -> Fraction {
    Fraction::new((fraction.get() * 100.0).round() / 100.0)
}

/// Groups that a message names: it stays short however many there are.
const NAMED: usize = 6;

/// Such as `12 replicas (8 cupertino-m2-ultra, 4 hosted-m4)`.
pub(crate) fn replicas(counts: &BTreeMap<GroupName, u32>) -> String {
    let total: u32 = counts.values().sum();
    let mut text = match total {
        0 => return "no replica".to_owned(),
        1 => "1 replica (".to_owned(),
        _ => format!("{total} replicas ("),
    };
    for (index, (group, count)) in counts.iter().filter(|(_, count)| **count > 0).enumerate() {
        if index == NAMED {
            text.push_str(", …");
            break;
        }
        let comma = if index > 0 { ", " } else { "" };
        let _ = write!(text, "{comma}{count} {group}");
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_two_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (5.31, "5.3"),
            (12.4, "12"),
            (123.0, "120"),
            (0.0423, "0.042"),
            (1.0, "1.0"),
            (9.97, "10"),
            (f64::NAN, "0"),
        ] {
            assert_eq!(two(value), text, "{value}");
        }
    }

    #[test]
    fn replicas_are_listed_by_group() {
        let counts = BTreeMap::from([("a".into(), 8), ("b".into(), 4)]);
        assert_eq!(replicas(&counts), "12 replicas (8 a, 4 b)");
        assert_eq!(replicas(&BTreeMap::from([("a".into(), 1)])), "1 replica (1 a)");
        assert_eq!(replicas(&BTreeMap::new()), "no replica");
    }
}
