//! Starts the processes of a cluster and waits until it can be used.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use rustix::process::Signal;

pub(crate) use crate::cluster::settings::AUDIT_LOG;
use crate::cluster::settings::{self, Ports, Tokens};
use crate::cluster::{Builder, ControlPlane, Error, Process, Programs, binary, client};
use crate::wait::eventually;
use crate::watchdog;

/// Longest wait for the API server's certificate and for `/readyz`: seconds when idle, much more on a machine that also compiles.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A port that was free may be taken before we use it, and a machine may be so busy that nobody waits for the API server any longer.
/// Three times in a row is not bad luck.
const ATTEMPTS: usize = 3;

const ETCD: &str = "etcd";
const API_SERVER: &str = "kube-apiserver";
const CONTROLLER_MANAGER: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";

/// The running processes of one cluster, in the order of their start.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    running: Vec<Process>,
    /// How to start the API server again.
    ports: Option<Ports>,
    programs: Option<Programs>,
}

impl Processes {
    pub(crate) fn ids(&self) -> Vec<(String, u32)> {
        self.running
            .iter()
            .map(|process| (process.name().to_owned(), process.id()))
            .collect()
    }

    pub(crate) fn signal_api_server(&self, signal: Signal) -> io::Result<()> {
        let server = self.running.iter().find(|process| process.name() == API_SERVER);
        server
            .ok_or_else(|| io::Error::other("it is not running"))?
            .signal(signal)
    }

    pub(crate) fn restart_api_server(&mut self, builder: &Builder, folder: &Path) -> Result<(), Error> {
        let (Some(ports), Some(programs)) = (self.ports, self.programs.clone()) else {
            return Err(Error::NotOurs {
                cluster: builder.name.clone(),
                what: "API server",
            });
        };
        if let Some(old) = self.running.iter_mut().find(|process| process.name() == API_SERVER) {
            old.kill();
            *old = spawn(
                &programs,
                folder,
                API_SERVER,
                &settings::api_server(builder, folder, ports),
            )?;
        }
        Ok(())
    }

    /// Ends all at once, last started first.
    pub(crate) fn kill(&mut self) {
        while let Some(mut process) = self.running.pop() {
            process.kill();
        }
    }

    /// Ends all in good order, last started first.
    pub(crate) async fn terminate(&mut self, limit: Duration) {
        while let Some(mut process) = self.running.pop() {
            process.terminate(limit).await;
        }
    }

    fn add(&mut self, programs: &Programs, folder: &Path, name: &str, flags: &[String]) -> Result<(), Error> {
        self.running.push(spawn(programs, folder, name, flags)?);
        Ok(())
    }

    /// The first process that has ended, with the end of its log.
    fn ended(&mut self) -> Option<(String, String, String)> {
        self.running.iter_mut().find_map(|process| {
            let status = process.exited()?;
            Some((
                process.name().to_owned(),
                format!("it ended ({status})"),
                process.tail(),
            ))
        })
    }
}

impl ControlPlane {
    pub(crate) async fn start_as(builder: Builder) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("pomarium-{}-", builder.name))
            .tempdir()
            .map_err(|source| Error::File {
                what: "a temporary folder".to_owned(),
                source,
            })?;
        if let Some(existing) = existing_kubeconfig(&builder.name) {
            return Self::existing(builder, folder, existing).await;
        }
        let programs = binary().await?;
        watchdog::remove_at_end(folder.path());
        let mut attempt = 1;
        let (processes, yaml) = loop {
            match launch(&builder, programs, folder.path()).await {
                Err(Error::Start { log, .. }) if is_bad_luck(&log) && attempt < ATTEMPTS => attempt += 1,
                result => break result?,
            }
            // What the failed attempt left in its data folder belongs to other addresses.
            let _ = fs::remove_dir_all(folder.path().join("etcd"));
        };
        let kubeconfig = write(folder.path(), "admin.kubeconfig", &yaml)?;
        let plane = Self {
            settings: builder,
            folder,
            kubeconfig,
            kubeconfig_yaml: yaml,
            processes: Some(processes.into()),
        };
        wait_until_ready(&plane).await?;
        Ok(plane)
    }

    async fn existing(builder: Builder, folder: tempfile::TempDir, path: PathBuf) -> Result<Self, Error> {
        let yaml = fs::read_to_string(&path).map_err(|source| Error::File {
            what: path.display().to_string(),
            source,
        })?;
        let kubeconfig = write(folder.path(), "admin.kubeconfig", &yaml)?;
        let plane = Self {
            settings: builder,
            folder,
            kubeconfig,
            kubeconfig_yaml: yaml,
            processes: None,
        };
        wait_until_ready(&plane).await?;
        Ok(plane)
    }
}

/// Whether another attempt may go better, by the log of the process that ended.
fn is_bad_luck(log: &str) -> bool {
    log.contains("address already in use") || log.contains("failed to wait for apiserver being healthy")
}

