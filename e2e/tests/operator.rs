//! The operator's process, run with exactly the rights that the chart gives it.

#![allow(clippy::unwrap_used)]

use pomarium_e2e::operator_process;

#[tokio::test]
async fn the_operator_is_built_beside_the_tests() {
    let binary = operator_process::built().await.unwrap();
    assert!(binary.is_file(), "{}", binary.display());
}
