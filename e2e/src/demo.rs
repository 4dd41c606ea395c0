//! The demo: Pomarium at work in two real clusters, under a recorded load, in a few minutes.
//!
//! Everything is real but the machines: API servers, schedulers, the operator as a process with the chart's rights, and
//! every request an HTTP stream. The machines are played by [`crate::fleet`], in compressed time.

mod keep;
mod manifests;
mod observer;
mod replay;
mod report;
mod setup;
mod steps;
mod tally;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use kube::ResourceExt;
use pomarium_kernel::time::Span;
use pomarium_sim::trace::{Arrival, Excerpt, Trace as _, TraceFile};
use tokio::time::Instant;

use crate::summary::{Summary, round};
use crate::view::terminal::Screen;
use crate::wait::eventually;

use manifests::Manifests;
use setup::World;
use steps::Steps;

/// Longest real wait for the pool to be Ready at its minimum.
const READY_LIMIT: Duration = Duration::from_secs(90);

/// What everything but the replay may take in real time, once built, before the demo gives up. About twenty seconds are usual.
const REST_LIMIT: Duration = Duration::from_secs(240);

/// Seed of the jitter of `--rate-scale`.
const SEED: u64 = 1;

/// Watch Pomarium scale, place and drain emulated Apple-silicon servers.
///
/// Starts two real Kubernetes control planes on this machine (no containers, no root), installs Pomarium, applies
/// examples/hybrid/ and replays one recorded hour of a conversation service as real HTTP streams. Takes a little over
/// 4 minutes; the first run also builds the control plane (Go, about 5 minutes on 2 cores). Needs Linux.
#[derive(Clone, Debug, Parser)]
#[command(name = "demo", bin_name = "cargo demo --", version)]
pub struct Options {
    /// Print a line every 10 s instead of drawing on the terminal. Always so if standard output is no terminal.
    #[arg(long)]
    pub headless: bool,

    /// Write the summary as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write what the operator logged.
    #[arg(long, value_name = "FILE")]
    pub operator_log: Option<PathBuf>,

    /// What to replay: CSV, gzipped or not, `arrival_ms,prompt_tokens,output_tokens` [default: azure-conv-2023, one hour, REAL]
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Virtual seconds in one real second. Lower it on a slow machine.
    #[arg(long, value_name = "K", default_value_t = 15.0, value_parser = time_scale)]
    pub time_scale: f64,

    /// Multiply the request rate: under 1 thins the trace, over 1 superposes jittered copies.
    #[arg(long, value_name = "K", default_value_t = 1.0, value_parser = rate_scale)]
    pub rate_scale: f64,

    /// Replay only the first M minutes of the trace.
    #[arg(long, value_name = "M")]
    pub minutes: Option<u64>,

    /// Leave everything running afterwards, until Ctrl-C, and say how to look at it with kubectl.
    #[arg(long)]
    pub keep: bool,
}

fn time_scale(text: &str) -> Result<f64, String> {
    within(text, 1.0, 60.0)
}

fn rate_scale(text: &str) -> Result<f64, String> {
    within(text, 0.01, 10.0)
}

fn within(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(format!("must be between {least} and {most}"))
    }
}

/// Runs the demo on a runtime of its own. False if a request was lost, the pool never became Ready, or it did not run to its end.
pub fn run_to_end(options: Options) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let good = runtime.block_on(run(options));
    // Tasks that are still at it, such as watches, are not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    good
}

