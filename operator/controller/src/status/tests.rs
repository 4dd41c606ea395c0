#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use http::{Request, Response};
use k8s_openapi::jiff;
use kube::Client;
use kube::client::Body;
use pomarium_api::pool::ServerPool;
use pomarium_api::site::MetricsAccess;
use pomarium_kernel::planning;
use pomarium_kernel::reason::{Problem, Reason};
use pomarium_kernel::snapshot::{Demand, Measured, Spent};
use pomarium_kernel::units::{Fraction, Money, Rate};

use super::*;
use crate::effect::PodRef;
use crate::fixture::{NOW, chat, hub, pool, read, snapshot, world};
use crate::world::{Measurement, ObjectKey};

fn clock(secs: i64) -> Time {
    Time(jiff::Timestamp::from_second(secs).unwrap())
}

fn said(world: &World, done: &Done, secs: i64) -> Statuses {
    let snapshot = snapshot(world);
    let plan = planning::plan(&snapshot, NOW);
    statuses(&Said {
        plan: &plan,
        snapshot: &snapshot,
        world,
        done,
        currency: "USD",
        now: NOW,
        clock: clock(secs),
    })
}

/// Puts statuses into the objects, as the watch would show them later.
fn store(world: &mut World, statuses: &Statuses) {
    for (id, status) in &statuses.pools {
        Arc::make_mut(world.pools.get_mut(id).unwrap()).status = Some(status.clone());
    }
    for (name, status) in &statuses.groups {
        Arc::make_mut(world.groups.get_mut(name).unwrap()).status = Some(status.clone());
    }
    for (name, status) in &statuses.sites {
        Arc::make_mut(&mut world.sites.get_mut(name).unwrap().object).status = Some(status.clone());
    }
}

fn measure(world: &mut World, rate: f64, value_ms: f64) {
    let before = world.measurements[&chat()].as_ref().clone();
    let Demand::Known(mut arrivals) = before.demand.clone() else {
        panic!("the fixture measures")
    };
    arrivals.rate_1m = Rate::per_second(rate);
    arrivals.rate_5m = Rate::per_second(rate);
    let measurement = Measurement {
        demand: Demand::Known(arrivals),
        measured: vec![Measured::Known {
            value_ms,
            attained: Fraction::new(0.99),
            samples: 100,
            at: NOW,
        }],
        ..before
    };
    world.measurements.insert(chat(), Arc::new(measurement));
}

#[test]
fn a_status_that_would_say_the_same_is_the_same_to_the_byte() {
    let mut world = world();
    measure(&mut world, 0.5, 3_100.0);
    let first = said(&world, &Done::default(), 1);
    store(&mut world, &first);
    measure(&mut world, 0.51, 3_200.0);
    assert_eq!(
        said(&world, &Done::default(), 60),
        first,
        "figures moved by a few percent"
    );
    measure(&mut world, 0.51, 12_000.0);
    let slow = said(&world, &Done::default(), 120);
    let objectives = &slow.pools[&chat()].observed.as_ref().unwrap().objectives;
    assert_eq!(objectives, &["p95 TTFT 12.0s > 10s"]);
}

#[test]
fn what_was_spent_of_a_budget_is_said_and_survives_in_the_status() {
    let mut world = world();
    let mut with_budget = pool();
    with_budget["spec"]["budget"] = serde_json::json!({"amount": "40", "currency": "USD"});
    let spent = |amount: &str| {
        let mut object = with_budget.clone();
        let until = NOW.to_string();
        let period = "2027-01-01T00:00:00.000Z";
        object["status"] =
            serde_json::json!({"memory": {"spent": {"period": period, "amount": amount, "until": until}}});
        read::<ServerPool>(object)
    };
    world.pools.insert(chat(), spent("12.5"));
    let mut plan = planning::plan(&snapshot(&world), NOW);
    let of = |world: &World, plan: &Plan| {
        let snapshot = snapshot(world);
        let said = Said {
            plan,
            snapshot: &snapshot,
            world,
            done: &Done::default(),
            currency: "USD",
            now: NOW,
            clock: clock(1),
        };
        statuses(&said).pools[&chat()].clone()
    };
    let remember = |plan: &mut Plan, micros: i64| {
        let memory = &mut plan.pools.get_mut(&chat()).unwrap().memory;
        memory.spent = Some(Spent {
            period: Timestamp::parse("2027-01-01T00:00:00Z").unwrap(),
            amount: Money::from_micros(micros),
            until: NOW,
        });
    };
    remember(&mut plan, 12_500_000);
    let first = of(&world, &plan);
    assert_eq!(first.budget.as_ref().unwrap().text, "12.50/40.00 USD");
    assert_eq!(first.memory.as_ref().unwrap().spent.as_ref().unwrap().amount, "12.50");
    Arc::make_mut(world.pools.get_mut(&chat()).unwrap()).status = Some(first.clone());
    remember(&mut plan, 12_700_000);
    assert_eq!(of(&world, &plan).budget, first.budget, "a few cents");
    remember(&mut plan, 13_000_000);
    assert_eq!(of(&world, &plan).budget.unwrap().spent, "13.00 USD");
}

