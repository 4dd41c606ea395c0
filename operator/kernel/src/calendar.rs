//! Recurring windows of wall-clock time, such as "weekdays from 9 to 17 in Los Angeles".
//!
//! Pure: whether a window is open is a function of the window and a point in time. A window opens at each time that its
//! cron schedule names on the clock of its zone, and stays open for a fixed span of real time: a window of 8 h that
//! spans a change of the clocks is still 8 h long. An opening that falls into the hour that is skipped in spring happens
//! at the end of that hour; one that falls into the hour that is repeated in autumn happens once, the first time.

use chrono::TimeZone;
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::time::{Span, Timestamp};

/// A recurring window.
#[derive(Clone, Debug)]
pub struct Window {
    schedule: Cron,
    zone: Tz,
    duration: Span,
}

/// A text does not describe a window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAWindow {
    /// The schedule is not cron.
    #[error("reading the schedule {schedule:?}: {message}")]
    Schedule {
        /// The text.
        schedule: String,
        /// What is wrong with it.
        message: String,
    },
    /// The schedule is cron, but no day ever matches, such as the 30th of February.
    #[error("the schedule {0:?} never comes round")]
    Never(String),
    /// There is no such zone.
    #[error("there is no time zone {0:?}")]
    Zone(String),
}

impl Window {
    /// The window that opens by `schedule` (cron with five fields) on the clock of `zone` (an IANA name), for `duration`.
    pub fn parse(schedule: &str, zone: &str, duration: Span) -> Result<Self, NotAWindow> {
        let zone: Tz = zone.parse().map_err(|_| NotAWindow::Zone(zone.to_owned()))?;
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(schedule)
            .map_err(|error| NotAWindow::Schedule {
                schedule: schedule.to_owned(),
                message: error.to_string(),
            })?;
        let any_day = zone.timestamp_nanos(0);
        cron.find_next_occurrence(&any_day, true)
            .map_err(|_| NotAWindow::Never(schedule.to_owned()))?;
        Ok(Self {
            schedule: cron,
            zone,
            duration,
        })
    }

    /// Whether the window is open at `at`: it opened at or before `at`, less than its duration ago.
    pub fn is_open(&self, at: Timestamp) -> bool {
        let local = at.to_utc().with_timezone(&self.zone);
        self.schedule
            .find_previous_occurrence(&local, true)
            .is_ok_and(|opened| at < Timestamp::from_millis(opened.timestamp_millis()) + self.duration)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn open(schedule: &str, zone: &str, hours: u64, at: &str) -> bool {
        Window::parse(schedule, zone, Span::from_hours(hours))
            .unwrap()
            .is_open(Timestamp::parse(at).unwrap())
    }

    #[test]
    fn a_window_is_open_from_its_opening_until_just_before_its_end() {
        let la = |at| open("0 9 * * 1-5", "America/Los_Angeles", 8, at);
        assert!(!la("2026-11-20T08:59:59.999-08:00"));
        assert!(la("2026-11-20T09:00:00-08:00"), "Friday, at the opening");
        assert!(la("2026-11-20T16:59:59.999-08:00"));
        assert!(!la("2026-11-20T17:00:00-08:00"), "the end is outside");
        assert!(!la("2026-11-21T10:00:00-08:00"), "Saturday");
    }

    #[test]
    fn a_window_keeps_its_wall_clock_time_through_the_year() {
        let la = |at| open("0 9 * * *", "America/Los_Angeles", 1, at);
        assert!(la("2026-07-01T16:30:00Z"), "summer: UTC-7");
        assert!(!la("2026-07-01T17:30:00Z"));
        assert!(la("2026-12-01T17:30:00Z"), "winter: UTC-8");
        assert!(!la("2026-12-01T16:30:00Z"));
    }

    /// Clocks in Los Angeles went from 02:00 to 03:00 on 2026-03-08.
    #[test]
    fn an_opening_in_the_skipped_hour_happens_right_after_it() {
        let la = |at| open("30 2 * * *", "America/Los_Angeles", 1, at);
        assert!(!la("2026-03-08T09:59:00Z"), "01:59");
        assert!(la("2026-03-08T10:00:00Z"), "03:00, the first instant after the gap");
        assert!(la("2026-03-08T10:59:00Z"));
        assert!(!la("2026-03-08T11:00:00Z"));
    }

    /// Clocks in Los Angeles went from 02:00 back to 01:00 on 2026-11-01.
    #[test]
    fn an_opening_in_the_repeated_hour_happens_once() {
        let la = |at| open("30 1 * * *", "America/Los_Angeles", 1, at);
        assert!(!la("2026-11-01T08:29:00Z"));
        assert!(la("2026-11-01T08:30:00Z"), "01:30, the first time");
        assert!(la("2026-11-01T09:29:00Z"));
        assert!(!la("2026-11-01T09:30:00Z"), "01:30, the second time");
    }

    #[test]
    fn a_window_over_a_change_of_clocks_keeps_its_length() {
        let la = |at| open("0 22 * * 6", "America/Los_Angeles", 8, at);
        assert!(la("2026-11-01T12:59:00Z"), "opened at 05:00Z; the clock shows 04:59");
        assert!(!la("2026-11-01T13:00:00Z"), "eight real hours later");
    }

    #[test]
    fn a_window_may_be_longer_than_a_day_and_overlap_itself() {
        assert!(open("0 0 * * *", "UTC", 36, "2026-11-20T23:59:59Z"), "always open");
        assert!(open("0 22 * * 5", "Europe/Berlin", 48, "2026-11-22T20:59:00Z"));
        assert!(!open("0 22 * * 5", "Europe/Berlin", 48, "2026-11-22T21:00:00Z"));
    }

    #[test]
    fn what_is_no_window_is_refused_by_name() {
        for (schedule, zone, expected) in [
            ("0 9 * *", "UTC", "reading the schedule"),
            ("0 0 9 * * 1-5", "UTC", "reading the schedule"),
            ("61 9 * * *", "UTC", "reading the schedule"),
            ("", "UTC", "reading the schedule"),
            ("0 0 30 2 *", "UTC", "never comes round"),
            ("0 9 * * *", "Mars/Olympus", "there is no time zone \"Mars/Olympus\""),
        ] {
            let error = Window::parse(schedule, zone, Span::from_hours(1))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{schedule:?} in {zone}: {error}");
        }
    }
}
