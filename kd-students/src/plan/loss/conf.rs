//! An object of JSON that is read key by key, until none is left.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::wrong;

/// The keys that are not read yet.
pub(super) struct Conf {
    path: String,
    left: Map<String, Json>,
    known: Vec<&'static str>,
}

/// What becomes of the values of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reduction {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// Their sum divided by the number of rows, which a mean over rows and columns is not.
    BatchMean,
}

impl Conf {
    pub(super) fn new(path: &str, json: &Json) -> crate::Result<Self> {
        match json {
            Json::Object(map) => Ok(Self { path: path.to_string(), left: map.clone(), known: Vec::new() }),
            other => Err(wrong(path, format!("expected an object, found {other}"))),
        }
    }

    /// The value of `key`, which is none where it is missing.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &'static str) -> crate::Result<Option<T>> {
        self.known.push(key);
        let Some(value) = self.left.remove(key) else { return Ok(None) };
        serde_json::from_value(value).map(Some).map_err(|error| wrong(&self.at(key), error.to_string()))
    }

    /// The value of `key`, or `default`.
    pub(super) fn or<T: DeserializeOwned>(&mut self, key: &'static str, default: T) -> crate::Result<T> {
        Ok(self.take(key)?.unwrap_or(default))
    }

    /// The value of `key`, which must be there.
    pub(super) fn needed<T: DeserializeOwned>(&mut self, key: &'static str) -> crate::Result<T> {
        self.take(key)?.ok_or_else(|| wrong(&self.path, format!("missing field `{key}`")))
    }

    /// `reduction`, or what PyTorch's older `size_average` and `reduce` say.
    pub(super) fn reduction(&mut self, default: Reduction) -> crate::Result<Reduction> {
        let size_average: Option<bool> = self.take("size_average")?;
        let reduce: Option<bool> = self.take("reduce")?;
        if reduce == Some(false) {
            return Err(wrong(&self.at("reduce"), "expected true, for a loss is one number, found false".to_string()));
        }
        let old = size_average.map(|mean| if mean { Reduction::Mean } else { Reduction::Sum });
        Ok(self.take("reduction")?.or(old).unwrap_or(default))
    }

    /// The place of `key`.
    pub(super) fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Checks that no key is left.
    pub(super) fn finish(&self) -> crate::Result<()> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(key) => {
                let known: Vec<String> = self.known.iter().map(|key| format!("`{key}`")).collect();
                Err(wrong(&self.at(key), format!("unknown field, expected one of {}", known.join(", "))))
            }
        }
    }
}
