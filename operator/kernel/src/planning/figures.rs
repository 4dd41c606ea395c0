//! Figures for people: rounded, so that a status changes when something has changed.

use std::collections::BTreeMap;

use crate::names::GroupName;
use crate::units::{Fraction, Rate};

/// Powers of ten that are exact.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// So near to the middle between two figures, what arithmetic says is not to be trusted.
const NEAR_TIE: f64 = 1e-6;

/// A positive number of two significant digits: `digits` × 10^(`power` − 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figure {
    /// From 10 to 99.
    digits: u32,
    power: i32,
}

impl Figure {
    /// The nearest one, if it is known without writing `value` out: it is not too large or too small, and in no doubt. Thousands are written in
    /// every pass.
    fn of(value: f64) -> Option<Self> {
        if !(1e-11..1e15).contains(&value) {
            return None;
        }
        let (scaled, power) = if value >= 1.0 {
            let power = POWERS.partition_point(|power| *power <= value).max(1) - 1;
            (value / POWERS[power] * 10.0, i32::try_from(power).ok()?)
        } else {
            let power = POWERS.partition_point(|power| value * power < 1.0);
            (value * POWERS[power] * 10.0, -i32::try_from(power).ok()?)
        };
        let whole = scaled.floor();
        if (scaled - whole - 0.5).abs() < NEAR_TIE {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 9 to 100")]
        let digits = scaled.round() as u32;
        Some(match digits {
            10..=99 => Self { digits, power },
            100 => Self {
                digits: 10,
                power: power + 1,
            },
            _ => return None,
        })
    }

    /// The double next to it: one operation on numbers that are exact.
    fn value(self) -> f64 {
        let digits = f64::from(self.digits);
        let at = |power: i32| POWERS[usize::try_from(power).unwrap_or(0)];
        if self.power > 0 {
            digits * at(self.power - 1)
        } else {
            digits / at(1 - self.power)
        }
    }

    fn write(self, text: &mut String) {
        let digit = |number: u32| char::from_digit(number, 10).unwrap_or('0');
        let (first, second) = (digit(self.digits / 10), digit(self.digits % 10));
        let zeros = |count: i32| std::iter::repeat_n('0', usize::try_from(count).unwrap_or(0));
        match self.power {
            1.. => {
                text.extend([first, second]);
                text.extend(zeros(self.power - 1));
            }
            0 => text.extend([first, '.', second]),
            _ => {
                text.push_str("0.");
                text.extend(zeros(-self.power - 1));
                text.extend([first, second]);
            }
        }
    }
}

/// `value` with two significant digits.
pub(crate) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    // Otherwise through text: the nearest double to the figure, not to a product.
    Figure::of(value).map_or_else(|| format!("{value:.1e}").parse().unwrap_or(0.0), Figure::value)
}

/// `value` with two significant digits, as text: `5.3`, `12`, `0.042`, `120`.
pub(crate) fn two(value: f64) -> String {
    let mut text = String::new();
    push_two(&mut text, value);
    text
}

/// Adds [`two`] to a text.
pub(crate) fn push_two(text: &mut String, value: f64) {
    match Figure::of(value) {
        Some(figure) => figure.write(text),
        None => text.push_str(&written(value)),
    }
}

/// Adds a whole number to a text.
pub(crate) fn push_whole(text: &mut String, number: u64) {
    if number >= 10 {
        push_whole(text, number / 10);
    }
    let last = u32::try_from(number % 10).ok();
    text.extend(last.and_then(|last| char::from_digit(last, 10)));
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
    match total {
        0 => return "no replica".to_owned(),
        1 => text.push_str("1 replica ("),
        _ => {
            push_whole(&mut text, total.into());
            text.push_str(" replicas (");
        }
    }
    for (index, (group, count)) in counts.iter().filter(|(_, count)| **count > 0).enumerate() {
        if index == NAMED {
            text.push_str(", …");
            break;
        }
        if index > 0 {
            text.push_str(", ");
        }
        push_whole(&mut text, (*count).into());
        text.push(' ');
        text.push_str(group.as_str());
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
        fn figures_are_the_same_by_arithmetic_and_by_writing_them_out(digits in -1e3..1e3_f64, power in -20..24_i32, exact in 0..2_000_u32) {
            let ten = libm::pow(10.0, f64::from(power));
            // Ties among them, and what is next to a power of ten.
            for value in [digits * ten, ten, ten.next_down(), digits.round(), f64::from(exact) * ten, f64::from(exact) / 16.0] {
                let text = format!("{value:.1e}");
                let figure: f64 = text.parse().unwrap_or(f64::NAN);
                prop_assert_eq!(round(value).to_bits(), if value == 0.0 { 0 } else { figure.to_bits() }, "{}", value);
                prop_assert_eq!(two(value), written(value), "{}", value);
            }
        }

        #[test]
        fn whole_numbers_are_written_as_they_are(number: u64) {
            let mut text = String::new();
            push_whole(&mut text, number);
            prop_assert_eq!(text, number.to_string());
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