async fn run(options: Options) -> Result<bool> {
    crate::cluster::supported()?;
    for file in [&options.json, &options.operator_log].into_iter().flatten() {
        report::check_writable(file)?;
    }
    let mut steps = Steps::start();
    let trace = options.trace.clone().unwrap_or_else(default_trace);
    let manifests = Manifests::read(&crate::cluster::repository().join("examples/hybrid"))?;
    let all = arrivals(&trace, &options)?;
    let (arrivals, too_long) = within_context(all, manifests.context_tokens());
    let replay_time = Duration::from_secs_f64(length(&arrivals).as_secs_f64() / options.time_scale);
    steps.say(&format!(
        "Pomarium demo: {} requests of {} in about {:.1} minutes",
        arrivals.len(),
        file_name(&trace),
        replay_time.as_secs_f64() / 60.0,
    ));
    if too_long > 0 {
        steps.say(&format!(
            "{too_long} more are longer than the model's context and are left out"
        ));
    }
    let screen = !options.headless && Screen::is_available();
    log_to_stderr(screen);

    // tokio's handler stays once it is set: from here on, whoever waits must listen to Ctrl-C.
    let Prepared {
        world,
        never_ready,
        seconds_to_ready,
        seconds_building,
        deadline,
    } = tokio::select! {
        prepared = prepare(&manifests, &options, replay_time, &mut steps) => prepared?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted");
        }
    };
    let mut summary = Summary {
        trace: file_name(&trace),
        time_scale: options.time_scale,
        never_ready,
        seconds_to_ready: round(seconds_to_ready, 2),
        seconds_building: round(seconds_building, 1),
        ..Summary::default()
    };
    if summary.never_ready.is_empty() {
        steps.next(if screen {
            "the replay, on a screen of its own"
        } else {
            "the replay"
        });
        let begun = world.time.now();
        summary.ended = replay::run(&world, &manifests, &arrivals, &summary.trace, screen, deadline).await?;
        summary.replayed_seconds = round(world.time.now().since(begun).as_secs_f64(), 1);
    } else {
        steps.say(&format!(
            "the end of the operator's log:\n{}",
            world.operator.log_tail()
        ));
    }
    report::fill(&mut summary, &world, &manifests)?;
    summary.requests.rejected = too_long;
    summary.seconds = round(steps.seconds(), 1);
    println!("\nPomarium demo, summary\n{}", summary.table());
    report::say_if_slow(&summary, replay_time);
    if let Some(path) = &options.json {
        report::write_json(path, &summary)?;
    }
    if let Some(path) = &options.operator_log {
        std::fs::write(path, world.operator.log()).with_context(|| format!("writing {}", path.display()))?;
    }
    if options.keep {
        keep::until_interrupted(&world, &manifests).await?;
    }
    Ok(summary.is_good())
}

/// A world whose pool is Ready, or is not in time.
struct Prepared {
    world: World,
    never_ready: Vec<String>,
    seconds_to_ready: f64,
    seconds_building: f64,
    /// When the demo gives up.
    deadline: Instant,
}

/// Builds the programs, starts the world, applies the manifests, and waits for the pool.
async fn prepare(
    manifests: &Manifests,
    options: &Options,
    replay_time: Duration,
    steps: &mut Steps,
) -> Result<Prepared> {
    setup::programs(steps).await?;
    let (seconds_building, deadline) = (steps.seconds(), Instant::now() + replay_time + REST_LIMIT);
    let world = tokio::time::timeout(REST_LIMIT, setup::build(manifests, options.time_scale, steps));
    let world = world.await.with_context(|| {
        format!(
            "the clusters and the operator did not start within {} s",
            REST_LIMIT.as_secs()
        )
    })??;
    steps.next("the manifests of examples/hybrid, applied with kubectl");
    let before = steps.seconds();
    world.hub()?.apply_path(&manifests.folder).await?;
    let never_ready = wait_until_ready(&world, manifests, steps).await;
    Ok(Prepared {
        world,
        never_ready,
        seconds_to_ready: steps.seconds() - before,
        seconds_building,
        deadline,
    })
}

impl World {
    fn hub(&self) -> Result<&crate::cluster::ControlPlane> {
        self.clusters.get(&self.hub).context("the hub has no cluster")
    }
}

