//! Which kubeconfigs are accepted for member clusters: an allow-list.
//!
//! A kubeconfig is code: it can name programs to run, files to read and proxies to talk through, and it comes from a
//! Secret that the operator did not write. So nothing here reads it the way `kubectl` would. Every field that is not
//! known to be harmless is refused by name, in the entries that are not in use as well, and the configuration is put
//! together by hand from what is left: an `https` server, an inline certificate authority, and an inline token or an
//! inline client certificate. Redirects are never followed by the client.

use std::net::IpAddr;

use k8s_openapi::ByteString;
use kube::Config;
use kube::config::AuthInfo;
use pomarium_kernel::reason::{Problem, Reason};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_yaml::{Mapping, Value};

/// A kubeconfig is refused. Never quotes a value that may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is not YAML at all, or far too large.
    #[error("the kubeconfig is not readable: {0}")]
    Unreadable(String),
    /// A field that is not on the list.
    #[error("{field} is not allowed in a kubeconfig for a site: {why}")]
    Forbidden {
        /// Where it is, such as `users[0].user.exec`.
        field: String,
        /// Why not, and what is allowed instead.
        why: &'static str,
    },
    /// A field that must be there.
    #[error("{0} is missing in the kubeconfig")]
    Missing(String),
    /// A field whose value cannot be used.
    #[error("{field} in the kubeconfig {problem}")]
    Unusable {
        /// Where it is.
        field: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        Self::new(Reason::CredentialRejected, rejected.to_string())
    }
}

/// Kubeconfigs with one cluster are a few kilobytes.
const MAX_BYTES: usize = 256 * 1024;

const UNKNOWN: &str = "only an https server, certificate-authority-data, and a token or client-certificate-data with \
                       client-key-data are";

/// Why well-known fields are refused, by their last name.
const FORBIDDEN: &[(&str, &str)] = &[
    (
        "exec",
        "it names a program to run; put a token or client-certificate-data there instead",
    ),
    (
        "auth-provider",
        "it names a program to run; put a token or client-certificate-data there instead",
    ),
    (
        "tokenFile",
        "it names a file of the operator's; put the token itself there",
    ),
    (
        "client-certificate",
        "it names a file of the operator's; use client-certificate-data",
    ),
    ("client-key", "it names a file of the operator's; use client-key-data"),
    (
        "certificate-authority",
        "it names a file of the operator's; use certificate-authority-data",
    ),
    ("proxy-url", "credentials are sent to the server itself only"),
    (
        "insecure-skip-tls-verify",
        "the server's certificate is always checked; use certificate-authority-data",
    ),
    (
        "tls-server-name",
        "the server's certificate must be for the host in `server`",
    ),
    ("as", "grant the user itself what it needs"),
    ("as-uid", "grant the user itself what it needs"),
    ("as-groups", "grant the user itself what it needs"),
    ("as-user-extra", "grant the user itself what it needs"),
    (
        "username",
        "basic authentication is not supported; use a token or client-certificate-data",
    ),
    (
        "password",
        "basic authentication is not supported; use a token or client-certificate-data",
    ),
];

/// Makes a client configuration of a kubeconfig's text, or says which field is refused.
///
/// `allow_loopback` accepts servers on this very machine and on its link, which a Secret could otherwise use to reach
/// what only the operator can reach; only local test clusters need it.
pub fn parse(text: &[u8], allow_loopback: bool) -> Result<Config, Rejected> {
    if text.len() > MAX_BYTES {
        return Err(Rejected::Unreadable(format!("it is larger than {MAX_BYTES} bytes")));
    }
    let root: Value = serde_yaml::from_slice(text).map_err(|error| {
        // The location only: the message may quote the text, and the text is secret.
        Rejected::Unreadable(match error.location() {
            Some(at) => format!("it is not YAML, line {}", at.line()),
            None => "it is not YAML".to_owned(),
        })
    })?;
    let root = mapping(&root, "the kubeconfig")?;
    only(
        root,
        "",
        &[
            "apiVersion",
            "kind",
            "clusters",
            "users",
            "contexts",
            "current-context",
            "preferences",
        ],
    )?;
    if let Some(preferences) = root.get("preferences").filter(|value| !value.is_null()) {
        only(mapping(preferences, "preferences")?, "preferences.", &[])?;
    }

    let clusters = entries(root, "clusters", "cluster", &["server", "certificate-authority-data"])?;
    let users = entries(
        root,
        "users",
        "user",
        &["token", "client-certificate-data", "client-key-data"],
    )?;
    let contexts = entries(root, "contexts", "context", &["cluster", "user", "namespace"])?;

    let context = chosen(&contexts, "contexts", text_at(root, "", "current-context")?)?;
    let cluster = chosen(&clusters, "clusters", text_at(context.body, &context.path, "cluster")?)?;
    let user = chosen(&users, "users", text_at(context.body, &context.path, "user")?)?;

    let mut config = Config::new(server(cluster, allow_loopback)?);
    config.root_cert = Some(certificate_authority(cluster)?);
    config.auth_info = credentials(user)?;
    config.proxy_url = None;
    Ok(config)
}

/// One named entry of a list.
struct Entry<'a> {
    name: &'a str,
    /// Such as `users[0].user.`.
    path: String,
    body: &'a Mapping,
}

