//! What a replica runs, as a short hash.

use pomarium_kernel::names::Revision;
use serde::Serialize;

use crate::pool::{Engine, Model, ServerPoolSpec};

/// Hash of the model and the engine: eight hexadecimal digits that change when a running Pod would have to be replaced,
/// and not with objectives, sizes or prices.
///
/// Stable across releases: optional fields that are absent do not enter, so that a new one restarts nothing.
pub fn revision(spec: &ServerPoolSpec) -> Revision {
    #[derive(Serialize)]
    struct Runs<'a> {
        model: &'a Model,
        engine: &'a Engine,
    }
    let engine = Engine {
        port: Some(spec.engine.port()),
        ..spec.engine.clone()
    };
    let runs = Runs {
        model: &spec.model,
        engine: &engine,
    };
    // Strings and integers only: writing them cannot fail.
    let text = serde_json::to_string(&runs).unwrap_or_default();
    Revision::new(format!("{:08x}", fnv1a(text.as_bytes())))
}

/// FNV-1a, 32 bits: tells the few revisions of one pool apart. No protection against malice is needed here.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}
