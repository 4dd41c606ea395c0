//! Leaves everything running after the demo, and says how to look around.

use std::path::Path;

use anyhow::Result;
use kube::ResourceExt;

use super::manifests::Manifests;
use super::setup::World;
use crate::cluster::{self, Programs};

/// Prints what to try, and waits for Ctrl-C: clusters, fleet and router live as long as this process.
pub(crate) async fn until_interrupted(world: &World, manifests: &Manifests) -> Result<()> {
    println!("Everything keeps running until Ctrl-C. Try, in another terminal:\n");
    if let Programs::MultiCall(binary) = cluster::binary().await? {
        println!("  alias kubectl='{} kubectl'   # if you have none", binary.display());
    }
    let kubeconfigs = world
        .clusters
        .iter()
        .map(|(name, cluster)| (name.as_str(), cluster.kubeconfig()));
    for export in exports(kubeconfigs, &world.hub) {
        println!("  {export}");
    }
    let (namespace, pool) = (manifests.namespace(), manifests.pool.name_any());
    for command in [
        "kubectl get pomarium -A".to_owned(),
        format!("kubectl describe serverpool {pool} -n {namespace}"),
        format!("kubectl get pods -n {namespace} -L pomarium.dev/serving -o wide"),
        "kubectl get nodes -L pomarium.dev/group".to_owned(),
        "kubectl get events -A --sort-by=.lastTimestamp".to_owned(),
        "kubectl explain serverpool.spec.objectives".to_owned(),
    ] {
        println!("  {command}");
    }
    println!("\n  curl {}", world.router.metrics_url());
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// One line for each cluster, the hub's last: pasted as they stand, they leave kubectl at the hub, where the pool is.
fn exports<'a>(kubeconfigs: impl Iterator<Item = (&'a str, &'a Path)>, hub: &str) -> Vec<String> {
    let (mut last, mut lines) = (Vec::new(), Vec::new());
    for (name, path) in kubeconfigs {
        let export = format!("export KUBECONFIG={}   # {name}", path.display());
        if name == hub {
            last.push(format!("{export}, the hub"));
        } else {
            lines.push(export);
        }
    }
    lines.append(&mut last);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_is_exported_last() {
        let kubeconfigs = [("cupertino", Path::new("/a")), ("oregon", Path::new("/b"))];
        assert_eq!(
            exports(kubeconfigs.into_iter(), "cupertino"),
            [
                "export KUBECONFIG=/b   # oregon",
                "export KUBECONFIG=/a   # cupertino, the hub"
            ]
        );
    }
}
