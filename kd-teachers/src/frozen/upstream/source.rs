//! A checkpoint's configuration and tensors, as their files have them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::var_builder::VarBuilder;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::head::Task;
use crate::error::{Error, Result};
use crate::hub::ModelFiles;

pub(super) struct Source {
    pub(super) config_path: PathBuf,
    pub(super) config: Map<String, Value>,
    pub(super) model_type: String,
    pub(super) task: Task,
    pub(super) classes: Vec<String>,
    tensors: HashMap<String, Tensor>,
    device: Device,
}

impl Source {
    pub(super) fn read(files: &ModelFiles, device: &Device) -> Result<Self> {
        let path = files.config.as_path();
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, &source))?;
        let config: Map<String, Value> =
            serde_json::from_str(&text).map_err(|source| Error::config(path, source.to_string()))?;
        let model_type = config.get("model_type").and_then(Value::as_str).map(str::to_string);
        let model_type = model_type.ok_or_else(|| Error::config(path, "expected `model_type`, a text, found none"))?;
        let architecture = config.get("architectures").and_then(|list| list[0].as_str()).unwrap_or("none");
        let task = if architecture.ends_with("ForSequenceClassification") {
            Task::Sequence
        } else if architecture.ends_with("ForTokenClassification") {
            Task::Token
        } else {
            let message = format!(
                "`architectures`: expected a *ForSequenceClassification or *ForTokenClassification, found {architecture}"
            );
            return Err(Error::config(path, message));
        };
        if files.pickle {
            let files = files.weights.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            let message = "a frozen model is read from safetensors files, and these are pickled".to_string();
            return Err(Error::Checkpoint { files, message });
        }
        let mut tensors = HashMap::new();
        for file in &files.weights {
            let wrong = |source: candle_core::Error| Error::Checkpoint {
                files: file.display().to_string(),
                message: format!("expected a safetensors file: {source}"),
            };
            for (name, tensor) in candle_core::safetensors::load(file, device).map_err(wrong)? {
                let name = match name.rsplit_once('.') {
                    Some((base, "gamma")) => format!("{base}.weight"),
                    Some((base, "beta")) => format!("{base}.bias"),
                    _ => name,
                };
                tensors.insert(name, tensor.to_dtype(DType::F32)?);
            }
        }
        let classes = classes(&config, path)?;
        let config_path = path.to_path_buf();
        Ok(Self { config_path, config, model_type, task, classes, tensors, device: device.clone() })
    }

    /// The tensors under their full names.
    pub(super) fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_tensors(self.tensors.clone(), DType::F32, &self.device)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The configuration as a type of candle-transformers.
    pub(super) fn parse<T: DeserializeOwned>(&self, config: Map<String, Value>) -> Result<T> {
        serde_json::from_value(Value::Object(config)).map_err(|source| self.wrong(source.to_string()))
    }

    pub(super) fn wrong(&self, message: impl Into<String>) -> Error {
        Error::config(&self.config_path, message)
    }

    pub(super) fn size(&self, key: &'static str) -> Result<usize> {
        let value = self.config.get(key);
        let size = value.and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
        size.ok_or_else(|| self.wrong(format!("`{key}`: expected a whole number, found {}", shown(value))))
    }

    /// Fails unless `key` is absent, null or one of `allowed`.
    pub(super) fn only(&self, key: &'static str, allowed: &[Value]) -> Result<()> {
        match self.config.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(found) if allowed.contains(found) => Ok(()),
            Some(found) => Err(Error::UnsupportedOption {
                path: self.config_path.clone(),
                option: key,
                expected: allowed.iter().map(Value::to_string).collect::<Vec<_>>().join(" or "),
                found: found.to_string(),
            }),
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "none".to_string(), Value::to_string)
}

/// The names of `id2label` by id; without one as transformers calls them, two unless `num_labels` says otherwise.
fn classes(config: &Map<String, Value>, path: &Path) -> Result<Vec<String>> {
    let Some(names) = config.get("id2label").filter(|value| !value.is_null()) else {
        let n = config.get("num_labels").and_then(Value::as_u64).unwrap_or(2);
        return Ok((0..n).map(|idx| format!("LABEL_{idx}")).collect());
    };
    let wrong = || {
        let expected = "an object with a name for each of \"0\", \"1\", ...";
        Error::config(path, format!("`id2label`: expected {expected}, found {names}"))
    };
    let object = names.as_object().ok_or_else(wrong)?;
    let name = |idx: usize| object.get(&idx.to_string()).and_then(Value::as_str).map(str::to_string);
    (0..object.len()).map(|idx| name(idx).ok_or_else(wrong)).collect()
}
