//! Prompt and output lengths as a small number of equally likely classes.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::snapshot::LengthMix;
use crate::work;

/// Classes of [`LengthMix::assumed`]. Enough that the longest twentieth of the prompts is a class of its own.
const ASSUMED_CLASSES: usize = 64;

/// From this many classes on, prompts of the same length are split by their outputs.
const SPLIT_FROM: usize = 16;

/// In how many classes.
const OUTPUTS_PER_PROMPT: usize = 4;

/// A request is at least so much work: rates are divided by it.
const LEAST_WORK: f64 = 1e-3;

impl LengthMix {
    /// Bins samples of (prompt, output) tokens into at most `bins` equally likely classes. `None` without samples.
    ///
    /// Samples are cut into quantiles of the prompt, and each of those into quantiles of the output, so that long outputs are seen
    /// as well as long prompts. Each class has the mean lengths of its bin: means over all samples are kept.
    pub fn from_samples(samples: impl IntoIterator<Item = (u32, u32)>, bins: usize) -> Option<Self> {
        let mut samples: Vec<(u32, u32)> = samples.into_iter().collect();
        samples.sort_unstable();
        Self::from_sorted(&samples, bins)
    }

    /// The same of samples in ascending order, which are not copied: there may be millions.
    pub fn from_sorted(samples: &[(u32, u32)], bins: usize) -> Option<Self> {
        let bins = bins.clamp(1, samples.len().max(1));
        let outputs = if bins >= SPLIT_FROM { OUTPUTS_PER_PROMPT } else { 1 };
        let prompts = bins / outputs;

        let mut classes = Vec::with_capacity(prompts * outputs);
        for by_prompt in 0..prompts {
            let mut slice = part(samples, by_prompt, prompts).to_vec();
            slice.sort_unstable_by_key(|(prompt, output)| (*output, *prompt));
            classes.extend((0..outputs).filter_map(|by_output| mean(part(&slice, by_output, outputs))));
        }
        classes.sort_unstable();
        (!classes.is_empty()).then_some(Self { classes })
    }

