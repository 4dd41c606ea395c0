//! What every test puts into a cluster first: our kinds, and the operator's own identity.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use kube::config::Kubeconfig;

use crate::cluster::settings;
use crate::cluster::{ControlPlane, Error};

/// How long a token lives that stands for a `ServiceAccount`'s projected one. Longer than any test.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The root of the checkout.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
        .to_owned()
}

impl ControlPlane {
    /// Applies `crds/` and waits until the API server serves them.
    pub async fn install_crds(&self) -> Result<(), Error> {
        let folder = repository().join("crds");
        self.apply_path(&folder).await?;
        self.wait_for_crds().await
    }

    /// Waits until the API server serves our kinds.
    pub(crate) async fn wait_for_crds(&self) -> Result<(), Error> {
        let folder = repository().join("crds").display().to_string();
        self.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "--filename",
            &folder,
        ])
        .await?
        .checked()?;
        Ok(())
    }

    /// A kubeconfig with a token of a `ServiceAccount`, for a process that must have exactly its rights.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<String, Error> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: i64::try_from(TOKEN_LIFE.as_secs()).ok(),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        let token = answer.status.map(|status| status.token).unwrap_or_default();
        self.kubeconfig_with_token(&token)
    }

    pub(crate) fn kubeconfig_with_token(&self, token: &str) -> Result<String, Error> {
        let unusable = |why: String| Error::Connection {
            cluster: self.name().to_owned(),
            why,
        };
        let own = Kubeconfig::from_yaml(self.kubeconfig_yaml()).map_err(|error| unusable(error.to_string()))?;
        let context = own
            .contexts
            .iter()
            .find(|context| Some(&context.name) == own.current_context.as_ref());
        let name = context
            .and_then(|context| context.context.as_ref())
            .map(|context| &context.cluster);
        let cluster = own
            .clusters
            .iter()
            .find(|cluster| Some(&cluster.name) == name)
            .and_then(|found| found.cluster.as_ref());
        let server = cluster.and_then(|cluster| cluster.server.as_deref());
        let ca = cluster.and_then(|cluster| cluster.certificate_authority_data.as_deref());
        match (server, ca) {
            (Some(server), Some(ca)) => Ok(settings::kubeconfig(self.name(), server, ca, token)),
            _ => Err(unusable(
                "the kubeconfig has no server with an inline authority".to_owned(),
            )),
        }
    }
}
