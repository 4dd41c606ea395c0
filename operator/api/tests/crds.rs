//! The definitions in `crds/`, and the chart's copies of them, are what the types say.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use pomarium_api::crds::{crds, to_yaml};

/// `UPDATE_CRDS=1 cargo test -p pomarium-api --test crds` writes the files anew.
///
/// The chart has copies and not links: Flux leaves links out of what it packs.
#[test]
fn the_files_in_crds_and_in_the_chart_are_what_is_generated() {
    for folder in ["crds", "charts/pomarium/files/crds"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
        let mut expected: Vec<String> = Vec::new();
        for crd in crds() {
            let name = format!("{}.yaml", crd.spec.names.plural);
            let file = path.join(&name);
            let generated = to_yaml(&crd).unwrap();
            if std::env::var_os("UPDATE_CRDS").is_some() {
                std::fs::create_dir_all(&path).unwrap();
                std::fs::write(&file, &generated).unwrap();
            }
            let stored = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(
                stored == generated,
                "{folder}/{name} is out of date: run `UPDATE_CRDS=1 cargo test -p pomarium-api --test crds`"
            );
            expected.push(name);
        }
        let mut found: Vec<String> = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "nothing else belongs into {folder}/");
    }
}
