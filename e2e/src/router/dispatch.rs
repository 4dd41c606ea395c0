//! Which server gets a request: discipline `LeastWork`.
//!
//! Each request goes to the serving server with the least outstanding work, in ms of that server's own time; while none
//! serves, requests wait first-in-first-out. A fence takes effect with the call that says it: no request that asks
//! later is given the fenced server.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pomarium_kernel::engine::StepTimes;
use tokio::sync::oneshot;

/// A server's Pod: its site and its uid. A Pod of the same name that comes later is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendId {
    /// The site.
    pub site: String,
    /// The Pod's uid.
    pub uid: String,
}

/// A Pod that may be sent requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Which.
    pub id: BackendId,
    /// The Pod's name.
    pub pod: String,
    /// The name of the server it runs on.
    pub server: String,
    /// Where its engine listens.
    pub address: SocketAddr,
    /// How fast it is.
    pub times: StepTimes,
}

/// What a request will cost a server, before it is known which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) prompt_tokens: u32,
    pub(crate) expected_output: u32,
}

impl Work {
    /// Time to prefill the prompt, in ns.
    fn prefill_ns(self, times: &StepTimes) -> u64 {
        u64::from(self.prompt_tokens) * times.delta_ns
    }

    /// Time to decode the answer, in ns: one iteration a token, of which the request bears its own part and its share
    /// of the fixed part in a full batch.
    fn decode_ns(self, times: &StepTimes) -> u64 {
        let per_token = times.beta_ns + times.alpha_ns / u64::from(times.max_batch.max(1));
        u64::from(self.expected_output) * per_token
    }
}

/// Requests in flight on one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendLoad {
    /// Which server.
    pub backend: Backend,
    /// It takes new requests.
    pub serving: bool,
    /// Requests sent to it and not finished.
    pub in_flight: u32,
    /// Outstanding work, in ms of its own time.
    pub work_ms: u64,
}

/// Sends requests to servers. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Dispatcher(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    servers: BTreeMap<BackendId, Server>,
    waiting: VecDeque<Waiter>,
}

struct Server {
    backend: Backend,
    serving: bool,
    in_flight: u32,
    work_ns: u64,
}

struct Waiter {
    work: Work,
    given: oneshot::Sender<Lease>,
}

/// Every server that serves has been tried for this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AllTried;

impl Dispatcher {
    /// Lets `backend` take requests, first of all those that wait.
    pub(crate) fn open(&self, backend: Backend) {
        let given = {
            let mut state = self.lock();
            let id = backend.id.clone();
            let server = state.servers.entry(id).or_insert_with(|| Server {
                backend: backend.clone(),
                serving: true,
                in_flight: 0,
                work_ns: 0,
            });
            server.backend = backend;
            server.serving = true;
            let waiting = std::mem::take(&mut state.waiting);
            waiting
                .into_iter()
                .filter_map(|waiter| {
                    let lease = self.assign(&mut state, waiter.work, &BTreeSet::new())?;
                    Some((waiter.given, lease))
                })
                .collect::<Vec<_>>()
        };
        // Outside of the lock: a lease whose request has gone is dropped here, and takes the lock to give itself back.
        for (waiter, lease) in given {
            let _ = waiter.send(lease);
        }
    }

    /// Fences a server: from now on it gets no new request. What it runs goes on.
    pub(crate) fn fence(&self, id: &BackendId) {
        let mut state = self.lock();
        if let Some(server) = state.servers.get_mut(id) {
            server.serving = false;
            if server.in_flight == 0 {
                state.servers.remove(id);
            }
        }
    }

    /// Fences every server of `site` that is not in `keep`.
    pub(crate) fn keep_only(&self, site: &str, keep: &BTreeSet<BackendId>) {
        let gone: Vec<_> = {
            let state = self.lock();
            let of_site = state.servers.keys().filter(|id| id.site == site);
            of_site.filter(|id| !keep.contains(id)).cloned().collect()
        };
        for id in gone {
            self.fence(&id);
        }
    }

