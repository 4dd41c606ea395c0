use super::*;

pub(crate) struct Fixture {
    pub(crate) world: World,
}
pub(crate) fn fixture() -> Fixture {
    Fixture {
        world: World::default(),
    }
}
