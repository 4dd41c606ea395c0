//! The scale subresource of some object, such as a Cluster API `MachineDeployment`.
//!
//! It knows a size and nothing else. Which machine it would take away is its own choice, so Pomarium only ever grows it,
//! or sets it to zero once all of its servers are drained. A size that Pomarium did not write is respected and said:
//! two writers of one size would fight.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::autoscaling::v1::Scale as ScaleObject;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Client, discovery};
use pomarium_api::group::{ScaleTarget, TargetCluster};
use pomarium_kernel::names::{GroupName, ServerName, SiteName};
use pomarium_kernel::time::{Span, Timestamp};

use super::{GroupCall, Listed, Provider, ProviderError};
use crate::clock::Clock;
use crate::member::{Hub, Members};
use crate::world::{ProviderServer, ProviderState};

/// Field manager of the size.
const MANAGER: &str = "pomarium.dev/scale";
/// No call takes longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A foreign size that stays for so long is no fight any more, and is the new starting point.
const PEACE: Span = Span::from_minutes(10);

pub(super) struct Scale {
    hub: Hub,
    members: Members,
    clock: Clock,
    known: Mutex<BTreeMap<GroupName, Known>>,
}

/// What is remembered of a target. Lost in a restart, after which the size found is the starting point.
#[derive(Clone, Copy)]
struct Known {
    /// The last size that was agreed on.
    size: u32,
    /// A size that somebody else wrote, and since when.
    foreign: Option<(u32, Timestamp)>,
    /// Since when servers are on their way.
    growing_since: Timestamp,
}

/// A target that was found.
struct Target {
    read: Api<DynamicObject>,
    write: Api<DynamicObject>,
    name: String,
}

impl Scale {
    pub(super) fn new(hub: Hub, members: Members, clock: Clock) -> Self {
        Self {
            hub,
            members,
            clock,
            known: Mutex::default(),
        }
    }

    async fn target(&self, group: &GroupCall) -> Result<Target, ProviderError> {
        let spec = group.object.spec.provider.scale.as_ref();
        let Some(ScaleTarget {
            api_version,
            kind,
            namespace,
            name,
            cluster,
        }) = spec.map(|scale| &scale.target_ref)
        else {
            return Err(ProviderError::Missing("the group has no scale target".to_owned()));
        };
        let (read, write) = match cluster.unwrap_or_default() {
            TargetCluster::Hub => (self.hub.read.clone(), self.hub.write.clone()),
            TargetCluster::Site => {
                let site = SiteName::from(group.object.spec.site_ref.name.as_str());
                let member = self
                    .members
                    .get(&site)
                    .ok_or_else(|| ProviderError::Unavailable(format!("site {site} does not answer")))?;
                (member.read.clone(), member.write.clone())
            }
        };
        let resource = resource(&read, api_version, kind).await?;
        let api = |client: Client| Api::<DynamicObject>::namespaced_with(client, namespace, &resource);
        Ok(Target {
            read: api(read),
            write: api(write),
            name: name.clone(),
        })
    }

    async fn scale(target: &Target) -> Result<(ScaleObject, u32), ProviderError> {
        let scale = bounded(target.read.get_scale(&target.name)).await?;
        let size = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        let size = u32::try_from(size).unwrap_or_default();
        Ok((scale, size))
    }

    /// Writes `size` if the target still has the version that was read.
    async fn write(&self, group: &GroupCall, wanted: impl Fn(u32) -> Option<u32>) -> Result<bool, ProviderError> {
        let target = self.target(group).await?;
        let (mut scale, size) = Self::scale(&target).await?;
        self.agree(&group.name, size)?;
        let Some(wanted) = wanted(size) else { return Ok(false) };
        let replicas =
            i32::try_from(wanted).map_err(|_| ProviderError::Refused(format!("{wanted} is too large a size")))?;
        // The resourceVersion that was read goes along: a size written in between is not overwritten.
        scale.spec.get_or_insert_default().replicas = Some(replicas);
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        bounded(target.write.replace_scale(&target.name, &params, &scale)).await?;
        self.remember(&group.name, wanted);
        Ok(true)
    }

