//! Manifests, as `kubectl apply` reads them, into a snapshot of the kernel.
//!
//! Every file of a folder, every document of a file. Objects are validated by the code that the controller uses. Of several
//! documents for one object the last counts, as with `kubectl apply`: a second folder changes what a first one says.
//!
//! # Errors
//! Each names the file, the document (counted from 1) and the field.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pomarium_api::group::ServerGroup;
use pomarium_api::pool::ServerPool;
use pomarium_api::site::ServerSite;
use pomarium_api::validate::{self, Currency, GroupSeen, PoolSeen};
use pomarium_kernel::names::{PoolId, SiteName};
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Contact, Demand, Inventory, Snapshot};
use pomarium_kernel::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const API_VERSION: &str = "pomarium.dev/v1alpha1";

/// A manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("reading manifests {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("reading manifests {}: it has no .yaml, .yml or .json files", .0.display())]
    Empty(PathBuf),
    #[error("{at}: {message}")]
    Document { at: Place, message: String },
    #[error("reading manifests: {0}")]
    Together(String),
}

/// A document of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    path: PathBuf,
    document: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, document {}", self.path.display(), self.document)
    }
}

impl Place {
    fn error(&self, message: impl Into<String>) -> ManifestError {
        ManifestError::Document {
            at: self.clone(),
            message: message.into(),
        }
    }
}

/// What the manifests declare.
#[derive(Debug)]
pub(crate) struct Manifests {
    /// Sites, groups and pools, as of the trace's start.
    pub(crate) snapshot: Snapshot,
    /// Of all amounts.
    pub(crate) currency: Currency,
    /// Documents that are not for a replay.
    pub(crate) ignored: Vec<String>,
}

#[derive(Default)]
struct Documents {
    sites: BTreeMap<String, (Place, ServerSite)>,
    groups: BTreeMap<String, (Place, ServerGroup)>,
    pools: BTreeMap<PoolId, (Place, ServerPool)>,
    /// Kinds of other documents, and how many of each.
    others: BTreeMap<String, usize>,
}

/// Reads files and folders, in this order, and validates everything as of `now`.
pub(crate) fn read(paths: &[PathBuf], now: Timestamp) -> Result<Manifests, ManifestError> {
    let mut documents = Documents::default();
    for path in paths {
        for file in files(path)? {
            documents.add_file(&file)?;
        }
    }
    documents.validate(now)
}

