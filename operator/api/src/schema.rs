//! Schemas of the texts that several fields share: amounts, numbers, durations, times, names.
//!
//! Floats are not used anywhere: a decimal is a text. Each text has a longest length, so that the API server can bound the
//! cost of its CEL rule, and a rule whose message says what is allowed; the API server puts the field's path before it.
//! [`crate::validate`] reads the same texts once more and trusts none of this.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// One of the values of an enum. Keeps the field's own documentation, which `Option` of an enum would lose.
pub(crate) fn choice<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// A text of at most `longest` characters for which `rule` holds.
fn text(longest: u32, rule: &str, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": longest,
        "x-kubernetes-validations": [{ "rule": rule, "message": message }],
    })
}

/// Digits with at most one point: nine before it, six after.
macro_rules! decimal {
    () => {
        r"self.matches('^[0-9]{1,9}([.][0-9]{1,6})?$')"
    };
}

/// Numbers with units, each at most seven digits before the point: far from what overflows.
macro_rules! go_duration {
    () => {
        r"self.matches('^([0-9]{1,7}([.][0-9]{1,3})?(h|ms|m|s)){1,4}$')"
    };
}

/// An amount of money, not negative.
pub(crate) fn money(_: &mut SchemaGenerator) -> Schema {
    text(
        16,
        decimal!(),
        "must be an amount that is not negative, as a decimal with at most 9 digits before the point and 6 after it, in \
         quotes, such as \"1.97\"",
    )
}

/// A number, not negative.
pub(crate) fn decimal(_: &mut SchemaGenerator) -> Schema {
    text(
        16,
        decimal!(),
        "must be a decimal number that is not negative, with at most 9 digits before the point and 6 after it, in quotes, \
         such as \"2.5\"",
    )
}

/// A number above zero.
pub(crate) fn positive_decimal(_: &mut SchemaGenerator) -> Schema {
    text(
        16,
        concat!(decimal!(), " && double(self) > 0.0"),
        "must be a decimal number above 0, with at most 9 digits before the point and 6 after it, in quotes, such as \"8.0\"",
    )
}

/// Power usage effectiveness.
pub(crate) fn pue(_: &mut SchemaGenerator) -> Schema {
    text(
        16,
        concat!(decimal!(), " && double(self) >= 1.0 && double(self) <= 10.0"),
        "must be a decimal number from 1 to 10, in quotes, such as \"1.2\"",
    )
}

/// A duration above zero, at most a year.
pub(crate) fn positive_duration(_: &mut SchemaGenerator) -> Schema {
    text(
        48,
        concat!(
            go_duration!(),
            " && duration(self) > duration('0s') && duration(self) <= duration('8784h')"
        ),
        "must be a duration above 0s and at most 8784h, written with the units h, m, s and ms, such as 10s or 1h30m",
    )
}

/// A duration, not negative, at most a year.
pub(crate) fn duration(_: &mut SchemaGenerator) -> Schema {
    text(
        48,
        concat!(
            go_duration!(),
            " && duration(self) >= duration('0s') && duration(self) <= duration('8784h')"
        ),
        "must be a duration from 0s to 8784h, written with the units h, m, s and ms, such as 24h or 1m30s",
    )
}

/// A point in time. The API server checks the calendar too.
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 40 })
}

/// A day. The API server checks the calendar too.
pub(crate) fn date(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date", "maxLength": 10 })
}

/// An ISO 4217 code.
pub(crate) fn currency(_: &mut SchemaGenerator) -> Schema {
    text(
        3,
        "self.matches('^[A-Z]{3}$')",
        "must be an ISO 4217 code: three capital letters, such as USD",
    )
}

/// Jurisdictions: a set of ISO 3166 codes.
pub(crate) fn jurisdictions(_: &mut SchemaGenerator) -> Schema {
    let one = text(
        6,
        "self.matches('^[A-Z]{2}(-[A-Z0-9]{1,3})?$')",
        "must be an ISO 3166 code of a country or one of its parts, such as US, EU or US-CA",
    );
    json_schema!({ "type": "array", "maxItems": 32, "x-kubernetes-list-type": "set", "items": one })
}

/// The name of a Secret, of a scale target or another object with a DNS subdomain as its name.
pub(crate) fn dns_subdomain(_: &mut SchemaGenerator) -> Schema {
    text(
        253,
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "must be the name of an object: small letters, digits, '-' and '.', such as oregon-kubeconfig",
    )
}

/// A namespace, or the name of an event.
pub(crate) fn dns_label(_: &mut SchemaGenerator) -> Schema {
    text(
        63,
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "must be at most 63 small letters, digits and '-', such as assistants",
    )
}

