#![allow(clippy::unwrap_used)]

use super::*;

const PEM: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";
const KEY: &str = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCkFBQUEKLS0tLS1FTkQgUFJJVkFURSBLRVktLS0tLQo=";

/// A kubeconfig with these fields in its one cluster, its one user and at its top.
fn kubeconfig(cluster: &str, user: &str, top: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n\
         clusters:\n- name: k\n  cluster: {{{cluster}}}\nusers:\n- name: u\n  user: {{{user}}}\n{top}\n"
    )
}

fn good_cluster() -> String {
    format!("server: 'https://10.0.0.1:6443', certificate-authority-data: {PEM}")
}

#[test]
fn a_token_or_a_client_certificate_under_an_inline_authority_is_accepted() {
    for user in [
        "token: abc.def".to_owned(),
        format!("client-certificate-data: {PEM}, client-key-data: {KEY}"),
    ] {
        let config = parse(kubeconfig(&good_cluster(), &user, "preferences: {}").as_bytes(), false).unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://10.0.0.1:6443/");
        assert_eq!(config.root_cert.as_ref().map(Vec::len), Some(1));
        assert!(!config.accept_invalid_certs);
        let auth = &config.auth_info;
        assert_eq!(auth.token.is_some(), user.contains("token"));
        assert_eq!(auth.client_key_data.is_some(), user.contains("client-key-data"));
    }
}

