//! Real and compressed time.
//!
//! Every decision takes `now` as an argument; this is where `now` comes from. The controller, the emulated fleet and the
//! demo may share a compressed time, in which an hour passes in minutes:
//!
//! ```text
//! virtual now = origin + (real now − origin) × scale
//! ```
//!
//! Intervals and deadlines of the controller are virtual. What others read or write stays real: leader Leases,
//! `lastTransitionTime`, `creationTimestamp`, events, time-outs of requests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pomarium_kernel::time::{Span, Timestamp};

/// Tells virtual time, and converts between virtual and real time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// Where virtual and real time agree, in ms since the Unix epoch.
    origin_ms: i64,
    /// Virtual seconds per real second, at least 1.
    scale: f64,
}

impl Clock {
    /// Virtual time is real time.
    pub const fn real() -> Self {
        Self {
            origin_ms: 0,
            scale: 1.0,
        }
    }

    /// Time that runs `scale` times as fast as real time from `origin_ms` on. A scale under 1 or that is not a number
    /// counts as 1.
    pub fn compressed(origin_ms: i64, scale: f64) -> Self {
        Self {
            origin_ms,
            scale: if scale.is_finite() { scale.max(1.0) } else { 1.0 },
        }
    }

    /// Virtual seconds per real second.
    pub const fn scale(&self) -> f64 {
        self.scale
    }

    /// The virtual time now.
    pub fn now(&self) -> Timestamp {
        let real = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            // A machine whose clock is before 1970 has other problems.
            Err(_) => 0,
        };
        self.virtual_millis(real)
    }

    /// A real time stamp of the API as virtual time.
    pub fn to_virtual(&self, real: &Time) -> Timestamp {
        self.virtual_millis(real.0.as_millisecond())
    }

    /// How long `span` of virtual time takes.
    pub fn real_duration(&self, span: Span) -> Duration {
        Duration::from_millis(span.as_millis()).div_f64(self.scale)
    }

    /// How much virtual time passes in `real`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates; neither factor is negative"
    )]
    pub fn virtual_span(&self, real: Duration) -> Span {
        Span::from_millis((real.as_secs_f64() * 1_000.0 * self.scale).round() as u64)
    }

    /// How long it takes until `at`; zero if it has passed.
    pub fn real_duration_until(&self, at: Timestamp) -> Duration {
        self.real_duration(at.since(self.now()))
    }

    /// Waits for `span` of virtual time.
    pub async fn sleep(&self, span: Span) {
        tokio::time::sleep(self.real_duration(span)).await;
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates; whole milliseconds are wanted"
    )]
    fn virtual_millis(&self, real_ms: i64) -> Timestamp {
        // Exact without compression: no detour through floating point.
        if self.scale <= 1.0 {
            return Timestamp::from_millis(real_ms);
        }
        let elapsed = real_ms.saturating_sub(self.origin_ms);
        let scaled = (elapsed as f64 * self.scale).round() as i64;
        Timestamp::from_millis(self.origin_ms.saturating_add(scaled))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use k8s_openapi::jiff;

    use super::*;

    const ORIGIN: i64 = 1_800_000_000_000;

    fn time(millis: i64) -> Time {
        Time(jiff::Timestamp::from_millisecond(millis).unwrap())
    }

    #[test]
    fn an_hour_passes_in_minutes_from_the_origin_on() {
        let clock = Clock::compressed(ORIGIN, 20.0);
        for (real, expected) in [(0, 0), (180_000, 3_600_000), (-1_000, -20_000), (1, 20)] {
            assert_eq!(
                clock.to_virtual(&time(ORIGIN + real)),
                Timestamp::from_millis(ORIGIN + expected),
                "{real} ms after the origin"
            );
        }
        assert_eq!(clock.real_duration(Span::from_hours(1)), Duration::from_secs(180));
        assert_eq!(clock.virtual_span(Duration::from_secs(180)), Span::from_hours(1));
    }

    #[test]
    fn real_time_is_left_exactly_as_it_is() {
        for millis in [0, 1, ORIGIN, ORIGIN + 123] {
            assert_eq!(Clock::real().to_virtual(&time(millis)), Timestamp::from_millis(millis));
        }
        assert_eq!(
            Clock::real().real_duration(Span::from_millis(7)),
            Duration::from_millis(7)
        );
    }

    #[test]
    fn a_scale_that_would_stop_or_reverse_time_counts_as_one() {
        for scale in [0.0, -3.0, 0.5, f64::NAN, f64::INFINITY] {
            let clock = Clock::compressed(ORIGIN, scale);
            assert_eq!(
                clock.to_virtual(&time(ORIGIN + 5)),
                Timestamp::from_millis(ORIGIN + 5),
                "{scale}"
            );
        }
    }

    #[test]
    fn a_deadline_that_has_passed_is_not_waited_for() {
        let clock = Clock::compressed(ORIGIN, 10.0);
        assert_eq!(clock.real_duration_until(Timestamp::from_millis(0)), Duration::ZERO);
        let soon = clock.real_duration_until(clock.now() + Span::from_secs(100));
        assert!(
            soon <= Duration::from_secs(10) && soon > Duration::from_secs(8),
            "{soon:?}"
        );
    }
}
