//! Figures for people: rounded, so that a status changes when something has changed.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::names::GroupName;
use crate::units::{Fraction, Rate};

/// Two significant digits and a power of ten, such as `4.2e-2`. Thousands of them are written in every pass: without the heap.
#[derive(Default)]
struct Digits {
    text: [u8; 16],
    length: usize,
}

impl Write for Digits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let room = self.text.get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl Digits {
    fn of(value: f64) -> Self {
        let mut digits = Self::default();
        // The longest is `-1.8e-308`.
        let _ = write!(digits, "{value:.1e}");
        digits
    }

    fn as_str(&self) -> &str {
        let text = self.text.get(..self.length).unwrap_or_default();
        str::from_utf8(text).unwrap_or_default()
    }

    /// First digit, second digit, power of ten; `None` if it is negative.
    fn parts(&self) -> Option<(char, char, i32)> {
        let (digits, power) = self.as_str().split_once('e')?;
        let mut digits = digits.chars();
        let (Some(first), Some('.'), Some(second)) = (digits.next(), digits.next(), digits.next()) else {
            return None;
        };
        Some((first, second, power.parse().ok()?))
    }
}

/// `value` with two significant digits.
pub(crate) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    // Powers of ten as text and back: the nearest double to the figure, not to a product.
    Digits::of(value).as_str().parse().unwrap_or(0.0)
}

/// `value` with two significant digits, as text: `5.3`, `12`, `0.042`, `120`.
pub(crate) fn two(value: f64) -> String {
    let zeros = |count: i32| std::iter::repeat_n('0', usize::try_from(count).unwrap_or(0));
    match Digits::of(value).parts().filter(|_| value != 0.0) {
        Some((first, second, power @ 1..=15)) => [first, second].into_iter().chain(zeros(power - 1)).collect(),
        Some((first, second, 0)) => [first, '.', second].into_iter().collect(),
        Some((first, second, power @ -11..0)) => {
            let leading = "0.".chars().chain(zeros(-power - 1));
            leading.chain([first, second]).collect()
        }
        _ => written(value),
    }
}

/// The same for any value.
fn written(value: f64) -> String {
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
    // Mostly enough for all of it.
    let mut text = String::with_capacity(96);
    let _ = match total {
        0 => return "no replica".to_owned(),
        1 => text.write_str("1 replica ("),
        _ => write!(text, "{total} replicas ("),
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn figures_are_the_same_with_and_without_the_heap(digits in -1e3..1e3_f64, power in -20..24_i32) {
            for value in [digits * libm::pow(10.0, f64::from(power)), libm::pow(10.0, f64::from(power)), digits.round()] {
                prop_assert_eq!(two(value), written(value), "{}", value);
            }
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
