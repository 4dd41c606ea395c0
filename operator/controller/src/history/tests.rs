#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use pomarium_kernel::forecast::Counts;
use pomarium_kernel::strategy::ahead::{GroupAhead, PoolAhead};
use pomarium_kernel::strategy::bursts::Bursts;
use pomarium_kernel::strategy::learning::Counted;
use serde_json::{Value, json};

use super::stored::PlannedPool;
use super::*;
use crate::fixture::{NOW, chat, hub, snapshot, world};
use crate::world::Measurement;

/// An API server of nothing but `ConfigMap`s.
#[derive(Clone, Default)]
struct Store {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    writes: Arc<Mutex<Vec<String>>>,
    broken: Arc<Mutex<bool>>,
}

impl Store {
    fn client(&self) -> Client {
        let store = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let store = store.clone();
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let (code, answer) = store.answer(&method, &path, serde_json::from_slice(&body).ok());
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let failure = |code: u16, reason: &str| {
            (
                code,
                json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "metadata": {}, "code": code, "reason": reason, "message": ""}),
            )
        };
        if *self.broken.lock().unwrap() {
            return failure(500, "InternalError");
        }
        let mut objects = self.objects.lock().unwrap();
        if *method == Method::GET {
            let items: Vec<_> = objects.values().collect();
            return (
                200,
                json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {}, "items": items}),
            );
        }
        let name = path.rsplit('/').next().unwrap().to_owned();
        self.writes.lock().unwrap().push(format!("{method} {name}"));
        if *method == Method::DELETE {
            return match objects.remove(&name) {
                Some(object) => (200, object),
                None => failure(404, "NotFound"),
            };
        }
        let object = body.unwrap();
        objects.insert(name, object.clone());
        (200, object)
    }

    fn data(&self, name: &str) -> Value {
        self.objects.lock().unwrap()[name]["data"].clone()
    }

    fn set(&self, name: &str, part: &str, text: &str) {
        self.objects.lock().unwrap().get_mut(name).unwrap()["data"][part] = json!(text);
    }

    fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.writes.lock().unwrap())
    }
}

const OBJECT: &str = "pomarium-history-uid-chat";

fn existing() -> Existing {
    Existing {
        uids: [(chat(), "uid-chat".to_owned())].into(),
        and_others: false,
    }
}

/// The world with so many requests counted up to `now`.
fn counted(now: Timestamp, requests: u64) -> World {
    let mut world = world();
    let before = world.measurements[&chat()].as_ref().clone();
    let measurement = Measurement {
        counted: Some(Counted {
            at: now,
            arrived: Counts {
                requests,
                ..Counts::default()
            },
            answered: None,
        }),
        ..before
    };
    world.measurements.insert(chat(), Arc::new(measurement));
    world
}

fn learn(histories: &mut Histories, from: Timestamp, rounds: u64) -> Timestamp {
    let at = |round: u64| from + Span::from_secs(15 * round);
    for round in 0..=rounds {
        let world = counted(at(round), 30 * round);
        histories.learn(&snapshot(&world), &world, Span::from_secs(45));
    }
    at(rounds)
}

async fn settle(
    histories: &mut Histories,
    pools: &Existing,
    ahead: Option<&Arc<Ahead>>,
    now: Timestamp,
) -> Vec<&'static str> {
    let mut written = histories.write(pools, ahead, now);
    while !histories.writing.is_empty() {
        tokio::task::yield_now().await;
        written.extend(histories.finished());
    }
    written.iter().map(|written| written.outcome).collect()
}

fn plan() -> Arc<Ahead> {
    let pool = PoolAhead {
        prices: [(NOW, 0.25)].into(),
        cost: 3.0,
        ..PoolAhead::default()
    };
    Arc::new(Ahead {
        made_at: NOW,
        groups: [(
            "hosted".into(),
            GroupAhead {
                servers: 2,
                ..GroupAhead::default()
            },
        )]
        .into(),
        pools: [(chat(), pool)].into(),
        cost: 3.0,
        bound: 2.5,
        ..Ahead::default()
    })
}

