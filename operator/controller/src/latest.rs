//! The last answers of background tasks, and how they wake the loop.
//!
//! The pass must not wait for engines, gateways or providers. Tasks ask them at their own pace and put the answers here,
//! with the time at which they were given; the pass takes what there is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Wakes the loop. Many calls before the loop looks are one wake-up.
#[derive(Clone, Debug, Default)]
pub struct Trigger(Arc<Notify>);

impl Trigger {
    /// Says that something has changed.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits until something has changed since the last wait.
    pub async fn changed(&self) {
        self.0.notified().await;
    }
}

/// The last answer for each key. Clones share their content.
#[derive(Debug)]
pub struct Latest<K, V> {
    answers: Arc<Mutex<BTreeMap<K, Arc<V>>>>,
    trigger: Trigger,
}

impl<K, V> Clone for Latest<K, V> {
    fn clone(&self) -> Self {
        Self {
            answers: Arc::clone(&self.answers),
            trigger: self.trigger.clone(),
        }
    }
}

impl<K: Ord + Clone, V: PartialEq> Latest<K, V> {
    /// No answers yet. `trigger` is pulled when an answer changes.
    pub fn new(trigger: Trigger) -> Self {
        Self {
            answers: Arc::default(),
            trigger,
        }
    }

    /// Replaces the answer for `key`, and wakes the loop if it differs from the one before.
    pub fn put(&self, key: K, answer: V) {
        if self.replace(key, answer) {
            self.trigger.wake();
        }
    }

    /// Replaces the answer for `key` without waking the loop: for answers that change with every poll and can wait for
    /// the next tick.
    pub fn put_quietly(&self, key: K, answer: V) {
        self.replace(key, answer);
    }

    /// Forgets the answers for all keys that `keep` does not want any more.
    pub fn retain(&self, keep: impl Fn(&K) -> bool) {
        self.lock().retain(|key, _| keep(key));
    }

    /// The last answer for `key`.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        self.lock().get(key).cloned()
    }

    /// All last answers.
    pub fn all(&self) -> BTreeMap<K, Arc<V>> {
        self.lock().clone()
    }

    fn replace(&self, key: K, answer: V) -> bool {
        let mut answers = self.lock();
        if answers.get(&key).is_some_and(|old| **old == answer) {
            return false;
        }
        answers.insert(key, Arc::new(answer));
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<K, Arc<V>>> {
        // A panic elsewhere leaves the map whole: single inserts and removals only.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn only_an_answer_that_differs_wakes_the_loop() {
        let trigger = Trigger::default();
        let latest = Latest::new(trigger.clone());
        let woken = || trigger.changed().now_or_never().is_some();

        latest.put("a", 1);
        assert!(woken(), "a first answer");
        latest.put("a", 1);
        assert!(!woken(), "the same answer");
        latest.put("a", 2);
        latest.put("b", 1);
        assert!(woken(), "a different answer");
        assert!(!woken(), "many changes are one wake-up");
        latest.put_quietly("a", 3);
        assert!(!woken(), "a quiet answer");
        assert_eq!(latest.get(&"a").as_deref(), Some(&3));
        latest.retain(|key| *key == "b");
        assert_eq!(latest.get(&"a"), None);
    }
}
