//! The local clusters themselves: several at once, watched, paused, and gone when their owner is.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams, PostParams};
use pomarium_e2e::cluster::{self, ControlPlane, Programs};
use pomarium_e2e::wait::until;

fn config_map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

fn is_alive(pid: u32) -> bool {
    // A zombie is dead: it holds an id and nothing else.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_run_at_once_and_each_keeps_its_own_objects_log_and_clock() {
    let start = Instant::now();
    let (hub, hosted) = tokio::join!(ControlPlane::start("hub"), ControlPlane::start("hosted"));
    let (hub, hosted) = (hub.unwrap(), hosted.unwrap());
    eprintln!("two clusters ready after {:.1} s", start.elapsed().as_secs_f32());

    // Objects.
    let in_hub: Api<ConfigMap> = Api::namespaced(hub.client().await.unwrap(), "default");
    let in_hosted: Api<ConfigMap> = Api::namespaced(hosted.client().await.unwrap(), "default");
    in_hub
        .create(&PostParams::default(), &config_map("only-here"))
        .await
        .unwrap();
    assert!(in_hub.get("only-here").await.is_ok());
    assert!(in_hosted.get_opt("only-here").await.unwrap().is_none());

    // The audit log has the write at once, with who and what, and only in the hub's log.
    let writes = |plane: &ControlPlane| {
        let events = plane.audit().unwrap();
        events
            .into_iter()
            .filter(|event| event.is_write() && event.name == "only-here")
            .collect::<Vec<_>>()
    };
    let seen = writes(&hub);
    let [write] = seen.as_slice() else {
        panic!("one write: {seen:?}")
    };
    assert_eq!(
        (write.verb.as_str(), write.resource.as_str(), write.user.as_str()),
        ("create", "configmaps", "admin")
    );
    assert_eq!((write.namespace.as_str(), write.code), ("default", 201));
    assert!(writes(&hosted).is_empty());

    // kubectl, applied on the server's side; a refusal is told and not hidden.
    hub.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: assistants}}")
        .await
        .unwrap();
    let namespaces: Api<Namespace> = Api::all(hub.client().await.unwrap());
    assert!(namespaces.get("assistants").await.is_ok());
    let refused = hub
        .apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: other}, spec: {finalisers: []}}")
        .await;
    assert!(refused.unwrap_err().to_string().contains("finalisers"));

    // A paused API server keeps its connections and answers nothing; the other one is not touched.
    hosted.pause_api_server().unwrap();
    let paused = tokio::time::timeout(Duration::from_secs(1), in_hosted.list(&ListParams::default())).await;
    assert!(paused.is_err(), "a paused API server answered: {paused:?}");
    assert!(in_hub.list(&ListParams::default()).await.is_ok());
    hosted.resume_api_server().unwrap();
    until(Duration::from_secs(20), "the API server to answer again", async || {
        in_hosted.list(&ListParams::default()).await.is_ok()
    })
    .await
    .unwrap();

    // A restart keeps what was written.
    hub.restart_api_server().await.unwrap();
    assert!(in_hub.get("only-here").await.is_ok());

    // Nothing is left of either: one stopped in good order, one dropped.
    let pids: Vec<_> = [hub.process_ids(), hosted.process_ids()].concat();
    let folders = [hub.folder().to_owned(), hosted.folder().to_owned()];
    assert_eq!(pids.len(), 8);
    hub.stop().await;
    drop(hosted);
    for (name, pid) in pids {
        assert!(!is_alive(pid), "{name} ({pid}) is still running");
    }
    assert!(folders.iter().all(|folder| !folder.exists()));
}

#[test]
fn a_panic_takes_the_cluster_with_it() {
    let (send, receive) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let plane = ControlPlane::builder("panics")
                .without_scheduler()
                .without_controller_manager()
                .start()
                .await
                .unwrap();
            send.send((plane.process_ids(), plane.folder().to_owned())).unwrap();
            panic!("as a failing test does");
        });
    });
    let (pids, folder) = receive.recv().unwrap();
    assert!(panicked.join().is_err());
    assert_eq!(pids.len(), 2);
    for (name, pid) in pids {
        assert!(!is_alive(pid), "{name} ({pid}) is still running");
    }
    assert!(!folder.exists());
}

/// Names the file in which the process that is to be killed says what it has started.
const HOLD: &str = "POMARIUM_TEST_HOLD";

/// Starts a cluster, tells `told` of it, and holds it until this process is killed.
async fn hold_a_cluster(told: &Path) {
    let plane = ControlPlane::builder("killed")
        .without_scheduler()
        .without_controller_manager()
        .start()
        .await
        .unwrap();
    // Stopped processes must go too: they cannot see anything by themselves.
    plane.pause_api_server().unwrap();
    let lines: Vec<String> = plane
        .process_ids()
        .into_iter()
        .map(|(_, pid)| pid.to_string())
        .collect();
    let unfinished = told.with_extension("unfinished");
    std::fs::write(
        &unfinished,
        format!("{}\n{}", plane.folder().display(), lines.join("\n")),
    )
    .unwrap();
    std::fs::rename(unfinished, told).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_sigkill_takes_the_cluster_with_it() {
    // The test starts itself a second time: that process is the one to be killed.
    if let Some(told) = std::env::var_os(HOLD) {
        return hold_a_cluster(Path::new(&told)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_sigkill_takes_the_cluster_with_it"])
        .env(HOLD, &told)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready = until(
        Duration::from_secs(120),
        "the cluster of the other process",
        async || told.exists(),
    )
    .await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    ready.unwrap();

    let text = std::fs::read_to_string(&told).unwrap();
    let mut lines = text.lines();
    let data = PathBuf::from(lines.next().unwrap());
    let pids: Vec<u32> = lines.map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    until(
        Duration::from_secs(20),
        "the processes and their data to be gone",
        async || !pids.iter().any(|pid| is_alive(*pid)) && !data.exists(),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_folder_with_one_binary_a_program_serves_as_well() {
    let Programs::MultiCall(binary) = cluster::binary().await.unwrap() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for program in ["etcd", "kube-apiserver", "kubectl"] {
        // The multi-call binary goes by the name that it is called by, too.
        std::os::unix::fs::symlink(binary, folder.path().join(program)).unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_panic_takes_the_cluster_with_it"])
        .env("KUBEBUILDER_ASSETS", folder.path())
        .env_remove("POMARIUM_CONTROLPLANE")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
