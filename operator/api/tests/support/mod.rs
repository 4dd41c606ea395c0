//! The examples as values, and the table of manifests that are refused. Shared with the end-to-end test, which shows both to a
//! real API server.

#![allow(dead_code, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// A manifest that is refused: one change away from an example.
#[derive(Deserialize, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refused {
    /// `Kind/name` of the example.
    pub(crate) example: String,
    /// The example is accepted first and then changed.
    #[serde(default)]
    pub(crate) change: bool,
    /// JSON pointer to what is changed.
    pub(crate) at: String,
    /// What is put there; null removes it.
    pub(crate) put: Value,
    /// The field that the answer names.
    pub(crate) field: String,
    /// What the answer says about it.
    pub(crate) says: String,
}

impl Refused {
    /// The manifest.
    pub(crate) fn manifest(&self) -> Value {
        let mut manifest = example(&self.example);
        put(&mut manifest, &self.at, self.put.clone());
        manifest
    }
}

fn api() -> &'static Path {
    // Also compiled into the end-to-end tests, whose own folder is another one.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if root.ends_with("e2e") {
        Box::leak(root.join("../operator/api").into_boxed_path())
    } else {
        root
    }
}

/// All cases of `testdata/refused.yaml`.
pub(crate) fn refused() -> Vec<Refused> {
    serde_yaml::from_str(&std::fs::read_to_string(api().join("testdata/refused.yaml")).unwrap()).unwrap()
}

/// All YAML files below `examples/`.
pub(crate) fn example_files(folder: &str) -> Vec<PathBuf> {
    fn below(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    below(&api().join("../../examples").join(folder), &mut files);
    files.sort();
    files
}

/// All documents of a file.
pub(crate) fn documents(path: &Path) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(&std::fs::read_to_string(path).unwrap())
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

/// The example `Kind/name`, from the files that show one kind each.
pub(crate) fn example(name: &str) -> Value {
    example_files("")
        .iter()
        .filter(|path| !path.components().any(|part| part.as_os_str() == "hybrid"))
        .flat_map(|path| documents(path))
        .find(|document| {
            let (kind, own) = (&document["kind"], &document["metadata"]["name"]);
            format!("{}/{}", kind.as_str().unwrap(), own.as_str().unwrap()) == name
        })
        .unwrap_or_else(|| panic!("no example {name}"))
}

/// Sets what `pointer` points to; null removes it.
pub(crate) fn put(manifest: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = manifest
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("{pointer} is not in the example"));
    match (parent, value) {
        (Value::Object(fields), Value::Null) => {
            fields.remove(key);
        }
        (Value::Object(fields), value) => {
            fields.insert(key.to_owned(), value);
        }
        (Value::Array(items), value) => items[key.parse::<usize>().unwrap()] = value,
        (other, _) => panic!("{pointer}: {other} has no fields"),
    }
}
