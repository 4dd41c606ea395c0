//! The names of things: one newtype per kind, so that a site's name is never passed for a group's.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Shared: a plan says the same names again and again.
        #[derive(Clone, Debug, Eq, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) {
                    Ordering::Equal
                } else {
                    self.0.cmp(&other.0)
                }
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl $name {
            /// Takes any text: the API server has already checked names of objects.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into().into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }
    };
}

name! {
    /// Name of a `ServerSite`.
    SiteName
}
name! {
    /// Name of a `ServerGroup`.
    GroupName
}
name! {
    /// Name of a server: the name of its Node, unique within its site.
    ServerName
}
name! {
    /// Name of a replica's Pod, unique within its site and the pool's namespace. See [`ReplicaId`].
    ReplicaName
}
name! {
    /// Hash of everything in a pool's spec that a running Pod cannot change: model, engine, image, arguments.
    Revision
}
name! {
    /// A jurisdiction whose data may be processed somewhere, such as `US`.
    Jurisdiction
}

impl GroupName {
    /// Whether both are one and the same in memory: a quick answer, and no is not for certain.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A replica: its site and the name of its Pod. Written `site/name`.
///
/// Two member clusters may have Nodes of equal names, and then Pods of equal names. Unique within a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplicaId {
    /// Where its Pod is.
    pub site: SiteName,
    /// What its Pod is called there.
    pub name: ReplicaName,
}

impl ReplicaId {
    /// The replica `name` at `site`.
    pub fn new(site: impl Into<SiteName>, name: impl Into<ReplicaName>) -> Self {
        Self {
            site: site.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.site, self.name)
    }
}

impl From<ReplicaId> for String {
    fn from(id: ReplicaId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for ReplicaId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((site, name)) => Ok(Self::new(site, name)),
            None => Err(format!("{text:?} is not of the form site/name")),
        }
    }
}

/// A pool: its namespace and name. Written `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolId {
    /// The namespace, in the hub and in every member cluster.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl PoolId {
    /// The pool `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<PoolId> for String {
    fn from(id: PoolId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for PoolId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) => Ok(Self::new(namespace, name)),
            None => Err(format!("{text:?} is not of the form namespace/name")),
        }
    }
}
