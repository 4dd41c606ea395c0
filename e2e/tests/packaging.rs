//! What is shipped beside the code: the image's recipe and the files at the root.

#![allow(clippy::unwrap_used)]

use std::fs;

use pomarium_e2e::cluster::repository;

#[test]
fn the_image_is_built_from_files_that_exist_and_runs_as_a_numbered_user() {
    let dockerfile = fs::read_to_string(repository().join("operator/Dockerfile")).unwrap();
    let ignored = fs::read_to_string(repository().join("operator/Dockerfile.dockerignore")).unwrap();
    let mut copied = 0;
    for line in dockerfile
        .lines()
        .filter(|line| line.starts_with("COPY ") && !line.contains("--from="))
    {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        for source in &words[..words.len() - 1] {
            assert!(repository().join(source).exists(), "{line}");
            assert!(
                ignored.lines().any(|kept| kept == format!("!{source}")),
                "Dockerfile.dockerignore leaves out {source}"
            );
            copied += 1;
        }
    }
    assert!(copied >= 3, "{dockerfile}");

    // All members of the workspace, or Cargo does not even start.
    let workspace = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let members = workspace.lines().find(|line| line.starts_with("members")).unwrap();
    for member in members.split('"').skip(1).step_by(2) {
        let folder = member.split('/').next().unwrap();
        assert!(
            dockerfile.contains(&format!("COPY {folder} {folder}")),
            "{member} is not in the image's build"
        );
    }

    let last_stage = dockerfile.rsplit("FROM ").next().unwrap();
    assert!(last_stage.starts_with("scratch"), "{last_stage}");
    assert!(last_stage.contains("USER 65532:65532"), "{last_stage}");
}
