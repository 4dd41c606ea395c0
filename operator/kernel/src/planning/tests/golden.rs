use super::*;
use crate::snapshot::Survive;

#[test]
fn the_plan_for_a_peak_reads_as_before() {
    let mut stage = hybrid(3, 4).pool("chat", Pool::fixture().surviving(Survive::Server));
    stage.demand("chat", 0.7);
    stage.run(Span::from_minutes(5));
    stage.demand("chat", 1.9);
    let plan = until_asked(&mut stage);
    insta::assert_yaml_snapshot!(plan);
}
