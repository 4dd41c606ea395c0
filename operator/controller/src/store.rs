//! Watches, projected into small caches.
//!
//! A full Node takes 20 kB in memory, what Pomarium needs of it a few hundred bytes: every object is projected on the
//! stream, and the rest is dropped before the next page arrives.
//!
//! # Guarantees
//! [`Store::is_current`] is true only between a complete list and the first error after it: a watch that fails is never
//! resumed quietly but listed anew, so that "current" has a positive proof behind it. The content stays readable while
//! it is not current. An object that cannot be decoded is recorded and harms nothing but itself.

mod hub;
mod site;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

pub(crate) use hub::{Groups, Plans, Pools, SecretVersions, Sites};
pub(crate) use site::{Budgets, Namespaces, Nodes, Pods};

use crate::client::error_chain;
use crate::latest::Trigger;

/// First and longest pause between two attempts to list.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// How long a list may go without a page.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// What a store keeps of the objects of one kind.
pub(crate) trait Projection: Send + Sync + 'static {
    /// What is watched: an object behind a `DeserializeGuard`, or only its metadata.
    type Watched: Resource<DynamicType: Default> + Clone + DeserializeOwned + Debug + Send + 'static;
    /// Under which key it is kept.
    type Key: Ord + Clone + Debug + Send + 'static;
    /// What is kept.
    type Value: Send + Sync + 'static;

    /// The key of an object.
    fn key(metadata: &ObjectMeta) -> Self::Key;

    /// What is kept of an object, or why it cannot be read.
    fn project(&self, object: Self::Watched) -> Result<Self::Value, String>;

    /// Whether the loop should look at once when `old` becomes `new`.
    fn matters(old: &Self::Value, new: &Self::Value) -> bool;
}

/// The cache of one kind at one cluster. Clones share their content.
pub(crate) struct Store<P: Projection> {
    shared: Arc<Shared<P>>,
}

impl<P: Projection> Clone for Store<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

struct Shared<P: Projection> {
    projection: P,
    trigger: Trigger,
    content: Mutex<Content<P>>,
}

/// Everything kept, by key.
pub(crate) type Items<P> = BTreeMap<<P as Projection>::Key, Arc<<P as Projection>::Value>>;

/// A list while it is being read: what could be decoded, and why the rest could not.
type Incoming<P> = (Items<P>, BTreeMap<<P as Projection>::Key, String>);

struct Content<P: Projection> {
    items: Arc<Items<P>>,
    undecodable: BTreeMap<P::Key, String>,
    /// The last version that could be decoded of objects that cannot be any more.
    stale: Items<P>,
    /// The list that is being read, if one is.
    incoming: Option<Incoming<P>>,
    state: State,
}

/// Whether the content is current.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Complete, and the watch is up.
    Current,
    /// Not, and why not.
    Behind(String),
}

impl<P: Projection> Store<P> {
    /// An empty store that has seen nothing.
    pub(crate) fn new(projection: P, trigger: Trigger) -> Self {
        Self {
            shared: Arc::new(Shared {
                projection,
                trigger,
                content: Mutex::new(Content {
                    items: Arc::default(),
                    undecodable: BTreeMap::new(),
                    stale: BTreeMap::new(),
                    incoming: None,
                    state: State::Behind("has not been listed yet".to_owned()),
                }),
            }),
        }
    }

    /// Everything kept, current or as last seen.
    pub(crate) fn items(&self) -> Arc<Items<P>> {
        Arc::clone(&self.lock().items)
    }

    /// Everything kept, and of what cannot be decoded any more the last version that could.
    pub(crate) fn known(&self) -> Items<P> {
        let content = self.lock();
        let mut known = (*content.items).clone();
        known.extend(content.stale.clone());
        known
    }

    /// Objects that cannot be decoded, and why.
    pub(crate) fn undecodable(&self) -> BTreeMap<P::Key, String> {
        self.lock().undecodable.clone()
    }

