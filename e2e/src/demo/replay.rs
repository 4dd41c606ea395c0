//! Replays the trace, shows what happens, and waits until what was leased is given back.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use pomarium_kernel::time::{Span, Timestamp};
use pomarium_sim::trace::Arrival;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::manifests::Manifests;
use super::setup::World;
use crate::load;
use crate::summary::Ended;
use crate::view::Picture;
use crate::view::terminal::Screen;

/// Longest virtual wait, after the last answer, for hosted servers to be given back.
const RETURN_LIMIT: Span = Span::from_minutes(25);

/// Longest virtual time from a request's arrival to its end.
const REQUEST_LIMIT: Span = Span::from_minutes(30);

/// Real time between two pictures on a terminal.
const PICTURE_EVERY: Duration = Duration::from_millis(500);

/// Real time between two lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Replays, shows, and waits until what was leased is given back; gives up at `deadline`.
pub(crate) async fn run(
    world: &World,
    manifests: &Manifests,
    arrivals: &[Arrival],
    trace: &str,
    screen: bool,
    deadline: Instant,
) -> Result<Ended> {
    let config = load::Config {
        target: world.router.address(),
        model: manifests.pool.spec.model.name.clone(),
        scale: world.time.scale(),
        request_timeout: world.time.real(REQUEST_LIMIT),
    };
    let quit = CancellationToken::new();
    let done = CancellationToken::new();
    world.observer.start_counting();
    let shown = Show {
        begun: world.time.now(),
        length: super::length(arrivals),
        stage: format!("replaying {trace}"),
    };
    let work = async {
        let replayed = async {
            load::replay(arrivals, &config, &world.ledger, &quit).await;
            if !quit.is_cancelled() {
                wait_for_returns(world, &quit).await;
            }
        };
        let in_time = tokio::time::timeout_at(deadline, replayed).await;
        done.cancel();
        match in_time {
            _ if quit.is_cancelled() => Ended::Interrupted,
            Ok(()) => Ended::Complete,
            Err(_) => Ended::OutOfTime,
        }
    };
    let meter = async {
        while done
            .run_until_cancelled(tokio::time::sleep(Duration::from_secs(1)))
            .await
            .is_some()
        {
            world.observer.read_meter();
        }
        world.observer.read_meter();
    };
    let interrupt = async {
        if let Some(Ok(())) = done.run_until_cancelled(tokio::signal::ctrl_c()).await {
            quit.cancel();
        }
    };
    let show = async {
        if screen {
            shown.on_screen(world, &quit, &done).await
        } else {
            shown.as_lines(world, &done).await
        }
    };
    let (ended, (), (), shown) = tokio::join!(work, meter, interrupt, show);
    shown?;
    Ok(ended)
}

/// Waits until every lease has ended, for a bounded time.
async fn wait_for_returns(world: &World, quit: &CancellationToken) {
    let end = world.time.now() + RETURN_LIMIT;
    while world.time.now() < end && !quit.is_cancelled() {
        let totals = world.observer.totals();
        if totals.returned == totals.bought {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What is shown while the replay runs.
struct Show {
    begun: Timestamp,
    length: Span,
    stage: String,
}

impl Show {
    async fn as_lines(&self, world: &World, done: &CancellationToken) -> Result<()> {
        while done.run_until_cancelled(tokio::time::sleep(LINE_EVERY)).await.is_some() {
            println!("{}", self.picture(world).line());
            std::io::stdout().flush()?;
        }
        Ok(())
    }

    async fn on_screen(&self, world: &World, quit: &CancellationToken, done: &CancellationToken) -> Result<()> {
        let mut screen = Screen::open()?;
        while !done.is_cancelled() {
            screen.draw(&self.picture(world))?;
            // Keys are waited for on a thread of their own: reading them blocks.
            let key = tokio::task::spawn_blocking(|| Screen::wants_to_quit(PICTURE_EVERY));
            if key.await?? {
                quit.cancel();
            }
        }
        Ok(())
    }

    fn picture(&self, world: &World) -> Picture {
        world.observer.picture(&self.stage, self.begun, self.length)
    }
}
