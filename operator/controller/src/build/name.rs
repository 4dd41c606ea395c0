//! Names of Pods: deterministic, so that creating one twice creates one.

use pomarium_kernel::names::{PoolId, ReplicaName, Revision, ServerName};

/// Longest name. Longer Pod names are allowed, but they become host names, which are cut here.
const LONGEST: usize = 63;

/// `{pool}-{server}-{revision}`, shortened with a hash where that is too long.
pub fn replica_name(pool: &PoolId, server: &ServerName, revision: &Revision) -> ReplicaName {
    ReplicaName::new(short_name(&format!("{}-{server}-{revision}", pool.name)))
}

/// `whole`, or where that is too long, its beginning with a hash of all of it.
pub(crate) fn short_name(whole: &str) -> String {
    if whole.len() <= LONGEST {
        return whole.to_owned();
    }
    let hash = format!("-{:08x}", fnv1a(whole.as_bytes()));
    // Names in Kubernetes are ASCII; `get` rather than a slice, should one ever not be.
    let kept = whole.get(..LONGEST - hash.len()).unwrap_or_default();
    format!("{}{hash}", kept.trim_end_matches(['-', '.']))
}

/// FNV-1a, 32 bits: tells names apart that are equal where they were cut. Stable for ever, unlike the standard library's.
pub(super) fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(pool: &str, server: &str) -> String {
        let pool = PoolId::new("any", pool);
        replica_name(&pool, &ServerName::from(server), &Revision::from("0a1b2c3d")).to_string()
    }

    #[test]
    fn short_names_are_readable_and_long_ones_stay_apart() {
        assert_eq!(name("chat", "hosted-m4-0"), "chat-hosted-m4-0-0a1b2c3d");
        let long = "a-rather-long-name-of-a-machine-in-a-far-away-building";
        let (one, two) = (name("chat", &format!("{long}-1")), name("chat", &format!("{long}-2")));
        assert_ne!(one, two);
        assert_eq!(one, name("chat", &format!("{long}-1")));
        for name in [one, two, name("chat", &"x.".repeat(120))] {
            assert!(name.len() <= LONGEST, "{name}");
            assert!(!name.contains(".-") && !name.contains("--"), "{name}");
        }
    }
}
