//! Mixes of lengths that are published, for tables, tests and benchmarks.
//!
//! Each is cut into 16 quantiles of the prompt by 4 of the output, as [`LengthMix::from_samples`] does it with a pool's own requests.

use crate::snapshot::LengthMix;

/// A mix of lengths with its origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// A short name for tables.
    pub name: &'static str,
    /// Where it comes from, and whether it was measured.
    pub source: &'static str,
    /// The lengths.
    pub mix: LengthMix,
}

/// All of them.
pub fn mixes() -> [Published; 4] {
    let mix = |classes: &[(u32, u32)]| LengthMix {
        classes: classes.to_vec(),
    };
    [
        Published {
            name: "azure-conv",
            source: "REAL: the 19,366 conversations of azure-conv-2023 (Azure/AzurePublicDataset, CC BY 4.0; Splitwise, ISCA 2024)",
            mix: LengthMix::assumed().clone(),
        },
        Published {
            name: "azure-code",
            source: "REAL: the 8,819 coding requests of azure-code-2023 (as above)",
            mix: mix(&AZURE_CODE),
        },
        Published {
            name: "servegen",
            source: "SAMPLED: 326,630 requests of a week of ServeGen's model m-large (alibaba/ServeGen, arXiv 2505.09999)",
            mix: mix(&SERVEGEN),
        },
        Published {
            name: "chat",
            source: "SYNTHETIC: short chat, independent log-normal lengths with the means of ShareGPT as vLLM's authors give them \
                     (161 and 338 tokens; Kwon et al., SOSP 2023, figure 11) and a coefficient of variation of 1",
            mix: mix(&CHAT),
        },
    ]
}

#[rustfmt::skip]
const AZURE_CODE: [(u32, u32); 64] = [
    (45, 7), (48, 63), (51, 11), (53, 17), (133, 16), (136, 7), (136, 11), (139, 82),
    (245, 7), (253, 18), (253, 82), (255, 11), (448, 8), (458, 12), (461, 79), (463, 21),
    (696, 7), (696, 74), (700, 17), (702, 11), (916, 82), (917, 17), (918, 7), (925, 11),
    (1_089, 7), (1_096, 16), (1_100, 49), (1_102, 11), (1_315, 7), (1_332, 17), (1_342, 70), (1_347, 11),
    (1_590, 7), (1_599, 81), (1_604, 19), (1_615, 11), (1_867, 7), (1_890, 11), (1_893, 89), (1_897, 18),
    (2_191, 7), (2_210, 15), (2_212, 10), (2_212, 65), (2_532, 11), (2_540, 7), (2_554, 72), (2_555, 16),
    (2_977, 7), (3_006, 16), (3_018, 10), (3_018, 88), (3_803, 7), (3_828, 17), (3_838, 97), (3_848, 10),
    (5_361, 7), (5_390, 11), (5_470, 75), (5_496, 17), (7_296, 17), (7_310, 69), (7_315, 11), (7_321, 7),
];

#[rustfmt::skip]
const SERVEGEN: [(u32, u32); 64] = [
    (61, 83), (63, 8), (63, 11), (63, 17), (74, 172), (74, 422), (74, 445), (74, 485),
    (76, 441), (76, 459), (76, 497), (77, 274), (84, 492), (104, 293), (107, 1), (150, 27),
    (338, 57), (339, 28), (346, 278), (355, 3), (520, 108), (536, 2), (538, 22), (557, 3),
    (581, 12), (581, 71), (582, 2), (583, 28), (607, 3), (608, 49), (614, 1), (619, 5),
    (659, 3), (671, 1), (676, 66), (680, 4), (750, 2), (781, 6), (787, 38), (796, 260),
    (841, 10), (843, 28), (843, 61), (849, 307), (952, 220), (955, 7), (968, 61), (972, 28),
    (1_294, 53), (1_309, 5), (1_322, 146), (1_382, 497), (1_884, 18), (1_989, 122), (2_212, 573), (2_213, 377),
    (2_379, 319), (2_379, 429), (2_379, 580), (2_393, 103), (2_563, 107), (3_186, 758), (3_580, 279), (4_140, 57),
];

#[rustfmt::skip]
const CHAT: [(u32, u32); 64] = [
    (23, 89), (23, 185), (23, 317), (23, 738), (38, 89), (38, 185), (38, 317), (38, 738),
    (49, 89), (49, 185), (49, 317), (49, 738), (60, 89), (60, 185), (60, 317), (60, 738),
    (71, 89), (71, 185), (71, 317), (71, 738), (82, 89), (82, 185), (82, 317), (82, 738),
    (94, 89), (94, 185), (94, 317), (94, 738), (107, 89), (107, 185), (107, 317), (107, 738),
    (122, 89), (122, 185), (122, 317), (122, 738), (139, 89), (139, 185), (139, 317), (139, 738),
    (160, 89), (160, 185), (160, 317), (160, 738), (185, 89), (185, 185), (185, 317), (185, 738),
    (218, 89), (218, 185), (218, 317), (218, 738), (266, 89), (266, 185), (266, 317), (266, 738),
    (346, 89), (346, 185), (346, 317), (346, 738), (610, 89), (610, 185), (610, 317), (610, 738),
];
