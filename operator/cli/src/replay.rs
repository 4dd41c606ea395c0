//! `pomarium replay`: what policies would have cost and served on a recorded trace.
//!
//! Reads manifests and a trace, runs policies in the simulator, and writes what came of it: a table, JSON, a schedule, a page.
//! Decides nothing itself, and opens no connection.

mod contenders;
mod manifests;
mod play;
mod snapshot;
mod trace;

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use pomarium_api::duration::Duration;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::snapshot::Snapshot;
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_sim::lengths::Tally;
use pomarium_sim::policy::optimum::Foreseen;
use pomarium_sim::report::{Report, TraceFacts};
use pomarium_sim::schedule::Schedule;
use pomarium_sim::setting::Setting;
use pomarium_sim::sweep::Goal;
use pomarium_sim::trace::Trace;
use pomarium_sim::world::{Accounting, Over, Scenario};

use contenders::{Contender, Kind};
use play::Stage;
use trace::{Part, Selected};

const HOUR_MS: f64 = 3_600_000.0;
const DAY_MS: f64 = 24.0 * HOUR_MS;

/// Flags of the replay.
#[derive(Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Flags {
    /// Manifests of sites, groups and a pool, as kubectl applies them: a file, or a folder without those below it.
    ///
    /// May be given several times; of several documents for one object the last counts. Other kinds are ignored.
    #[arg(long, value_name = "DIR", required_unless_present = "snapshot")]
    manifests: Vec<PathBuf>,
    /// Requests: a CSV file, gzipped or not, with the header `arrival_ms,prompt_tokens,output_tokens`, sorted by arrival.
    #[arg(long, value_name = "FILE", required_unless_present = "snapshot")]
    trace: Option<PathBuf>,
    /// The pool, if the manifests have several.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pool_id)]
    pool: Option<PoolId>,
    /// Policies, separated by commas, or `all`.
    ///
    /// One policy runs once, with the knob that its authors publish. Of several policies each is run with many knobs and in both
    /// variants, plain and lease-aware, and they are compared at equal attainment: each with the knob that costs least while
    /// all objectives hold. `NAME+leases` is the lease-aware variant alone, `NAME=KNOB` one knob alone.
    #[arg(long, value_name = "P[,P…]", default_value = "all", value_parser = choices)]
    policy: Choices,
    /// The scored part begins at this hour of the trace. Default: the start, or the end of the history.
    #[arg(long, value_name = "H", value_parser = hours)]
    from_hour: Option<f64>,
    /// And is so many hours long. Default: to the trace's end.
    #[arg(long, value_name = "N", value_parser = above_zero)]
    hours: Option<f64>,
    /// So many days before the scored part are history: simulated for every policy alike, neither scored nor paid for.
    #[arg(long, value_name = "N", default_value = "0", value_parser = hours)]
    warmup_days: f64,
    /// Time before the first request in which machines may come up; it is paid for. Default: the longest lead time with model load.
    #[arg(long, value_name = "DURATION", value_parser = span)]
    warm_start: Option<Span>,
    /// Superpose so many jittered copies of the trace; below 1, a random part of it is kept.
    #[arg(long, value_name = "K", default_value = "1", value_parser = above_zero)]
    rate_scale: f64,
    /// Of everything random: the scaling, and routing by weight. The same seed gives the same bytes.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// When the trace begins, by the calendar: for deliveries and windows in the manifests.
    #[arg(long, value_name = "TIME", default_value = "2026-01-05T00:00:00Z", value_parser = time)]
    start: Timestamp,
    /// Over which spans objectives must hold where policies are compared: the whole trace, or each of their windows.
    #[arg(long, value_enum, value_name = "SPAN", default_value = "trace")]
    hold: Hold,
    /// Compare by what is still owed for minimum leases at the end, too.
    #[arg(long)]
    with_obligations: bool,
    /// Whether the trace is REAL, SAMPLED or COMPOSITE; shown in reports. Default: by the name of the file.
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// Write what happens to every machine here, one JSON object a line. Needs exactly one policy.
    #[arg(long, value_name = "OUT.jsonl")]
    schedule: Option<PathBuf>,
    /// Write the results here as JSON; `-` prints them instead of the table.
    #[arg(long, value_name = "OUT.json")]
    json: Option<PathBuf>,
    /// Write a report to look at here: one self-contained HTML file.
    #[arg(long, value_name = "OUT.html")]
    html: Option<PathBuf>,
    /// Plan an exported decision again, and say whether it is the one that was made live; `--json` writes both plans, the same bytes each time.
    ///
    /// The leader of the running operator exports its next one to callers on its own machine: `kubectl -n pomarium-system port-forward
    /// deploy/pomarium 8080 & curl -s localhost:8080/debug/snapshot > decision.json`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["manifests", "trace", "schedule", "html"])]
    snapshot: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  pomarium replay --manifests examples/scenarios/hybrid-week --trace week.csv.gz --html week.html
  pomarium replay --manifests examples/scenarios/hybrid-week --manifests examples/scenarios/window-1h \\
      --trace week.csv.gz --policy static-peak,wva --hold windows
  pomarium replay --manifests manifests/ --trace day.csv --policy hpa+leases=2.5 --schedule day.jsonl --json -