    /// What is assumed while a pool's lengths are not known: REAL conversations, the 19,366 requests of the Azure LLM
    /// inference trace `azure-conv-2023` (mean prompt 1,155 tokens, 95th percentile 4,083; mean output 211).
    ///
    /// Conservative for chat without documents, whose prompts are mostly shorter; not for coding, whose prompts are longer.
    pub fn assumed() -> &'static Self {
        static ASSUMED: LazyLock<LengthMix> = LazyLock::new(|| LengthMix {
            classes: AZURE_CONV.to_vec(),
        });
        &ASSUMED
    }

    /// The same, with every request shortened to a context of `context_tokens`: an engine refuses longer ones, so they
    /// cannot miss an objective. The prompt is cut and keeps at least one token.
    #[must_use]
    pub fn within_context(&self, context_tokens: u32) -> Cow<'_, Self> {
        if self.fits(context_tokens) {
            return Cow::Borrowed(self);
        }
        let cut = |&(prompt, output): &(u32, u32)| {
            let output = output.min(context_tokens.saturating_sub(1)).max(1);
            (prompt.min(context_tokens.saturating_sub(output)).max(1), output)
        };
        let mut classes: Vec<_> = self.classes.iter().map(cut).collect();
        classes.sort_unstable();
        Cow::Owned(Self { classes })
    }

    /// Whether nothing of it has to be cut.
    #[expect(
        clippy::needless_bitwise_bool,
        reason = "without branches: asked of every pool in every pass"
    )]
    fn fits(&self, context_tokens: u32) -> bool {
        let mut last = 0;
        self.classes.iter().fold(true, |fits, &(prompt, output)| {
            let class = u64::from(prompt) << 32 | u64::from(output);
            let sorted = std::mem::replace(&mut last, class) <= class;
            let tokens = u64::from(prompt) + u64::from(output);
            fits & sorted & (prompt > 0) & (output > 0) & (tokens <= u64::from(context_tokens))
        })
    }

    /// Every length rounded to the nearest sixteenth of an octave: lengths move by at most 2.2 %, means by much less.
    ///
    /// Mixes that hardly differ become the same. One that drifts about crosses some boundary every now and then nevertheless, as
    /// with any rounding; [`Self::settled`] is for that.
    #[must_use]
    pub fn rounded(&self) -> Self {
        let mut classes: Vec<_> = self
            .classes
            .iter()
            .map(|&(prompt, output)| (round_to_grid(prompt), round_to_grid(output)))
            .collect();
        if classes.is_empty() {
            classes.push((1, 1));
        }
        classes.sort_unstable();
        Self { classes }
    }

    /// `self` if it differs from `before` by more than `tolerance`, else `before`: what a pool is planned with moves in steps,
    /// and what was measured for it stays valid for a while.
    ///
    /// Compared are what capacity depends on: the means and the root mean squares of prompts and outputs, each relative. Who
    /// keeps `before` must keep it in the snapshot, so that a decision can be replayed.
    #[must_use]
    pub fn settled(&self, before: Option<&Self>, tolerance: f64) -> Self {
        let differs = |before: &Self| {
            let (here, there) = (self.moments(), before.moments());
            here.iter()
                .zip(there)
                .any(|(here, there)| (here - there).abs() > tolerance * there)
        };
        before.filter(|before| !differs(before)).unwrap_or(self).clone()
    }

    /// Mean prompt and output, and their root mean squares.
    fn moments(&self) -> [f64; 4] {
        let count = self.classes.len().max(1) as f64;
        let square = |length: fn(&(u32, u32)) -> u32| {
            libm::sqrt(
                self.classes
                    .iter()
                    .map(|class| f64::from(length(class)))
                    .map(|length| length * length)
                    .sum::<f64>()
                    / count,
            )
        };
        let (prompt, output) = self.means();
        [prompt, output, square(|class| class.0), square(|class| class.1)]
    }

    /// How much there is to do for one of them on average, see [`work`]. Above zero.
    pub fn work(&self) -> f64 {
        let (prompt, output) = self.means();
        work::of_tokens(prompt, output).max(LEAST_WORK)
    }

    /// Mean prompt and output tokens; zero without classes.
    pub fn means(&self) -> (f64, f64) {
        let count = self.classes.len().max(1) as f64;
        let sum =
            |length: fn(&(u32, u32)) -> u32| self.classes.iter().map(|class| f64::from(length(class))).sum::<f64>();
        (sum(|class| class.0) / count, sum(|class| class.1) / count)
    }
}

/// The nearest power of the sixteenth root of two, as a whole number of tokens, at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and positive; `as` saturates"
)]
fn round_to_grid(tokens: u32) -> u32 {
    let steps = (libm::log2(f64::from(tokens.max(1))) * 16.0).round();
    libm::exp2(steps / 16.0).round() as u32
}

/// The `index`-th of `parts` nearly equal parts of `samples`.
fn part(samples: &[(u32, u32)], index: usize, parts: usize) -> &[(u32, u32)] {
    &samples[index * samples.len() / parts..(index + 1) * samples.len() / parts]
}

#[expect(clippy::cast_possible_truncation, reason = "a mean of u32 is a u32")]
fn mean(samples: &[(u32, u32)]) -> Option<(u32, u32)> {
    let count = u64::try_from(samples.len()).ok().filter(|count| *count > 0)?;
    let rounded = |length: fn(&(u32, u32)) -> u32| {
        ((samples.iter().map(|sample| u64::from(length(sample))).sum::<u64>() + count / 2) / count) as u32
    };
    Some((rounded(|sample| sample.0), rounded(|sample| sample.1)))
}

