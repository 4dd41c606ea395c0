//! The parts of a past as text, and back. Pure.
//!
//! Each part stands by itself under its own key, so that one that is broken costs no other.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use pomarium_kernel::strategy::ahead::{Ahead, PoolAhead};
use pomarium_kernel::strategy::past::Past;
use pomarium_kernel::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The form in which all of it is written.
const FORMAT: &str = "1";

/// A longer part is neither written nor read: it is usually about 20 kB, and all of them together must stay far below the 1 MiB of an object.
const LONGEST: usize = 160 * 1024;

/// A plan for more groups and servers than fit is not kept: a new one is made.
const LONGEST_PLAN: usize = 700 * 1024;

/// A pool's part of a plan, with the time of that plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PlannedPool {
    /// When the plan was made.
    pub(super) made_at: Timestamp,
    /// The part.
    pub(super) pool: PoolAhead,
}

/// The content of an object.
pub(super) type Data = BTreeMap<String, String>;

/// What is stored of one pool, and which of its parts are too long for that.
pub(super) fn of_pool(past: &Past, planned: Option<&PlannedPool>) -> (Data, Vec<&'static str>) {
    let Past {
        history,
        bursts,
        backtest,
        ledger,
        prices,
        calibrations,
    } = past;
    let mut writer = Writer::new(LONGEST);
    writer.put("history", history);
    writer.put("bursts", bursts);
    writer.put("backtest", backtest);
    writer.put("ledger", ledger);
    writer.put("prices", prices);
    writer.put("calibrations", calibrations);
    if let Some(planned) = planned {
        writer.put("ahead", planned);
    }
    (writer.data, writer.left_out)
}

/// What is stored of the plan as a whole: its pools' parts are with the pools.
pub(super) fn of_plan(ahead: &Ahead) -> (Data, Vec<&'static str>) {
    let mut writer = Writer::new(LONGEST_PLAN);
    let Ahead {
        made_at,
        groups,
        cost,
        bound,
        considered,
        ..
    } = ahead;
    let whole = Ahead {
        made_at: *made_at,
        groups: groups.clone(),
        cost: *cost,
        bound: *bound,
        considered: considered.clone(),
        ..Ahead::default()
    };
    writer.put("plan", &whole);
    (writer.data, writer.left_out)
}

/// A pool's past and its part of the plan, and what of it cannot be read.
pub(super) fn pool(data: &Data) -> (Past, Option<PlannedPool>, Vec<String>) {
    let mut reader = Reader::new(data, LONGEST);
    let history = reader.get("history");
    let backtest = reader.get("backtest");
    let past = Past {
        // A track record is one of a history.
        backtest: history.is_some().then_some(backtest).flatten().unwrap_or_default(),
        history: history.unwrap_or_default(),
        bursts: reader.get("bursts").unwrap_or_default(),
        ledger: reader.get("ledger").unwrap_or_default(),
        prices: reader.get("prices").unwrap_or_default(),
        calibrations: reader.get("calibrations").unwrap_or_default(),
    };
    (past, reader.get("ahead"), reader.problems)
}

/// The plan as a whole, and why it cannot be read.
pub(super) fn plan(data: &Data) -> (Option<Ahead>, Vec<String>) {
    let mut reader = Reader::new(data, LONGEST_PLAN);
    (reader.get("plan"), reader.problems)
}

/// Tells contents apart.
pub(super) fn digest(data: &Data) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}

struct Writer {
    longest: usize,
    data: Data,
    left_out: Vec<&'static str>,
}

impl Writer {
    fn new(longest: usize) -> Self {
        Self {
            longest,
            data: [("format".to_owned(), FORMAT.to_owned())].into(),
            left_out: Vec::new(),
        }
    }

    fn put(&mut self, part: &'static str, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) if text.len() <= self.longest => drop(self.data.insert(part.to_owned(), text)),
            _ => self.left_out.push(part),
        }
    }
}

struct Reader<'a> {
    data: &'a Data,
    longest: usize,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(data: &'a Data, longest: usize) -> Self {
        let mut problems = Vec::new();
        match data.get("format") {
            Some(format) if format == FORMAT => {}
            Some(format) => problems.push(format!("its format {format:?} is not {FORMAT:?}")),
            None => problems.push("it has no format".to_owned()),
        }
        Self {
            data,
            longest,
            problems,
        }
    }

    fn get<T: DeserializeOwned>(&mut self, part: &str) -> Option<T> {
        let known = self.data.get("format").is_some_and(|format| format == FORMAT);
        let text = self.data.get(part).filter(|_| known)?;
        if text.len() > self.longest {
            self.problems.push(format!("{part}: {} bytes are too long", text.len()));
            return None;
        }
        match serde_json::from_str(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(format!("{part}: {error}"));
                None
            }
        }
    }
}