/// `path` itself, or the manifests directly below it, sorted by name.
fn files(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let reading = |source| ManifestError::Read {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(reading)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(reading)? {
        let file = entry.map_err(reading)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(ManifestError::Empty(path.to_owned()));
    }
    Ok(files)
}

impl Documents {
    fn add_file(&mut self, path: &Path) -> Result<(), ManifestError> {
        let text = std::fs::read_to_string(path).map_err(|source| ManifestError::Read {
            path: path.to_owned(),
            source,
        })?;
        for (index, document) in serde_yaml::Deserializer::from_str(&text).enumerate() {
            let at = Place {
                path: path.to_owned(),
                document: index + 1,
            };
            // Through YAML's own value: the error for a key that is there twice, or no text, is then YAML's.
            let value = serde_yaml::Value::deserialize(document)
                .and_then(serde_yaml::from_value::<Value>)
                .map_err(|error| at.error(error.to_string()))?;
            self.add(&at, value)?;
        }
        Ok(())
    }

    fn add(&mut self, at: &Place, value: Value) -> Result<(), ManifestError> {
        if value.is_null() {
            return Ok(());
        }
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        let Some(kind) = text("kind").map(str::to_owned) else {
            return Err(at.error("kind is missing"));
        };
        let ours = text("apiVersion").is_some_and(|version| version.starts_with("pomarium.dev/"));
        if kind == "List" {
            let Value::Object(mut list) = value else { return Ok(()) };
            if let Some(Value::Array(items)) = list.remove("items") {
                return items.into_iter().try_for_each(|item| self.add(at, item));
            }
            return Ok(());
        }
        if !ours || !matches!(kind.as_str(), "ServerSite" | "ServerGroup" | "ServerPool") {
            *self.others.entry(kind).or_default() += 1;
            return Ok(());
        }
        if let Some(version) = text("apiVersion").filter(|version| *version != API_VERSION) {
            return Err(at.error(format!("apiVersion is {version:?}; allowed: {API_VERSION}")));
        }
        let Some(name) = value
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .map(str::to_owned)
        else {
            return Err(at.error(format!("{kind}: metadata.name is missing")));
        };
        let place = at.clone();
        match kind.as_str() {
            "ServerSite" => drop(
                self.sites
                    .insert(name.clone(), (place, typed(at, &kind, &name, value)?)),
            ),
            "ServerGroup" => drop(
                self.groups
                    .insert(name.clone(), (place, typed(at, &kind, &name, value)?)),
            ),
            _ => {
                let namespace = value.pointer("/metadata/namespace").and_then(Value::as_str);
                let id = PoolId::new(namespace.unwrap_or("default"), name.as_str());
                self.pools.insert(id, (place, typed(at, &kind, &name, value)?));
            }
        }
        Ok(())
    }

    fn validate(self, now: Timestamp) -> Result<Manifests, ManifestError> {
        let mut snapshot = Snapshot::default();
        for (name, (at, site)) in &self.sites {
            let site = validate::site(site, Contact::Reachable)
                .map_err(|problem| refused(at, "ServerSite", name, &problem))?;
            snapshot.sites.insert(name.as_str().into(), site);
        }
        for (name, (at, group)) in &self.groups {
            let inventory = Inventory::Known(BTreeMap::new());
            let group = validate::group(group, GroupSeen { inventory }, now)
                .map_err(|problem| refused(at, "ServerGroup", name, &problem))?;
            snapshot.groups.insert(name.as_str().into(), group);
        }
        let local = self
            .sites
            .iter()
            .filter(|(_, (_, site))| site.spec.connection.local.is_some());
        let local_sites: BTreeSet<SiteName> = local.map(|(name, _)| name.as_str().into()).collect();
        for (id, (at, pool)) in &self.pools {
            let seen = PoolSeen {
                namespace_at: snapshot.sites.keys().cloned().collect::<BTreeSet<_>>(),
                local_sites: local_sites.clone(),
                demand: Demand::Unknown {
                    since: now,
                    problem: Problem::new(Reason::Starting, "the replay has not begun"),
                    at_least: None,
                },
                measured: Vec::new(),
                engines: BTreeMap::new(),
                running: BTreeMap::new(),
                past: Arc::default(),
            };
            let pool =
                validate::pool(pool, seen).map_err(|problem| refused(at, "ServerPool", &id.to_string(), &problem))?;
            snapshot.pools.insert(id.clone(), pool);
        }
        let currency = validate::one_currency(
            self.sites.values().map(|(_, site)| site),
            self.groups.values().map(|(_, group)| group),
            self.pools.values().map(|(_, pool)| pool),
        )
        .map_err(|problem| ManifestError::Together(problem.message))?;
        let ignored = self
            .others
            .iter()
            .map(|(kind, count)| format!("{count} × {kind}"))
            .collect();
        Ok(Manifests {
            snapshot,
            currency,
            ignored,
        })
    }
}

fn refused(at: &Place, kind: &str, name: &str, problem: &Problem) -> ManifestError {
    at.error(format!("{kind} {name}: {}", problem.message))
}

/// The object; a field that it does not have is an error, as with `kubectl apply`.
fn typed<T: DeserializeOwned + Serialize>(
    at: &Place,
    kind: &str,
    name: &str,
    value: Value,
) -> Result<T, ManifestError> {
    let spec = value.get("spec").cloned().unwrap_or(Value::Null);
    let object: T = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        at.error(format!("{kind} {name}: {path}: {}", error.inner()))
    })?;
    let known = serde_json::to_value(&object).map_err(|error| at.error(error.to_string()))?;
    match unknown_field("spec", &spec, known.get("spec").unwrap_or(&Value::Null)) {
        None => Ok(object),
        Some(path) => Err(at.error(format!("{kind} {name}: {path} is not a field"))),
    }
}

/// The first field of `given` that got lost in `known`. An empty list or map may.
fn unknown_field(path: &str, given: &Value, known: &Value) -> Option<String> {
    match (given, known) {
        (Value::Object(given), known) => given.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match known.get(key) {
                Some(known) => unknown_field(&path, value, known),
                None if is_empty(value) => None,
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(index, (given, known))| unknown_field(&format!("{path}[{index}]"), given, known)),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}
