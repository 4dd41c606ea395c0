//! Whether a schedule is physically possible, judged from its lines and the groups alone.
//!
//! Shares nothing with the world that wrote the schedule: it is there to find that world's mistakes. What runs on a machine is not
//! in a schedule, so that a release counts as possible only if the machine does not take requests at that moment.

use std::collections::BTreeMap;

use super::Line;
use super::ScheduleEvent::{Drain, Lease, Release, Serve};
use crate::machines::GroupModel;

/// An event that cannot have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// The line, from 1.
    pub line: usize,
    /// Why not.
    pub why: String,
}

#[derive(Clone, Copy, Debug)]
enum Node {
    /// Leased, and has not served yet.
    Leased {
        at_ms: i64,
    },
    Serving,
    /// Has served and may again.
    Drained,
    Released {
        at_ms: i64,
    },
}

/// Every impossible event of a schedule; none if it is possible.
pub fn check(lines: &[Line], groups: &[GroupModel]) -> Vec<Impossible> {
    let mut nodes: BTreeMap<&str, Node> = BTreeMap::new();
    let mut held: Vec<u32> = vec![0; groups.len()];
    let mut last_ms = i64::MIN;
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let mut impossible = |why: String| {
            found.push(Impossible {
                line: index + 1,
                why: format!("{}: {why}", line.node),
            });
        };
        if line.t < last_ms {
            impossible(format!("at {} ms, before the line above at {last_ms} ms", line.t));
        }
        last_ms = last_ms.max(line.t);
        let Some(group) = groups.iter().position(|group| group.name == line.group) else {
            impossible(format!("there is no group {:?}", line.group));
            continue;
        };
        let model = &groups[group];
        if model.ordinal(&line.node).is_none() {
            impossible(format!("no machine of {:?}, which has {}", line.group, model.max));
            continue;
        }
        let node = nodes.get(line.node.as_str()).copied();
        match event(line, node, model) {
            Ok(next) => {
                nodes.insert(&line.node, next);
            }
            Err(why) => impossible(why),
        }
        match line.event {
            Lease => held[group] += 1,
            Release => held[group] = held[group].saturating_sub(1),
            Serve | Drain => {}
        }
        if held[group] > model.max {
            impossible(format!("machine number {} of at most {}", held[group], model.max));
        }
    }
    found
}

/// What becomes of a machine, or why the event is impossible.
fn event(line: &Line, node: Option<Node>, model: &GroupModel) -> Result<Node, String> {
    let after = |at_ms: i64, wait_ms: u64, what: &str| {
        let earliest_ms = at_ms.saturating_add_unsigned(wait_ms);
        if line.t < earliest_ms {
            return Err(format!("{what} at {} ms, possible from {earliest_ms} ms on", line.t));
        }
        Ok(())
    };
    match (line.event, node) {
        (Lease, None) => Ok(Node::Leased { at_ms: line.t }),
        (Lease, Some(Node::Released { at_ms })) => {
            after(at_ms, model.recycle_ms, "leased again")?;
            Ok(Node::Leased { at_ms: line.t })
        }
        (Lease, Some(_)) => Err("leased twice".to_owned()),
        (Serve, Some(Node::Leased { at_ms })) => {
            let lead_ms = if model.always_on { 0 } else { model.lead_ms };
            after(at_ms, lead_ms + model.load_ms, "serves")?;
            Ok(Node::Serving)
        }
        (Serve, Some(Node::Drained)) => Ok(Node::Serving),
        (Serve, Some(Node::Serving)) => Err("serves already".to_owned()),
        (Drain, Some(Node::Serving)) => Ok(Node::Drained),
        (Drain, _) => Err("drained without serving".to_owned()),
        (Release, _) if model.always_on => Err("released, though it is always on".to_owned()),
        (Release, Some(Node::Leased { .. } | Node::Drained)) => Ok(Node::Released { at_ms: line.t }),
        (Release, Some(Node::Serving)) => Err("released while it takes requests".to_owned()),
        (Serve | Release, None | Some(Node::Released { .. })) => Err("not leased".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use pomarium_kernel::engine::StepTimes;

    use super::*;

    fn group() -> GroupModel {
        GroupModel {
            name: "hosted-m4".to_owned(),
            times: StepTimes {
                alpha_ns: 1,
                beta_ns: 1,
                delta_ns: 1,
                kv_tokens: 1,
                max_batch: 1,
                prefill_chunk: 1,
            },
            load_ms: 30,
            lead_ms: 100,
            recycle_ms: 1_000,
            minimum_lease_ms: 0,
            hourly: 1.0,
            idle_watts: 1.0,
            busy_watts: 1.0,
            price_per_kwh: 1.0,
            max: 2,
            always_on: false,
        }
    }

    /// Lines such as `0 hosted-m4-1 lease`.
    fn lines(text: &str) -> Vec<Line> {
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Line {
                t: words[0].parse().unwrap(),
                node: words[1].to_owned(),
                group: "hosted-m4".to_owned(),
                event: match words[2] {
                    "lease" => Lease,
                    "serve" => Serve,
                    "drain" => Drain,
                    _ => Release,
                },
            }
        };
        text.split(',').map(line).collect()
    }

    #[test]
    fn the_whole_life_of_a_machine_is_possible() {
        let life = "0 hosted-m4-1 lease, 130 hosted-m4-1 serve, 200 hosted-m4-1 drain, 210 hosted-m4-1 serve, \
                    220 hosted-m4-1 drain, 220 hosted-m4-1 release, 1220 hosted-m4-1 lease, 1230 hosted-m4-1 release";
        assert_eq!(check(&lines(life), &[group()]), []);
    }

    #[test]
    fn each_impossible_event_is_found() {
        let cases = [
            ("0 hosted-m4-0 lease, 129 hosted-m4-0 serve", "possible from 130 ms"),
            ("0 hosted-m4-0 lease, 5 hosted-m4-0 lease", "leased twice"),
            (
                "0 hosted-m4-0 lease, 5 hosted-m4-0 release, 1004 hosted-m4-0 lease",
                "possible from 1005 ms",
            ),
            (
                "0 hosted-m4-0 lease, 130 hosted-m4-0 serve, 140 hosted-m4-0 release",
                "takes requests",
            ),
            (
                "0 hosted-m4-0 lease, 130 hosted-m4-0 serve, 140 hosted-m4-0 serve",
                "serves already",
            ),
            ("0 hosted-m4-0 lease, 130 hosted-m4-0 drain", "without serving"),
            ("0 hosted-m4-0 serve", "not leased"),
            ("0 hosted-m4-0 release", "not leased"),
            ("5 hosted-m4-0 lease, 4 hosted-m4-1 lease", "before the line above"),
            ("0 hosted-m4-2 lease", "no machine of"),
            ("0 hosted-m5-0 lease", "no machine of"),
        ];
        for (text, expected) in cases {
            let found = check(&lines(text), &[group()]);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].why.contains(expected), "{text}: {found:?}");
        }
        let strangers = check(&lines("0 other-0 lease"), &[]);
        assert!(strangers[0].why.contains("no group"));
    }
}
