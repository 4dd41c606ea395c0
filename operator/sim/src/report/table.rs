//! The results as a table for a terminal.

use std::fmt::Write as _;

use super::comparison::compare;
use super::{Report, describe, discipline, knob, short, survive, thousands};
use crate::world::Accounting;

impl Report<'_> {
    /// What is printed on stdout.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.facts() {
            let _ = writeln!(text, "{name:<10} {value}");
        }
        for remark in self.remarks() {
            let _ = writeln!(text, "note       {remark}");
        }
        text.push('\n');
        text.push_str(&align(&self.rows()));
        if self.played.len() > 1 {
            let _ = writeln!(text, "\n{}", self.explanation());
        }
        text
    }

    /// What was replayed, as pairs of a name and a text.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let trace = &self.trace;
        let label = if trace.label.is_empty() {
            String::new()
        } else {
            format!(" ({})", trace.label)
        };
        let history = if trace.history_hours > 0.0 {
            format!(", the first {:.0} h of them history", trace.history_hours)
        } else {
            String::new()
        };
        let from = if trace.from_hour > 0.0 {
            format!(" from hour {}", trace.from_hour)
        } else {
            String::new()
        };
        let pool = self.setting.snapshot.pools.get(&self.setting.pool);
        let objectives: Vec<String> = self.setting.scenario.objectives.iter().map(describe).collect();
        let groups: Vec<String> = self
            .setting
            .scenario
            .groups
            .iter()
            .map(|group| format!("{} × {} ({:.2}/h)", group.max, group.name, group.hourly))
            .collect();
        vec![
            (
                "trace",
                format!(
                    "{}{label}{from}: {} requests in {:.1} h{history}, rate × {}",
                    trace.name,
                    thousands(trace.requests),
                    trace.hours,
                    trace.rate_scale
                ),
            ),
            (
                "lengths",
                format!(
                    "prompts of {:.0} tokens on average, p95 {}; answers of {:.0}",
                    self.lengths.mean_prompt, self.lengths.p95_prompt, self.lengths.mean_output
                ),
            ),
            (
                "pool",
                format!(
                    "{}: {}; {}, survives the loss of {}",
                    self.setting.pool,
                    objectives.join(", "),
                    discipline(self.setting.scenario.discipline),
                    pool.map_or("None", |pool| survive(pool.placement.survive_loss_of))
                ),
            ),
            ("groups", groups.join(", ")),
        ]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let several = self.played.len() > 1;
        let compared = several.then(|| compare(self));
        let mut head = vec!["policy".to_owned(), "knob".to_owned()];
        for objective in &self.setting.scenario.objectives {
            head.extend([short(objective), "attained".to_owned(), "worst hour".to_owned()]);
        }
        let total = format!("total {}", self.currency);
        head.extend(["leases", "energy", &total, "owed then", "peak", "moves/day", "early"].map(str::to_owned));
        if several {
            head.push("to best".to_owned());
        }
        let mut rows = vec![head];
        for (index, played) in self.played.iter().enumerate() {
            let outcome = &played.run.outcome;
            let mut row = vec![
                played.run.policy.clone(),
                played
                    .knob
                    .as_ref()
                    .map_or_else(|| "–".to_owned(), |_| knob(played.run.knob)),
            ];
            for score in &outcome.objectives {
                row.extend([
                    score.value_seconds.map_or_else(|| "∞".to_owned(), seconds),
                    percent(score.attainment),
                    score.worst_hour.map_or_else(|| "–".to_owned(), percent),
                ]);
            }
            row.extend([
                format!("{:.2}", outcome.leases()),
                format!("{:.2}", outcome.energy()),
                format!("{:.2}", outcome.cost(Accounting::ToTheEnd)),
                format!("{:.2}", outcome.obligations()),
                outcome.peak.to_string(),
                format!("{:.1}", outcome.moves_per_day()),
                outcome.early_releases().to_string(),
            ]);
            if let Some(compared) = compared.as_ref().and_then(|compared| compared.policies.get(index)) {
                row.push(match compared.ratio_to_best {
                    Some(ratio) => format!("{ratio:.3}"),
                    None => "misses".to_owned(),
                });
            }
            rows.push(row);
        }
        rows
    }

    /// What the comparison means.
    pub(super) fn explanation(&self) -> String {
        let comparison = compare(self);
        let over = match comparison.over {
            "Windows" => "in each of their windows",
            _ => "over the whole trace",
        };
        let cost = match comparison.accounting {
            "WithObligations" => "leases, energy and what is still owed at the end",
            _ => "leases and energy to the trace's end",
        };
        format!(
            "Each policy with the knob that costs least while all objectives hold {over}; \
             compared by {cost}. {} runs.",
            comparison.runs.len()
        )
    }
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

fn percent(share: f64) -> String {
    // Rounded down: 94.996 % does not attain 95 %.
    format!("{:.2} %", (share * 1e4).floor() / 1e2)
}

/// The first column to the left, all others to the right.
fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
