//! The files of `conformance/losses` and what a loss is given from them.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Error, Result, Tensor, bail};
use kd_core::testing::device;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The cases of one loss.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) loss: String,
    pub(crate) source: String,
    pub(crate) formula: String,
    pub(crate) cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) inputs: BTreeMap<String, Array>,
    pub(crate) parameters: BTreeMap<String, Value>,
    pub(crate) expected: Expected,
    pub(crate) tolerance: Tolerance,
    pub(crate) finite_differences: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    pub(crate) rows: Option<Array>,
    pub(crate) mean: f64,
    pub(crate) gradients: BTreeMap<String, Array>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tolerance {
    pub(crate) absolute: f64,
    pub(crate) relative: f64,
}

/// A tensor: its values in row-major order.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, tag = "dtype", rename_all = "lowercase")]
pub(crate) enum Array {
    F64 { shape: Vec<usize>, data: Vec<f64> },
    U32 { shape: Vec<usize>, data: Vec<u32> },
    U8 { shape: Vec<usize>, data: Vec<u8> },
}

impl Array {
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::F64 { shape, data } => Tensor::from_slice(data, shape.as_slice(), device()),
            Self::U32 { shape, data } => Tensor::from_slice(data, shape.as_slice(), device()),
            Self::U8 { shape, data } => Tensor::from_slice(data, shape.as_slice(), device()),
        }
    }
}

/// All files of the folder by their names without `.json`.
pub(crate) fn files() -> BTreeMap<String, File> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/losses");
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let file = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        files.insert(name, file);
    }
    files
}

/// What a loss is given: the tensors and parameters of a case.
pub(crate) struct Given<'a> {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) parameters: &'a BTreeMap<String, Value>,
}

impl Given<'_> {
    pub(crate) fn tensor(&self, name: &str) -> Result<&Tensor> {
        match self.tensors.get(name) {
            Some(tensor) => Ok(tensor),
            None => bail!("the case has no input `{name}`"),
        }
    }

    /// A parameter of any type that JSON can say: `f64`, `usize`, `bool`, `String`, `Vec<..>`, `Option<..>` of them.
    pub(crate) fn parameter<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T> {
        let value = self.parameters.get(name).unwrap_or(&Value::Null);
        match T::deserialize(value) {
            Ok(value) => Ok(value),
            Err(error) => bail!("parameter `{name}`: {error}"),
        }
    }

    /// All parameters together, as the config of a loss.
    pub(crate) fn config<T: DeserializeOwned>(&self) -> Result<T> {
        let fields = self.parameters.iter().map(|(name, value)| (name.clone(), value.clone()));
        serde_json::from_value(Value::Object(fields.collect())).map_err(Error::wrap)
    }
}

/// A loss of this crate and the name of its file.
pub(crate) struct Loss {
    pub(crate) name: &'static str,
    /// One value per row, for a loss that has them.
    pub(crate) rows: Option<fn(&Given<'_>) -> Result<Tensor>>,
    /// The scalar.
    pub(crate) mean: fn(&Given<'_>) -> Result<Tensor>,
}
