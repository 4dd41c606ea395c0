//! The demo, cut short: what `cargo demo` shows is what a test has seen.

#![allow(clippy::unwrap_used)]

use clap::Parser;
use pomarium_e2e::demo::{self, Options};
use serde_json::Value;

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
    assert_eq!(summary["requests"]["sent"], 456);
    assert_eq!(summary["requests"]["completed"], 456);
    assert_eq!(summary["requests"]["cut"], 0);
    assert_eq!(summary["sites"][0]["name"], "cupertino");
    assert!(summary["sites"][0]["serversPeak"].as_u64() >= Some(8), "{summary}");
    assert!(summary["cost"]["energy"].as_f64() > Some(0.0), "{summary}");
}