Times in the schedule are in ms from the first moment that is replayed, history included; negative ones are the warm start.
Costs count from the start of the scored part, or of the warm start if there is no history, to the last request.";

/// Policies in the order of the command line.
#[derive(Clone)]
struct Choices(Vec<Contender>);

/// Over which spans objectives must hold.
#[derive(Clone, Copy, ValueEnum)]
enum Hold {
    /// The whole trace.
    Trace,
    /// Each window of each objective.
    Windows,
}

fn choices(text: &str) -> Result<Choices, String> {
    contenders::parse(text).map(Choices)
}

fn pool_id(text: &str) -> Result<PoolId, String> {
    PoolId::try_from(text.to_owned())
}

fn span(text: &str) -> Result<Span, String> {
    Duration::parse(text).map(Into::into).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "it must be an RFC 3339 time, such as 2026-01-05T00:00:00Z".to_owned())
}

/// No trace is longer than a century.
const MOST_HOURS: f64 = 876_600.0;

fn hours(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number| (0.0..=MOST_HOURS).contains(number))
        .ok_or_else(|| format!("it must be a number from 0 to {MOST_HOURS}"))
}

fn above_zero(text: &str) -> Result<f64, String> {
    hours(text)
        .ok()
        .filter(|number| *number > 0.0)
        .ok_or_else(|| format!("it must be a number above 0 and at most {MOST_HOURS}"))
}

/// Plans an exported decision again. An error if it is another one.
fn replan(file: &Path, json: Option<&Path>) -> anyhow::Result<()> {
    let again = snapshot::plan(file)?;
    match json {
        Some(path) if path == Path::new("-") => print(&again.json),
        Some(path) => {
            write(create(path)?, path, &again.json)?;
            print(&again.text);
        }
        None => print(&again.text),
    }
    if again.identical == Some(false) {
        bail!("the plan is not the one that was made live");
    }
    Ok(())
}

/// Runs the replay.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    if let Some(file) = &flags.snapshot {
        return replan(file, flags.json.as_deref());
    }
    let Some(file) = &flags.trace else {
        bail!("--trace is missing");
    };
    let contenders = &flags.policy.0;
    if flags.schedule.is_some() && contenders.len() != 1 {
        bail!("--schedule needs exactly one policy, such as --policy static-peak");
    }
    let declared = manifests::read(&flags.manifests, flags.start)?;
    let pool = the_pool(&declared.snapshot, flags.pool.as_ref())?;
    let part = Part {
        from_hour: flags.from_hour.unwrap_or(flags.warmup_days * 24.0),
        hours: flags.hours,
        history_days: flags.warmup_days,
        rate_scale: flags.rate_scale,
        seed: flags.seed,
    };
    let Selected { trace, tally } = trace::select(file, &part)?;
    let facts = facts(file, flags, &part, &tally);
    let lengths = tally.lengths().context("reading the trace: it has no requests")?;
    let mut notes = notes(&declared, &pool);
    let mut setting = Setting::new(declared.snapshot, pool, &lengths, flags.start)?;
    set_times(&mut setting.scenario, flags);
    if setting.scenario.groups.iter().any(|group| group.max == 0) {
        notes.push("a group has no machines (spec.size.max is 0)".to_owned());
    }

    // Files that cannot be written are found before minutes are spent on what goes into them.
    let mut schedule = flags
        .schedule
        .as_deref()
        .map(create)
        .transpose()?
        .map(|file| Schedule::new(Box::new(file)));
    let json = flags
        .json
        .as_deref()
        .filter(|path| *path != Path::new("-"))
        .map(create)
        .transpose()?;
    let html = flags.html.as_deref().map(create).transpose()?;

    let goal = goal(flags);
    let foreseen = if contenders
        .iter()
        .any(|contender| matches!(contender.kind, Kind::Optimum))
    {
        Foreseen::of(trace.requests()?, facts.requests)?
    } else {
        Foreseen::default()
    };
    let stage = Stage {
        scenario: &setting.scenario,
        trace: &trace,
        requests: facts.requests,
        foreseen: &foreseen,
        goal,
        declared: &setting.snapshot,
        pool: &setting.pool,
        timelines: html.is_some(),
    };
    let (played, runs) = stage.play(contenders, schedule.as_mut())?;
    if let Some((schedule, path)) = schedule.zip(flags.schedule.as_ref()) {
        schedule
            .finish()
            .with_context(|| format!("writing {}", path.display()))?;
    }

    let bound = played.iter().find_map(|played| played.figures.bound);
    let report = Report {
        trace: facts,
        lengths: &lengths,
        setting: &setting,
        currency: declared.currency.to_string(),
        seed: flags.seed,
        command: command_line(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        notes,
        goal,
        played,
        runs,
        bound,
    };
    let results = serde_json::to_string_pretty(&report.results()).context("writing the results as JSON")? + "\n";
    if let Some((file, path)) = json.zip(flags.json.as_ref()) {
        write(file, path, &results)?;
    }
    if let Some((file, path)) = html.zip(flags.html.as_ref()) {
        write(file, path, &report.page().context("writing the page")?)?;
    }
    if flags.json.as_deref() == Some(Path::new("-")) {
        print(&results);
    } else {
        print(&report.table());
    }
    Ok(())
}

