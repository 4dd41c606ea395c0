//! One leader at a time, by client-go's Lease protocol.
//!
//! Written here and not taken from a crate because every renewal has to move the deadline of the [`Gate`]: leadership is
//! worth as much as the promise that writes stop with it.
//!
//! # Guarantees
//! - The gate shuts `renew deadline` after the *sending* of the last successful renewal, whether or not any task of this
//!   process gets to run. A write takes at most `lease duration − renew deadline`, so that it has ended before another
//!   candidate may take the Lease over.
//! - Expiry is judged by how long the Lease has been seen unchanged, on this machine's monotonic clock; time stamps of
//!   other machines are never compared.
//!
//! # Caveats
//! As with any Lease, it holds among candidates that respect it and whose clocks run at about the same *rate*.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::client::{Gate, error_chain};

/// Name of the Lease.
const NAME: &str = "pomarium";

/// How the Lease is taken and kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of the Lease.
    pub namespace: String,
    /// Of this process; unique among the candidates.
    pub identity: String,
    /// How long a Lease is honoured after its last renewal.
    pub lease_duration: Duration,
}

impl Settings {
    /// How long after the last renewal this process still counts as the leader: two thirds of the Lease's duration.
    pub fn renew_deadline(&self) -> Duration {
        self.lease_duration * 2 / 3
    }

    /// How long a write may take: the rest.
    pub fn write_timeout(&self) -> Duration {
        self.lease_duration / 3
    }

    /// How often the Lease is renewed, or looked at.
    fn retry_period(&self) -> Duration {
        self.lease_duration * 2 / 15
    }
}

/// A candidate for leadership.
pub struct Election {
    leases: Api<Lease>,
    settings: Settings,
    gate: Gate,
}

/// What a look at the Lease means for a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is nobody's, ours, or has not been renewed for its duration.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// The Lease as it was last seen to change.
#[derive(Clone, Debug)]
struct Observation {
    spec: LeaseSpec,
    since: Instant,
}

/// Decides about the Lease with `spec`, seen at `now`, after `last` was seen.
fn verdict(spec: &LeaseSpec, last: &mut Option<Observation>, settings: &Settings, now: Instant) -> Verdict {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if holder.is_empty() || holder == settings.identity {
        return Verdict::Take;
    }
    match last {
        Some(observation) if observation.spec == *spec => {
            if now.saturating_duration_since(observation.since) >= settings.lease_duration {
                Verdict::Take
            } else {
                Verdict::Wait
            }
        }
        _ => {
            *last = Some(Observation {
                spec: spec.clone(),
                since: now,
            });
            Verdict::Wait
        }
    }
}

impl Election {
    /// A candidate that opens `gate` when it leads. `client` must not pass the gate itself, and bounds every request.
    pub fn new(client: Client, settings: Settings, gate: Gate) -> Self {
        Self {
            leases: Api::namespaced(client, &settings.namespace),
            settings,
            gate,
        }
    }

    /// Waits until this process leads. The gate is open then.
    pub async fn win(&self) {
        let mut last = None;
        info!(identity = self.settings.identity, "waiting to lead");
        loop {
            let sent = Instant::now();
            match self.try_take(&mut last).await {
                Ok(Verdict::Take) => {
                    self.gate.open_until(sent + self.settings.renew_deadline());
                    info!(identity = self.settings.identity, "leading");
                    return;
                }
                Ok(Verdict::Wait) => debug!("another candidate leads"),
                Err(error) => warn!(error = error_chain(&error), "reading or taking the leader Lease"),
            }
            tokio::time::sleep(self.settings.retry_period()).await;
        }
    }

