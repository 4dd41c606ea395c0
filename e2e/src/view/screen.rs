//! Draws a picture.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Wrap};

use super::{DecisionView, GroupView, ObjectiveView, Picture, ServerView, clock, or_dash};

/// Draws `picture` on the whole of `frame`.
pub fn draw(frame: &mut Frame, picture: &Picture) {
    let sites = u16::try_from(picture.sites.iter().map(|site| site.groups.len() + 1).sum::<usize>()).unwrap_or(8);
    let objectives = u16::try_from(picture.objectives.len()).unwrap_or(4);
    let [title, progress, pool, supply, decisions, help] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(objectives + 5),
        Constraint::Length(sites + 3),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_title(frame, title, picture);
    draw_progress(frame, progress, picture);
    draw_pool(frame, pool, picture);
    draw_supply(frame, supply, picture);
    draw_decisions(frame, decisions, &picture.decisions);
    let keys = format!(
        "q quits · one second here is {} s of the trace · kubectl explain serverpool",
        picture.scale
    );
    frame.render_widget(Line::from(keys).dim(), help);
}

fn draw_title(frame: &mut Frame, area: Rect, picture: &Picture) {
    let title = Line::from(vec![
        Span::from("Pomarium ").bold().fg(Color::Green),
        Span::from(picture.stage.as_str()),
    ]);
    frame.render_widget(title, area);
}

fn draw_progress(frame: &mut Frame, area: Rect, picture: &Picture) {
    let share = if picture.length_secs > 0.0 {
        (picture.elapsed_secs / picture.length_secs).clamp(0.0, 1.0)
    } else {
        0.0
    };
    let gauge = Gauge::default()
        .ratio(share)
        .label(picture.progress())
        .gauge_style(Style::default().fg(Color::Green).bg(Color::DarkGray));
    frame.render_widget(gauge, area);
}

fn draw_pool(frame: &mut Frame, area: Rect, picture: &Picture) {
    let pool = &picture.pool;
    let requests = &picture.requests;
    let mut lines: Vec<Line<'static>> = vec![
        Line::from(vec![
            field(
                "replicas",
                &format!("{}/{} serving, {} draining", pool.serving, pool.target, pool.draining),
            ),
            field(
                "demand",
                &format!("{} of {} requests/s", or_dash(&pool.demand), or_dash(&pool.sustainable)),
            ),
            field("cost", &format!("{}/h", or_dash(&pool.cost_per_hour))),
        ]),
        Line::from(vec![
            field(
                "requests",
                &format!(
                    "{} sent, {} completed, {} in flight, {} waiting",
                    requests.sent, requests.completed, requests.in_flight, picture.queued
                ),
            ),
            lost("cut", requests.cut),
            lost("failed", requests.failed),
        ]),
    ];
    lines.extend(picture.objectives.iter().map(objective));
    lines.push(Line::from(pool.summary.clone()).dim());
    let block = Block::bordered().title(format!(" pool {} ", pool.id));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn field(label: &str, value: &str) -> Span<'static> {
    Span::from(format!("{label} {value}   "))
}

fn lost(label: &str, count: u64) -> Span<'static> {
    let text = Span::from(format!("{count} {label}   "));
    if count == 0 {
        text.fg(Color::Green)
    } else {
        text.fg(Color::Red).bold()
    }
}

/// A bar that is full at the threshold.
fn objective(objective: &ObjectiveView) -> Line<'static> {
    const WIDTH: u8 = 24;
    let share = objective
        .value_ms
        .map(|value| value / objective.target.threshold_ms.max(1) as f64);
    let color = match share {
        None => Color::DarkGray,
        Some(share) if share > 1.0 => Color::Red,
        Some(share) if share > 0.8 => Color::Yellow,
        Some(_) => Color::Green,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the width"
    )]
    let filled = (share.unwrap_or(0.0).clamp(0.0, 1.0) * f64::from(WIDTH)).round() as usize;
    Line::from(vec![
        Span::from("█".repeat(filled)).fg(color),
        Span::from("░".repeat(usize::from(WIDTH) - filled)).dim(),
        Span::from(format!(" {}", objective.text())),
        Span::from("  last 5 min").dim(),
    ])
}

fn draw_supply(frame: &mut Frame, area: Rect, picture: &Picture) {
    let mut lines = Vec::new();
    for site in &picture.sites {
        lines.push(Line::from(vec![
            Span::from(format!("{} ", site.name)).bold(),
            Span::from(format!("{}  {}/h  ", site.ownership, or_dash(&site.cost_per_hour))),
            Span::from(site.summary.clone()).dim(),
        ]));
        lines.extend(site.groups.iter().map(group));
    }
    let mut legend = Vec::new();
    for state in ServerView::ALL {
        legend.push(Span::from(format!(" {}", glyph(state))).style(color(state)));
        legend.push(Span::from(format!(" {} ", state.word())).dim());
    }
    lines.push(Line::from(legend));
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" servers ")), area);
}

