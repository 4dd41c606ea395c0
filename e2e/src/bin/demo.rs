//! `cargo demo`: Pomarium at work in two real clusters, in minutes.

use std::process::ExitCode;

use clap::Parser;
use pomarium_e2e::demo::{self, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    match demo::run_to_end(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