    /// Compares the size found with the one agreed on.
    fn agree(&self, group: &GroupName, size: u32) -> Result<Known, ProviderError> {
        let now = self.clock.now();
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(group.clone()).or_insert(Known {
            size,
            foreign: None,
            growing_since: now,
        });
        if known.size == size {
            known.foreign = None;
            return Ok(*known);
        }
        let since = match known.foreign {
            Some((seen, since)) if seen == size => since,
            _ => now,
        };
        if now.since(since) >= PEACE {
            *known = Known {
                size,
                foreign: None,
                growing_since: now,
            };
            return Ok(*known);
        }
        known.foreign = Some((size, since));
        Err(ProviderError::ForeignWriter(format!(
            "Pomarium left the size at {}, and it is {size} now; leave `replicas` out of what your GitOps tool applies",
            known.size
        )))
    }

    fn remember(&self, group: &GroupName, size: u32) {
        let known = Known {
            size,
            foreign: None,
            growing_since: self.clock.now(),
        };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(group.clone(), known);
    }
}

impl Provider for Scale {
    /// The machines themselves are Nodes. Those that are on their way are listed under names of their own.
    fn list<'a>(&'a self, group: &'a GroupCall) -> BoxFuture<'a, Result<Listed, ProviderError>> {
        async move {
            let target = self.target(group).await?;
            let (_, size) = Self::scale(&target).await?;
            let known = self.agree(&group.name, size)?;
            let coming = (0..size.saturating_sub(group.nodes)).map(|ordinal| {
                let server = ProviderServer {
                    state: ProviderState::Provisioning,
                    requested_at: known.growing_since,
                    ready_at: None,
                    lease_start: None,
                    minimum_until: None,
                    available_at: None,
                };
                // No Node has such a name: one that had would hide a server that was asked for, and it would be asked
                // for again.
                (ServerName::new(format!("{}-coming-{ordinal}", group.name)), server)
            });
            Ok(Listed {
                servers: coming.collect(),
                size: Some(size),
            })
        }
        .boxed()
    }

    fn request<'a>(
        &'a self,
        group: &'a GroupCall,
        _: &'a ServerName,
        size: u32,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        // To a size and not by one: asking twice grows once.
        self.write(group, move |found| (found < size).then_some(size)).boxed()
    }

    fn release<'a>(&'a self, _: &'a GroupCall, server: &'a ServerName) -> BoxFuture<'a, Result<bool, ProviderError>> {
        let message = format!("a scale target chooses for itself which server goes; {server} cannot be named");
        futures::future::ready(Err(ProviderError::Refused(message))).boxed()
    }

    fn empty<'a>(&'a self, group: &'a GroupCall) -> BoxFuture<'a, Result<bool, ProviderError>> {
        self.write(group, |found| (found > 0).then_some(0)).boxed()
    }
}

/// The resource of a kind: its plural is asked for, not guessed.
async fn resource(client: &Client, api_version: &str, kind: &str) -> Result<ApiResource, ProviderError> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let kind = GroupVersionKind::gvk(group, version, kind);
    let (resource, _) = bounded(discovery::pinned_kind(client, &kind)).await?;
    Ok(resource)
}