    /// Gives a server for a request, at once or as soon as one serves; none of `tried`.
    pub(crate) async fn acquire(&self, work: Work, tried: &BTreeSet<BackendId>) -> Result<Lease, AllTried> {
        let waiting = {
            let mut state = self.lock();
            if let Some(lease) = self.assign(&mut state, work, tried) {
                return Ok(lease);
            }
            if state.servers.values().any(|server| server.serving) {
                return Err(AllTried);
            }
            let (given, waiting) = oneshot::channel();
            state.waiting.retain(|waiter| !waiter.given.is_closed());
            state.waiting.push_back(Waiter { work, given });
            waiting
        };
        waiting.await.map_err(|_| AllTried)
    }

    /// Requests that wait for a server.
    pub(crate) fn queued(&self) -> usize {
        let state = self.lock();
        state.waiting.iter().filter(|waiter| !waiter.given.is_closed()).count()
    }

    /// All servers that serve, or still run something.
    pub(crate) fn loads(&self) -> Vec<BackendLoad> {
        let state = self.lock();
        let load = |server: &Server| BackendLoad {
            backend: server.backend.clone(),
            serving: server.serving,
            in_flight: server.in_flight,
            work_ms: server.work_ns / 1_000_000,
        };
        state.servers.values().map(load).collect()
    }