/// The entries of the list `key`, each `{name, inner: {allowed…}}`.
fn entries<'a>(root: &'a Mapping, key: &str, inner: &str, allowed: &[&str]) -> Result<Vec<Entry<'a>>, Rejected> {
    let list = root.get(key).ok_or_else(|| Rejected::Missing(key.to_owned()))?;
    let list = list.as_sequence().ok_or_else(|| Rejected::Unusable {
        field: key.to_owned(),
        problem: "is not a list",
    })?;
    let entry = |(index, value): (usize, &'a Value)| {
        let at = format!("{key}[{index}]");
        let outer = mapping(value, &at)?;
        only(outer, &format!("{at}."), &["name", inner])?;
        let path = format!("{at}.{inner}");
        let body = outer.get(inner).ok_or_else(|| Rejected::Missing(path.clone()))?;
        let body = mapping(body, &path)?;
        let path = format!("{path}.");
        only(body, &path, allowed)?;
        let name = text_at(outer, &format!("{at}."), "name")?;
        Ok(Entry { name, path, body })
    };
    list.iter().enumerate().map(entry).collect()
}

fn chosen<'a, 'b>(entries: &'b [Entry<'a>], list: &str, name: &str) -> Result<&'b Entry<'a>, Rejected> {
    entries
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| Rejected::Missing(format!("the entry of {list} that is referred to")))
}

/// Refuses every key that is not allowed.
fn only(map: &Mapping, path: &str, allowed: &[&str]) -> Result<(), Rejected> {
    for key in map.keys() {
        let name = key.as_str().unwrap_or("a key that is not text");
        if allowed.contains(&name) {
            continue;
        }
        let known = FORBIDDEN.iter().find(|(field, _)| *field == name);
        return Err(Rejected::Forbidden {
            field: format!("{path}{name}"),
            why: known.map_or(UNKNOWN, |(_, why)| why),
        });
    }
    Ok(())
}

fn server(cluster: &Entry<'_>, allow_loopback: bool) -> Result<http::Uri, Rejected> {
    let field = format!("{}server", cluster.path);
    let unusable = |problem| {
        Err(Rejected::Unusable {
            field: field.clone(),
            problem,
        })
    };
    let Ok(uri) = text_at(cluster.body, &cluster.path, "server")?.parse::<http::Uri>() else {
        return unusable("is not a URL");
    };
    if uri.scheme_str() != Some("https") {
        return unusable("does not begin with https://");
    }
    let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
        return unusable("names no host");
    };
    if authority.as_str().contains('@') {
        return unusable("carries a user name or password");
    }
    if uri.query().is_some() {
        return unusable("carries a query");
    }
    if !allow_loopback && is_local(host) {
        return unusable("is a loopback or link-local address of the operator's own machine");
    }
    Ok(uri)
}

/// Whether `host` is this machine or its link, as far as its text tells.
fn is_local(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() else {
        return false;
    };
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

fn certificate_authority(cluster: &Entry<'_>) -> Result<Vec<Vec<u8>>, Rejected> {
    let pem = bytes_at(cluster, "certificate-authority-data")?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates
            .into_iter()
            .map(|certificate| certificate.to_vec())
            .collect()),
        _ => Err(not_pem(cluster, "certificate-authority-data")),
    }
}

fn credentials(user: &Entry<'_>) -> Result<AuthInfo, Rejected> {
    let mut auth = serde_json::Map::new();
    let has = |key: &str| user.body.get(key).is_some_and(|value| !value.is_null());
    if has("client-certificate-data") || has("client-key-data") {
        let certificate = bytes_at(user, "client-certificate-data")?;
        if CertificateDer::from_pem_slice(&certificate).is_err() {
            return Err(not_pem(user, "client-certificate-data"));
        }
        if PrivateKeyDer::from_pem_slice(&bytes_at(user, "client-key-data")?).is_err() {
            return Err(not_pem(user, "client-key-data"));
        }
        for key in ["client-certificate-data", "client-key-data"] {
            auth.insert(key.to_owned(), text_at(user.body, &user.path, key)?.into());
        }
    }
    if has("token") {
        let token = text_at(user.body, &user.path, "token")?;
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Rejected::Unusable {
                field: format!("{}token", user.path),
                problem: "is not a bearer token",
            });
        }
        auth.insert("token".to_owned(), token.into());
    }
    if auth.is_empty() {
        return Err(Rejected::Missing(format!(
            "{}token, or client-certificate-data with client-key-data,",
            user.path
        )));
    }
    serde_json::from_value(auth.into()).map_err(|_| Rejected::Unusable {
        field: user.path.trim_end_matches('.').to_owned(),
        problem: "holds values that are not text",
    })
}

fn bytes_at(entry: &Entry<'_>, key: &str) -> Result<Vec<u8>, Rejected> {
    let text = text_at(entry.body, &entry.path, key)?;
    match serde_json::from_value::<ByteString>(text.into()) {
        Ok(bytes) => Ok(bytes.0),
        Err(_) => Err(Rejected::Unusable {
            field: format!("{}{key}", entry.path),
            problem: "is not base64",
        }),
    }
}

fn not_pem(entry: &Entry<'_>, key: &str) -> Rejected {
    Rejected::Unusable {
        field: format!("{}{key}", entry.path),
        problem: "is not PEM",
    }
}

fn mapping<'a>(value: &'a Value, field: &str) -> Result<&'a Mapping, Rejected> {
    value.as_mapping().ok_or_else(|| Rejected::Unusable {
        field: field.to_owned(),
        problem: "is not a mapping",
    })
}

fn text_at<'a>(map: &'a Mapping, path: &str, key: &str) -> Result<&'a str, Rejected> {
    let field = || format!("{path}{key}");
    match map.get(key) {
        None | Some(Value::Null) => Err(Rejected::Missing(field())),
        Some(value) => value.as_str().ok_or_else(|| Rejected::Unusable {
            field: field(),
            problem: "is not text",
        }),
    }
}

#[cfg(test)]
#[path = "kubeconfig/tests.rs"]
mod tests;