/// What is compared, and what is held equal.
fn goal(flags: &Flags) -> Goal {
    Goal {
        over: match flags.hold {
            Hold::Trace => Over::Trace,
            Hold::Windows => Over::Windows,
        },
        accounting: if flags.with_obligations {
            Accounting::WithObligations
        } else {
            Accounting::ToTheEnd
        },
    }
}

/// The pool that was asked for, or the only one.
fn the_pool(snapshot: &Snapshot, asked: Option<&PoolId>) -> anyhow::Result<PoolId> {
    let all = || {
        let names: Vec<String> = snapshot.pools.keys().map(ToString::to_string).collect();
        names.join(", ")
    };
    match (asked, snapshot.pools.len()) {
        (_, 0) => bail!("the manifests have no ServerPool"),
        (Some(id), _) if snapshot.pools.contains_key(id) => Ok(id.clone()),
        (Some(id), _) => bail!(
            "--pool: there is no ServerPool {id} in the manifests; there are {}",
            all()
        ),
        (None, 1) => snapshot
            .pools
            .keys()
            .next()
            .cloned()
            .context("the manifests have no ServerPool"),
        (None, _) => bail!("the manifests have several pools; choose one with --pool: {}", all()),
    }
}

/// Things in the manifests that a reader may take for simulated.
fn notes(declared: &manifests::Manifests, pool: &PoolId) -> Vec<String> {
    let mut notes = Vec::new();
    if !declared.ignored.is_empty() {
        notes.push(format!("ignored in the manifests: {}", declared.ignored.join(", ")));
    }
    if declared.snapshot.pools.len() > 1 {
        notes.push("other pools of the manifests take no servers".to_owned());
    }
    let machines: u32 = declared.snapshot.groups.values().map(|group| group.size.max).sum();
    if let Some(declared) = declared.snapshot.pools.get(pool)
        && declared.replicas.max < machines
    {
        notes.push(format!(
            "spec.replicas.max ({}) does not bind policies here",
            declared.replicas.max
        ));
    }
    notes
}

fn set_times(scenario: &mut Scenario, flags: &Flags) {
    let longest = scenario.groups.iter().map(|group| group.lead_ms + group.load_ms).max();
    let minutes = Span::from_minutes(longest.unwrap_or(0).div_ceil(60_000));
    let warm_start = flags.warm_start.unwrap_or(minutes);
    scenario.start_ms = -i64::try_from(warm_start.as_millis()).unwrap_or(i64::MAX);
    scenario.score_from_ms = milliseconds(flags.warmup_days * DAY_MS);
    scenario.seed = flags.seed;
}

#[expect(clippy::cast_possible_truncation, reason = "at most a century")]
fn milliseconds(value: f64) -> i64 {
    value.round() as i64
}

fn facts(file: &Path, flags: &Flags, part: &Part, tally: &Tally) -> TraceFacts {
    let name = file
        .file_name()
        .map_or_else(|| file.to_string_lossy(), |name| name.to_string_lossy());
    TraceFacts {
        label: flags.label.clone().unwrap_or_else(|| label(&name).to_owned()),
        name: name.into_owned(),
        requests: tally.requests(),
        hours: tally.last_ms().map_or(0.0, |last_ms| last_ms as f64 / HOUR_MS),
        history_hours: part.history_days * 24.0,
        from_hour: part.from_hour - part.history_days * 24.0,
        rate_scale: part.rate_scale,
    }
}

/// What is known of the traces that are passed around.
fn label(name: &str) -> &'static str {
    match name {
        name if name.starts_with("composite") => "COMPOSITE",
        name if name.starts_with("servegen") => "SAMPLED",
        name if name.starts_with("azure") || name.starts_with("burstgpt") => "REAL",
        _ => "",
    }
}

/// The command line, to be run again.
fn command_line() -> String {
    let quote = |argument: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+,:@%".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            argument
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    };
    let arguments = std::env::args_os()
        .skip(1)
        .map(|argument| quote(argument.to_string_lossy().into_owned()));
    std::iter::once("pomarium".to_owned())
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    Ok(BufWriter::new(file))
}

fn write(mut file: BufWriter<File>, path: &Path, text: &str) -> anyhow::Result<()> {
    let written = file.write_all(text.as_bytes()).and_then(|()| file.flush());
    written.with_context(|| format!("writing {}", path.display()))
}

/// Prints to stdout; a reader that went away is no error.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Whether somebody watches stderr.
fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests;
