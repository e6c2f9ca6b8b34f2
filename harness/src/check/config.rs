// SPDX-License-Identifier: Apache-2.0
//! The image config against what a scenario says about it.

use serde_json::Value;

use super::{Assertion, Finding};
use crate::scenario::{ConfigAssertion, ConfigRule};

/// Compares one place of the config.
pub(super) fn check_config(assertion: &ConfigAssertion, config: &Value) -> Option<Finding> {
    let found = config.pointer(&assertion.pointer);
    let (holds, expected) = match &assertion.rule {
        ConfigRule::Equals(value) => (found == Some(value), value.to_string()),
        ConfigRule::Contains(value) => {
            (found.is_some_and(|found| contains(found, value)), format!("something with {value}"))
        }
        ConfigRule::Absent => (found.is_none_or(is_empty), "nothing".to_owned()),
    };
    let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
    (!holds).then(|| Finding::new(Assertion::ImageConfig, expected, found).at(&assertion.pointer))
}

fn contains(found: &Value, part: &Value) -> bool {
    match (found, part) {
        (Value::Array(elements), part) => elements.contains(part),
        (Value::Object(members), Value::Object(parts)) => {
            parts.iter().all(|(key, value)| members.get(key) == Some(value))
        }
        (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
        _ => false,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_rule_holds_and_is_seen_to_fail() {
        let config = json!({ "config": {
            "Env": ["A=1", "B=2"], "Labels": { "a": "1", "b": "2" }, "WorkingDir": "/work", "Cmd": null, "Volumes": {},
        }});
        let equals = |value| ConfigRule::Equals(value);
        let contains = |value| ConfigRule::Contains(value);
        for (pointer, rule, finding) in [
            ("/config/Env", equals(json!(["A=1", "B=2"])), None),
            (
                "/config/Env",
                equals(json!(["B=2", "A=1"])),
                Some(r#"expected ["B=2","A=1"], found ["A=1","B=2"]"#),
            ),
            ("/config/Env", contains(json!("B=2")), None),
            (
                "/config/Env",
                contains(json!("B=")),
                Some(r#"expected something with "B=", found ["A=1","B=2"]"#),
            ),
            ("/config/Labels", contains(json!({"a": "1"})), None),
            (
                "/config/Labels",
                contains(json!({"a": "2"})),
                Some(r#"expected something with {"a":"2"}, found {"a":"1","b":"2"}"#),
            ),
            ("/config/WorkingDir", contains(json!("wor")), None),
            ("/config/User", equals(json!("app")), Some(r#"expected "app", found nothing"#)),
            ("/config/User", ConfigRule::Absent, None),
            ("/config/Cmd", ConfigRule::Absent, None),
            ("/config/Volumes", ConfigRule::Absent, None),
            ("/config/WorkingDir", ConfigRule::Absent, Some(r#"expected nothing, found "/work""#)),
        ] {
            let assertion = ConfigAssertion { pointer: pointer.to_owned(), rule };
            let expected = finding.map(|finding| format!("image.config {pointer}: {finding}"));
            assert_eq!(check_config(&assertion, &config).map(|finding| finding.to_string()), expected);
        }
    }
}
