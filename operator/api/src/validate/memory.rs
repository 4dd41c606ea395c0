//! What Pomarium remembers between passes, to and from the status.
//!
//! A time that cannot be read is forgotten: the memory only shortens waiting, and is written anew by the next pass.

use pomarium_kernel::snapshot::{GroupMemory, LengthMix, PoolMemory, Spent};
use pomarium_kernel::time::Timestamp;

use crate::{group, limits, pool};

fn read(time: Option<&String>) -> Option<Timestamp> {
    time.and_then(|text| Timestamp::parse(text))
}

fn write(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

/// All of them or none: a mix of which a part is missing is another mix.
fn lengths(texts: &[String]) -> Option<LengthMix> {
    let class = |text: &String| {
        let (prompt, output) = text.split_once('/')?;
        Some((prompt.parse().ok()?, output.parse().ok()?))
    };
    let classes: Vec<(u32, u32)> = texts.iter().map(class).collect::<Option<_>>()?;
    (!classes.is_empty()).then_some(LengthMix { classes })
}

/// What is not readable was spent all the same: it is counted again from the leases that exist.
fn spent(text: &pool::Spent) -> Option<Spent> {
    Some(Spent {
        period: Timestamp::parse(&text.period)?,
        amount: text.amount.parse().ok()?,
        until: Timestamp::parse(&text.until)?,
    })
}

impl From<&group::GroupMemory> for GroupMemory {
    fn from(status: &group::GroupMemory) -> Self {
        Self {
            last_requested_at: read(status.last_requested_at.as_ref()),
        }
    }
}

impl group::GroupMemory {
    /// What the next pass will read.
    pub fn new(memory: &GroupMemory, out_of_stock_since: Option<Timestamp>) -> Self {
        let GroupMemory { last_requested_at } = *memory;
        Self {
            last_requested_at: write(last_requested_at),
            out_of_stock_since: write(out_of_stock_since),
        }
    }
}

impl From<&pool::PoolMemory> for PoolMemory {
    fn from(status: &pool::PoolMemory) -> Self {
        Self {
            last_added: read(status.last_added.as_ref()),
            last_removed: read(status.last_removed.as_ref()),
            surplus_since: read(status.surplus_since.as_ref()),
            missing_objective_since: read(status.missing_objective_since.as_ref()),
            missing_objective_from: status.missing_objective_from.and_then(|from| from.try_into().ok()),
            short_since: read(status.short_since.as_ref()),
            held_since: read(status.held_since.as_ref()),
            target: status.target.and_then(|target| target.try_into().ok()),
            spent: status.spent.as_ref().and_then(spent),
            lengths: lengths(&status.lengths),
        }
    }
}

impl From<&PoolMemory> for pool::PoolMemory {
    fn from(memory: &PoolMemory) -> Self {
        let PoolMemory {
            last_added,
            last_removed,
            surplus_since,
            missing_objective_since,
            missing_objective_from,
            short_since,
            held_since,
            target,
            spent,
            ref lengths,
        } = *memory;
        let classes = lengths.iter().flat_map(|mix| &mix.classes).take(limits::LENGTHS);
        Self {
            last_added: write(last_added),
            last_removed: write(last_removed),
            surplus_since: write(surplus_since),
            missing_objective_since: write(missing_objective_since),
            missing_objective_from: missing_objective_from.and_then(|from| from.try_into().ok()),
            short_since: write(short_since),
            held_since: write(held_since),
            target: target.and_then(|target| target.try_into().ok()),
            spent: spent.map(|spent| pool::Spent {
                period: spent.period.to_string(),
                amount: spent.amount.to_string(),
                until: spent.until.to_string(),
            }),
            lengths: classes.map(|(prompt, output)| format!("{prompt}/{output}")).collect(),
        }
    }
}