fn group(group: &GroupView) -> Line<'static> {
    let mut spans = vec![Span::from(format!(
        "  {:<22} ",
        format!("{} ({})", group.machine, group.max)
    ))];
    let mut drawn = 0;
    for (state, count) in &group.servers {
        let cells = format!("{} ", glyph(*state)).repeat(*count as usize);
        spans.push(Span::from(cells).style(color(*state)));
        drawn += count;
    }
    spans.push(Span::from("· ".repeat(group.max.saturating_sub(drawn) as usize)).dim());
    let mut says: Vec<String> = group
        .servers
        .iter()
        .map(|(state, count)| format!("{count} {}", state.word()))
        .collect();
    says.push(format!("{} requests", group.in_flight));
    if group.leases > 0 {
        says.push(format!("{} leased, {}/h", group.leases, or_dash(&group.cost_per_hour)));
    }
    spans.push(Span::from(format!(" {}", says.join(", "))).dim());
    Line::from(spans)
}

fn glyph(state: ServerView) -> &'static str {
    match state {
        ServerView::Serving => "■",
        ServerView::Draining => "▼",
        ServerView::Loading => "▲",
        ServerView::Idle => "□",
        ServerView::Coming => "+",
        ServerView::Leaving => "-",
    }
}

fn color(state: ServerView) -> Style {
    let style = Style::default();
    match state {
        ServerView::Serving => style.fg(Color::Green),
        ServerView::Draining => style.fg(Color::Yellow),
        ServerView::Loading => style.fg(Color::Cyan),
        ServerView::Idle => style.fg(Color::Gray),
        ServerView::Coming => style.fg(Color::Blue),
        ServerView::Leaving => style.fg(Color::DarkGray),
    }
}

fn draw_decisions(frame: &mut Frame, area: Rect, decisions: &[DecisionView]) {
    let line = |decision: &DecisionView| {
        let repeated = if decision.count > 1 {
            format!(" (×{})", decision.count)
        } else {
            String::new()
        };
        Line::from(vec![
            Span::from(format!("{} ", clock(decision.at_secs))).dim(),
            Span::from(format!("{} ", decision.reason)).add_modifier(Modifier::BOLD),
            Span::from(format!("{}: {}{repeated}", decision.subject, decision.message)),
        ])
    };
    let lines: Vec<_> = decisions.iter().take(usize::from(area.height)).map(line).collect();
    let text = Paragraph::new(lines)
        .wrap(Wrap { trim: true })
        .block(Block::bordered().title(" last decisions "));
    frame.render_widget(text, area);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::{PoolView, SiteView};
    use super::*;
    use crate::load;
    use crate::summary::{Target, TargetMetric};

    fn picture() -> Picture {
        Picture {
            stage: "replaying azure-conv-2023".into(),
            elapsed_secs: 1_925.0,
            length_secs: 3_502.0,
            scale: 15.0,
            sites: vec![SiteView {
                name: "oregon".into(),
                ownership: "Hosted".into(),
                summary: "Reachable".into(),
                cost_per_hour: "3.94 USD".into(),
                groups: vec![GroupView {
                    name: "oregon-m4-max".into(),
                    machine: "M4 Max 128 GiB".into(),
                    max: 6,
                    servers: BTreeMap::from([(ServerView::Serving, 2), (ServerView::Coming, 1)]),
                    in_flight: 17,
                    leases: 3,
                    cost_per_hour: "3.94 USD".into(),
                }],
            }],
            pool: PoolView {
                id: "assistants/chat".into(),
                target: 14,
                serving: 12,
                demand: "7.9".into(),
                sustainable: "8.2".into(),
                ..PoolView::default()
            },
            objectives: vec![ObjectiveView {
                target: Target {
                    metric: TargetMetric::TimeToFirstToken,
                    percentile: 95,
                    threshold_ms: 10_000,
                },
                value_ms: Some(4_200.0),
            }],
            requests: load::Snapshot {
                sent: 11_000,
                ..load::Snapshot::default()
            },
            queued: 0,
            decisions: vec![DecisionView {
                at_secs: 1_900.0,
                reason: "DemandGrew".into(),
                subject: "ServerPool chat".into(),
                message: "two more replicas".into(),
                count: 2,
            }],
        }
    }

    fn drawn(width: u16, height: u16, picture: &Picture) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, picture)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_shows_servers_objectives_cost_and_decisions() {
        let text = drawn(110, 30, &picture());
        for part in [
            "32:05 / 58:22",
            "12/14 serving",
            "demand 7.9 of 8.2 requests/s",
            "p95 TTFT 4.2 s of 10 s",
            "oregon Hosted  3.94 USD/h",
            "M4 Max 128 GiB (6)     ■ ■ + · · ·  2 serving, 1 coming, 17 requests, 3 leased",
            "31:40 DemandGrew ServerPool chat: two more replicas (×2)",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }

    #[test]
    fn no_size_of_terminal_is_too_small_to_draw_on() {
        for (width, height) in [(1, 1), (10, 4), (80, 24), (400, 100)] {
            drawn(width, height, &picture());
            drawn(width, height, &Picture::default());
        }
    }

    #[test]
    fn the_line_for_logs_says_a_loss_loudly_and_nothing_of_none() {
        let mut picture = picture();
        assert!(!picture.line().contains("CUT"));
        picture.requests.cut = 1;
        assert!(picture.line().contains("1 CUT, 0 FAILED"), "{}", picture.line());
    }
}
