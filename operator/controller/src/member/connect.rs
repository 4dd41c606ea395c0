//! From a site's connection to clients.

use k8s_openapi::api::core::v1::Secret;
use kube::Config;
use kube::api::Api;
use pomarium_api::site::{Connection, SecretKeyRef};
use pomarium_kernel::names::SiteName;
use pomarium_kernel::reason::{Problem, Reason};

use super::{Member, Surroundings};
use crate::client::error_chain;
use crate::kubeconfig;

/// The key of a Secret that is read if the site names none.
const DEFAULT_KEY: &str = "kubeconfig";

/// Why there are no clients.
pub(super) enum Failure {
    /// It takes a change of the site or its Secret.
    Problem(Problem),
    /// It may pass.
    Passing(String),
}

/// Clients for a site.
pub(super) async fn connect(
    site: &SiteName,
    connection: &Connection,
    surroundings: &Surroundings,
) -> Result<Member, Failure> {
    let (config, local) = match (&connection.local, &connection.kubeconfig_secret_ref) {
        (Some(_), None) => (surroundings.hub_config.clone(), true),
        (None, Some(reference)) => (config_of_secret(reference, surroundings).await?, false),
        _ => {
            let message = "spec.connection must have exactly one of local and kubeconfigSecretRef";
            return Err(Failure::Problem(Problem::new(Reason::InvalidSpec, message)));
        }
    };
    Member::new(
        site.clone(),
        &config,
        local,
        &surroundings.gate,
        surroundings.write_timeout,
    )
    .map_err(|error| {
        let message = format!("the kubeconfig cannot be used: {}", error_chain(&error));
        Failure::Problem(Problem::new(Reason::CredentialRejected, message))
    })
}

async fn config_of_secret(reference: &SecretKeyRef, surroundings: &Surroundings) -> Result<Config, Failure> {
    let namespace = &surroundings.hub.namespace;
    let key = reference.key.as_deref().unwrap_or(DEFAULT_KEY);
    let missing = |message: String| Failure::Problem(Problem::new(Reason::ReferenceMissing, message));
    let secret = Api::<Secret>::namespaced(surroundings.hub.read.clone(), namespace)
        .get_opt(&reference.name)
        .await
        .map_err(|error| Failure::Passing(format!("reading its Secret: {}", error_chain(&error))))?
        .ok_or_else(|| missing(format!("there is no Secret {namespace}/{}", reference.name)))?;
    let text = secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .ok_or_else(|| missing(format!("Secret {namespace}/{} has no key {key}", reference.name)))?;
    kubeconfig::parse(&text.0, surroundings.allow_loopback).map_err(|rejected| Failure::Problem(rejected.into()))
}
