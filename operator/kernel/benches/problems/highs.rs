//! `HiGHS`, the general solver, as a program of its own: where the variable `HIGHS` names its executable.
//!
//! It is no dependency: to build its crate takes `CMake`, a C++ compiler and libclang.

// It is not the kernel that writes files and runs programs here.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)]

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use super::milp::Milp;

/// Its executable, if there is one.
pub(crate) fn executable() -> Option<OsString> {
    std::env::var_os("HIGHS")
}

/// Columns of the best solution of `program`, found on one thread; `None` if it is not known after `limit`.
pub(crate) fn optimum(executable: &OsString, program: &Milp, limit: Duration) -> Option<Vec<f64>> {
    // It leaves a log where it runs.
    let folder = std::env::temp_dir().join(format!("pomarium-{}", std::process::id()));
    std::fs::create_dir_all(&folder).ok()?;
    std::fs::write(folder.join("model.lp"), program.lp_file()).ok()?;
    let output = Command::new(executable)
        .current_dir(&folder)
        .args(["--threads", "1", "--time_limit", &limit.as_secs().to_string()])
        .args(["--solution_file", "solution", "model.lp"])
        .output();
    let text = std::fs::read_to_string(folder.join("solution")).unwrap_or_default();
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        println!("removing {}: {error}", folder.display());
    }
    output.ok()?;
    if text.lines().nth(1) != Some("Optimal") {
        return None;
    }
    // Prices of columns come after them, by the same names.
    let primal = text.lines().take_while(|line| !line.starts_with("# Dual"));
    let mut columns = vec![0.0; program.columns.len()];
    for (index, value) in primal.filter_map(|line| line.strip_prefix('x')?.split_once(' ')) {
        *columns.get_mut(index.parse::<usize>().ok()?)? = value.parse().ok()?;
    }
    Some(columns)
}