/// The kubeconfig that the environment names for a cluster, such as `POMARIUM_KUBECONFIG_HUB`.
fn existing_kubeconfig(name: &str) -> Option<PathBuf> {
    let variable = format!("POMARIUM_KUBECONFIG_{}", name.to_uppercase().replace('-', "_"));
    std::env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Starts everything once. What it started ends with an error.
async fn launch(builder: &Builder, programs: &Programs, folder: &Path) -> Result<(Processes, String), Error> {
    let file_error = |source| Error::File {
        what: folder.display().to_string(),
        source,
    };
    let tokens = settings::write_files(folder).map_err(file_error)?;
    let ports = Ports::free().map_err(file_error)?;
    let mut processes = Processes {
        running: Vec::new(),
        ports: Some(ports),
        programs: Some(programs.clone()),
    };
    // The API server waits for etcd by itself.
    processes.add(programs, folder, ETCD, &settings::etcd(builder, folder, ports))?;
    processes.add(
        programs,
        folder,
        API_SERVER,
        &settings::api_server(builder, folder, ports),
    )?;
    let ca = settings::base64(&certificate(builder, folder, &mut processes).await?);
    let server = format!("https://127.0.0.1:{}", ports.api_server);
    let Tokens {
        admin,
        controller_manager,
        scheduler,
    } = tokens;
    let kubeconfig = |token: &str| settings::kubeconfig(&builder.name, &server, &ca, token);
    if builder.controller_manager {
        write(
            folder,
            "controller-manager.kubeconfig",
            &kubeconfig(&controller_manager),
        )?;
        processes.add(
            programs,
            folder,
            CONTROLLER_MANAGER,
            &settings::controller_manager(folder),
        )?;
    }
    if builder.scheduler {
        write(folder, "scheduler.kubeconfig", &kubeconfig(&scheduler))?;
        processes.add(programs, folder, SCHEDULER, &settings::scheduler(folder))?;
    }
    let yaml = kubeconfig(&admin);
    api_is_ready(builder, &yaml, &mut processes).await?;
    Ok((processes, yaml))
}

/// The certificate that the API server makes for itself, which is its own authority.
async fn certificate(builder: &Builder, folder: &Path, processes: &mut Processes) -> Result<Vec<u8>, Error> {
    let path = folder.join("pki/apiserver.crt");
    watched(builder, processes, "its certificate", async || {
        let pem = fs::read(&path).map_err(|error| error.to_string())?;
        // It is not written in one step.
        if pem.ends_with(b"-----END CERTIFICATE-----\n") {
            Ok(pem)
        } else {
            Err("it is half written".to_owned())
        }
    })
    .await
}

async fn api_is_ready(builder: &Builder, kubeconfig: &str, processes: &mut Processes) -> Result<(), Error> {
    let client = client(kubeconfig, &builder.name).await?;
    watched(builder, processes, "/readyz", async || readyz(&client).await).await
}

/// Waits for `look` unless a process ends first, which then is the error.
async fn watched<T>(
    builder: &Builder,
    processes: &mut Processes,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, Error> {
    let start_error = |(process, why, log)| Error::Start {
        cluster: builder.name.clone(),
        process,
        why,
        log,
    };
    let mut dead = None;
    let result = eventually(START_LIMIT, what, async || {
        dead = processes.ended();
        if dead.is_some() {
            Ok(None)
        } else {
            look().await.map(Some)
        }
    })
    .await;
    match (result, dead) {
        (_, Some(dead)) => Err(start_error(dead)),
        (Ok(Some(value)), None) => Ok(value),
        (Ok(None), None) => Err(start_error((API_SERVER.to_owned(), what.to_owned(), String::new()))),
        (Err(timed_out), None) => {
            let server = processes.running.iter().find(|process| process.name() == API_SERVER);
            let log = server.map(Process::tail).unwrap_or_default();
            Err(start_error((API_SERVER.to_owned(), timed_out.to_string(), log)))
        }
    }
}

async fn readyz(client: &kube::Client) -> Result<(), String> {
    let request = http::Request::get("/readyz")
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    match client.request_text(request).await {
        Ok(text) if text == "ok" => Ok(()),
        Ok(text) => Err(text),
        Err(error) => Err(error.to_string()),
    }
}

/// Waits until the API answers and, where somebody makes them, the default namespace has its `ServiceAccount`: before that
/// no Pod can be created.
pub(crate) async fn wait_until_ready(plane: &ControlPlane) -> Result<(), Error> {
    let client = plane.client().await?;
    eventually(START_LIMIT, "/readyz", async || readyz(&client).await).await?;
    if plane.settings.controller_manager {
        let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
        eventually(START_LIMIT, "the default ServiceAccount", async || {
            accounts.get("default").await.map(|_| ())
        })
        .await?;
    }
    Ok(())
}

fn spawn(programs: &Programs, folder: &Path, name: &str, flags: &[String]) -> Result<Process, Error> {
    let mut command = programs.command(name);
    command.args(flags).current_dir(folder);
    Process::spawn(name, command, folder.join(format!("{name}.log"))).map_err(|source| Error::File {
        what: name.to_owned(),
        source,
    })
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, Error> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(|source| Error::File {
        what: path.display().to_string(),
        source,
    })?;
    Ok(path)
}
