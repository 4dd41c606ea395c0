//! The demo, cut short: what `cargo demo` shows is what a test has seen.

#![allow(clippy::unwrap_used)]

use clap::Parser;
use pomarium_e2e::demo::{self, Options};
use serde_json::{Value, json};

#[test]
fn a_short_demo_answers_every_request_and_writes_its_summary() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("out.json");
    // Slower than the real one, because tests are not optimised.
    let options = ["demo", "--headless", "--minutes", "2", "--time-scale", "8", "--json"];
    let options = Options::parse_from(options.iter().map(AsRef::as_ref).chain([json.as_os_str()]));
    assert!(
        demo::run_to_end(options).unwrap(),
        "a request was lost, or the pool never became Ready"
    );

    let summary: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let number = |pointer: &str| {
        let field = summary.pointer(pointer).and_then(Value::as_f64);
        field.unwrap_or_else(|| panic!("no number at {pointer}: {summary}"))
    };
    assert_eq!(
        summary["requests"],
        json!({"sent": 456, "completed": 456, "cut": 0, "failed": 0, "retried": 0, "rejected": 0})
    );

    let objectives = summary["objectives"].as_array().unwrap();
    let kinds: Vec<_> = objectives
        .iter()
        .map(|objective| (&objective["metric"], &objective["percentile"]))
        .collect();
    assert_eq!(
        kinds,
        [
            (&json!("TimeToFirstToken"), &json!(95)),
            (&json!("InterTokenLatency"), &json!(95))
        ]
    );
    for index in 0..2 {
        let attainment = number(&format!("/objectives/{index}/attainment"));
        assert!((0.0..=1.0).contains(&attainment), "{summary}");
        assert!(number(&format!("/objectives/{index}/valueSeconds")) > 0.0);
    }

    let sites = summary["sites"].as_array().unwrap();
    let sites: Vec<_> = sites.iter().map(|site| (&site["name"], &site["ownership"])).collect();
    assert_eq!(
        sites,
        [
            (&json!("cupertino"), &json!("Owned")),
            (&json!("oregon"), &json!("Hosted"))
        ]
    );
    assert!((8.0..=14.0).contains(&number("/sites/0/serversPeak")), "{summary}");
    assert!(number("/sites/1/serversPeak") <= number("/leases/bought"), "{summary}");
    assert_eq!(
        summary["leases"]["bought"], summary["leases"]["returned"],
        "what was leased was given back"
    );
    assert!(number("/scaleUps") >= 0.0 && number("/drains") >= 0.0);

    assert_eq!(summary["cost"]["currency"], "USD");
    let (total, leases, energy) = (number("/cost/total"), number("/cost/leases"), number("/cost/energy"));
    assert!(total > 0.0 && energy > 0.0, "{summary}");
    assert!((total - leases - energy).abs() < 0.001, "{summary}");

    assert!(number("/seconds") > number("/secondsToReady"), "{summary}");
    assert!(
        number("/secondsToReady") > 0.0 && number("/operatorResidentMib") > 0.0,
        "{summary}"
    );
    assert!(
        number("/replayedSeconds") >= 100.0,
        "two minutes of the trace: {summary}"
    );
    assert_eq!(summary["neverReady"], json!([]));
    assert_eq!(summary["ended"], "Complete");
}
