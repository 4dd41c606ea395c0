//! The definitions in `crds/` are what the types say.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use pomarium_api::crds::{crds, to_yaml};

/// `UPDATE_CRDS=1 cargo test -p pomarium-api --test crds` writes the files anew.
#[test]
fn the_files_in_crds_are_what_is_generated() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    let mut expected: Vec<String> = Vec::new();
    for crd in crds() {
        let name = format!("{}.yaml", crd.spec.names.plural);
        let path = folder.join(&name);
        let generated = to_yaml(&crd).unwrap();
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &generated).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == generated,
            "crds/{name} is out of date: run `UPDATE_CRDS=1 cargo test -p pomarium-api --test crds`"
        );
        expected.push(name);
    }
    let mut found: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "nothing else belongs into crds/");
}
