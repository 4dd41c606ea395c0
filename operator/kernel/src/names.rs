//! The names of things: one newtype per kind, so that a site's name is never passed for a group's.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes any text: the API server has already checked names of objects.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
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
                Self(name.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name)
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