fn default_trace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/azure-conv-2023.csv.gz")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn arrivals(trace: &Path, options: &Options) -> Result<Vec<Arrival>> {
    let end_ms = options
        .minutes
        .map_or(u64::MAX, |minutes| minutes.saturating_mul(60_000));
    let part = Excerpt::scan(TraceFile::open(trace)?, 0..end_ms, |_| ())?;
    anyhow::ensure!(part.found() > 0, "trace {} has no requests", trace.display());
    Ok(part
        .at_rate(options.rate_scale, SEED)
        .requests()?
        .collect::<Result<_, _>>()?)
}

/// Those whose prompt and answer fit a context of `tokens`, and how many do not: no server could ever serve them.
fn within_context(arrivals: Vec<Arrival>, tokens: u64) -> (Vec<Arrival>, u64) {
    let (fit, too_long): (Vec<_>, Vec<_>) = arrivals
        .into_iter()
        .partition(|arrival| u64::from(arrival.prompt_tokens) + u64::from(arrival.output_tokens) <= tokens);
    (fit, too_long.len() as u64)
}

fn length(arrivals: &[Arrival]) -> Span {
    Span::from_millis(arrivals.last().map_or(0, |arrival| arrival.arrival_ms))
}

/// A drawn screen must not be written over by a log; without one, `RUST_LOG` decides.
fn log_to_stderr(screen: bool) {
    if !screen && std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .try_init();
    }
}

/// Waits until the pool is Ready and serves at its minimum. Returns the pools that are not, in time.
async fn wait_until_ready(world: &World, manifests: &Manifests, steps: &Steps) -> Vec<String> {
    let name = format!("{}/{}", manifests.namespace(), manifests.pool.name_any());
    let minimum = manifests.minimum() as usize;
    steps.say(&format!(
        "waiting until {name} is Ready with {minimum} replicas (about 10 s)"
    ));
    let ready = eventually(READY_LIMIT, &format!("{name} to be Ready"), async || {
        let pool = world.observer.pool().ok_or("the pool is not there yet")?;
        let status = pool.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let ready = ready.ok_or("the pool has no condition Ready yet")?;
        match world.observer.serving() {
            serving if serving < minimum => Err(format!("{serving} of {minimum} replicas serve; {}", ready.message)),
            _ if ready.status != "True" => Err(format!("{}: {}", ready.reason, ready.message)),
            _ => Ok(()),
        }
    })
    .await;
    match ready {
        Ok(()) => {
            steps.say(&format!("{name} is Ready"));
            Vec::new()
        }
        Err(error) => {
            steps.say(&error.to_string());
            vec![name]
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_refuses_what_cannot_be() {
        Options::command().debug_assert();
        for bad in [
            "--time-scale=0",
            "--time-scale=1000",
            "--rate-scale=-1",
            "--rate-scale=fast",
            "--minutes=-1",
        ] {
            assert!(Options::try_parse_from(["demo", bad]).is_err(), "{bad}");
        }
        let good = Options::try_parse_from(["demo", "--headless", "--json", "out.json", "--time-scale", "20"]);
        assert!(good.is_ok_and(|options| options.headless && options.json.is_some()));
    }

    #[test]
    fn a_summary_that_could_not_be_written_is_refused_before_anything_starts() {
        let options = Options::parse_from(["demo", "--headless", "--json", "/nowhere/out.json"]);
        let refused = run_to_end(options).map_err(|error| error.to_string());
        assert_eq!(refused, Err("writing /nowhere/out.json".to_owned()));
    }

    #[test]
    fn the_shipped_trace_is_the_recorded_hour() {
        let options = Options::parse_from(["demo"]);
        let hour = arrivals(&default_trace(), &options).unwrap_or_default();
        assert_eq!((hour.len(), length(&hour)), (19_366, Span::from_millis(3_501_722)));
        assert_eq!(within_context(hour, 8_000).1, 1, "one has 14,089 tokens");
        let options = Options::parse_from(["demo", "--minutes", "2"]);
        assert_eq!(
            arrivals(&default_trace(), &options).unwrap_or_default().len(),
            191 + 265
        );
    }
}
