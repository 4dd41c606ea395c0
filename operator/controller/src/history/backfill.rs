//! The past of pools of which nothing is remembered, from Prometheus.
//!
//! Asked once, when a process begins to lead: for each pool without a history of its own, two ranges of the counters that are read live
//! too. Rates are computed here from the counters as they are, so that a restart of a gateway is no burst, and what Prometheus did not
//! scrape stays a gap. How demand comes within minutes cannot be told from it.
//!
//! # Guarantees
//! Bounded: [`PATIENCE`] for all pools together, [`LONGEST_ANSWER`] each. What is not answered, or not an answer, is said and learnt anew.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::{Span, Timestamp};
use reqwest::Method;
use tracing::{info, warn};

use crate::fetch::{self, Bounds};
use crate::measure::prometheus::{self, Range};

/// All pools together take no longer: the first pass waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer is never longer: 700 points of each counter of some gateways are a few 100 kB.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;
/// Questions at the same time.
const CONCURRENCY: usize = 4;
/// What is asked for, the older part first: how far back it begins and ends, and how dense it is.
const RANGES: [(Span, Span, Span); 2] = [
    (Span::from_hours(28 * 24), Span::from_hours(48), Span::from_hours(1)),
    (Span::from_hours(48), Span::ZERO, Span::from_minutes(5)),
];

/// Where to ask.
#[derive(Clone, Debug)]
pub(crate) struct Backfill {
    http: reqwest::Client,
    url: String,
}

/// A pool without a past.
pub(crate) struct Newcomer {
    pub(crate) id: PoolId,
    /// How gateways name its model.
    pub(crate) model: String,
}

impl Backfill {
    /// From the server at `url`.
    pub(crate) fn new(url: &str) -> Self {
        Self {
            http: fetch::client(),
            url: url.trim_end_matches('/').to_owned(),
        }
    }

    /// The pasts that could be recovered.
    pub(crate) async fn recover(&self, pools: Vec<Newcomer>, now: Timestamp) -> BTreeMap<PoolId, Past> {
        let all = pools.len();
        let mut recovered = BTreeMap::new();
        let asking = async {
            let mut answers = stream::iter(pools)
                .map(|pool| async move {
                    let past = self.past(&pool, now).await;
                    (pool.id, past)
                })
                .buffer_unordered(CONCURRENCY);
            while let Some((id, past)) = answers.next().await {
                match past {
                    Ok(past) if past.history.recorded_until().is_some() => drop(recovered.insert(id, past)),
                    Ok(_) => info!(pool = %id, "Prometheus knows nothing of it"),
                    Err(why) => warn!(pool = %id, why, "its past was not recovered from Prometheus: it is learnt anew"),
                }
            }
        };
        if tokio::time::timeout(PATIENCE, asking).await.is_err() {
            warn!("Prometheus did not tell the past of all pools within {PATIENCE:?}: the others are learnt anew");
        }
        info!(
            pools = all,
            recovered = recovered.len(),
            "asked Prometheus for the past"
        );
        recovered
    }

    async fn past(&self, pool: &Newcomer, now: Timestamp) -> Result<Past, String> {
        let mut past = Past::default();
        for (from, until, step) in RANGES {
            let range = Range {
                from: now - from,
                until: now - until,
                step,
            };
            let url = format!("{}{}", self.url, prometheus::range_path(&pool.model, range));
            let bounds = Bounds {
                time: PATIENCE,
                bytes: LONGEST_ANSWER,
            };
            let text = match fetch::send(&self.http, Method::GET, &url, bounds).await {
                Ok((status, text)) if status.is_success() => text,
                Ok((status, _)) => return Err(format!("it answered {status}")),
                Err(error) => return Err(error.to_string()),
            };
            let counted = prometheus::counted(&text, &pool.id, step).ok_or("it did not answer the query")?;
            for (at, counts) in counted {
                past.arrived(at, at + step, counts, &[]);
            }
        }
        Ok(past)
    }
}
