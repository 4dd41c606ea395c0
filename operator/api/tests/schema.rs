//! Laws that every field of every kind obeys.

#![allow(clippy::unwrap_used)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use pomarium_api::crds::crds;

/// Calls `visit` with the path and the schema of every field below `schema`.
fn walk(path: &str, schema: &JSONSchemaProps, visit: &mut impl FnMut(&str, &JSONSchemaProps)) {
    visit(path, schema);
    for (name, property) in schema.properties.iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        walk(&format!("{path}[]"), items, visit);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        walk(&format!("{path}{{}}"), values, visit);
    }
}

/// What `law` finds wrong, in the spec and status of all kinds.
fn offences(law: impl Fn(&str, &JSONSchemaProps) -> Option<&'static str>) -> Vec<String> {
    let mut offences = Vec::new();
    for crd in crds() {
        let root = crd.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema
            .as_ref()
            .unwrap();
        for (part, schema) in root.properties.iter().flatten() {
            walk(
                &format!("{}.{part}", crd.spec.names.kind),
                schema,
                &mut |path, schema| {
                    offences.extend(law(path, schema).map(|offence| format!("{path}: {offence}")));
                },
            );
        }
    }
    offences
}

const NOTHING: [String; 0] = [];

#[test]
fn every_list_text_and_map_is_bounded() {
    let found = offences(|_, schema| match schema.type_.as_deref() {
        Some("string") if schema.enum_.is_none() && schema.max_length.is_none() && schema.format.is_none() => {
            Some("no longest text")
        }
        Some("array") if schema.max_items.is_none() => Some("no most items"),
        Some("object") if schema.additional_properties.is_some() && schema.max_properties.is_none() => {
            Some("no most entries")
        }
        _ => None,
    });
    assert_eq!(found, NOTHING);
}

#[test]
fn every_number_is_a_bounded_signed_integer() {
    let found = offences(|path, schema| match schema.type_.as_deref() {
        Some("number") => Some("a float"),
        Some("integer") if schema.format.as_deref().is_none_or(|format| format.starts_with('u')) => Some("unsigned"),
        Some("integer") if path.contains(".spec") && schema.maximum.is_none() => Some("no largest number"),
        Some("integer") if schema.minimum.is_none() && !path.ends_with("{}") => Some("no smallest number"),
        _ => None,
    });
    assert_eq!(found, NOTHING);
}

#[test]
fn lists_say_how_appliers_share_them() {
    let found = offences(|_, schema| {
        (schema.type_.as_deref() == Some("array") && schema.x_kubernetes_list_type.is_none()).then_some("no list type")
    });
    assert_eq!(found, NOTHING);
}

/// A default would fight with whoever else scales, and hide in diffs.
#[test]
fn no_field_has_a_schema_default_and_null_is_nowhere_a_value() {
    let found = offences(|_, schema| {
        (schema.default.is_some() || schema.nullable == Some(true)).then_some("default or nullable")
    });
    assert_eq!(found, NOTHING);
}

#[test]
fn every_field_is_documented_and_optional_ones_say_their_default() {
    let found = offences(|path, schema| {
        let described = schema.description.is_some() || path.ends_with("[]") || path.ends_with("{}");
        (!described).then_some("no documentation")
    });
    assert_eq!(found, NOTHING);

    let found = offences(|path, schema| {
        if !path.contains(".spec") {
            return None;
        }
        let required = schema.required.clone().unwrap_or_default();
        schema
            .properties
            .iter()
            .flatten()
            .filter(|(name, _)| !required.contains(name))
            // Exactly one of these is there: none of them has a default.
            .filter(|_| !path.ends_with(".connection") && !path.ends_with(".provider"))
            .any(|(_, property)| !property.description.as_deref().unwrap_or_default().contains("Default:"))
            .then_some("an optional field without `Default:`")
    });
    assert_eq!(found, NOTHING);
}

#[test]
fn every_rule_has_a_message() {
    let found = offences(|_, schema| {
        schema
            .x_kubernetes_validations
            .iter()
            .flatten()
            .any(|rule| rule.message.as_deref().is_none_or(str::is_empty))
            .then_some("a rule without a message")
    });
    assert_eq!(found, NOTHING);
}
