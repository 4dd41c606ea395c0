//! The part of a trace that is replayed.

use std::path::{Path, PathBuf};

use pomarium_sim::trace::{Arrival, TraceError, TraceReader, scale_rate};

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
    Thinned { path: PathBuf, scale: f64, requests: usize },
    #[error("--warmup-days {days} needs {} hours of history before the scored part, and --from-hour {from} leaves {from}", days * 24.0)]
    NoHistory { days: f64, from: f64 },
}

/// Reads `path` to its end, so that damage anywhere in it is found, and keeps the part. Times count from the part's first moment.
pub(crate) fn load(path: &Path, part: &Part) -> Result<Vec<Arrival>, PartError> {
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
    let mut kept = Vec::new();
    let mut last_ms = None;
    for arrival in TraceReader::open(path)? {
        let arrival = arrival?;
        last_ms = Some(arrival.arrival_ms);
        if (first_ms..until_ms).contains(&arrival.arrival_ms) {
            kept.push(Arrival {
                arrival_ms: arrival.arrival_ms - first_ms,
                ..arrival
            });
        }
    }
    let Some(last_ms) = last_ms else {
        return Err(PartError::Empty(path.to_owned()));
    };
    let scored_from = scored_ms - first_ms;
    if kept.last().is_none_or(|arrival| arrival.arrival_ms < scored_from) {
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
    if (part.rate_scale - 1.0).abs() < 1e-9 {
        return Ok(kept);
    }
    let end_ms = kept.last().map_or(0, |arrival| arrival.arrival_ms);
    let mut scaled = scale_rate(&kept, part.rate_scale, part.seed);
    // The jitter of the copies does not make the trace longer.
    scaled.retain(|arrival| arrival.arrival_ms <= end_ms);
    if scaled.last().is_none_or(|arrival| arrival.arrival_ms < scored_from) {
        return Err(PartError::Thinned {
            path: path.to_owned(),
            scale: part.rate_scale,
            requests: kept.len(),
        });
    }
    Ok(scaled)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates; hours are not negative"
)]
fn ms(hours: f64) -> u64 {
    (hours * HOUR_MS).round() as u64
}
