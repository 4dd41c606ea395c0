//! KEDA with llm-d's recipe for objectives (`llm-d guides/workload-autoscaling/README.slo-aware.md`).
//!
//! Pressure `s = max(P90 TTFT / objective, P90 TPOT / objective)`, clamped at 2.0 and averaged over 45 s. Of `n` replicas, `r` of
//! them ready: `n + ceil(n·(s·(r/n)/0.55 − 1))` if `s > 0.55`, `n − floor(n·(1 − s/0.40))` if `s < 0.40`, else `n`. Growing at most by
//! the larger of 100 % and 4 Pods per 60 s after 30 s; shrinking by one Pod per 120 s after 180 s.
//!
//! P90 over a minute. Without answers there is no pressure to read, and it holds. The autoscaler's tolerance of 0.1, which would swallow
//! single replicas of ten, is left out in its favour. Knob: the scale of the objectives' thresholds.

use std::collections::VecDeque;

use pomarium_kernel::snapshot::Objective;

use super::Rule;
use super::autoscaler::{Autoscaler, Scaling, ceil};
use super::need::{Need, least, most};
use crate::machines::Phase;
use crate::world::View;

const UP: f64 = 0.55;
const DOWN: f64 = 0.40;
const CLAMP: f64 = 2.0;
const AVERAGED_MS: i64 = 45_000;
const METRIC_SECONDS: f64 = 60.0;

pub(crate) struct KedaSlo {
    objectives: Vec<Objective>,
    scale: f64,
    autoscaler: Autoscaler,
    pressures: VecDeque<(i64, f64)>,
    pressure: f64,
}

impl KedaSlo {
    pub(crate) fn new(objectives: &[Objective], scale: f64) -> Self {
        let up = Scaling {
            stabilisation_ms: 30_000,
            share: 1.0,
            pods: 4,
            period_ms: 60_000,
        };
        let down = Scaling {
            stabilisation_ms: 180_000,
            share: 0.0,
            pods: 1,
            period_ms: 120_000,
        };
        Self {
            objectives: objectives.to_vec(),
            scale,
            autoscaler: Autoscaler::new(up, down),
            pressures: VecDeque::new(),
            pressure: 0.0,
        }
    }

    fn measure(&self, view: &View<'_>) -> Option<f64> {
        let pressure = |objective: &Objective| {
            let p90_ms = view.scrapes.percentile(objective.metric, 0.9, METRIC_SECONDS)?;
            Some(p90_ms / (self.scale * objective.threshold.as_millis().max(1) as f64))
        };
        let worst = self.objectives.iter().filter_map(pressure).reduce(f64::max)?;
        Some(worst.min(CLAMP))
    }

    fn desired(&self, ready: u32) -> u32 {
        let count = self.autoscaler.replicas();
        let replicas = f64::from(count);
        if self.pressure > UP {
            let credit = (f64::from(ready) / replicas).min(1.0);
            count + ceil((replicas * (self.pressure * credit / UP - 1.0)).max(0.0))
        } else if self.pressure < DOWN {
            ceil((replicas - (replicas * (1.0 - self.pressure / DOWN)).floor()).max(1.0))
        } else {
            count
        }
    }
}

impl Rule for KedaSlo {
    fn need(&mut self, view: &View<'_>) -> Need {
        self.autoscaler.bound(least(view.groups), most(view.groups));
        if let Some(pressure) = self.measure(view) {
            self.pressures.push_back((view.now_ms, pressure));
        }
        while let Some((at_ms, _)) = self.pressures.front()
            && view.now_ms - at_ms >= AVERAGED_MS
        {
            self.pressures.pop_front();
        }
        if !self.pressures.is_empty() {
            let sum: f64 = self.pressures.iter().map(|(_, pressure)| pressure).sum();
            self.pressure = sum / self.pressures.len() as f64;
            let ready = view
                .live()
                .filter(|(_, machine)| machine.phase == Phase::Serving)
                .count();
            let desired = self.desired(u32::try_from(ready).unwrap_or(u32::MAX));
            self.autoscaler.sync(view.now_ms, desired);
        }
        Need::replicas(self.autoscaler.replicas(), view.groups)
    }

    fn reason(&self) -> String {
        let (pressure, replicas) = (self.pressure, self.autoscaler.replicas());
        format!("pressure {pressure:.2} (up over {UP}, down under {DOWN}): {replicas} replicas")
    }
}
