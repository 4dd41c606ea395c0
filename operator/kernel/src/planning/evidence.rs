//! What engines say for or against the figures of their machines.
//!
//! A figure of the catalogue or of the spec may be ten times off. The calibration finds that out within half an hour; until then, and where
//! it cannot say by how much, it is the engines' own load that tells whether there is enough: all of them full while an objective is
//! missed is a want of servers, whatever the figures say, and none of them full while every objective holds is none.

use super::crew::{Crew, Member};
use super::demand::attained;
use super::figures;
use super::options::Options;
use super::policy::{MEASURE_MAX_AGE, MEASURED_OVER};
use crate::capacity::Trust;
use crate::engine::StepTimes;
use crate::reason::{Problem, Reason};
use crate::snapshot::{Group, Load};
use crate::time::Timestamp;
use crate::units::Rate;

/// See [`most`].
const HEADROOM: f64 = 2.0;

/// Why figures of groups in which the pool serves are not used, if so.
pub(crate) fn doubts(crew: &Crew, options: &Options) -> Option<Problem> {
    let mut told = Vec::new();
    for (group, trust) in trusts(crew, options) {
        let chip = &group.machine.chip;
        let text = match trust {
            Trust::OutOfRange(ratio) => format!(
                "servers take {} times as long as the figures of {chip} say",
                figures::two(ratio)
            ),
            Trust::Scattered => format!("latencies of {chip} contradict each other, and its figures are not corrected"),
            Trust::Trusted(_) | Trust::TooFewSamples => continue,
        };
        if !told.contains(&text) {
            told.push(text);
        }
    }
    (!told.is_empty()).then(|| Problem::new(Reason::FiguresDoubted, told.join("; ")))
}

/// Whether the figures of servers in use promise so much that they take no capacity away.
pub(crate) fn promise_too_much(crew: &Crew, options: &Options) -> bool {
    trusts(crew, options).any(|(_, trust)| trust.promises_too_much())
}

/// Whether a figure is so far off that a plan which was made with it is not followed.
pub(crate) fn mislead(crew: &Crew, options: &Options) -> bool {
    trusts(crew, options).any(|(_, trust)| matches!(trust, Trust::OutOfRange(_)))
}

/// Whether every engine is full: more requests wait than it takes at once.
pub(crate) fn overwhelmed(crew: &Crew, options: &Options, now: Timestamp) -> bool {
    let mut serving = serving(crew).peekable();
    serving.peek().is_some() && serving.all(|member| load(member, options, now) == Some(true))
}

/// Whether what serves is enough although the figures ask for more: they promise too little, most engines have room, and objectives hold.
pub(crate) fn suffices(crew: &Crew, options: &Options, now: Timestamp) -> bool {
    let mut loads = serving(crew).map(|member| load(member, options, now));
    let (mut full, mut all) = (0_u32, 0_u32);
    let known = loads.all(|load| {
        full += u32::from(load == Some(true));
        all += 1;
        load.is_some()
    });
    let modest = trusts(crew, options).any(|(_, trust)| trust.promises_too_little());
    // A few that are or were full work off what came before the others: what is missed waited there, and more servers do not shorten it.
    let excused = full > 0 || crew.pool.past.calibrations.backlog(now);
    modest && known && full * 2 < all && (excused || attained(crew.pool, now))
}

fn trusts<'o>(crew: &'o Crew, options: &'o Options) -> impl Iterator<Item = (&'o Group, Trust)> {
    let serving = crew.serving().keys();
    let choices = serving.filter_map(|name| options.choice(name));
    choices.map(|choice| (choice.group, choice.trust))
}

fn serving<'c, 'a>(crew: &'c Crew<'a>) -> impl Iterator<Item = &'c Member<'a>> {
    crew.keepers().filter(|member| member.serving)
}

/// The most replicas that are worth having while figures are doubted: twice as many as what engines
/// have been seen to finish asks for. `None` if nobody knows what they finish.
///
/// Engines that are not full finish what arrives, so that this is twice as many as there are: doubling reaches any true need in a few steps,
/// and every step waits for new measurements.
pub(crate) fn most(crew: &Crew, rate: Option<Rate>, now: Timestamp) -> Option<u32> {
    let recent = crew
        .pool
        .engines
        .values()
        .filter(|measured| now.since(measured.at) <= MEASURE_MAX_AGE);
    let finished: f64 = recent.map(|measured| measured.rate.as_per_second()).sum();
    // Those that have just begun have hardly finished anything.
    let engines = serving(crew)
        .filter(|member| now.since(member.replica.since) >= MEASURED_OVER)
        .count();
    let needed = rate?.as_per_second() * engines.max(1) as f64 / finished;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates; not negative"
    )]
    needed.is_finite().then(|| (HEADROOM * needed).ceil().max(1.0) as u32)
}

fn load(member: &Member, options: &Options, now: Timestamp) -> Option<bool> {
    let choice = options.choice(member.group)?;
    is_full(&member.replica.load, &choice.performance.times, now)
}

/// Whether an engine has more requests than it takes at once; `None` if it did not say lately.
pub(crate) fn is_full(load: &Load, times: &StepTimes, now: Timestamp) -> Option<bool> {
    match *load {
        Load::Known { running, queued, at } if now.since(at) <= MEASURE_MAX_AGE => {
            Some(queued > 0 || running > times.max_batch)
        }
        Load::Known { .. } | Load::Unknown => None,
    }
}
