//! The part of a trace that is replayed.

use std::path::{Path, PathBuf};

use pomarium_sim::lengths::Tally;
use pomarium_sim::trace::{Excerpt, Trace, TraceError, TraceFile};

const HOUR_MS: f64 = 3_600_000.0;

/// Which part of a trace, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part {
    /// The scored part begins here, in hours from the trace's start.
    pub(crate) from_hour: f64,
    /// And is so long; to the end without.
    pub(crate) hours: Option<f64>,
    /// Before it, so many days are history.
    pub(crate) history_days: f64,
    /// Factor on the rate.
    pub(crate) rate_scale: f64,
    /// For the scaling.
    pub(crate) seed: u64,
}

/// A trace has nothing to replay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartError {
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error("trace {}: it has no requests", .0.display())]
    Empty(PathBuf),
    #[error(
        "trace {}: no request between hour {from} and hour {until} (--from-hour, --hours); the last one is in hour {last:.2}",
        path.display()
    )]
    EmptyRange {
        path: PathBuf,
        from: f64,
        until: f64,
        last: f64,
    },
    #[error("trace {}: at --rate-scale {scale} none of its {requests} requests is left", path.display())]
    Thinned { path: PathBuf, scale: f64, requests: u64 },
    #[error("--warmup-days {days} needs {} hours of history before the scored part, and --from-hour {from} leaves {from}", days * 24.0)]
    NoHistory { days: f64, from: f64 },
}

/// What is replayed, and what is known of it before.
pub(crate) struct Selected {
    pub(crate) trace: Excerpt,
    /// Of the requests that are replayed, after scaling.
    pub(crate) tally: Tally,
}

/// Reads `path` to its end, so that damage anywhere in it is found, and selects the part. Times count from the part's first moment.
pub(crate) fn select(path: &Path, part: &Part) -> Result<Selected, PartError> {
    let history_hours = part.history_days * 24.0;
    let first_hour = part.from_hour - history_hours;
    if first_hour < 0.0 {
        return Err(PartError::NoHistory {
            days: part.history_days,
            from: part.from_hour,
        });
    }
    let until_hour = part.hours.map_or(f64::INFINITY, |hours| part.from_hour + hours);
    let (first_ms, scored_ms, until_ms) = (ms(first_hour), ms(part.from_hour), ms(until_hour));
    let is_scaled = (part.rate_scale - 1.0).abs() >= 1e-9;
    let mut tally = Tally::default();
    let trace = Excerpt::scan(TraceFile::open(path)?, first_ms..until_ms, |request| {
        if !is_scaled {
            tally.add(request);
        }
    })?;
    let Some(last_ms) = trace.file_ends_ms() else {
        return Err(PartError::Empty(path.to_owned()));
    };
    let scored_from = scored_ms - first_ms;
    if trace.last_ms().is_none_or(|last_ms| last_ms < scored_from) {
        return Err(PartError::EmptyRange {
            path: path.to_owned(),
            from: part.from_hour,
            until: if until_hour.is_finite() {
                until_hour
            } else {
                last_ms as f64 / HOUR_MS
            },
            last: last_ms as f64 / HOUR_MS,
        });
    }
    if !is_scaled {
        return Ok(Selected { trace, tally });
    }
    let trace = trace.at_rate(part.rate_scale, part.seed);
    for request in trace.requests()? {
        tally.add(&request?);
    }
    if tally.last_ms().is_none_or(|last_ms| last_ms < scored_from) {
        return Err(PartError::Thinned {
            path: path.to_owned(),
            scale: part.rate_scale,
            requests: trace.found(),
        });
    }
    Ok(Selected { trace, tally })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates; hours are not negative"
)]
fn ms(hours: f64) -> u64 {
    (hours * HOUR_MS).round() as u64
}
