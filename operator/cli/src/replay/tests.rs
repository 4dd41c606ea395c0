#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Parser;
use serde_json::Value;
use tempfile::TempDir;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    flags: Flags,
}

/// A folder with a trace of two hours and the manifests of the scenario that ships.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut trace = String::from("arrival_ms,prompt_tokens,output_tokens\n");
        for index in 0..2_400 {
            let _ = writeln!(
                trace,
                "{},{},{}",
                index * 3_000,
                200 + index % 7 * 100,
                20 + index % 5 * 20
            );
        }
        std::fs::write(dir.path().join("week.csv"), trace).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        std::fs::write(self.dir.path().join(name), text).unwrap();
        self.path(name)
    }

    /// Runs with these arguments, after the manifests and the trace.
    fn run(&self, more: &[&str]) -> anyhow::Result<()> {
        let trace = self.path("week.csv");
        let manifests = scenario("hybrid-week");
        let mut arguments = vec!["--manifests", manifests.to_str().unwrap(), "--trace", &trace];
        arguments.extend(more);
        replay(&arguments)
    }

    /// The error of a run with these arguments.
    fn refusal(&self, more: &[&str]) -> String {
        crate::chain(&self.run(more).unwrap_err())
    }

    fn json(&self, more: &[&str]) -> Value {
        let out = self.path("out.json");
        let mut arguments = vec!["--json", &out];
        arguments.extend(more);
        self.run(&arguments).unwrap();
        serde_json::from_str(&std::fs::read_to_string(out).unwrap()).unwrap()
    }
}

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/scenarios")
        .join(name)
}

