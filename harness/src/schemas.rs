// SPDX-License-Identifier: Apache-2.0
//! The JSON Schemas of the documents, as editors use them; derived from the types, committed in `harness/schemas/`.

use schemars::{Schema, schema_for};

use crate::adapter::Adapter;
use crate::scenario::Scenario;

/// The schema of a scenario.
pub fn scenario() -> Schema {
    schema_for!(Scenario)
}

/// The schema of an adapter.
pub fn adapter() -> Schema {
    schema_for!(Adapter)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::document;

    fn committed(name: &str, schema: &Schema) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
        let mut text = serde_json::to_string_pretty(schema).expect("a schema is JSON");
        text.push('\n');
        if std::env::var_os("SHAKEDOWN_BLESS").is_some() {
            std::fs::write(&path, &text).expect("the schema can be written");
        }
        assert!(
            std::fs::read_to_string(&path).is_ok_and(|found| found == text),
            "{} is not what the types say; write it anew with\n    SHAKEDOWN_BLESS=1 cargo test -p shakedown --lib schemas\n\
             and commit the difference",
            path.display()
        );
    }

    #[test]
    fn the_committed_schemas_are_those_of_the_types() {
        committed("scenario.schema.json", &scenario());
        committed("adapter.schema.json", &adapter());
    }

    #[test]
    fn every_document_in_the_tree_fits_its_schema_and_a_wrong_one_does_not() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (folder, schema) in [("scenarios", scenario()), ("adapters", adapter())] {
            let validator = jsonschema::validator_for(schema.as_value()).expect("a valid schema");
            let files = document::files_under(&tree.join(folder)).expect("a folder");
            assert!(!files.is_empty());
            for file in files.iter().filter(|file| !file.starts_with("contexts")) {
                let text = std::fs::read_to_string(tree.join(folder).join(file)).expect("a file");
                let mut value = document::parse_untyped(&text);
                let wrong: Vec<String> =
                    validator.iter_errors(&value).map(|error| error.to_string()).collect();
                assert_eq!(wrong, [""; 0], "{}", file.display());
                value["surplus"] = true.into();
                assert!(!validator.is_valid(&value), "{}", file.display());
            }
        }
    }
}