    /// Whether the content is complete and the watch is up; the reason if not.
    pub(crate) fn is_current(&self) -> Result<(), String> {
        match &self.lock().state {
            State::Current => Ok(()),
            State::Behind(reason) => Err(format!("{}: {reason}", plural::<P>())),
        }
    }

    /// Says that nothing keeps the content current any more.
    pub(crate) fn suspend(&self, reason: &str) {
        let mut content = self.lock();
        content.incoming = None;
        content.state = State::Behind(reason.to_owned());
    }

    /// Keeps the content current for as long as it is polled.
    pub(crate) async fn follow(&self, api: Api<P::Watched>, config: watcher::Config) {
        let mut pause = BACKOFF.0;
        loop {
            let mut stream = pin!(watcher(api.clone(), config.clone()));
            let reason = loop {
                let event = if self.is_current().is_ok() {
                    // The watch has its own time-out for silence.
                    stream.next().await
                } else {
                    match tokio::time::timeout(LIST_TIMEOUT, stream.next()).await {
                        Ok(event) => event,
                        Err(_) => break "the list does not arrive".to_owned(),
                    }
                };
                match event {
                    Some(Ok(event)) => {
                        if self.take(event) {
                            pause = BACKOFF.0;
                        }
                    }
                    Some(Err(error)) => break error_chain(&error),
                    None => break "the watch ended".to_owned(),
                }
            };
            debug!(kind = %plural::<P>(), reason, "listing anew");
            self.suspend(&reason);
            self.shared.trigger.wake();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Takes one event in. True if the content has just become current.
    fn take(&self, event: Event<P::Watched>) -> bool {
        let mut content = self.lock();
        match event {
            Event::Init => {
                content.incoming = Some(Default::default());
                false
            }
            Event::InitApply(object) => {
                let (key, value) = self.read(object);
                let (items, undecodable) = content.incoming.get_or_insert_default();
                match value {
                    Ok(value) => drop(items.insert(key, Arc::new(value))),
                    Err(error) => drop(undecodable.insert(key, error)),
                }
                false
            }
            Event::InitDone => {
                let (items, undecodable) = content.incoming.take().unwrap_or_default();
                let before = std::mem::replace(&mut content.items, Arc::new(items));
                let last = |key: &P::Key| before.get(key).or_else(|| content.stale.get(key)).map(Arc::clone);
                content.stale = undecodable
                    .keys()
                    .filter_map(|key| Some((key.clone(), last(key)?)))
                    .collect();
                content.undecodable = undecodable;
                content.state = State::Current;
                self.shared.trigger.wake();
                true
            }
            Event::Apply(object) => {
                let (key, value) = self.read(object);
                let items = Arc::make_mut(&mut content.items);
                let matters = match value {
                    Ok(value) => {
                        let old = items.get(&key);
                        let matters = old.is_none_or(|old| P::matters(old, &value));
                        items.insert(key.clone(), Arc::new(value));
                        content.undecodable.remove(&key);
                        content.stale.remove(&key);
                        matters
                    }
                    Err(error) => {
                        if let Some(last) = items.remove(&key) {
                            content.stale.insert(key.clone(), last);
                        }
                        content.undecodable.insert(key, error).is_none()
                    }
                };
                if matters {
                    self.shared.trigger.wake();
                }
                false
            }
            Event::Delete(object) => {
                let key = P::key(object.meta());
                Arc::make_mut(&mut content.items).remove(&key);
                content.undecodable.remove(&key);
                content.stale.remove(&key);
                self.shared.trigger.wake();
                false
            }
        }
    }

    fn read(&self, object: P::Watched) -> (P::Key, Result<P::Value, String>) {
        let key = P::key(object.meta());
        let value = self.shared.projection.project(object);
        if let Err(error) = &value {
            warn!(kind = %plural::<P>(), ?key, error, "an object cannot be decoded and is left out");
        }
        (key, value)
    }

    fn lock(&self) -> MutexGuard<'_, Content<P>> {
        self.shared.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn plural<P: Projection>() -> String {
    P::Watched::plural(&Default::default()).into_owned()
}

#[cfg(test)]
mod tests;