async fn bounded<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, ProviderError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        // By the code: where a whole API group is missing, the server answers with a line of text and no reason.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(ProviderError::Missing(status.message)),
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Err(ProviderError::Refused(status.message)),
        Ok(Err(error)) => Err(ProviderError::Unavailable(error.to_string())),
        Err(_) => Err(ProviderError::Unavailable(format!("no answer within {PATIENCE:?}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, Mutex as StdMutex};

    use http::{Request, Response};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{hub, no_members, world};

    /// An API server with one object that has a size; all sizes that were ever written.
    #[derive(Clone, Default)]
    struct Target {
        size: Arc<StdMutex<i64>>,
        written: Arc<StdMutex<Vec<i64>>>,
    }

    impl Target {
        fn provider(&self) -> Scale {
            let target = self.clone();
            let service = tower::service_fn(move |request: Request<Body>| target.clone().serve(request));
            let hub = hub(&Client::new(service, "default"));
            let members = no_members(hub.clone());
            Scale::new(hub, members, Clock::real())
        }

        async fn serve(self, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
            let path = request.uri().path().to_owned();
            let put = request.method() == http::Method::PUT;
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if put {
                let body: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(body["metadata"]["resourceVersion"], "7", "nobody is overwritten");
                let size = body["spec"]["replicas"].as_i64().unwrap();
                *self.size.lock().unwrap() = size;
                self.written.lock().unwrap().push(size);
            }
            let answer = if path.ends_with("/scale") {
                json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "macs", "resourceVersion": "7"},
                    "spec": {"replicas": *self.size.lock().unwrap()}})
            } else {
                json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "x.io/v1", "resources": [
                    {"name": "macsets", "singularName": "macset", "namespaced": true, "kind": "MacSet", "verbs": ["get", "list"]}]})
            };
            Ok(Response::new(Body::from(answer.to_string().into_bytes())))
        }
    }

    fn group(nodes: u32) -> GroupCall {
        let mut object = Arc::clone(&world().groups["hosted"]);
        Arc::make_mut(&mut object).spec.provider = serde_json::from_value(json!({"scale": {"targetRef":
            {"apiVersion": "x.io/v1", "kind": "MacSet", "namespace": "infra", "name": "macs", "cluster": "Hub"}}}))
        .unwrap();
        GroupCall {
            name: "hosted".into(),
            object,
            nodes,
        }
    }

    #[tokio::test]
    async fn it_grows_to_a_size_once_and_lists_who_is_on_the_way() {
        let target = Target::default();
        *target.size.lock().unwrap() = 2;
        let scale = target.provider();
        let server = "hosted-0".into();
        assert_eq!(scale.request(&group(2), &server, 3).await, Ok(true));
        assert_eq!(
            scale.request(&group(2), &server, 3).await,
            Ok(false),
            "asked again after a crash"
        );
        assert_eq!(*target.written.lock().unwrap(), [3]);
        let listed = scale.list(&group(2)).await.unwrap();
        assert_eq!(listed.size, Some(3));
        assert_eq!(
            listed.servers.keys().map(ServerName::as_str).collect::<Vec<_>>(),
            ["hosted-coming-0"],
            "a name that no Node has: one that is taken would hide a server that was asked for"
        );
        assert!(scale.list(&group(3)).await.unwrap().servers.is_empty());
    }

    #[tokio::test]
    async fn it_never_shrinks_but_to_nothing() {
        let target = Target::default();
        *target.size.lock().unwrap() = 4;
        let scale = target.provider();
        assert_eq!(scale.request(&group(4), &"hosted-0".into(), 1).await, Ok(false));
        assert!(scale.release(&group(4), &"hosted-0".into()).await.is_err());
        assert_eq!(scale.empty(&group(4)).await, Ok(true));
        assert_eq!(scale.empty(&group(0)).await, Ok(false));
        assert_eq!(*target.written.lock().unwrap(), [0]);
    }

    #[tokio::test]
    async fn a_size_that_somebody_else_writes_is_respected_and_said() {
        let target = Target::default();
        *target.size.lock().unwrap() = 2;
        let scale = target.provider();
        scale.list(&group(2)).await.unwrap();
        *target.size.lock().unwrap() = 9;
        for _ in 0..2 {
            assert!(matches!(
                scale.request(&group(2), &"hosted-0".into(), 10).await,
                Err(ProviderError::ForeignWriter(_))
            ));
        }
        assert_eq!(*target.written.lock().unwrap(), Vec::<i64>::new());
        *target.size.lock().unwrap() = 2;
        assert!(scale.list(&group(2)).await.is_ok(), "peace again");
    }
}
