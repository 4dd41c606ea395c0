//! What is dear to compute and was computed before.

use std::collections::VecDeque;
use std::sync::Arc;

use super::burn::{BurnTable, SteadyBurn};
use super::bursts::{Bursts, Sample};
use crate::capacity::curve::{Curves, Effort};

/// Capacity curves, samples of bursts and what these burn. Plans do not depend on what it remembers, only how long they take.
#[derive(Clone, Debug)]
pub struct Memo {
    /// Capacity curves.
    pub curves: Curves,
    samples: VecDeque<(Bursts, Option<Arc<Sample>>)>,
    burns: VecDeque<(Arc<Sample>, SteadyBurn, Option<BurnTable>)>,
    most: usize,
}

impl Memo {
    /// Keeps at most `most` curves, and what bursts of as many pools burn.
    pub fn new(effort: Effort, most: usize) -> Self {
        Self {
            curves: Curves::new(effort, most),
            samples: VecDeque::new(),
            burns: VecDeque::new(),
            most: most.max(1),
        }
    }

    /// The sample of these bursts, if enough is known of them.
    pub(super) fn sample(&mut self, bursts: &Bursts) -> Option<Arc<Sample>> {
        if let Some((_, known)) = self.samples.iter().rev().find(|(known, _)| known.alike(bursts)) {
            return known.clone();
        }
        let sample = bursts.sample().map(Arc::new);
        if self.samples.len() >= self.most {
            self.samples.pop_front();
        }
        self.samples.push_back((bursts.closed(), sample.clone()));
        sample
    }

    /// What `steady` burns when demand comes in bursts as those of `sample`.
    pub(super) fn burn(&mut self, steady: &SteadyBurn, sample: &Arc<Sample>) -> Option<BurnTable> {
        let known =
            |entry: &&(Arc<Sample>, SteadyBurn, Option<BurnTable>)| Arc::ptr_eq(&entry.0, sample) && entry.1 == *steady;
        if let Some((.., known)) = self.burns.iter().rev().find(known) {
            return known.clone();
        }
        let burn = sample.burn(steady);
        if self.burns.len() >= self.most {
            self.burns.pop_front();
        }
        self.burns.push_back((Arc::clone(sample), steady.clone(), burn.clone()));
        burn
    }
}
