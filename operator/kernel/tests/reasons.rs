//! The table of reasons in the docs is the one in the code.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may read and write the docs; the kernel may not"
)]

use std::path::Path;

#[test]
fn the_table_in_the_docs_is_the_one_in_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
    let table = pomarium_kernel::reason::table();
    if std::env::var("UPDATE_DOCS").is_ok() {
        std::fs::write(&path, &table).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, table,
        "run `UPDATE_DOCS=1 cargo test -p pomarium-kernel --test reasons`"
    );
}