#[test]
fn ready_is_said_from_the_first_pass_on_with_the_generation() {
    let seen = said(&world(), &Done::default(), 1);
    let all = [
        (&seen.pools[&chat()].conditions, seen.pools[&chat()].observed_generation),
        (
            &seen.groups["hosted"].conditions,
            seen.groups["hosted"].observed_generation,
        ),
        (&seen.sites["home"].conditions, seen.sites["home"].observed_generation),
    ];
    for (conditions, generation) in all {
        assert!(conditions.iter().any(|condition| condition.type_ == "Ready"));
        assert!(
            conditions
                .iter()
                .all(|condition| condition.observed_generation == Some(1))
        );
        assert_eq!(generation, Some(1));
    }
}

#[test]
fn an_object_that_cannot_be_used_is_stalled_with_the_reason() {
    let mut world = world();
    let snapshot = snapshot(&world);
    let problem = Problem::new(Reason::InvalidSpec, "spec.replicas.max: 0 is less than 1");
    world.invalid.pools.insert(chat(), problem);
    let seen = statuses(&Said {
        plan: &Plan::default(),
        snapshot: &snapshot,
        world: &world,
        done: &Done::default(),
        currency: "USD",
        now: NOW,
        clock: clock(1),
    });
    let said: Vec<_> = seen.pools[&chat()]
        .conditions
        .iter()
        .map(|condition| {
            (
                condition.type_.as_str(),
                condition.status.as_str(),
                condition.reason.as_str(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [("Ready", "False", "InvalidSpec"), ("Stalled", "True", "InvalidSpec")]
    );
}

#[test]
fn a_way_to_metrics_that_is_not_there_yet_is_said_and_not_passed_over() {
    let mut world = world();
    let condition = |world: &World| {
        let seen = said(world, &Done::default(), 1);
        let conditions = seen.sites["away"].conditions.clone();
        conditions
            .into_iter()
            .find(|condition| condition.type_ == "MetricsAvailable")
    };
    assert_eq!(condition(&world), None, "by default engines are asked directly");
    let away = Arc::make_mut(&mut world.sites.get_mut("away").unwrap().object);
    away.spec.metrics_access = Some(MetricsAccess::Prometheus);
    let said = condition(&world).unwrap();
    assert_eq!(
        (said.status.as_str(), said.reason.as_str()),
        ("False", "MetricsUnavailable")
    );
    assert!(said.message.contains("not supported yet"), "{}", said.message);
}

#[test]
fn requests_that_are_cut_are_counted_once_each() {
    let deletion = |outcome| Applied {
        effect: Effect::DeletePod {
            site: "home".into(),
            pod: PodRef {
                key: ObjectKey::new("assistants", "x"),
                uid: String::new(),
                pool: chat(),
            },
            farewell: Farewell::Cut { requests: 3 },
        },
        outcome,
    };
    let done = Done::new(&[
        deletion(Outcome::Done),
        deletion(Outcome::Gone),
        deletion(Outcome::Conflict),
    ]);
    let mut world = world();
    let first = said(&world, &done, 1);
    assert_eq!(first.pools[&chat()].requests_cut, Some(3));
    store(&mut world, &first);
    assert_eq!(said(&world, &Done::default(), 2).pools[&chat()].requests_cut, Some(3));
    assert_eq!(said(&world, &done, 2).pools[&chat()].requests_cut, Some(6));
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changed_even_before_the_watch_shows_it() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        record.lock().unwrap().push(request.uri().path().to_owned());
        async move {
            let body = br#"{"apiVersion":"v1","kind":"Status","status":"Failure","code":404,"reason":"NotFound","message":"","metadata":{}}"#;
            let (code, body) = if request.uri().path().contains("sites") {
                (404, Body::from(body.to_vec()))
            } else {
                let bytes = http_body_util::BodyExt::collect(request.into_body())
                    .await
                    .unwrap()
                    .to_bytes();
                let mut object: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                object["spec"] = spec(object["kind"].as_str().unwrap());
                (200, Body::from(object.to_string().into_bytes()))
            };
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    let client = Client::new(service, "default");
    let hub = hub(&client);
    let world = world();
    let statuses = said(&world, &Done::default(), 1);
    let mut writer = StatusWriter::default();

    let written = writer.write(&hub, &statuses, &world).await;
    assert_eq!(
        (written.done, written.failed),
        (3, 0),
        "a pool and two groups; sites are gone"
    );
    let again = writer.write(&hub, &statuses, &world).await;
    assert_eq!(again.done, 0, "the watch still shows the old objects");

    let mut shown = world.clone();
    store(&mut shown, &statuses);
    asked.lock().unwrap().clear();
    writer.write(&hub, &statuses, &shown).await;
    assert_eq!(*asked.lock().unwrap(), Vec::<String>::new());
}

/// The spec of the fixture's object of this kind: the answer to a write is a whole object.
fn spec(kind: &str) -> serde_json::Value {
    let world = world();
    match kind {
        "ServerPool" => serde_json::to_value(&world.pools[&chat()].spec).unwrap(),
        _ => serde_json::to_value(&world.groups["hosted"].spec).unwrap(),
    }
}
