//! The files and flags of a local control plane.

use std::path::Path;
use std::{fs, io};

use k8s_openapi::ByteString;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

use crate::cluster::Builder;
use crate::cluster::audit;
use crate::host;

/// Name of the audit log in the cluster's folder.
pub(crate) const AUDIT_LOG: &str = "audit.log";

/// What DER puts before the point of a P-256 public key (RFC 5480): a sequence with the algorithm, and a bit string of 66 bytes.
const P256_PUBLIC_KEY_HEADER: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Ports that were free a moment ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) etcd: u16,
    pub(crate) etcd_peer: u16,
    pub(crate) api_server: u16,
}

impl Ports {
    /// Asks the kernel for three.
    pub(crate) fn free() -> io::Result<Self> {
        let [etcd, etcd_peer, api_server] = host::free_addresses()?.map(|address| address.port());
        Ok(Self {
            etcd,
            etcd_peer,
            api_server,
        })
    }
}

/// Whom the API server knows by token, and their groups.
const USERS: [(&str, &str); 3] = [
    ("admin", "system:masters"),
    ("system:kube-controller-manager", ""),
    ("system:kube-scheduler", ""),
];

/// The tokens of the built-in users.
pub(crate) struct Tokens {
    pub(crate) admin: String,
    pub(crate) controller_manager: String,
    pub(crate) scheduler: String,
}

/// Writes everything that the processes read at their start.
pub(crate) fn write_files(folder: &Path) -> io::Result<Tokens> {
    let random = SystemRandom::new();
    let no_entropy = |_| io::Error::other("no random numbers");
    let token = || -> io::Result<String> {
        let mut bytes = [0_u8; 16];
        random.fill(&mut bytes).map_err(no_entropy)?;
        Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
    };
    let tokens = Tokens {
        admin: token()?,
        controller_manager: token()?,
        scheduler: token()?,
    };
    let rows = USERS
        .iter()
        .zip([&tokens.admin, &tokens.controller_manager, &tokens.scheduler]);
    let csv: Vec<String> = rows
        .map(|((user, groups), token)| format!("{token},{user},{user},{groups}"))
        .collect();
    fs::write(folder.join("tokens.csv"), csv.join("\n"))?;
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(no_entropy)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let public = [&P256_PUBLIC_KEY_HEADER, pair.public_key().as_ref()].concat();
    fs::write(folder.join("sa.key"), pem("PRIVATE KEY", key.as_ref()))?;
    fs::write(folder.join("sa.pub"), pem("PUBLIC KEY", &public))?;
    fs::write(folder.join("audit-policy.yaml"), audit::POLICY)?;
    fs::create_dir_all(folder.join("pki"))?;
    Ok(tokens)
}

/// A kubeconfig as Pomarium accepts it: `https`, everything inline.
pub(crate) fn kubeconfig(name: &str, server: &str, ca_base64: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
         clusters:\n- name: {name}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca_base64}\n\
         users:\n- name: {name}\n  user:\n    token: {token}\n\
         contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n"
    )
}

/// The flags of etcd.
pub(crate) fn etcd(builder: &Builder, folder: &Path, ports: Ports) -> Vec<String> {
    let (client, peer) = (
        format!("http://127.0.0.1:{}", ports.etcd),
        format!("http://127.0.0.1:{}", ports.etcd_peer),
    );
    let mut flags = vec![
        "--name=local".to_owned(),
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=local={peer}"),
        "--log-level=warn".to_owned(),
    ];
    if !builder.durable {
        flags.push("--unsafe-no-fsync".to_owned());
    }
    flags
}

/// The flags of the API server.
pub(crate) fn api_server(builder: &Builder, folder: &Path, ports: Ports) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut flags = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", ports.api_server),
        format!("--cert-dir={}", file("pki")),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        // No kubelet and no cloud: nothing asks for these, and a start is quicker without.
        "--endpoint-reconciler-type=none".to_owned(),
        "--profiling=false".to_owned(),
    ];
    if builder.audit {
        flags.extend([
            format!("--audit-policy-file={}", file("audit-policy.yaml")),
            format!("--audit-log-path={}", file(AUDIT_LOG)),
            // An event is in the file before the client has its answer: a test that wrote can read.
            "--audit-log-mode=blocking".to_owned(),
        ]);
    }
    flags
}

/// The flags of the controller manager.
pub(crate) fn controller_manager(folder: &Path) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", file("controller-manager.kubeconfig")),
        format!("--service-account-private-key-file={}", file("sa.key")),
        format!("--root-ca-file={}", file("pki/apiserver.crt")),
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
        // It serves nothing that anybody here asks for: one port less to find.
        "--secure-port=0".to_owned(),
    ]
}

/// The flags of the scheduler.
pub(crate) fn scheduler(folder: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", folder.join("scheduler.kubeconfig").display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ]
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64(der);
    let mut lines = String::new();
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            lines.push('\n');
        }
        lines.push(character);
    }
    format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    // The API's own encoding of binary fields.
    serde_json::to_value(ByteString(bytes.to_vec()))
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_kubeconfig_has_nothing_but_inline_credentials() {
        let text = kubeconfig("hub", "https://127.0.0.1:6443", &base64(b"certificate"), "secret");
        let parsed: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(
            parsed["clusters"][0]["cluster"]["certificate-authority-data"],
            "Y2VydGlmaWNhdGU="
        );
        assert_eq!(parsed["users"][0]["user"], serde_json::json!({"token": "secret"}));
        assert_eq!(parsed["current-context"], "hub");
    }

    #[test]
    fn pem_lines_are_64_characters_at_most() {
        let text = pem("X", &[7; 100]);
        assert!(text.lines().all(|line| line.len() <= 64), "{text}");
    }
}
