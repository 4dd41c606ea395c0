//! Installs `charts/pomarium` as users do, so that what runs in tests has exactly the chart's rights.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};

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
    // One right of each kind of binding.
    wait_until_allowed(hub, "list", "pomarium.dev", "serverpools", "").await?;
    wait_until_allowed(hub, "create", "coordination.k8s.io", "leases", NAMESPACE).await?;
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
    wait_until_allowed(member, "list", "", "pods", "").await?;
    member.kubeconfig_with_token(&token)
}

/// Whether the release's ServiceAccount may `verb` a resource (`pods`, or `pods/proxy`), by the API server's word. An empty
/// namespace means all of them.
pub async fn is_allowed(
    client: &kube::Client,
    verb: &str,
    group: &str,
    resource: &str,
    namespace: &str,
) -> Result<bool, kube::Error> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let mut review = SubjectAccessReview::default();
    review.spec.user = Some(format!("system:serviceaccount:{NAMESPACE}:{RELEASE}"));
    review.spec.resource_attributes = Some(ResourceAttributes {
        verb: some(verb),
        group: some(group),
        resource: some(resource),
        subresource: some(subresource),
        namespace: some(namespace),
        ..ResourceAttributes::default()
    });
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Waits for [`is_allowed`]. The API server learns of new roles and bindings by watches of its own, and refuses what they
/// grant for a moment.
async fn wait_until_allowed(
    cluster: &ControlPlane,
    verb: &str,
    group: &str,
    resource: &str,
    namespace: &str,
) -> Result<(), Error> {
    let client = cluster.client().await?;
    let what = format!("the right to {verb} {resource}");
    eventually(Duration::from_secs(30), &what, async || {
        match is_allowed(&client, verb, group, resource, namespace).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("it is not allowed".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    Ok(())
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
