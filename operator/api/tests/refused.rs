//! The table of refused manifests has at least one case for every rule. The API server itself judges them in
//! `e2e/tests/api.rs`.

#![allow(clippy::unwrap_used)]

mod support;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use pomarium_api::crds::crds;

/// (kind, field, message, about a change) of every rule below `schema`.
fn rules(kind: &str, path: &str, schema: &JSONSchemaProps, found: &mut Vec<(String, String, String, bool)>) {
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        found.push((
            kind.to_owned(),
            format!("{path}{}", rule.field_path.as_deref().unwrap_or_default()),
            rule.message.clone().unwrap(),
            rule.rule.contains("oldSelf"),
        ));
    }
    for (name, property) in schema.properties.iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        rules(kind, &path, property, found);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        rules(kind, &format!("{path}[]"), items, found);
    }
}

fn all_rules() -> Vec<(String, String, String, bool)> {
    let mut found = Vec::new();
    for crd in crds() {
        let schema = crd.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema
            .as_ref()
            .unwrap();
        rules(&crd.spec.names.kind, "", schema, &mut found);
    }
    found
}

#[test]
fn every_rule_has_a_manifest_that_breaks_it() {
    let cases = support::refused();
    let all = all_rules();
    assert!(all.len() > 50, "rules are found: {}", all.len());
    let uncovered: Vec<_> = all
        .iter()
        .filter(|(kind, field, message, about_change)| {
            !cases.iter().any(|case| {
                let own_field = case.field.replace(|c: char| c.is_ascii_digit(), "");
                let same_field = own_field == *field || (field.is_empty() && case.field == *kind);
                case.example.starts_with(&format!("{kind}/"))
                    && same_field
                    && message.contains(&case.says)
                    && case.change == *about_change
            })
        })
        .collect();
    assert!(
        uncovered.is_empty(),
        "without a case in testdata/refused.yaml: {uncovered:#?}"
    );
}

#[test]
fn every_case_changes_an_example() {
    for case in support::refused() {
        assert_ne!(case.manifest(), support::example(&case.example), "{case:?}");
    }
}
