//! `tests/reference/blocks.json`: PyTorch's values of the blocks that it has.

use std::collections::BTreeMap;

use candle_core::Tensor;
use kd_core::testing::device;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
pub(crate) struct Array {
    shape: Vec<usize>,
    data: Vec<f64>,
}

/// Inputs and weights by name, parameters, and what comes out.
#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) inputs: BTreeMap<String, Array>,
    parameters: BTreeMap<String, serde_json::Value>,
    pub(crate) outputs: BTreeMap<String, Array>,
}

impl Case {
    pub(crate) fn parameter<T: DeserializeOwned>(&self, name: &str) -> T {
        serde_json::from_value(self.parameters[name].clone()).unwrap()
    }
}

pub(crate) fn case(name: &str) -> Case {
    let mut cases: BTreeMap<String, Case> =
        serde_json::from_str(include_str!("../../tests/reference/blocks.json")).unwrap();
    cases.remove(name).unwrap_or_else(|| panic!("no case `{name}`"))
}

pub(crate) fn tensor(array: &Array) -> Tensor {
    Tensor::from_slice(&array.data, array.shape.as_slice(), device()).unwrap()
}
