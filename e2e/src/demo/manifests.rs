//! The manifests that the demo applies, read the way the demo needs them.
//!
//! They are applied as they are, by kubectl. What is read here is what the emulated fleet, the router and the summary
//! must know and the operator learns from the API server: speeds, prices, objectives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kube::ResourceExt;
use pomarium_api::group::ServerGroup;
use pomarium_api::pool::{ObjectiveMetric, Performance, ServerPool};
use pomarium_api::site::{Ownership, ServerSite};
use pomarium_kernel::engine::StepTimes;
use pomarium_kernel::names::PoolId;
use pomarium_kernel::time::Span;
use pomarium_kernel::units::Money;
use serde::Deserialize;
use serde_yaml::Value;

use super::tally::EnergyPrice;
use crate::fleet::{FleetGroup, LeaseTerms, Machine, ModelProfile, Supply};
use crate::router::Thresholds;
use crate::router::backends::Speeds;
use crate::summary::{Target, TargetMetric};

/// CPU cores that every emulated Node reports; nothing depends on them.
const CPUS: u32 = 16;

/// One folder of manifests with exactly one pool.
#[derive(Clone, Debug)]
pub(crate) struct Manifests {
    /// Where they are.
    pub(crate) folder: PathBuf,
    /// All sites.
    pub(crate) sites: Vec<ServerSite>,
    /// All groups.
    pub(crate) groups: Vec<ServerGroup>,
    /// The pool.
    pub(crate) pool: ServerPool,
}

impl Manifests {
    /// Reads every YAML file of `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let (mut sites, mut groups, mut pools) = (Vec::new(), Vec::new(), Vec::new());
        let files = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
        let mut paths = files.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml")
        });
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            for document in serde_yaml::Deserializer::from_str(&text) {
                let of_file = || format!("reading {}", path.display());
                let object = Value::deserialize(document).with_context(of_file)?;
                match object.get("kind").and_then(Value::as_str) {
                    Some("ServerSite") => sites.push(serde_yaml::from_value(object).with_context(of_file)?),
                    Some("ServerGroup") => groups.push(serde_yaml::from_value(object).with_context(of_file)?),
                    Some("ServerPool") => pools.push(serde_yaml::from_value(object).with_context(of_file)?),
                    _ => {}
                }
            }
        }
        ensure!(
            pools.len() == 1,
            "{} has {} pools; the demo replays one trace to one",
            folder.display(),
            pools.len()
        );
        let Some(pool) = pools.pop() else {
            bail!("{} has no pool", folder.display());
        };
        Ok(Self {
            folder: folder.to_owned(),
            sites,
            groups,
            pool,
        })
    }

    /// The pool's namespace.
    pub(crate) fn namespace(&self) -> String {
        self.pool.namespace().unwrap_or_else(|| "default".to_owned())
    }

    /// The one site whose cluster is the hub.
    pub(crate) fn hub_site(&self) -> Result<&ServerSite> {
        let mut local = self.sites.iter().filter(|site| site.spec.connection.local.is_some());
        local
            .next()
            .context("no site has connection.local: the demo's hub is a site")
    }

    /// The sites that are reached by a kubeconfig Secret.
    pub(crate) fn remote_sites(&self) -> impl Iterator<Item = &ServerSite> {
        self.sites
            .iter()
            .filter(|site| site.spec.connection.kubeconfig_secret_ref.is_some())
    }

    /// The groups at a site.
    pub(crate) fn groups_at<'a>(&'a self, site: &'a str) -> impl Iterator<Item = &'a ServerGroup> {
        self.groups.iter().filter(move |group| group.spec.site_ref.name == site)
    }

    /// The measured figures of the pool for the machines of `group`.
    pub(crate) fn performance(&self, group: &ServerGroup) -> Result<&Performance> {
        let machine = &group.spec.machine;
        let mut measured = self.pool.spec.performance.iter();
        measured
            .find(|entry| entry.machine.chip == machine.chip && entry.machine.gpu_cores == machine.gpu_cores)
            .with_context(|| {
                let ServerPool { metadata, .. } = &self.pool;
                let pool = metadata.name.as_deref().unwrap_or_default();
                format!(
                    "pool {pool} has no spec.performance for {}: the emulated fleet needs it",
                    machine.chip
                )
            })
    }

    /// How fast the machines of each group are.
    pub(crate) fn speeds(&self) -> Result<Speeds> {
        let mut by_group = BTreeMap::new();
        for group in &self.groups {
            by_group.insert(group.name_any(), step_times(self.performance(group)?)?);
        }
        let otherwise = by_group.values().next().copied().context("there is no group")?;
        Ok(Speeds { by_group, otherwise })
    }

    /// The machines of a group, as the emulated fleet plays them.
    pub(crate) fn machines_of(&self, group: &ServerGroup) -> Result<FleetGroup> {
        let measured = self.performance(group)?;
        let lead = group.spec.lead_time.clone().unwrap_or_default();
        let provision = lead.provision.map_or(Span::ZERO, Span::from);
        let (hourly, _) = hourly(group)?;
        let leased = group.spec.pricing.as_ref().and_then(|pricing| pricing.minimum_lease);
        let pool = PoolId::new(self.namespace(), self.pool.name_any());
        let profile = ModelProfile {
            model: self.pool.spec.model.name.clone(),
            engine: self.pool.spec.engine.r#type,
            times: step_times(measured)?,
            load_time: measured.load_time.map_or(Span::ZERO, Span::from),
        };
        Ok(FleetGroup {
            name: group.name_any(),
            cluster: group.spec.site_ref.name.clone(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            machine: Machine {
                chip: group.spec.machine.chip.clone(),
                cpus: CPUS,
                memory_gib: u32::try_from(group.spec.machine.memory_gib)?,
            },
            supply: Supply {
                maximum: u32::try_from(group.spec.size.max)?,
                always_on: group.spec.provider.r#static.is_some(),
                // The lead time is both together; the larger part is the lessor's.
                provision: provision * 2 / 3,
                boot: provision - provision * 2 / 3,
                recycle: lead.recycle.map_or(Span::ZERO, Span::from),
                lease: leased.map(|minimum| LeaseTerms {
                    hourly,
                    minimum: minimum.into(),
                }),
            },
            models: BTreeMap::from([(pool, profile)]),
            other_models: None,
        })
    }

    /// The pool's objectives.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let target = |objective: &pomarium_api::pool::Objective| Target {
            metric: match objective.metric {
                ObjectiveMetric::TimeToFirstToken => TargetMetric::TimeToFirstToken,
                ObjectiveMetric::InterTokenLatency => TargetMetric::InterTokenLatency,
            },
            percentile: u32::try_from(objective.percentile).unwrap_or(0),
            threshold_ms: Span::from(objective.threshold).as_millis(),
        };
        self.pool.spec.objectives.iter().map(target).collect()
    }

    /// The objectives' thresholds, for the buckets of the router's histograms.
    pub(crate) fn thresholds(&self) -> Thresholds {
        let of = |metric| {
            let targets = self.targets().into_iter();
            let of_metric = targets.filter(move |target| target.metric == metric);
            of_metric.map(|target| target.threshold_ms as f64 / 1_000.0).collect()
        };
        Thresholds {
            ttft: of(TargetMetric::TimeToFirstToken),
            itl: of(TargetMetric::InterTokenLatency),
        }
    }

    /// Longest context of one request, in tokens.
    pub(crate) fn context_tokens(&self) -> u64 {
        u64::try_from(self.pool.spec.model.context_tokens).unwrap_or(0)
    }

    /// Replicas that the pool keeps without demand.
    pub(crate) fn minimum(&self) -> u32 {
        self.pool
            .spec
            .replicas
            .min
            .and_then(|min| u32::try_from(min).ok())
            .unwrap_or(1)
    }
}