    /// Renews the Lease until it is lost. The gate is shut then.
    pub async fn keep(&self) {
        let mut deadline = Instant::now() + self.settings.renew_deadline();
        let mut ticks = tokio::time::interval(self.settings.retry_period());
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let sent = Instant::now();
            match tokio::time::timeout_at(deadline, self.renew()).await {
                Ok(Ok(true)) => {
                    deadline = sent + self.settings.renew_deadline();
                    self.gate.open_until(deadline);
                }
                Ok(Ok(false)) => {
                    warn!("another candidate took the leader Lease");
                    break;
                }
                Ok(Err(error)) => {
                    warn!(error = error_chain(&error), "renewing the leader Lease");
                    if Instant::now() >= deadline {
                        break;
                    }
                }
                Err(_) => {
                    warn!("the leader Lease could not be renewed in time");
                    break;
                }
            }
        }
        self.gate.close();
    }

    /// Shuts the gate and gives the Lease back, so that another candidate need not wait for its expiry.
    pub async fn resign(&self) {
        self.gate.close();
        let given_back = async {
            let mut lease = self.leases.get(NAME).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.settings.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.leases
                .replace(NAME, &PostParams::default(), &lease)
                .await
                .map(drop)
        };
        match tokio::time::timeout(self.settings.write_timeout(), given_back).await {
            Ok(Ok(())) => info!("gave the leader Lease back"),
            Ok(Err(error)) => warn!(error = error_chain(&error), "giving the leader Lease back"),
            Err(_) => warn!("giving the leader Lease back took too long"),
        }
    }

    async fn try_take(&self, last: &mut Option<Observation>) -> Result<Verdict, kube::Error> {
        let Some(mut lease) = self.leases.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.next(None)),
            };
            return taken(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if verdict(&spec, last, &self.settings, Instant::now()) == Verdict::Wait {
            return Ok(Verdict::Wait);
        }
        lease.spec = Some(self.next(Some(&spec)));
        // Replaces the version that was read: of two candidates one gets a conflict.
        taken(self.leases.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// False if somebody else holds it now.
    async fn renew(&self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.leases.get_opt(NAME).await? else {
            // Somebody deleted it. Whoever creates it first leads; that may be us.
            return Ok(self.try_take(&mut None).await? == Verdict::Take);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.settings.identity) {
            return Ok(false);
        }
        lease.spec = Some(self.next(Some(&spec)));
        self.leases
            .replace(NAME, &PostParams::default(), &lease)
            .await
            .map(|_| true)
    }

    /// The Lease's next content if we hold it after `before`.
    fn next(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(jiff::Timestamp::now());
        let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.settings.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions);
        let seconds = self.settings.lease_duration.as_secs().max(1);
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            acquire_time: match before.filter(|_| ours) {
                Some(spec) => spec.acquire_time.clone(),
                None => Some(now.clone()),
            },
            renew_time: Some(now),
            lease_transitions: Some(match (before.is_some(), ours) {
                (true, false) => transitions.unwrap_or(0).saturating_add(1),
                _ => transitions.unwrap_or(0),
            }),
            ..LeaseSpec::default()
        }
    }
}

