//! One model server process: its listener, its connections, its engine, and how it ends.
//!
//! # Guarantees
//! - It answers from its start: 503 while the model loads, then completions.
//! - Shut down, it finishes what it has begun to answer. Killed, it drops its connections, and the answers that were under
//!   way are counted as cut. On a machine that died, nothing is answered and nothing is closed.
//! - Once it has ended, nothing listens at its address.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pomarium_kernel::engine::StepTimes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::faults::Ailments;
use super::figures::{Figures, Kind};
use super::openai;
use super::pace::{Command, EngineClock, Lag, Pacer};

/// What all processes of one group have done together.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Answered to the end.
    pub(crate) completed: AtomicU64,
    /// Broken off because the process was ended.
    pub(crate) cut: AtomicU64,
    /// Broken off because the machine died.
    pub(crate) lost: AtomicU64,
    /// Broken off by the client.
    pub(crate) cancelled: AtomicU64,
    /// Yielded by processes that have ended.
    pub(crate) tokens: AtomicU64,
}

/// What a process is to run.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) kind: Kind,
    pub(crate) times: StepTimes,
    pub(crate) address: SocketAddr,
}

/// What the endpoints of a process share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) kind: Kind,
    pub(crate) times: StepTimes,
    pub(crate) clock: EngineClock,
    pub(crate) figures: Arc<Mutex<Figures>>,
    pub(crate) ailments: watch::Receiver<Ailments>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    /// Numbers requests.
    pub(crate) submitted: AtomicU64,
    loaded: AtomicBool,
    killed: AtomicBool,
    /// Requests that are being answered.
    in_flight: watch::Sender<u64>,
    totals: Arc<Totals>,
}

impl State {
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    pub(crate) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that were taken and are not in the batch. A request counts from the moment it was taken.
    pub(crate) fn queued(&self, figures: &Figures) -> u64 {
        let taken = self.submitted.load(Ordering::Acquire);
        taken.saturating_sub(figures.left).saturating_sub(figures.running)
    }
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    state: Arc<State>,
    /// No new connections; those that exist end after their answer.
    retiring: CancellationToken,
    ended: CancellationToken,
    connections: TaskTracker,
}