/// `azure-conv-2023` in 16 quantiles of the prompt by 4 of the output. The trace is published by Microsoft under CC BY 4.0
/// (`Azure/AzurePublicDataset`, Patel et al., Splitwise, ISCA 2024).
const AZURE_CONV: [(u32, u32); ASSUMED_CLASSES] = [
    (111, 157),
    (124, 49),
    (129, 118),
    (141, 231),
    (204, 180),
    (204, 216),
    (206, 154),
    (214, 81),
    (302, 21),
    (350, 104),
    (367, 74),
    (368, 59),
    (389, 69),
    (391, 87),
    (392, 96),
    (392, 119),
    (400, 83),
    (400, 137),
    (401, 95),
    (401, 106),
    (412, 141),
    (413, 106),
    (414, 95),
    (415, 82),
    (631, 92),
    (681, 116),
    (710, 65),
    (875, 392),
    (998, 298),
    (998, 480),
    (999, 396),
    (1_001, 411),
    (1_036, 332),
    (1_036, 414),
    (1_036, 498),
    (1_037, 398),
    (1_066, 418),
    (1_067, 400),
    (1_068, 338),
    (1_068, 504),
    (1_100, 417),
    (1_101, 329),
    (1_101, 508),
    (1_102, 399),
    (1_148, 397),
    (1_148, 415),
    (1_150, 502),
    (1_151, 264),
    (1_235, 446),
    (1_279, 294),
    (1_284, 100),
    (1_314, 173),
    (1_668, 193),
    (1_789, 52),
    (1_798, 78),
    (1_823, 102),
    (2_923, 92),
    (3_013, 148),
    (3_271, 61),
    (3_689, 38),
    (4_142, 36),
    (4_149, 50),
    (4_254, 67),
    (4_419, 135),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_assumed_mix_has_the_means_and_the_tail_of_its_trace() {
        let mix = LengthMix::assumed();
        assert_eq!(mix.classes.len(), ASSUMED_CLASSES);
        let (prompt, output) = mix.means();
        assert!((prompt - 1_154.7).abs() < 2.0, "{prompt}");
        assert!((output - 211.1).abs() < 1.0, "{output}");
        let tail = mix.classes[mix.classes.len() * 95 / 100].0;
        assert!((3_600..4_600).contains(&tail), "{tail}");
    }

    #[test]
    fn no_samples_give_no_mix() {
        assert_eq!(LengthMix::from_samples([], 8), None);
    }

    #[test]
    fn a_context_cuts_prompts_and_keeps_outputs() {
        let mix = LengthMix {
            classes: vec![(100, 50), (900, 50), (10, 2_000)],
        };
        assert_eq!(mix.within_context(500).classes, [(1, 499), (100, 50), (450, 50)]);
        assert_eq!(mix.within_context(0).classes, [(1, 1), (1, 1), (1, 1)]);
        for context in [2, 500, 949, 950, 2_009, 2_010, 2_011] {
            let within = mix.within_context(context).into_owned();
            assert!(within.classes.is_sorted(), "{context}");
            let again = within.within_context(context);
            assert!(matches!(again, Cow::Borrowed(_)), "{context}: nothing is left to cut");
        }
        for class in [(0, 5), (5, 0), (u32::MAX, 1), (1, u32::MAX), (600, 400)] {
            let mix = LengthMix { classes: vec![class] };
            let (prompt, output) = mix.within_context(500).classes[0];
            assert!(prompt >= 1 && output >= 1 && prompt + output <= 500, "{class:?}");
        }
    }

    proptest! {
        #[test]
        fn classes_keep_the_means_and_are_sorted(
            samples in prop::collection::vec((1_u32..10_000, 1_u32..2_000), 1..400),
            bins in 1_usize..80,
        ) {
            let mix = LengthMix::from_samples(samples.iter().copied(), bins).unwrap();
            prop_assert!(mix.classes.len() <= bins);
            prop_assert!(mix.classes.is_sorted());
            // Exact but for rounding if all bins are equally full.
            if samples.len() % mix.classes.len() == 0 && mix.classes.len() < SPLIT_FROM {
                let exact = samples.iter().map(|sample| f64::from(sample.0)).sum::<f64>() / samples.len() as f64;
                prop_assert!((mix.means().0 - exact).abs() <= 1.0);
            }
            let (least, most) = (samples.iter().min().unwrap().0, samples.iter().max().unwrap().0);
            prop_assert!(mix.classes.iter().all(|class| (least..=most).contains(&class.0)));
        }
    }
}
