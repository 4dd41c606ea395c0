//! What earlier passes have computed changes no plan.

use proptest::prelude::*;

use super::super::{Memo, plan, plan_again};
use super::worlds::worlds;
use super::*;
use crate::fixture::{START, measured};
use crate::snapshot::{Demand, Discipline, LengthMix, Snapshot};

/// How the pools of a world differ from those of another: discipline, lengths, threshold, latency.
type Twist = (bool, u32, u64, f64);

fn twisted(mut world: Snapshot, (weighted, longer, threshold_s, strain): Twist) -> Snapshot {
    for (pool, index) in world.pools.values_mut().zip(0..) {
        if weighted {
            pool.discipline = Discipline::Weighted;
        }
        pool.objectives[0].threshold = Span::from_secs(threshold_s);
        pool.measured = vec![measured(1_000.0 * threshold_s as f64 * strain, 0.96, START); 2];
        if let Demand::Known(arrivals) = &mut pool.demand {
            let longer = longer * (index % 2);
            let classes = LengthMix::assumed().classes.iter();
            let classes = classes.map(|(prompt, output)| (prompt + longer, *output)).collect();
            arrivals.lengths = Some(LengthMix { classes });
        }
    }
    world
}

fn twists() -> impl Strategy<Value = Twist> {
    let longer = prop::sample::select(vec![0, 1, 400]);
    (any::<bool>(), longer, 6..14_u64, 0.0..1.5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_with_a_memo_is_the_plan_without_one(
        worlds in prop::collection::vec((worlds(), twists()), 1..4),
        passes in prop::collection::vec((0..3_usize, 0..3_000_u64), 1..8),
    ) {
        let worlds: Vec<_> = worlds.into_iter().map(|(world, twist)| twisted(world, twist)).collect();
        let mut memo = Memo::default();
        for (world, later) in passes {
            let (world, now) = (&worlds[world % worlds.len()], START + Span::from_secs(later));
            prop_assert_eq!(plan_again(world, now, &mut memo), plan(world, now));
        }
    }

    #[test]
    fn a_world_that_moves_is_planned_as_if_nothing_was_remembered(rates in prop::collection::vec(0.0..3.0_f64, 1..12)) {
        let (mut stage, mut memo) = (chat(0.4), Memo::default());
        for rate in rates {
            stage.demand("chat", rate);
            for _ in 0..4 {
                prop_assert_eq!(plan_again(&stage.snapshot, stage.now, &mut memo), stage.step());
            }
        }
    }
}