impl Process {
    /// Starts it. The model is not loaded yet.
    pub(crate) async fn start(
        spec: Spec,
        clock: EngineClock,
        lag: Arc<Lag>,
        totals: Arc<Totals>,
        ailments: watch::Receiver<Ailments>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(spec.address).await?;
        let (commands, queue) = mpsc::unbounded_channel();
        let figures = Arc::new(Mutex::new(Figures::new(spec.kind.engine)));
        let pacer = Pacer::new(spec.times, clock, lag, Arc::clone(&figures), ailments.clone(), queue);
        let state = Arc::new(State {
            kind: spec.kind,
            times: spec.times,
            clock,
            figures,
            ailments: ailments.clone(),
            commands,
            submitted: AtomicU64::new(0),
            loaded: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            in_flight: watch::Sender::new(0),
            totals,
        });
        let process = Self {
            state: Arc::clone(&state),
            retiring: CancellationToken::new(),
            ended: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        let ended = process.ended.clone();
        tokio::spawn(async move { ended.run_until_cancelled(pacer.run()).await });
        let acceptor = Acceptor {
            service: TowerToHyperService::new(openai::router(state)),
            ailments,
            retiring: process.retiring.clone(),
            ended: process.ended.clone(),
            connections: process.connections.clone(),
        };
        process.connections.spawn(acceptor.run(listener));
        Ok(process)
    }

    /// The model is loaded: requests are taken.
    pub(crate) fn loaded(&self) {
        self.state.loaded.store(true, Ordering::Release);
    }

    /// What it is doing.
    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Waits until no request is being answered. What `preStop` of the Pod waits for.
    pub(crate) async fn idle(&self) {
        let mut in_flight = self.state.in_flight.subscribe();
        // The sender lives as long as `self`.
        let _ = in_flight.wait_for(|count| *count == 0).await;
    }

    /// SIGTERM to an idle process: finishes what it answers, takes nothing more, and ends.
    pub(crate) async fn shut_down(&self) {
        self.retiring.cancel();
        self.connections.close();
        self.connections.wait().await;
        self.end();
    }

    /// SIGKILL: connections break off. Returns once nothing listens any more.
    pub(crate) async fn kill(&self) {
        self.state.killed.store(true, Ordering::Release);
        self.end();
        self.connections.close();
        self.connections.wait().await;
    }

    /// The machine is gone: what was being answered is lost. The process is of no use any more.
    pub(crate) fn machine_died(&self) {
        if !self.state.killed.swap(true, Ordering::AcqRel) {
            let lost = self.state.in_flight.send_replace(0);
            self.state.totals.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    fn end(&self) {
        if !self.ended.is_cancelled() {
            let tokens = self.state.figures().tokens();
            self.state.totals.tokens.fetch_add(tokens, Ordering::Relaxed);
            self.ended.cancel();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.state.killed.store(true, Ordering::Release);
        self.end();
    }
}

/// One request's place in the process, until it is answered or given up.
#[derive(Debug)]
pub(crate) struct Presence {
    state: Option<Arc<State>>,
    request: u64,
    complete: bool,
}

impl Presence {
    pub(crate) fn enter(state: &Arc<State>, request: u64) -> Self {
        state.in_flight.send_modify(|count| *count += 1);
        Self {
            state: Some(Arc::clone(state)),
            request,
            complete: false,
        }
    }

    /// Without a process, for tests of streams.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        Self {
            state: None,
            request: 0,
            complete: false,
        }
    }

    /// The last byte of the answer is on its way.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let Some(state) = &self.state else { return };
        // Zero already if the machine died: then it was counted as lost.
        let mut there = false;
        state.in_flight.send_modify(|count| {
            there = *count > 0;
            *count = count.saturating_sub(1);
        });
        if !there {
            return;
        }
        let totals = &state.totals;
        let counter = if self.complete {
            &totals.completed
        } else if state.killed.load(Ordering::Acquire) {
            &totals.cut
        } else {
            // The engine may have ended before: then there is nothing to cancel.
            let _ = state.commands.send(Command::Cancel(self.request));
            &totals.cancelled
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes connections.
struct Acceptor {
    service: TowerToHyperService<Router>,
    ailments: watch::Receiver<Ailments>,
    retiring: CancellationToken,
    ended: CancellationToken,
    connections: TaskTracker,
}

impl Acceptor {
    async fn run(mut self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.ended.cancelled() => return,
                () = self.retiring.cancelled() => return,
                // The kernel goes on taking connections for the dead machine: to its clients they are open and silent.
                () = dead(&mut self.ailments) => {
                    self.ended.cancelled().await;
                    return;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.connections.spawn(self.serve(stream));
                }
                // Out of descriptors: wait for some to be closed.
                Err(error) => {
                    tracing::warn!(%error, "taking a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream) -> impl Future<Output = ()> + use<> {
        let service = self.service.clone();
        let mut ailments = self.ailments.clone();
        let (retiring, ended) = (self.retiring.clone(), self.ended.clone());
        async move {
            // Tokens are small and must not wait for each other.
            let _ = stream.set_nodelay(true);
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let mut leaving = false;
            loop {
                tokio::select! {
                    biased;
                    () = ended.cancelled() => return,
                    () = dead(&mut ailments) => {
                        ended.cancelled().await;
                        return;
                    }
                    () = retiring.cancelled(), if !leaving => {
                        connection.as_mut().graceful_shutdown();
                        leaving = true;
                    }
                    _ = connection.as_mut() => return,
                }
            }
        }
    }
}

/// Returns when the machine is dead.
async fn dead(ailments: &mut watch::Receiver<Ailments>) {
    if ailments.wait_for(|ailments| ailments.dead).await.is_err() {
        // The fleet is gone: whoever waits is ended otherwise.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
