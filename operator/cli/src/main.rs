//! The `pomarium` binary: the controller and the tools around it.

mod controller;
mod replay;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use pomarium_kernel::reason::Reason;

/// Hybrid AI server pools on Apple silicon.
#[derive(Parser)]
#[command(name = "pomarium", version, about, propagate_version = true, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller.
    Controller(Box<controller::Flags>),
    /// Replay a recorded trace under policies: what they would have cost and served.
    Replay(Box<replay::Flags>),
    /// Print the custom resource definitions, or write them into a folder.
    Crds {
        /// Write one file per kind here instead of printing them.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the table of all reasons that conditions, events and metrics carry.
    Reasons,
    /// Print a completion script.
    Completion {
        /// For this shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    // Before anything can open a connection: kube and reqwest must agree on one provider.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    match dispatch(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Controller(flags) => controller::run(*flags),
        Command::Replay(flags) => replay::run(&flags),
        Command::Crds { dir } => crds(dir.as_deref()),
        Command::Reasons => {
            print!("{}", reasons());
            Ok(())
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "pomarium", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// An error with its causes, one a line, each said once.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            let _ = write!(text, "\n  caused by: {cause}");
        }
    }
    text
}

fn crds(dir: Option<&Path>) -> anyhow::Result<()> {
    for crd in pomarium_api::crds::crds() {
        let yaml = pomarium_api::crds::to_yaml(&crd).context("writing a definition as YAML")?;
        match dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
                let path = dir.join(format!("{}.yaml", crd.spec.names.plural));
                std::fs::write(&path, yaml).with_context(|| format!("writing {}", path.display()))?;
            }
            None => print!("---\n{yaml}"),
        }
    }
    Ok(())
}

/// The table of reasons, as Markdown.
fn reasons() -> String {
    let mut table = String::from("| reason | meaning |\n|---|---|\n");
    for reason in Reason::ALL {
        let _ = writeln!(table, "| `{reason}` | {} |", reason.meaning().trim());
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_reason_has_its_row() {
        let table = reasons();
        assert_eq!(table.lines().count(), 2 + Reason::ALL.len());
        assert!(
            table.contains("| `OnTarget` | Replicas are as many as the demand needs, and serve. |"),
            "{table}"
        );
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_no_cause_twice() {
        let error = anyhow::anyhow!("no route")
            .context("connecting: no route")
            .context("reading the pools");
        assert_eq!(chain(&error), "reading the pools\n  caused by: connecting: no route");
    }

    #[test]
    fn definitions_are_written_one_file_per_kind() {
        let dir = tempfile::tempdir().unwrap();
        crds(Some(dir.path())).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        files.sort();
        assert_eq!(
            files,
            [
                "servergroups.yaml",
                "serverplans.yaml",
                "serverpools.yaml",
                "serversites.yaml"
            ]
        );
    }
}
