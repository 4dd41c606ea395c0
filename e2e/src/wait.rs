//! Waits for conditions, with a bound and with the last reason why not.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Pause between two looks. Short against anything that a control plane does, long against a look.
const PAUSE: Duration = Duration::from_millis(50);

/// A condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waiting {} s for {what}: {last}", limit.as_secs_f32())]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// How long it was waited for.
    pub limit: Duration,
    /// Why not, at the last look.
    pub last: String,
}

/// Looks until `look` gives a value, at most for `limit`; the error carries the last refusal.
///
/// A look that hangs counts against the limit too.
pub async fn eventually<T, E: fmt::Display>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, TimedOut> {
    let end = Instant::now() + limit;
    let mut last = "the first look did not come back".to_owned();
    loop {
        match tokio::time::timeout_at(end, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(refusal)) => last = format!("{refusal:#}"),
            Err(_) => {
                return Err(TimedOut {
                    what: what.to_owned(),
                    limit,
                    last,
                });
            }
        }
        if Instant::now() + PAUSE >= end {
            return Err(TimedOut {
                what: what.to_owned(),
                limit,
                last,
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// As [`eventually`], for a condition without a value.
pub async fn until(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) -> Result<(), TimedOut> {
    eventually(limit, what, async || {
        if holds().await {
            Ok(())
        } else {
            Err("it does not hold yet")
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for a few looks.
    const SHORT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_condition_that_comes_true_gives_its_value() {
        let mut looks = 0;
        let value = eventually(Duration::from_secs(60), "the third look", async || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                Err(format!("look {looks}"))
            }
        })
        .await;
        assert_eq!(value.ok(), Some(3));
    }

    #[tokio::test]
    async fn a_condition_that_never_comes_true_gives_the_last_reason() {
        let never = eventually(SHORT, "a miracle", async || Err::<(), _>("no angel seen")).await;
        let said = never.map_err(|error| error.to_string());
        assert_eq!(said, Err("waiting 0.3 s for a miracle: no angel seen".to_owned()));
    }

    #[tokio::test]
    async fn a_look_that_hangs_is_given_up_at_the_limit() {
        let hangs = eventually(SHORT, "an answer", async || {
            std::future::pending::<Result<(), String>>().await
        })
        .await;
        assert!(hangs.is_err());
    }
}
