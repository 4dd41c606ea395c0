//! Virtual time, shared by the emulated fleet, the load, the router and the operator:
//!
//! ```text
//! virtual now = origin + (real now − origin) × scale
//! ```
//!
//! The operator gets the same origin and scale as `--time-origin` and `--time-scale`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pomarium_kernel::time::{Span, Timestamp};

/// Tells virtual time, and converts spans of it to real time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VirtualTime {
    origin_ms: i64,
    scale: f64,
}

impl VirtualTime {
    /// Time that runs `scale` times as fast as real time from `origin_ms` (Unix, ms) on. A scale under 1, or one that is
    /// not a finite number, counts as 1, where virtual time is real time.
    pub fn new(origin_ms: i64, scale: f64) -> Self {
        let scale = if scale.is_finite() { scale.max(1.0) } else { 1.0 };
        Self { origin_ms, scale }
    }

    /// Time that runs `scale` times as fast as real time from now on.
    pub fn from_now(scale: f64) -> Self {
        Self::new(real_now_ms(), scale)
    }

    /// Real time.
    pub fn real_time() -> Self {
        Self::new(0, 1.0)
    }

    /// Where virtual and real time agree, in ms since the Unix epoch.
    pub const fn origin_ms(&self) -> i64 {
        self.origin_ms
    }

    /// Virtual seconds in one real second.
    pub const fn scale(&self) -> f64 {
        self.scale
    }

    /// The virtual time now.
    pub fn now(&self) -> Timestamp {
        self.at_real_ms(real_now_ms())
    }

    /// How long `span` takes in real time.
    pub fn real(&self, span: Span) -> Duration {
        Duration::from_millis(span.as_millis()).div_f64(self.scale)
    }

    /// How much virtual time passes in `real`, in seconds.
    pub fn virtual_secs(&self, real: Duration) -> f64 {
        real.as_secs_f64() * self.scale
    }

    /// Waits until `at`; not at all if it has passed.
    pub async fn sleep_until(&self, at: Timestamp) {
        // Timers have a resolution of 1 ms real, which is several virtual ones: look again rather than be early.
        loop {
            let left = at.since(self.now());
            if left == Span::ZERO {
                return;
            }
            tokio::time::sleep(self.real(left)).await;
        }
    }

    /// Waits for `span`.
    pub async fn sleep(&self, span: Span) {
        tokio::time::sleep(self.real(span)).await;
    }

    /// The virtual time at a real one, in ms since the Unix epoch.
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
    pub(crate) fn at_real_ms(&self, real_ms: i64) -> Timestamp {
        let elapsed = real_ms.saturating_sub(self.origin_ms);
        // Exact without compression: no detour through floating point.
        if self.scale <= 1.0 {
            return Timestamp::from_millis(real_ms);
        }
        let scaled = (elapsed as f64 * self.scale).round() as i64;
        Timestamp::from_millis(self.origin_ms.saturating_add(scaled))
    }
}

fn real_now_ms() -> i64 {
    // A machine whose clock is before 1970 has other problems.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: i64 = 1_800_000_000_000;

    #[test]
    fn an_hour_passes_in_minutes_from_the_origin_on() {
        let time = VirtualTime::new(ORIGIN, 20.0);
        for (real, expected) in [(0, 0), (180_000, 3_600_000), (-1_000, -20_000), (1, 20)] {
            assert_eq!(
                time.at_real_ms(ORIGIN + real),
                Timestamp::from_millis(ORIGIN + expected)
            );
        }
        assert_eq!(time.real(Span::from_hours(1)), Duration::from_secs(180));
        assert!((time.virtual_secs(Duration::from_millis(500)) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_scale_that_would_stop_or_reverse_time_counts_as_one() {
        for scale in [0.0, -3.0, 0.5, f64::NAN, f64::INFINITY] {
            let time = VirtualTime::new(ORIGIN, scale);
            assert_eq!(
                time.at_real_ms(ORIGIN + 5),
                Timestamp::from_millis(ORIGIN + 5),
                "{scale}"
            );
        }
    }

    #[tokio::test]
    async fn sleeping_until_a_time_is_never_early_and_does_not_wait_for_the_past() {
        let time = VirtualTime::from_now(100.0);
        let at = time.now() + Span::from_secs(2);
        time.sleep_until(at).await;
        assert!(time.now() >= at);
        time.sleep_until(Timestamp::from_millis(0)).await;
    }
}
