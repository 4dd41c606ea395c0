//! Installs `charts/pomarium` as users do, so that what runs in tests has exactly the chart's rights.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use crate::cluster::{ControlPlane, Error, repository};
use crate::wait::eventually;

/// The namespace that the operator is installed into.
pub const NAMESPACE: &str = "pomarium-system";

/// The release's name, and with it the name of the ServiceAccount.
pub const RELEASE: &str = "pomarium";

/// The chart's folder.
pub fn path() -> PathBuf {
    repository().join("charts/pomarium")
}

/// Installs or upgrades the chart for a hub: the kinds, the rights, and a Deployment of no Pod, because the tests run the
/// operator as a process. Gives a kubeconfig with the token of its ServiceAccount.
///
/// `values` are `--set` arguments such as `operator.fleetUrl=http://127.0.0.1:8080`.
pub async fn install(hub: &ControlPlane, values: &[&str]) -> Result<String, Error> {
    release(hub, RELEASE, &[&["replicas=0"], values].concat()).await?;
    hub.wait_for_crds().await?;
    hub.service_account_kubeconfig(NAMESPACE, RELEASE).await
}

/// Installs or upgrades the chart for a member cluster. Gives the kubeconfig for the hub's Secret, with the token that the member's
/// cluster made for it.
pub async fn install_member(member: &ControlPlane, values: &[&str]) -> Result<String, Error> {
    release(member, RELEASE, &[&["role=Member"], values].concat()).await?;
    let secrets: Api<Secret> = Api::namespaced(member.client().await?, NAMESPACE);
    let token = eventually(
        Duration::from_secs(30),
        "the token of the hub's ServiceAccount",
        async || {
            let secret = secrets
                .get(&format!("{RELEASE}-token"))
                .await
                .map_err(|error| error.to_string())?;
            let token = secret
                .data
                .unwrap_or_default()
                .remove("token")
                .ok_or("the Secret has no token yet")?;
            String::from_utf8(token.0).map_err(|error| error.to_string())
        },
    )
    .await?;
    member.kubeconfig_with_token(&token)
}

async fn release(cluster: &ControlPlane, name: &str, values: &[&str]) -> Result<(), Error> {
    let chart = path().display().to_string();
    let mut args = vec![
        "upgrade",
        "--install",
        name,
        &chart,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
    ];
    for value in values {
        args.extend(["--set", value]);
    }
    cluster.helm(&args).await?.checked()?;
    Ok(())
}