fn taken(written: Result<Lease, kube::Error>) -> Result<Verdict, kube::Error> {
    match written {
        Ok(_) => Ok(Verdict::Take),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(Verdict::Wait),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http::{Method, Request, Response};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn settings(identity: &str) -> Settings {
        Settings {
            namespace: "pomarium-system".to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_millis(900),
        }
    }

    fn held_by(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(jiff::Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_over_only_after_it_was_seen_unchanged_for_its_duration() {
        let (settings, start) = (settings("us"), Instant::now());
        let mut last = None;
        let cases = [
            (0, held_by("them", 1), Verdict::Wait),
            (800, held_by("them", 1), Verdict::Wait),
            (850, held_by("them", 2), Verdict::Wait),
            (1_700, held_by("them", 2), Verdict::Wait),
            (1_750, held_by("them", 2), Verdict::Take),
            (1_751, held_by("", 2), Verdict::Take),
            (1_752, held_by("us", 2), Verdict::Take),
        ];
        for (millis, spec, expected) in cases {
            let now = start + Duration::from_millis(millis);
            assert_eq!(verdict(&spec, &mut last, &settings, now), expected, "after {millis} ms");
        }
    }

    /// An API server for one Lease, with optimistic locking; `None` while it does not answer.
    #[derive(Clone, Default)]
    struct FakeLease(Arc<Mutex<(Option<Value>, u64, bool)>>);

    impl FakeLease {
        fn client(&self) -> Client {
            let fake = self.clone();
            Client::new(
                tower::service_fn(move |request: Request<Body>| {
                    let fake = fake.clone();
                    async move {
                        let method = request.method().clone();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        if fake.0.lock().unwrap().2 {
                            futures::future::pending::<()>().await;
                        }
                        let (code, answer) = fake.answer(&method, serde_json::from_slice(&body).ok());
                        let answer = Body::from(answer.to_string().into_bytes());
                        Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
                    }
                }),
                "default",
            )
        }

        fn answer(&self, method: &Method, body: Option<Value>) -> (u16, Value) {
            let status = |code: u16, reason: &str| {
                let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": ""});
                (code, body)
            };
            let mut lease = self.0.lock().unwrap();
            if *method == Method::GET {
                return match &lease.0 {
                    Some(value) => (200, value.clone()),
                    None => status(404, "NotFound"),
                };
            }
            let mut value = body.unwrap();
            let current = lease.0.as_ref().map(|old| old["metadata"]["resourceVersion"].clone());
            if *method == Method::POST && current.is_some() {
                return status(409, "AlreadyExists");
            }
            if *method == Method::PUT && current.as_ref() != Some(&value["metadata"]["resourceVersion"]) {
                return status(409, "Conflict");
            }
            lease.1 += 1;
            value["metadata"]["resourceVersion"] = json!(lease.1.to_string());
            lease.0 = Some(value.clone());
            (200, value)
        }

        fn holder(&self) -> String {
            let lease = self.0.lock().unwrap();
            lease.0.as_ref().unwrap()["spec"]["holderIdentity"]
                .as_str()
                .unwrap()
                .to_owned()
        }

        fn stop_answering(&self) {
            self.0.lock().unwrap().2 = true;
        }
    }

    fn candidate(fake: &FakeLease, identity: &str) -> (Election, Gate) {
        let gate = Gate::shut();
        (Election::new(fake.client(), settings(identity), gate.clone()), gate)
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_candidates_one_leads_and_the_other_follows_when_it_resigns() {
        let fake = FakeLease::default();
        let ((first, first_gate), (second, second_gate)) = (candidate(&fake, "first"), candidate(&fake, "second"));
        first.win().await;
        assert!(first_gate.is_open());

        let waiting = tokio::time::timeout(Duration::from_millis(400), second.win());
        let keeping = async {
            tokio::select! {
                () = first.keep() => panic!("nobody contests it"),
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        };
        let (waited, ()) = tokio::join!(waiting, keeping);
        assert!(waited.is_err() && !second_gate.is_open());
        assert_eq!(fake.holder(), "first");

        first.resign().await;
        assert!(!first_gate.is_open());
        second.win().await;
        assert!(second_gate.is_open());
        assert_eq!(fake.holder(), "second");
    }

    #[tokio::test(start_paused = true)]
    async fn the_gate_shuts_in_time_when_the_api_server_stops_answering() {
        let fake = FakeLease::default();
        let (election, gate) = candidate(&fake, "us");
        election.win().await;
        let renewed = Instant::now();
        fake.stop_answering();
        tokio::time::timeout(Duration::from_millis(900), election.keep())
            .await
            .unwrap();
        assert!(!gate.is_open());
        assert!(
            renewed.elapsed() < Duration::from_millis(900),
            "after {:?}",
            renewed.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_lease_was_taken_stops_at_its_next_renewal() {
        let fake = FakeLease::default();
        let (election, gate) = candidate(&fake, "us");
        election.win().await;
        fake.0.lock().unwrap().0.as_mut().unwrap()["spec"]["holderIdentity"] = json!("them");
        tokio::time::timeout(Duration::from_millis(500), election.keep())
            .await
            .unwrap();
        assert!(!gate.is_open());
        assert_eq!(fake.holder(), "them");
    }
}