#[tokio::test]
async fn a_restarted_operator_knows_what_the_one_before_it_had_learnt_and_planned() {
    let store = Store::default();
    let mut first = Histories::new(hub(&store.client()), None);
    assert_eq!(first.read(&existing(), NOW).await, None);
    let now = learn(&mut first, NOW, 20);
    first.planned(&plan());
    assert_eq!(
        settle(&mut first, &existing(), Some(&plan()), now).await,
        ["done", "done"]
    );

    let mut second = Histories::new(hub(&store.client()), None);
    assert_eq!(second.read(&existing(), now).await.as_ref(), Some(plan().as_ref()));
    assert_eq!(second.pasts(), first.pasts());
    assert!(second.pasts()[&chat()].history.recorded_until().is_some());
    assert!(second.unreadable().is_empty());
    assert!(second.is_read());
}

#[tokio::test]
async fn a_leader_that_ends_leaves_nothing_unwritten() {
    let store = Store::default();
    let mut first = Histories::new(hub(&store.client()), None);
    first.flush(None).await;
    assert_eq!(store.writes(), Vec::<String>::new(), "nothing was read yet");
    first.read(&existing(), NOW).await;
    let now = learn(&mut first, NOW, 10);
    first.planned(&plan());
    assert!(settle(&mut first, &existing(), None, now).await.is_empty(), "too soon");
    first.flush(Some(&plan())).await;

    let mut second = Histories::new(hub(&store.client()), None);
    assert_eq!(second.read(&existing(), now).await.as_ref(), Some(plan().as_ref()));
    assert_eq!(second.pasts(), first.pasts());
    assert_eq!(second.pasts()[&chat()].history.recorded_until(), Some(now));
}

#[tokio::test]
async fn what_a_killed_leader_had_not_written_is_a_gap_and_not_silence() {
    let store = Store::default();
    let mut first = Histories::new(hub(&store.client()), None);
    first.read(&existing(), NOW).await;
    let now = learn(&mut first, NOW, 20);
    settle(&mut first, &existing(), None, now).await;
    learn(&mut first, now, 19);
    drop(first);

    let back = now + BATCH;
    let mut second = Histories::new(hub(&store.client()), None);
    second.read(&existing(), back).await;
    learn(&mut second, back, 20);
    let pasts = second.pasts();
    let measured = |from: Timestamp, until: Timestamp| -> u64 {
        let within = pasts[&chat()]
            .history
            .fine()
            .filter(|(at, _)| (from..until).contains(at));
        within.map(|(_, bucket)| u64::from(bucket.measured_ms)).sum()
    };
    assert_eq!(measured(NOW, now), BATCH.as_millis(), "what was written is known");
    assert_eq!(measured(now, back), 0, "one batch is a gap");
    assert_eq!(measured(back, back + BATCH), BATCH.as_millis(), "and it goes on");
}

#[tokio::test]
async fn batches_are_rare_and_nothing_is_written_that_is_stored_already() {
    let store = Store::default();
    let mut histories = Histories::new(hub(&store.client()), None);
    histories.read(&existing(), NOW).await;
    let now = learn(&mut histories, NOW, 10);
    assert!(
        settle(&mut histories, &existing(), None, now).await.is_empty(),
        "too soon"
    );
    let now = NOW + BATCH;
    assert_eq!(settle(&mut histories, &existing(), None, now).await, ["done"]);
    let _ = store.writes();
    assert!(
        settle(&mut histories, &existing(), None, now + BATCH).await.is_empty(),
        "no news"
    );
    let ahead = plan();
    assert_eq!(
        settle(&mut histories, &existing(), Some(&ahead), now + BATCH + BATCH).await,
        ["done", "done"]
    );
    let again = settle(&mut histories, &existing(), Some(&ahead), now + BATCH + BATCH + BATCH).await;
    assert_eq!(again, ["unchanged", "unchanged"]);
    assert_eq!(store.writes().len(), 2);
}