/// The name of a site or a group.
pub(crate) fn own_name(_: &mut SchemaGenerator) -> Schema {
    text(
        40,
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "must be the name of an object: at most 40 small letters, digits, '-' and '.', such as cupertino",
    )
}

/// The key of an entry in a Secret.
pub(crate) fn secret_key(_: &mut SchemaGenerator) -> Schema {
    text(
        253,
        "self.matches('^[-._a-zA-Z0-9]+$')",
        "must be a key of a Secret: letters, digits, '-', '_' and '.', such as kubeconfig",
    )
}

/// Labels to select by. Bounded, so that rules may walk over them.
fn labels(fewest: u32) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": fewest,
        "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": 63 },
        "x-kubernetes-validations": [{
            "rule": r"self.all(key, key.size() <= 317 && key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && self[key].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))",
            "message": "must be labels as Kubernetes allows them, such as pomarium.dev/group: cupertino-m2-ultra",
        }],
    })
}

/// Labels to select by; none selects everything.
pub(crate) fn any_labels(_: &mut SchemaGenerator) -> Schema {
    labels(0)
}

/// Host names as the Gateway API takes them.
pub(crate) fn hostnames(_: &mut SchemaGenerator) -> Schema {
    let one = text(
        253,
        r"self.matches('^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "must be a host name in small letters, with an optional leading \"*.\", such as chat.example.com",
    );
    json_schema!({ "type": "array", "maxItems": 16, "x-kubernetes-list-type": "set", "items": one })
}

/// Arguments of a container.
pub(crate) fn arguments(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "atomic",
        "items": { "type": "string", "maxLength": 1024 },
    })
}

/// Conditions as the Kubernetes API conventions describe them, one of each type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of the object, and whether it holds.",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "type": "string",
                    "description": "Which aspect. Example: Ready.",
                    "minLength": 1,
                    "maxLength": 316,
                },
                "status": {
                    "type": "string",
                    "description": "Whether it holds.",
                    "enum": ["True", "False", "Unknown"],
                },
                "reason": {
                    "type": "string",
                    "description": "Why, as one word of a closed list. Example: OnTarget.",
                    "minLength": 1,
                    "maxLength": 1024,
                },
                "message": {
                    "type": "string",
                    "description": "Why, with figures, for people.",
                    "maxLength": 32768,
                },
                "lastTransitionTime": {
                    "type": "string",
                    "description": "When the status last changed.",
                    "format": "date-time",
                },
                "observedGeneration": {
                    "type": "integer",
                    "description": "Generation of the spec that this condition is about.",
                    "format": "int64",
                    "minimum": 0,
                },
            },
        },
    })
}

/// Cron. Whether the fields make sense is for validation to find: no rule can.
pub(crate) fn cron(_: &mut SchemaGenerator) -> Schema {
    text(
        100,
        r"self.matches('^[^ ]+( [^ ]+){4}$')",
        "must be five fields of cron with one space between them, such as \"0 9 * * 1-5\"",
    )
}

/// An IANA time zone. Whether it exists is for validation to find: no rule can.
pub(crate) fn time_zone(_: &mut SchemaGenerator) -> Schema {
    text(
        64,
        "self.matches('^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$')",
        "must be an IANA time zone, such as America/Los_Angeles or UTC",
    )
}

/// A group and version, or the version of the core group.
pub(crate) fn api_version(_: &mut SchemaGenerator) -> Schema {
    text(
        253,
        "self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[0-9]+((alpha|beta)[0-9]+)?$')",
        "must be an API group and version, such as cluster.x-k8s.io/v1beta2",
    )
}

/// A kind.
pub(crate) fn kind(_: &mut SchemaGenerator) -> Schema {
    text(
        63,
        "self.matches('^[A-Z][A-Za-z0-9]*$')",
        "must be a kind, such as MachineDeployment",
    )
}

/// An amount with its currency, with a minus sign if it saves.
pub(crate) fn hourly_change(_: &mut SchemaGenerator) -> Schema {
    text(
        32,
        "self.matches('^-?[0-9]{1,9}([.][0-9]{1,6})? [A-Z]{3}$')",
        "must be an amount and a currency, such as \"3.94 USD\" or \"-1.97 USD\"",
    )
}

/// A container image.
pub(crate) fn image(_: &mut SchemaGenerator) -> Schema {
    text(
        512,
        r"self.matches('^[A-Za-z0-9][A-Za-z0-9._:/@-]*$')",
        "must be a container image, such as registry.example.com/ggml-org/llama.cpp:server",
    )
}