#[test]
fn every_field_that_runs_reads_or_redirects_something_is_refused_by_its_name() {
    let with_user = |field: &str| kubeconfig(&good_cluster(), &format!("token: a, {field}"), "");
    let with_cluster = |field: &str| kubeconfig(&format!("{}, {field}", good_cluster()), "token: a", "");
    let cases = [
        (
            with_user("exec: {command: /bin/sh, apiVersion: v1}"),
            "users[0].user.exec",
        ),
        (
            with_user("auth-provider: {name: gcp, config: {cmd-path: /bin/sh}}"),
            "users[0].user.auth-provider",
        ),
        (
            with_user("tokenFile: /var/run/secrets/token"),
            "users[0].user.tokenFile",
        ),
        (
            with_user("client-certificate: /etc/cert.pem"),
            "users[0].user.client-certificate",
        ),
        (with_user("client-key: /etc/key.pem"), "users[0].user.client-key"),
        (with_user("as: admin"), "users[0].user.as"),
        (with_user("as-uid: '1'"), "users[0].user.as-uid"),
        (with_user("as-groups: ['system:masters']"), "users[0].user.as-groups"),
        (with_user("as-user-extra: {a: [b]}"), "users[0].user.as-user-extra"),
        (with_user("username: admin"), "users[0].user.username"),
        (with_user("password: secret"), "users[0].user.password"),
        (with_user("extensions: []"), "users[0].user.extensions"),
        (with_user("something-new: 1"), "users[0].user.something-new"),
        (
            with_cluster("certificate-authority: /etc/ca.pem"),
            "clusters[0].cluster.certificate-authority",
        ),
        (
            with_cluster("proxy-url: 'http://10.0.0.2'"),
            "clusters[0].cluster.proxy-url",
        ),
        (
            with_cluster("insecure-skip-tls-verify: true"),
            "clusters[0].cluster.insecure-skip-tls-verify",
        ),
        (
            with_cluster("insecure-skip-tls-verify: false"),
            "clusters[0].cluster.insecure-skip-tls-verify",
        ),
        (
            with_cluster("tls-server-name: other"),
            "clusters[0].cluster.tls-server-name",
        ),
        (
            with_cluster("disable-compression: true"),
            "clusters[0].cluster.disable-compression",
        ),
        (with_cluster("extensions: []"), "clusters[0].cluster.extensions"),
        (kubeconfig(&good_cluster(), "token: a", "extensions: []"), "extensions"),
        (
            kubeconfig(&good_cluster(), "token: a", "preferences: {colors: true}"),
            "preferences.colors",
        ),
    ];
    for (text, field) in cases {
        match parse(text.as_bytes(), true) {
            Err(Rejected::Forbidden { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
        let problem: Problem = parse(text.as_bytes(), true).unwrap_err().into();
        assert_eq!(problem.reason, Reason::CredentialRejected);
        assert!(problem.message.contains(field), "{}", problem.message);
    }
}

#[test]
fn an_entry_that_is_not_in_use_is_checked_as_well() {
    let text = kubeconfig(&good_cluster(), "token: a", "").replace(
        "users:\n",
        "users:\n- name: other\n  user: {exec: {command: /bin/sh}}\n",
    );
    let error = parse(text.as_bytes(), true).unwrap_err();
    assert!(error.to_string().contains("users[0].user.exec"), "{error}");
}

#[test]
fn a_server_that_is_not_a_plain_https_host_is_refused() {
    let cases = [
        ("http://10.0.0.1", "https"),
        ("10.0.0.1:6443", "https"),
        ("https://user:pass@10.0.0.1", "user name"),
        ("https://10.0.0.1/?a=b", "query"),
        ("https://127.0.0.1:6443", "loopback"),
        ("https://127.8.9.1", "loopback"),
        ("https://localhost", "loopback"),
        ("https://LOCALHOST.", "loopback"),
        ("https://api.localhost", "loopback"),
        ("https://0.0.0.0", "loopback"),
        ("https://169.254.169.254", "loopback"),
        ("https://[::1]:6443", "loopback"),
        ("https://[fe80::1]", "loopback"),
        ("https://[::ffff:127.0.0.1]", "loopback"),
    ];
    for (server, expected) in cases {
        let cluster = format!("server: '{server}', certificate-authority-data: {PEM}");
        let error = parse(kubeconfig(&cluster, "token: a", "").as_bytes(), false).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("clusters[0].cluster.server") && message.contains(expected),
            "{server}: {message}"
        );
        // Only what is called loopback is excused by the flag of local test clusters.
        let local = parse(kubeconfig(&cluster, "token: a", "").as_bytes(), true);
        assert_eq!(local.is_ok(), expected == "loopback", "{server}: {local:?}");
    }
}

#[test]
fn what_is_missing_or_broken_is_named_and_never_quoted() {
    let no_ca = "server: 'https://10.0.0.1'".to_owned();
    let bad_ca = "server: 'https://10.0.0.1', certificate-authority-data: '%%SECRET%%'".to_owned();
    let empty_ca = "server: 'https://10.0.0.1', certificate-authority-data: 'U0VDUkVU'".to_owned();
    let good = good_cluster();
    let cases = [
        (
            kubeconfig(&no_ca, "token: a", ""),
            "clusters[0].cluster.certificate-authority-data is missing",
        ),
        (
            kubeconfig(&bad_ca, "token: a", ""),
            "certificate-authority-data in the kubeconfig is not base64",
        ),
        (
            kubeconfig(&empty_ca, "token: a", ""),
            "certificate-authority-data in the kubeconfig is not PEM",
        ),
        (
            kubeconfig(&good, "", ""),
            "users[0].user.token, or client-certificate-data",
        ),
        (
            kubeconfig(&good, &format!("client-certificate-data: {PEM}"), ""),
            "users[0].user.client-key-data is missing",
        ),
        (
            kubeconfig(&good, "token: 'SECRET SECRET'", ""),
            "users[0].user.token in the kubeconfig is not a bearer token",
        ),
        (
            kubeconfig(&good, "token: {SECRET: 1}", ""),
            "users[0].user.token in the kubeconfig is not text",
        ),
        (
            kubeconfig(&good, "token: a", "").replace("user: u}", "user: SECRET}"),
            "the entry of users",
        ),
        ("- SECRET".to_owned(), "not a mapping"),
        ("SECRET: [".to_owned(), "not YAML"),
        (String::new(), "not a mapping"),
        ("a".repeat(MAX_BYTES + 1), "larger than"),
    ];
    for (text, expected) in cases {
        let message = parse(text.as_bytes(), true).unwrap_err().to_string();
        assert!(message.contains(expected), "{expected:?} is not in {message:?}");
        assert!(!message.contains("SECRET"), "{message}");
    }
}

#[test]
fn text_that_is_not_utf8_or_nests_without_end_is_refused() {
    parse(&[0xff, 0xfe, 0x00], true).unwrap_err();
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n{}",
        (0..30).fold(String::new(), |mut text, n| {
            let before = if n == 0 { "a".to_owned() } else { format!("b{}", n - 1) };
            text.extend([
                format!("b{n}: &b{n} ["),
                format!("*{before},").repeat(7),
                format!("*{before}]\n"),
            ]);
            text
        })
    );
    parse(bomb.as_bytes(), true).unwrap_err();
    parse(
        format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000)).as_bytes(),
        true,
    )
    .unwrap_err();
}