    fn assign(&self, state: &mut State, work: Work, tried: &BTreeSet<BackendId>) -> Option<Lease> {
        let candidates = state.servers.values_mut();
        let server = candidates
            .filter(|server| server.serving && !tried.contains(&server.backend.id))
            // Among equals, such as idle ones, the one that is fastest for this request.
            .min_by_key(|server| {
                let own = work.prefill_ns(&server.backend.times) + work.decode_ns(&server.backend.times);
                (server.work_ns, own)
            })?;
        let prefill_ns = work.prefill_ns(&server.backend.times);
        let decode_ns = work.decode_ns(&server.backend.times);
        server.in_flight += 1;
        server.work_ns += prefill_ns + decode_ns;
        Some(Lease {
            dispatcher: self.clone(),
            backend: server.backend.id.clone(),
            address: server.backend.address,
            prefill_ns,
            decode_ns,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every section below leaves the state whole, so a panic elsewhere in one does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's place on one server, given back when dropped.
pub(crate) struct Lease {
    dispatcher: Dispatcher,
    backend: BackendId,
    address: SocketAddr,
    prefill_ns: u64,
    decode_ns: u64,
}

impl Lease {
    /// Where to send the request.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which server it is.
    pub(crate) fn backend(&self) -> &BackendId {
        &self.backend
    }

    /// The first token came: the prompt is no outstanding work any more.
    pub(crate) fn prompt_done(&mut self) {
        let done = std::mem::take(&mut self.prefill_ns);
        if let Some(server) = self.dispatcher.lock().servers.get_mut(&self.backend) {
            server.work_ns = server.work_ns.saturating_sub(done);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.dispatcher.lock();
        let Some(server) = state.servers.get_mut(&self.backend) else {
            return;
        };
        server.in_flight = server.in_flight.saturating_sub(1);
        server.work_ns = server.work_ns.saturating_sub(self.prefill_ns + self.decode_ns);
        if !server.serving && server.in_flight == 0 {
            state.servers.remove(&self.backend);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::FutureExt;

    use super::*;

    pub(crate) fn times(delta_ms: u64) -> StepTimes {
        StepTimes {
            alpha_ns: 10_000_000,
            beta_ns: 2_000_000,
            delta_ns: delta_ms * 1_000_000,
            kv_tokens: 400_000,
            max_batch: 10,
            prefill_chunk: 256,
        }
    }

    pub(crate) fn backend(name: &str, port: u16, delta_ms: u64) -> Backend {
        Backend {
            id: BackendId {
                site: "here".into(),
                uid: name.into(),
            },
            pod: name.into(),
            server: name.into(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            times: times(delta_ms),
        }
    }

    fn work(prompt_tokens: u32) -> Work {
        Work {
            prompt_tokens,
            expected_output: 100,
        }
    }

    fn now(dispatcher: &Dispatcher, prompt: u32, tried: &BTreeSet<BackendId>) -> Result<Lease, AllTried> {
        dispatcher.acquire(work(prompt), tried).now_or_never().unwrap()
    }

    fn none() -> BTreeSet<BackendId> {
        BTreeSet::new()
    }

    #[test]
    fn the_server_with_the_least_outstanding_work_is_picked() {
        let dispatcher = Dispatcher::default();
        dispatcher.open(backend("a", 1, 1));
        dispatcher.open(backend("b", 2, 1));
        let long = now(&dispatcher, 4_000, &none()).unwrap();
        // Two short ones are less work than the long one.
        let short: Vec<_> = (0..2).map(|_| now(&dispatcher, 500, &none()).unwrap()).collect();
        assert!(short.iter().all(|lease| lease.backend() != long.backend()));
        // With its prompt done the long one is the lighter.
        let mut long = long;
        long.prompt_done();
        assert_eq!(now(&dispatcher, 10, &none()).unwrap().backend(), long.backend());
        drop((long, short));
        assert!(
            dispatcher
                .loads()
                .iter()
                .all(|load| load.in_flight == 0 && load.work_ms == 0)
        );
    }

    #[test]
    fn a_faster_server_takes_more_of_the_work() {
        let dispatcher = Dispatcher::default();
        dispatcher.open(backend("fast", 1, 1));
        dispatcher.open(backend("slow", 2, 3));
        let leases: Vec<_> = (0..40).map(|_| now(&dispatcher, 2_000, &none()).unwrap()).collect();
        let fast = leases.iter().filter(|lease| lease.backend().uid == "fast").count();
        assert!(
            (26..=34).contains(&fast),
            "{fast} of 40 went to the server that is about 2.7 times as fast"
        );
    }

    #[test]
    fn requests_wait_in_order_while_nothing_serves() {
        let dispatcher = Dispatcher::default();
        let tried = none();
        let mut first = Box::pin(dispatcher.acquire(work(1), &tried));
        let mut second = Box::pin(dispatcher.acquire(work(2), &tried));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        assert_eq!(dispatcher.queued(), 2);
        drop(first);
        assert_eq!(dispatcher.queued(), 1, "who gives up waits no more");
        dispatcher.open(backend("a", 1, 1));
        let lease = second.now_or_never().unwrap().unwrap();
        let loads = dispatcher.loads();
        assert_eq!((lease.backend().uid.as_str(), loads[0].in_flight), ("a", 1));
    }

    #[test]
    fn a_fenced_server_gets_nothing_new_and_finishes_what_it_has() {
        let dispatcher = Dispatcher::default();
        let (a, b) = (backend("a", 1, 1), backend("b", 2, 1));
        dispatcher.open(a.clone());
        let running = now(&dispatcher, 10, &none()).unwrap();
        dispatcher.fence(&a.id);
        let tried = none();
        let mut waiting = Box::pin(dispatcher.acquire(work(1), &tried));
        assert!(waiting.as_mut().now_or_never().is_none(), "the only server is fenced");
        assert_eq!(dispatcher.loads()[0].in_flight, 1);
        drop(running);
        assert_eq!(dispatcher.loads(), [], "a fenced server is forgotten once it is quiet");
        dispatcher.open(b.clone());
        assert_eq!(waiting.now_or_never().unwrap().unwrap().backend(), &b.id);
    }

    #[test]
    fn a_server_that_failed_this_request_is_not_tried_again_for_it() {
        let dispatcher = Dispatcher::default();
        let (a, b) = (backend("a", 1, 1), backend("b", 2, 1));
        dispatcher.open(a.clone());
        dispatcher.open(b.clone());
        let tried = BTreeSet::from([a.id.clone()]);
        let leases: Vec<_> = (0..3).map(|_| now(&dispatcher, 10, &tried).unwrap()).collect();
        assert!(leases.iter().all(|lease| lease.backend() == &b.id));
        let all = BTreeSet::from([a.id, b.id]);
        assert_eq!(now(&dispatcher, 10, &all).err(), Some(AllTried));
    }

    #[test]
    fn a_site_that_is_listed_anew_fences_what_is_gone_there_and_nothing_elsewhere() {
        let dispatcher = Dispatcher::default();
        let (a, mut b) = (backend("a", 1, 1), backend("b", 2, 1));
        b.id.site = "there".into();
        dispatcher.open(a);
        dispatcher.open(b.clone());
        dispatcher.keep_only("here", &none());
        let loads = dispatcher.loads();
        assert_eq!(loads.iter().map(|load| &load.backend).collect::<Vec<_>>(), [&b]);
    }
}
