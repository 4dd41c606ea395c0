//! Asks providers for their lists in the background, so that a pass never waits for one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use pomarium_api::group::ServerGroup;
use pomarium_api::labels;
use pomarium_kernel::names::{GroupName, ServerName};
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::time::{Span, Timestamp};
use tokio::sync::Notify;

use super::{GroupCall, ProviderError, Providers};
use crate::client::{Gate, NotLeader};
use crate::clock::Clock;
use crate::latest::{Latest, Trigger};
use crate::world::{ProviderAnswer, World};

/// Between two rounds. Virtual, but never shorter than [`SHORTEST`] in real time.
const INTERVAL: Span = Span::from_secs(5);
/// Bounds the load on a provider under compressed time.
const SHORTEST: Duration = Duration::from_millis(100);
/// Groups asked at the same time.
const CONCURRENCY: usize = 8;

/// A group that is to be asked about.
#[derive(Clone, Debug)]
struct GroupTarget {
    /// The object.
    object: Arc<ServerGroup>,
    /// How many Nodes of it exist.
    nodes: u32,
}

/// The last answers of all providers, and who asks for them. Clones share everything.
#[derive(Clone)]
pub struct Inventories {
    providers: Providers,
    clock: Clock,
    targets: Arc<Mutex<BTreeMap<GroupName, GroupTarget>>>,
    answers: Latest<GroupName, ProviderAnswer>,
    gate: Gate,
    hurry: Arc<Notify>,
}

impl Inventories {
    /// Nothing asked yet. `trigger` is pulled when an answer changes.
    pub fn new(providers: Providers, clock: Clock, trigger: Trigger) -> Self {
        Self {
            providers,
            clock,
            targets: Arc::default(),
            answers: Latest::new(trigger),
            gate: Gate::open(),
            hurry: Arc::default(),
        }
    }