/// `Owned`, `Managed` or `Hosted`.
pub(crate) fn ownership(site: &ServerSite) -> &'static str {
    match site.spec.ownership {
        Ownership::Owned => "Owned",
        Ownership::Managed => "Managed",
        Ownership::Hosted => "Hosted",
    }
}

/// What electricity costs at a site.
pub(crate) fn energy_price(site: &ServerSite) -> Result<EnergyPrice> {
    let energy = site.spec.energy.as_ref();
    let price = energy.and_then(|energy| energy.price_per_kwh.as_deref());
    let pue = energy.and_then(|energy| energy.pue.as_deref());
    Ok(EnergyPrice {
        per_kwh: price.map_or(Ok(Money::ZERO), str::parse)?,
        pue: pue.map_or(Ok(1.0), str::parse)?,
    })
}

/// What a server of a group costs per hour, and in which currency.
pub(crate) fn hourly(group: &ServerGroup) -> Result<(Money, String)> {
    let pricing = group.spec.pricing.as_ref();
    let currency = pricing.and_then(|pricing| pricing.currency.clone());
    let hourly = pricing.map_or(Ok(Money::ZERO), |pricing| pricing.hourly.parse())?;
    Ok((hourly, currency.unwrap_or_else(|| "USD".to_owned())))
}

/// The engine's step times from a pool's measured figures. All must be there.
pub(crate) fn step_times(measured: &Performance) -> Result<StepTimes> {
    let nanos = |field: &str, text: &Option<String>| -> Result<u64> {
        let text = text
            .as_deref()
            .with_context(|| format!("spec.performance has no {field}"))?;
        let ms: f64 = text
            .parse()
            .with_context(|| format!("spec.performance: {field} is {text:?}"))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
        Ok((ms * 1e6).round() as u64)
    };
    let count = |field: &str, number: Option<i64>| -> Result<u64> {
        let number = number.with_context(|| format!("spec.performance has no {field}"))?;
        u64::try_from(number).with_context(|| format!("spec.performance: {field} is {number}"))
    };
    Ok(StepTimes {
        alpha_ns: nanos("alphaMs", &measured.alpha_ms)?,
        beta_ns: nanos("betaMs", &measured.beta_ms)?,
        delta_ns: nanos("deltaMs", &measured.delta_ms)?,
        kv_tokens: count("kvTokens", measured.kv_tokens)?,
        max_batch: u32::try_from(count("maxBatch", measured.max_batch.map(i64::from))?)?,
        prefill_chunk: u32::try_from(count("prefillChunk", measured.prefill_chunk.map(i64::from))?)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_hybrid_example_has_all_that_the_demo_needs() {
        let manifests = Manifests::read(&crate::cluster::repository().join("examples/hybrid")).unwrap();
        assert_eq!(manifests.hub_site().unwrap().name_any(), "cupertino");
        assert_eq!(
            manifests.remote_sites().map(ResourceExt::name_any).collect::<Vec<_>>(),
            ["oregon"]
        );
        assert_eq!(manifests.groups_at("oregon").count(), 1);
        let speeds = manifests.speeds().unwrap();
        assert_eq!(speeds.by_group["cupertino-m2-ultra"].alpha_ns, 10_200_000);
        assert_eq!(manifests.targets().len(), 2);
        assert_eq!(manifests.thresholds().ttft, [10.0]);
        for site in &manifests.sites {
            energy_price(site).unwrap();
        }
        let hosted = manifests.groups_at("oregon").next().unwrap();
        assert!(hourly(hosted).unwrap().0 > Money::ZERO);
    }
}
