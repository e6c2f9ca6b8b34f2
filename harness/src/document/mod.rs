// SPDX-License-Identifier: Apache-2.0
//! Reads typed YAML documents and refuses bad ones with file, line, column, a snippet and the allowed keys.
//!
//! The only place that knows the YAML library. It must not know what a document means.

/// Gives a type that is read through another one (`#[serde(try_from)]`) the JSON Schema of the written form.
macro_rules! schema_as_written {
    ($name:ty, $written:ty) => {
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                <$written>::schema_name()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <$written>::json_schema(generator)
            }
        }
    };
}
pub(crate) use schema_as_written;

mod error;
mod located;
mod version;
mod yaml;

pub use error::{DocumentError, Invalid};
pub use located::Located;
pub use version::ApiVersion;
#[cfg(test)]
pub(crate) use yaml::parse_untyped;
pub use yaml::{files_under, parse, read};
