//! A row before it is measured.

use std::collections::HashMap;
use std::rc::Rc;

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::place::Place;

/// Tensors by name: inputs that both sides get, outputs that are compared.
pub(super) type Tensors = HashMap<String, Tensor>;

/// What a row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Unit {
    Milliseconds,
    /// Peak of resident memory, without what the process had before the row.
    Mebibytes,
}

impl Unit {
    pub(super) fn key(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::Mebibytes => "mib",
        }
    }

    pub(super) fn symbol(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::Mebibytes => "MiB",
        }
    }
}

/// Our side of a row, ready to run.
pub(super) struct Work {
    /// What PyTorch gets, weights included.
    pub(super) inputs: Tensors,
    /// Computes what is compared; called once, before anything is timed.
    pub(super) check: Box<dyn FnOnce() -> Result<Tensors>>,
    /// What is timed.
    pub(super) call: Box<dyn FnMut() -> Result<()>>,
}

impl Work {
    /// Work whose timed call computes what is compared.
    pub(super) fn new(inputs: Tensors, call: impl Fn() -> Result<Tensors> + 'static) -> Self {
        let call = Rc::new(call);
        let check = call.clone();
        Self { inputs, check: Box::new(move || check()), call: Box::new(move || call().map(drop)) }
    }
}

/// Makes our side of a row where it is to be measured.
pub(super) type MakeWork = Box<dyn Fn(&Place) -> Result<Work>>;

/// One line of the table.
pub(super) struct Row {
    pub(super) name: String,
    /// Largest ratio of ours to PyTorch's that was aimed at.
    pub(super) target: Option<f64>,
    /// The same against ONNX Runtime.
    pub(super) onnx_target: Option<f64>,
    /// Number of threads if the row fixes one.
    pub(super) threads: Option<u16>,
    pub(super) unit: Unit,
    /// Largest difference of an output, as a share of its largest value.
    pub(super) tolerance: f64,
    /// Which function of `pytorch/` is the other side, and its arguments.
    pub(super) kind: &'static str,
    pub(super) params: Value,
    pub(super) work: MakeWork,
    /// Whether it is measured on the CPU.
    pub(super) on_cpu: bool,
    /// Whether it is measured on a CUDA device.
    pub(super) on_cuda: bool,
    /// Whether that is done in bf16 too.
    pub(super) in_bf16: bool,
    /// Operations of its products, if these are most of it.
    pub(super) flop: Option<f64>,
}

impl Row {
    /// A timed row at any number of threads, without a target.
    pub(super) fn new(
        name: impl Into<String>,
        kind: &'static str,
        params: Value,
        work: impl Fn(&Place) -> Result<Work> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            target: None,
            onnx_target: None,
            threads: None,
            unit: Unit::Milliseconds,
            tolerance: 2e-4,
            kind,
            params,
            work: Box::new(work),
            on_cpu: true,
            on_cuda: true,
            in_bf16: true,
            flop: None,
        }
    }

    pub(super) fn target(self, target: impl Into<Option<f64>>) -> Self {
        Self { target: target.into(), ..self }
    }

    /// On the CPU only.
    pub(super) fn without_cuda(self) -> Self {
        Self { on_cuda: false, ..self }
    }

    pub(super) fn at_one_thread(self) -> Self {
        Self { name: format!("{}, 1 thread", self.name), threads: Some(1), on_cuda: false, ..self }
    }
}
