//! Spans of time in specs, as Kubernetes writes them: Go durations such as `1h30m`.

use std::borrow::Cow;
use std::fmt;

use pomarium_kernel::time::Span;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span that is written like a Go duration and is never negative. Milliseconds are the finest.
///
/// Not `kube::core::Duration`: its parser panics on numbers that overflow, and it accepts negative ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Duration(Span);

/// A text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration such as 1h30m, 10s or 250ms")]
pub struct NotADuration(String);

impl Duration {
    /// Reads a sum of decimal numbers, each with a unit: `h`, `m`, `s` or `ms`. A bare `0` needs none.
    pub fn parse(text: &str) -> Result<Self, NotADuration> {
        let bad = || NotADuration(text.to_owned());
        if text == "0" {
            return Ok(Self::default());
        }
        let (mut rest, mut total_ms) = (text, 0.0);
        while !rest.is_empty() {
            let number = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(bad)?;
            let (digits, tail) = rest.split_at(number);
            let unit = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit);
            let ms_per_unit = match unit {
                "h" => 3_600_000.0,
                "m" => 60_000.0,
                "s" => 1_000.0,
                "ms" => 1.0,
                _ => return Err(bad()),
            };
            total_ms += crate::validate::decimal(digits).ok_or_else(bad)? * ms_per_unit;
            rest = tail;
        }
        if text.is_empty() || total_ms > Self::MAX_MS {
            return Err(bad());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 ≤ total ≤ MAX_MS"
        )]
        Ok(Self(Span::from_millis(total_ms.round() as u64)))
    }

    /// About 292 years: Go's longest.
    const MAX_MS: f64 = 9.2e12;
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Self(span)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("1.5h", 5_400_000),
            ("1h30m", 5_400_000),
            ("168h", 604_800_000),
        ] {
            assert_eq!(Duration::parse(text).unwrap().0.as_millis(), ms, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_without_a_panic() {
        for text in [
            "",
            "10",
            "s",
            "-5s",
            "1d",
            "1h-5m",
            "P1D",
            "1e9h",
            "NaNs",
            "infs",
            "99999999999999999999999999999h",
            "1 h",
            "µs",
            "1µs",
        ] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_survives_being_written_and_read() {
        for text in ["0s", "15m", "1h30m", "1m30s", "250ms"] {
            assert_eq!(Duration::parse(text).unwrap().to_string(), text);
        }
    }
}