    /// Asks for servers and gives them back only while `gate` is open: providers have no resourceVersions, and only the
    /// leader may spend.
    #[must_use]
    pub fn guarded_by(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// The last answers.
    pub fn answers(&self) -> BTreeMap<GroupName, Arc<ProviderAnswer>> {
        self.answers.all()
    }

    /// Says which groups to ask about: all that this pass has seen.
    pub fn look_at(&self, world: &World) {
        let target = |(name, object): (&GroupName, &Arc<ServerGroup>)| {
            let target = GroupTarget {
                object: Arc::clone(object),
                nodes: nodes_of(world, name, object),
            };
            (name.clone(), target)
        };
        self.set_targets(world.groups.iter().map(target).collect());
    }

    /// A group that is new is asked about at once.
    fn set_targets(&self, targets: BTreeMap<GroupName, GroupTarget>) {
        self.answers.retain(|group| targets.contains_key(group));
        let mut current = self.lock();
        let news = targets.keys().any(|group| !current.contains_key(group));
        *current = targets;
        drop(current);
        if news {
            self.hurry.notify_one();
        }
    }

    /// Asks on until dropped.
    pub async fn run(self) {
        loop {
            self.round().await;
            let interval = self.clock.real_duration(INTERVAL).max(SHORTEST);
            // Cut short after a change, so that the plan soon sees what it has done.
            let _ = tokio::time::timeout(interval, self.hurry.notified()).await;
        }
    }

    /// Asks for `server`, and looks at the group again soon.
    pub async fn request(&self, group: &GroupName, server: &ServerName, size: u32) -> Result<bool, ProviderError> {
        let call = self.call(group)?;
        let result = self.providers.of(&call.object).request(&call, server, size).await;
        let stock = match &result {
            Ok(_) => Some(None),
            Err(ProviderError::OutOfStock(_)) => Some(Some(self.clock.now())),
            Err(_) => None,
        };
        if let Some(stock) = stock {
            self.note_stock(group, stock);
        }
        self.look_again(&call).await;
        result
    }

    /// Gives `server` back, and looks at the group again soon.
    pub async fn release(&self, group: &GroupName, server: &ServerName) -> Result<bool, ProviderError> {
        let call = self.call(group)?;
        let result = self.providers.of(&call.object).release(&call, server).await;
        self.look_again(&call).await;
        result
    }

    /// Gives all servers of a group back, and looks at it again soon.
    pub async fn empty(&self, group: &GroupName) -> Result<bool, ProviderError> {
        let call = self.call(group)?;
        let result = self.providers.of(&call.object).empty(&call).await;
        self.look_again(&call).await;
        result
    }

    /// Asks all providers once.
    async fn round(&self) {
        let calls: Vec<GroupCall> = self
            .lock()
            .iter()
            .map(|(name, target)| GroupCall {
                name: name.clone(),
                object: Arc::clone(&target.object),
                nodes: target.nodes,
            })
            .collect();
        stream::iter(calls)
            .for_each_concurrent(CONCURRENCY, |call| async move { self.look(&call).await })
            .await;
    }

    async fn look_again(&self, call: &GroupCall) {
        self.look(call).await;
        self.hurry.notify_one();
    }

    async fn look(&self, call: &GroupCall) {
        let provider = self.providers.of(&call.object);
        // The time before the question: a list is never newer than it says.
        let asked_at = self.clock.now();
        let listed = provider.list(call).await;
        let before = self.answers.get(&call.name).map(|answer| (*answer).clone());
        let out_of_stock_since = before.as_ref().and_then(|answer| answer.out_of_stock_since);
        let changed = |answer: &ProviderAnswer| {
            before.as_ref().is_none_or(|before| {
                before.servers != answer.servers || before.size != answer.size || before.problem != answer.problem
            })
        };
        let answer = match listed {
            Ok(listed) => ProviderAnswer {
                servers: listed.servers,
                listed_at: Some(asked_at),
                problem: None,
                out_of_stock_since,
                size: listed.size,
            },
            Err(error) => ProviderAnswer {
                problem: Some(problem(&call.name, &error)),
                ..before.clone().unwrap_or_default()
            },
        };
        // A list that only got younger can wait for the next tick.
        if changed(&answer) {
            self.answers.put(call.name.clone(), answer);
        } else {
            self.answers.put_quietly(call.name.clone(), answer);
        }
    }

    fn note_stock(&self, group: &GroupName, out_of_stock_since: Option<Timestamp>) {
        if let Some(before) = self.answers.get(group) {
            let out_of_stock_since = match (before.out_of_stock_since, out_of_stock_since) {
                (Some(since), Some(_)) => Some(since),
                (_, now) => now,
            };
            let answer = ProviderAnswer {
                out_of_stock_since,
                ..(*before).clone()
            };
            self.answers.put(group.clone(), answer);
        }
    }

    /// What a change is asked with.
    fn call(&self, group: &GroupName) -> Result<GroupCall, ProviderError> {
        if !self.gate.is_open() {
            return Err(ProviderError::Refused(NotLeader.to_string()));
        }
        let targets = self.lock();
        let target = targets
            .get(group)
            .ok_or_else(|| ProviderError::Missing(format!("there is no group {group}")))?;
        Ok(GroupCall {
            name: group.clone(),
            object: Arc::clone(&target.object),
            nodes: target.nodes,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<GroupName, GroupTarget>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many Nodes a group has, by its selector.
fn nodes_of(world: &World, name: &GroupName, object: &ServerGroup) -> u32 {
    let own_label = || BTreeMap::from([(labels::GROUP.to_owned(), name.to_string())]);
    let selector = object.spec.node_selector.as_ref();
    let wanted = selector.map_or_else(own_label, |selector| selector.match_labels.clone());
    let Some(site) = world.sites.get(object.spec.site_ref.name.as_str()) else {
        return 0;
    };
    let count = site
        .nodes
        .values()
        .filter(|node| wanted.iter().all(|(key, value)| node.labels.get(key) == Some(value)))
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn problem(group: &GroupName, error: &ProviderError) -> Problem {
    let reason = match error {
        ProviderError::OutOfStock(_) => Reason::OutOfStock,
        ProviderError::ForeignWriter(_) => Reason::ForeignWriter,
        ProviderError::Missing(_) => Reason::ReferenceMissing,
        ProviderError::Refused(_) | ProviderError::Unavailable(_) => Reason::ProviderFailed,
    };
    Problem::new(reason, format!("listing the servers of {group}: {error}"))
}