fn replay(arguments: &[&str]) -> anyhow::Result<()> {
    let arguments = std::iter::once("replay").chain(arguments.iter().copied());
    run(&Command::try_parse_from(arguments)?.flags)
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn the_results_have_the_published_fields_and_add_up() {
    let bench = Bench::new();
    let results = bench.json(&["--policy", "static-peak=3", "--seed", "7"]);
    assert_eq!(keys(&results), ["bound", "policies", "seed", "trace"]);
    assert_eq!(
        (&results["trace"], &results["seed"], &results["bound"]),
        (&"week.csv".into(), &7.into(), &Value::Null)
    );
    let policy = &results["policies"][0];
    let expected = [
        "cost",
        "earlyReleases",
        "forecastCoverage",
        "knob",
        "movesPerDay",
        "objectives",
        "plan",
        "policy",
        "requests",
        "servers",
    ];
    assert_eq!(keys(policy), expected);
    assert_eq!(
        (&policy["policy"], &policy["knob"]),
        (&"static-peak".into(), &3.0.into())
    );
    let requests = &policy["requests"];
    assert_eq!(keys(requests), ["completed", "cut", "neverServed", "rejected", "total"]);
    assert_eq!(
        (&requests["total"], &requests["completed"], &requests["cut"]),
        (&2_400.into(), &2_400.into(), &0.into())
    );
    let objective = &policy["objectives"][0];
    for field in [
        "metric",
        "percentile",
        "thresholdSeconds",
        "attainment",
        "valueSeconds",
        "worstHour",
    ] {
        assert!(!objective[field].is_null(), "{field} of {objective}");
    }
    assert_eq!(
        (&objective["metric"], &objective["thresholdSeconds"]),
        (&"TimeToFirstToken".into(), &12.0.into())
    );
    let cost = &policy["cost"];
    assert_eq!(keys(cost), ["currency", "energy", "leases", "obligations", "total"]);
    let number = |field: &str| cost[field].as_f64().unwrap();
    assert_eq!(cost["currency"], "USD");
    assert!(
        (number("total") - number("leases") - number("energy")).abs() < 1e-9 && number("energy") > 0.0,
        "{cost}"
    );
    // Three own machines are enough: nothing is leased.
    assert!(number("leases").abs() < 1e-12, "{cost}");
    let servers = &policy["servers"];
    assert_eq!(
        (keys(servers), &servers["peak"]),
        (vec!["hoursByGroup", "peak"], &3.into())
    );
    assert!(
        servers["hoursByGroup"]["owned-m2-ultra"].as_f64().unwrap() > 5.9,
        "{servers}"
    );
    assert_eq!(keys(&policy["plan"]), ["gapMax", "gapMedian", "msP50", "msP99"]);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let bench = Bench::new();
    let outputs = |suffix: &str| {
        let (json, html, schedule) = (
            bench.path(&format!("{suffix}.json")),
            bench.path(&format!("{suffix}.html")),
            bench.path(&format!("{suffix}.jsonl")),
        );
        let arguments = [
            "--policy",
            "hpa+leases",
            "--rate-scale",
            "1.5",
            "--json",
            &json,
            "--html",
            &html,
            "--schedule",
            &schedule,
        ];
        bench.run(&arguments).unwrap();
        [json, html, schedule].map(|path| std::fs::read_to_string(path).unwrap())
    };
    let first = outputs("a");
    assert_eq!(first, outputs("b"));
    let [_, html, schedule] = first;
    assert!(schedule.lines().count() > 3, "{schedule}");
    for line in schedule.lines() {
        assert_eq!(
            keys(&serde_json::from_str(line).unwrap()),
            ["event", "group", "node", "t"]
        );
    }
    // One file that needs no other.
    assert!(html.len() < 400_000 && html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    for loads in ["src=", "href=", "url(http", "@import", "fetch(", "{{"] {
        assert!(!html.contains(loads), "the page has {loads}");
    }
}

#[test]
fn several_policies_are_compared_at_equal_attainment() {
    let bench = Bench::new();
    let results = bench.json(&["--policy", "static-peak,hpa=2", "--hours", "1"]);
    let comparison = &results["comparison"];
    let compared = comparison["policies"].as_array().unwrap();
    assert_eq!(compared.len(), 2);
    let ratios: Vec<f64> = compared
        .iter()
        .filter_map(|policy| policy["ratioToBest"].as_f64())
        .collect();
    assert!(
        ratios.iter().copied().fold(f64::INFINITY, f64::min) >= 1.0 && ratios.contains(&1.0),
        "{comparison}"
    );
    // The sweep of static peak, and the one run of the other.
    let runs = comparison["runs"].as_array().unwrap();
    assert!(
        runs.len() > 2 && runs.iter().filter(|run| run["policy"] == "hpa").count() == 1,
        "{runs:?}"
    );
    assert!(runs.iter().any(|run| run["onFront"] == true));
}

#[test]
fn a_part_of_the_trace_is_replayed_and_history_is_not_scored() {
    let bench = Bench::new();
    let total = |more: &[&str]| {
        let mut arguments = vec!["--policy", "static-peak=2"];
        arguments.extend(more);
        bench.json(&arguments)["policies"][0]["requests"]["total"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(total(&["--from-hour", "0.5", "--hours", "1"]), 1_200);
    // Half an hour of history leaves one and a half.
    assert_eq!(total(&["--warmup-days", "0.020833333"]), 1_800);
    let message = bench.refusal(&["--warmup-days", "1", "--from-hour", "12"]);
    assert!(
        message.contains("needs 24 hours of history") && message.contains("--from-hour 12"),
        "{message}"
    );
}

#[test]
fn a_pipe_is_replayed_as_the_file_is() {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    let bench = Bench::new();
    let arguments = ["--policy", "static-peak=3,hpa=2", "--rate-scale", "1.5"];
    let from_file = bench.json(&arguments);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let text = std::fs::read(bench.path("week.csv")).unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&text).unwrap());
    let out = bench.path("pipe.json");
    let pipe = format!("/dev/fd/{}", reader.as_raw_fd());
    let manifests = scenario("hybrid-week");
    let mut all = vec![
        "--manifests",
        manifests.to_str().unwrap(),
        "--trace",
        &pipe,
        "--json",
        &out,
    ];
    all.extend(arguments);
    replay(&all).unwrap();
    writing.join().unwrap();
    let mut from_pipe: Value = serde_json::from_str(&std::fs::read_to_string(out).unwrap()).unwrap();
    from_pipe["trace"] = "week.csv".into();
    assert_eq!(from_pipe, from_file);
}

#[test]
fn bad_traces_and_ranges_are_refused_with_file_line_and_field() {
    let bench = Bench::new();
    let header = "arrival_ms,prompt_tokens,output_tokens\n";
    let damaged = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder
            .write_all(format!("{header}{}", "1,2,3\n".repeat(9_999)).as_bytes())
            .unwrap();
        let mut bytes = encoder.finish().unwrap();
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let cases: [(Vec<u8>, &str); 5] = [
        (
            format!("{header}0,1,2\n5,x,2\n").into(),
            "bad.csv, line 3: prompt_tokens is \"x\"",
        ),
        (
            format!("{header}9,1,2\n5,1,2\n").into(),
            "bad.csv, line 3: arrival_ms 5 is before 9",
        ),
        (b"a,b\n".to_vec(), "bad.csv, line 1: the header is"),
        (header.into(), "bad.csv: it has no requests"),
        (damaged, "reading trace"),
    ];
    for (bytes, says) in cases {
        let bad = bench.write("bad.csv", bytes);
        let manifests = scenario("hybrid-week");
        let refused = replay(&["--manifests", manifests.to_str().unwrap(), "--trace", &bad]).unwrap_err();
        let message = crate::chain(&refused);
        assert!(message.contains(says), "{message:?} should say {says:?}");
    }
    for (arguments, says) in [
        (&["--from-hour", "5"][..], "no request between hour 5"),
        (&["--from-hour=-1"], "a number from 0"),
        (&["--hours", "0"], "a number above 0"),
        (&["--rate-scale", "nan"], "a number above 0"),
        (
            &["--policy", "oracle"],
            "there is no policy \"oracle\"; there are all, pomarium, ",
        ),
        (&["--policy", "hpa=many"], "requests in flight per replica"),
        (&["--policy", "hpa,wva", "--schedule", "x.jsonl"], "exactly one policy"),
        (
            &["--pool", "a/b"],
            "there is no ServerPool a/b in the manifests; there are assistants/conversations",
        ),
    ] {
        let message = bench.refusal(arguments);
        assert!(message.contains(says), "{message:?} should say {says:?}");
    }
    let manifests = scenario("hybrid-week");
    let missing = replay(&[
        "--manifests",
        manifests.to_str().unwrap(),
        "--trace",
        "/nonexistent.csv",
    ])
    .unwrap_err();
    assert!(crate::chain(&missing).contains("opening trace /nonexistent.csv"));
}

#[test]
fn bad_manifests_are_refused_with_file_document_and_field() {
    let bench = Bench::new();
    let groups = std::fs::read_to_string(scenario("hybrid-week").join("groups.yaml")).unwrap();
    let cases = [
        (
            "chip: M4 Max",
            "chip: [1]",
            "bad.yaml, document 2: ServerGroup managed-m4-max: spec.machine.chip",
        ),
        (
            "minimumLease: 24h",
            "minimumLeese: 24h",
            "bad.yaml, document 3: ServerGroup hosted-m4-pro: spec.pricing.minimumLeese is not a field",
        ),
        (
            "hourly: \"1.55\"",
            "hourly: \"cheap\"",
            "bad.yaml, document 2: ServerGroup managed-m4-max: spec.pricing.hourly is \"cheap\"",
        ),
        ("minimumLease: 1h", "minimumLease: soon", "spec.pricing.minimumLease"),
        (
            "kind: ServerGroup",
            "sort: ServerGroup",
            "bad.yaml, document 1: kind is missing",
        ),
        (
            "v1alpha1",
            "v2",
            "bad.yaml, document 1: apiVersion is \"pomarium.dev/v2\"",
        ),
        ("metadata:\n", "metadata: {}\nx:\n", "metadata.name is missing"),
        ("spec:", "spec: {", "bad.yaml, document 1"),
        ("currency: USD", "currency: EUR", "one currency for the whole hub"),
    ];
    for (from, to, says) in cases {
        assert!(groups.contains(from), "{from}");
        let bad = bench.write("bad.yaml", groups.replacen(from, to, 1));
        let message = bench.refusal(&["--manifests", &bad]);
        assert!(message.contains(says), "{message:?} should say {says:?}");
    }
    let empty = bench.path("");
    for (path, says) in [
        ("/nonexistent", "reading manifests /nonexistent"),
        (empty.as_str(), "no .yaml, .yml or .json"),
    ] {
        drop(std::fs::remove_file(bench.path("bad.yaml")));
        let message = bench.refusal(&["--manifests", path]);
        assert!(message.contains(says), "{message:?} should say {says:?}");
    }
}

#[test]
fn a_second_folder_changes_the_first_and_other_kinds_are_ignored() {
    let bench = Bench::new();
    let namespace = bench.write(
        "namespace.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: assistants}\n",
    );
    for variant in ["window-1h", "window-week", "survive-server", "weighted", "launch"] {
        let folder = scenario(variant);
        bench
            .run(&[
                "--policy",
                "static-peak=2",
                "--manifests",
                folder.to_str().unwrap(),
                "--manifests",
                &namespace,
            ])
            .unwrap();
    }
    let pool = std::fs::read_to_string(scenario("hybrid-week").join("pool.yaml")).unwrap();
    let another = bench.write("another.yaml", pool.replace("name: conversations", "name: coding"));
    let message = bench.refusal(&["--manifests", &another]);
    assert!(
        message.contains("choose one with --pool: assistants/coding, assistants/conversations"),
        "{message}"
    );
    bench
        .run(&[
            "--policy",
            "static-peak=2",
            "--manifests",
            &another,
            "--pool",
            "assistants/coding",
        ])
        .unwrap();
}

/// A page for the pool of the scenario with one text replaced.
fn page_with(bench: &Bench, from: &str, to: &str) -> anyhow::Result<String> {
    let pool = std::fs::read_to_string(scenario("hybrid-week").join("pool.yaml")).unwrap();
    assert!(pool.contains(from), "{from}");
    let changed = bench.write("changed.yaml", pool.replace(from, to));
    let html = bench.path("changed.html");
    bench.run(&["--policy", "static-peak=2", "--manifests", &changed, "--html", &html])?;
    Ok(std::fs::read_to_string(html).unwrap())
}

#[test]
fn groups_that_may_not_serve_are_left_out_with_the_reason() {
    let bench = Bench::new();
    // Only the M2 Ultra gives 95 of 100 first tokens within a second.
    let page = page_with(&bench, "threshold: 12s", "threshold: 1s").unwrap();
    assert!(page.contains("left out: hosted-m4-pro: TTFT p95 1s is unreachable") && !page.contains("left out: owned"));
    // Nobody does within 100 ms: said, with the number, and simulated all the same.
    let page = page_with(&bench, "threshold: 12s", "threshold: 100ms").unwrap();
    assert!(
        page.contains("no group can meet its objectives, not even unloaded: TTFT p95 100ms is unreachable: best is 8")
    );
    // Nowhere is nowhere.
    let refused = page_with(&bench, "order: OwnedFirst", "minimumTrust: Attested").unwrap_err();
    let message = crate::chain(&refused);
    assert!(
        message.contains("owned-m2-ultra: the pool wants trust Attested") && message.contains("TrustTooLow"),
        "{message}"
    );
}

#[test]
fn a_snapshot_is_planned_again_to_the_byte_and_compared_with_what_was_decided() {
    let bench = Bench::new();
    let now = Timestamp::parse("2026-01-05T00:00:00Z").unwrap();
    let declared = manifests::read(&[scenario("hybrid-week")], now).unwrap();
    let mut exported = serde_json::json!({"now": now, "snapshot": declared.snapshot});
    let again = |exported: &Value| {
        let file = PathBuf::from(bench.write("snapshot.json", exported.to_string()));
        snapshot::plan(&file)
    };
    let alone = again(&exported).unwrap();
    assert_eq!(alone.identical, None);
    assert_eq!(alone.json, again(&exported).unwrap().json);
    let decided: Value = serde_json::from_str(&alone.json).unwrap();
    assert!(decided["plan"].is_object() && decided["ahead"].is_object());

    exported["plan"] = decided["plan"].clone();
    exported["strategic"] = serde_json::json!({"now": now, "snapshot": declared.snapshot, "ahead": decided["ahead"]});
    let same = again(&exported).unwrap();
    assert!(same.identical == Some(true) && same.json == alone.json, "{}", same.text);
    assert!(
        same.text.contains("identical to what was decided live"),
        "{}",
        same.text
    );

    exported["strategic"]["ahead"]["cost"] = serde_json::json!(12.5);
    let other = again(&exported).unwrap();
    assert_eq!(other.identical, Some(false));
    assert!(other.text.contains("ahead.cost: 12.5 → "), "{}", other.text);

    let broken: Value = serde_json::from_str(&exported.to_string().replacen("\"M2 Ultra\"", "7", 1)).unwrap();
    let message = again(&broken)
        .map(|_| ())
        .map_err(|error| crate::chain(&error))
        .unwrap_err();
    assert!(
        message.contains("snapshot.json: snapshot.groups") && message.contains("machine.chip"),
        "{message}"
    );
}