#[tokio::test]
async fn a_broken_part_is_said_and_costs_nothing_but_itself() {
    let store = Store::default();
    let mut first = Histories::new(hub(&store.client()), None);
    first.read(&existing(), NOW).await;
    let now = learn(&mut first, NOW, 20);
    settle(&mut first, &existing(), Some(&plan()), now).await;

    for (part, text, history, planned) in [
        ("ledger", "{\"window\": 7", true, true),
        ("history", "garbage", false, true),
        ("backtest", "null", true, true),
        ("ahead", "[]", true, false),
        ("format", "99", false, false),
    ] {
        let good = store.objects.lock().unwrap().clone();
        store.set(OBJECT, part, text);
        let mut second = Histories::new(hub(&store.client()), None);
        let ahead = second.read(&existing(), now).await.unwrap();
        let problem = second.unreadable()[&chat()].clone();
        assert!(problem.message.contains(part), "{part}: {}", problem.message);
        assert_eq!(
            second.pasts()[&chat()].history.recorded_until().is_some(),
            history,
            "{part}"
        );
        assert_eq!(ahead.pools.contains_key(&chat()), planned, "{part}");
        // It is learnt anew, and then the object is whole again.
        let later = learn(&mut second, now, 20);
        assert_eq!(
            settle(&mut second, &existing(), Some(&plan()), later).await.len(),
            2,
            "{part}"
        );
        let mut third = Histories::new(hub(&store.client()), None);
        third.read(&existing(), later).await;
        assert!(third.unreadable().is_empty(), "{part}: {:?}", third.unreadable());
        *store.objects.lock().unwrap() = good;
    }
}

