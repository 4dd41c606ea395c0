//! Asks the emulated lessor which leases there are.

use pomarium_kernel::time::Timestamp;
use serde::Deserialize;

use super::tally::LeaseSeen;

/// The lessor's API, as the operator sees it too (`operator/docs/interfaces.md`).
#[derive(Clone)]
pub(crate) struct FleetApi {
    url: String,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct Servers {
    servers: Vec<Server>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    name: String,
    state: String,
    lease_start: Option<Timestamp>,
    minimum_until: Option<Timestamp>,
}

impl FleetApi {
    /// The fleet at `url`.
    pub(crate) fn new(url: impl Into<String>) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(std::time::Duration::from_secs(2))
            .build()?;
        Ok(Self {
            url: url.into(),
            client,
        })
    }

    /// The leases of a group; `None` if there is no answer.
    pub(crate) async fn leases(&self, group: &str) -> Option<Vec<LeaseSeen>> {
        let url = format!("{}/v1/groups/{group}/servers", self.url);
        let answer = self.client.get(url).send().await.ok()?.error_for_status().ok()?;
        let Servers { servers } = answer.json().await.ok()?;
        let lease = |server: Server| {
            let start = server.lease_start?;
            Some(LeaseSeen {
                returned: matches!(server.state.as_str(), "Releasing" | "Recycling" | "Failed"),
                minimum_until: server.minimum_until.unwrap_or(start),
                start,
                server: server.name,
            })
        };
        Some(servers.into_iter().filter_map(lease).collect())
    }
}
