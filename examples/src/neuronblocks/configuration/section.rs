//! An object of a configuration that is read key by key: what is wrong, and what nobody asked for, is named by its path.
//!
//! ```text
//! inputs.use_cahce: unknown key, expected one of `use_cache`, `dataset_type`, …
//! training_params.optimizer.params.lr: invalid type: string "fast", expected f64
//! ```

use std::cell::RefCell;

use anyhow::{Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// An object, and which of its keys were read.
#[derive(Debug)]
pub struct Section<'a> {
    path: String,
    object: &'a Map<String, Value>,
    read: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The object `value` that stands at `path`; the whole file's path is empty.
    ///
    /// # Errors
    /// If it is no object.
    pub fn new(path: impl Into<String>, value: &'a Value) -> Result<Self> {
        let path = path.into();
        match value {
            Value::Object(object) => Ok(Self { path, object, read: RefCell::default() }),
            other => bail!("{}: expected an object, found {other}", named(&path)),
        }
    }

    /// Where the value of `key` stands: `inputs.target`.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key` as it is, if it is there.
    pub fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.read.borrow_mut().push(key);
        self.object.get(key)
    }

    /// The value of `key`; none where it is not there or null.
    ///
    /// # Errors
    /// If it is of another type.
    pub fn optional<T: DeserializeOwned>(&self, key: &'static str) -> Result<Option<T>> {
        match self.value(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match serde_json::from_value(value.clone()) {
                Ok(value) => Ok(Some(value)),
                Err(error) => bail!("{}: {error}", self.path_of(key)),
            },
        }
    }

    /// The value of `key`, or `default` where it is not there.
    ///
    /// # Errors
    /// If it is of another type.
    pub fn or<T: DeserializeOwned>(&self, key: &'static str, default: T) -> Result<T> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// If it is not there, or of another type.
    pub fn required<T: DeserializeOwned>(&self, key: &'static str) -> Result<T> {
        self.optional(key)?.ok_or_else(|| anyhow!("{}: expected a value, found none", self.path_of(key)))
    }

    /// The object at `key`, if it is there.
    ///
    /// # Errors
    /// If it is no object.
    pub fn section(&self, key: &'static str) -> Result<Option<Section<'a>>> {
        match self.value(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Section::new(self.path_of(key), value).map(Some),
        }
    }

    /// The object at `key`.
    ///
    /// # Errors
    /// If it is not there, or no object.
    pub fn required_section(&self, key: &'static str) -> Result<Section<'a>> {
        self.section(key)?.ok_or_else(|| anyhow!("{}: expected an object, found none", self.path_of(key)))
    }

    /// Allows `key`, which changes nothing; a warning says so where it is there.
    pub fn without_effect(&self, key: &'static str, why: &str, warnings: &mut Vec<String>) {
        if self.value(key).is_some() {
            warnings.push(format!("{}: has no effect, {why}", self.path_of(key)));
        }
    }

    /// An error that stands at `key`.
    pub fn wrong(&self, key: &str, expected: &str, found: impl std::fmt::Display) -> anyhow::Error {
        anyhow!("{}: expected {expected}, found {found}", self.path_of(key))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// If there is a key that was not asked for.
    pub fn finish(self) -> Result<()> {
        let read = self.read.borrow();
        let Some(unknown) = self.object.keys().find(|key| !read.contains(&key.as_str())) else { return Ok(()) };
        let mut known: Vec<String> = Vec::new();
        for key in read.iter().map(|key| format!("`{key}`")) {
            if !known.contains(&key) {
                known.push(key);
            }
        }
        bail!("{}: unknown key, expected one of {}", self.path_of(unknown), known.join(", "))
    }
}

fn named(path: &str) -> &str {
    if path.is_empty() { "the configuration" } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whatever_is_wrong_is_named_by_its_path() {
        let value = json!({"inner": {"rate": "fast", "size": 3, "sise": 4, "old": 1}, "flat": 2});
        let outer = Section::new("", &value).unwrap();
        let inner = outer.required_section("inner").unwrap();
        let message = |result: Result<f64>| result.unwrap_err().to_string();
        assert_eq!(message(inner.required("rate")), "inner.rate: invalid type: string \"fast\", expected f64");
        assert_eq!(message(inner.required("depth")), "inner.depth: expected a value, found none");
        assert_eq!(outer.section("flat").unwrap_err().to_string(), "flat: expected an object, found 2");
        assert_eq!(inner.required::<usize>("size").unwrap(), 3);
        assert_eq!(inner.or("width", 5).unwrap(), 5);
        let mut warnings = Vec::new();
        inner.without_effect("old", "batches are sorted anyway", &mut warnings);
        assert_eq!(warnings, ["inner.old: has no effect, batches are sorted anyway"]);
        let message = inner.finish().unwrap_err().to_string();
        assert_eq!(message, "inner.sise: unknown key, expected one of `rate`, `depth`, `size`, `width`, `old`");
        assert_eq!(
            Section::new("", &json!([1])).unwrap_err().to_string(),
            "the configuration: expected an object, found [1]"
        );
    }
}