#[tokio::test]
async fn a_past_that_cannot_be_reached_is_not_overwritten() {
    let store = Store::default();
    *store.broken.lock().unwrap() = true;
    let mut histories = Histories::new(hub(&store.client()), None);
    assert_eq!(histories.read(&existing(), NOW).await, None);
    assert!(!histories.is_read());
    learn(&mut histories, NOW, 20);
    assert!(settle(&mut histories, &existing(), None, NOW + BATCH).await.is_empty());
    *store.broken.lock().unwrap() = false;
    histories.read(&existing(), NOW).await;
    assert!(!histories.is_read(), "not asked again at once");
    assert_eq!(store.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn the_past_of_a_pool_goes_with_it_now_or_after_a_restart() {
    let store = Store::default();
    let mut first = Histories::new(hub(&store.client()), None);
    first.read(&existing(), NOW).await;
    let now = learn(&mut first, NOW, 20);
    settle(&mut first, &existing(), None, now).await;

    let unsure = Existing {
        uids: BTreeMap::new(),
        and_others: true,
    };
    let mut restarted = Histories::new(hub(&store.client()), None);
    restarted.read(&unsure, now).await;
    assert!(
        settle(&mut restarted, &unsure, None, now).await.is_empty(),
        "a pool that cannot be decoded may be its owner"
    );
    let mut restarted = Histories::new(hub(&store.client()), None);
    restarted.read(&Existing::default(), now).await;
    let kept = store.objects.lock().unwrap().clone();
    assert_eq!(
        settle(&mut restarted, &Existing::default(), None, now).await,
        ["deleted"]
    );

    *store.objects.lock().unwrap() = kept;
    assert_eq!(settle(&mut first, &Existing::default(), None, now).await, ["deleted"]);
    assert!(store.objects.lock().unwrap().is_empty() && first.pasts().is_empty());
}

#[test]
fn an_object_stays_far_below_what_the_api_server_takes() {
    let mut past = Past::default();
    let mut random = 1_u64;
    for round in 0..8_200_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let counts = Counts {
            requests: random >> 20,
            prompt_tokens: random,
            output_tokens: !random,
        };
        let from = NOW + Span::from_minutes(5 * round);
        past.arrived(from, from + Span::from_minutes(5), counts, &[]);
    }
    let planned = PlannedPool {
        made_at: NOW,
        pool: plan().pools[&chat()].clone(),
    };
    let (data, left_out) = stored::of_pool(&past, Some(&planned));
    let bytes: usize = data.values().map(String::len).sum();
    assert!(left_out.is_empty() && bytes < 300 * 1024, "{bytes} bytes, {left_out:?}");
    assert_eq!(stored::pool(&data), (past.clone(), Some(planned), Vec::new()));

    past.prices = (0..10_000)
        .map(|hour| (NOW + Span::from_hours(hour), 1.0 / 3.0))
        .collect();
    let (data, left_out) = stored::of_pool(&past, None);
    assert_eq!(left_out, ["prices"], "too long to be kept");
    assert!(!data.contains_key("prices"));
}

#[test]
fn an_object_of_an_earlier_version_is_read_with_all_its_parts_and_one_of_a_later_version_with_what_is_known_of_it() {
    let record = include_str!("../../../kernel/tests/records/past-1.json");
    let parts: BTreeMap<String, Value> = serde_json::from_str(record).unwrap();
    let mut data: stored::Data = parts
        .into_iter()
        .map(|(part, value)| (part, value.to_string()))
        .collect();
    data.insert("format".to_owned(), "1".to_owned());
    let past: Past = serde_json::from_str(record).unwrap();
    assert_eq!(stored::pool(&data), (past.clone(), None, Vec::new()));
    data.insert("addedLater".to_owned(), "not even JSON".to_owned());
    assert_eq!(stored::pool(&data), (past.clone(), None, Vec::new()));
    data.remove("bursts");
    let without = Past {
        bursts: Bursts::default(),
        ..past
    };
    assert_eq!(stored::pool(&data), (without, None, Vec::new()));
}

/// A Prometheus that gives the same answer to every question, and the questions.
async fn prometheus(
    status: u16,
    text: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (seen, text) = (Arc::clone(&asked), Arc::new(text));
    let app = axum::Router::new().fallback(move |uri: http::Uri| {
        let (seen, text) = (Arc::clone(&seen), Arc::clone(&text));
        async move {
            let query = uri.to_string();
            let answer = text(&query);
            seen.lock().unwrap().push(query);
            (http::StatusCode::from_u16(status).unwrap(), answer)
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, asked)
}

/// One request a second, counted at every point that is asked for.
fn one_a_second(query: &str) -> String {
    let of = |name: &str| -> i64 {
        let (_, rest) = query.split_once(&format!("&{name}=")).unwrap();
        rest.split('&').next().unwrap().parse().unwrap()
    };
    let points = (0..)
        .map(|n| of("start") + n * of("step"))
        .take_while(|at| *at <= of("end"));
    let values: Vec<Value> = points.map(|at| json!([at, at.to_string()])).collect();
    let metric = json!({"__name__": "llm_d_epp_request_total", "model_name": "llama", "namespace": "assistants", "pool": "chat"});
    json!({"status": "success", "data": {"result": [{"metric": metric, "values": values}]}}).to_string()
}

fn models() -> BTreeMap<PoolId, String> {
    [(chat(), "llama".to_owned())].into()
}

#[tokio::test]
async fn a_new_operator_knows_the_past_from_prometheus_and_asks_for_it_once() {
    let (url, asked) = prometheus(200, one_a_second).await;
    let store = Store::default();
    let mut first = Histories::new(hub(&store.client()), Some(Backfill::new(&url)));
    first.recover(&existing(), &models(), NOW).await;
    assert!(asked.lock().unwrap().is_empty(), "what is stored is read first");
    first.read(&existing(), NOW).await;
    first.recover(&existing(), &models(), NOW).await;
    first.recover(&existing(), &models(), NOW).await;
    assert_eq!(asked.lock().unwrap().len(), 2, "the old part and the recent one");

    let past = Arc::clone(&first.pasts()[&chat()]);
    let (fine, hourly) = (past.history.fine().count(), past.history.hourly().count());
    assert!(
        (570..=577).contains(&fine) && (660..=673).contains(&hourly),
        "{fine} and {hourly}"
    );
    let one = Counts {
        requests: 1,
        ..Counts::default()
    };
    let rate = past.history.lately(NOW).unwrap() / one.work();
    assert!((rate - 1.0).abs() < 0.02, "{rate}");
    assert!(
        !first.asks() && first.pools[&chat()].news,
        "it is kept with the next batch"
    );

    // Who has a past of its own is not asked about.
    first.flush(None).await;
    let mut second = Histories::new(hub(&store.client()), Some(Backfill::new(&url)));
    second.read(&existing(), NOW).await;
    second.recover(&existing(), &models(), NOW).await;
    assert_eq!(asked.lock().unwrap().len(), 2);
    assert_eq!(second.pasts()[&chat()].history, past.history);
}

#[tokio::test]
async fn a_prometheus_that_fails_costs_nothing_but_the_past() {
    for (status, text) in [
        (500, "out of memory".to_owned()),
        (200, "<html>".to_owned()),
        (200, r#"{"status":"error","error":"too many samples"}"#.to_owned()),
        (200, "x".repeat(5 * 1024 * 1024)),
    ] {
        let (url, asked) = prometheus(status, move |_| text.clone()).await;
        let store = Store::default();
        let mut histories = Histories::new(hub(&store.client()), Some(Backfill::new(&url)));
        histories.read(&existing(), NOW).await;
        histories.recover(&existing(), &models(), NOW).await;
        assert!(histories.pasts().is_empty() && !histories.asks());
        assert_eq!(asked.lock().unwrap().len(), 1, "it is not asked again");
        learn(&mut histories, NOW, 20);
        assert!(histories.pasts()[&chat()].history.recorded_until().is_some());
    }
}

/// What this process has in memory, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

#[test]
fn the_pasts_of_a_thousand_pools_fit_into_memory() {
    let mut past = Past::default();
    let (days, quarter) = (Span::from_hours(28 * 24), Span::from_secs(15));
    for hour in 0..26 * 24 {
        let from = NOW - days + Span::from_hours(hour);
        let counts = Counts {
            requests: 3_600,
            prompt_tokens: 3_600_000,
            output_tokens: 720_000,
        };
        past.arrived(from, from + Span::from_hours(1), counts, &[]);
    }
    for round in 0..2 * 5_760 {
        let from = NOW - Span::from_hours(48) + Span::from_secs(15 * round);
        let counts = Counts {
            requests: 15,
            prompt_tokens: 15_000,
            output_tokens: 3_000,
        };
        past.arrived(from, from + quarter, counts, &[]);
    }
    let before = resident();
    let pasts: Vec<Past> = (0..1_000).map(|_| past.clone()).collect();
    let each = (resident().saturating_sub(before)) / 1_000;
    println!("{each} bytes a pool");
    assert!(pasts.len() == 1_000 && each < 140 * 1024, "{each} bytes a pool");
}

#[tokio::test]
async fn objects_say_whose_they_are() {
    let store = Store::default();
    let mut first = Histories::new(hub(&store.client()), None);
    first.read(&existing(), NOW).await;
    let now = learn(&mut first, NOW, 20);
    settle(&mut first, &existing(), None, now).await;
    let object = store.objects.lock().unwrap()[OBJECT].clone();
    assert_eq!(
        object["metadata"]["labels"],
        json!({"pomarium.dev/history": "pool", "pomarium.dev/pool-uid": "uid-chat"})
    );
    assert_eq!(
        object["metadata"]["annotations"]["pomarium.dev/pool"],
        "assistants/chat"
    );
    assert_eq!(store.data(OBJECT)["format"], "1");
}
