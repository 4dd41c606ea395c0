//! Plans an exported snapshot again.

use std::path::Path;

use anyhow::Context;
use pomarium_kernel::planning;
use pomarium_kernel::snapshot::Snapshot;
use pomarium_kernel::time::Timestamp;
use serde::Deserialize;

/// A snapshot with the time at which it was planned.
#[derive(Deserialize)]
struct Exported {
    now: Timestamp,
    snapshot: Snapshot,
}

/// The plan for the snapshot in `file`, as JSON.
pub(super) fn plan(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading snapshot {}", file.display()))?;
    let mut json = serde_json::Deserializer::from_str(&text);
    let exported: Exported = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| anyhow::anyhow!("snapshot {}: {}: {}", file.display(), error.path(), error.inner()))?;
    let plan = planning::plan(&exported.snapshot, exported.now);
    Ok(serde_json::to_string_pretty(&plan).context("writing the plan as JSON")? + "\n")
}
