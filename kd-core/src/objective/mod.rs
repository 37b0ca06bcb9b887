//! What a step minimises: a loss made of named parts, from a model's output and a batch.
//!
//! | objective        | parts                                                              |
//! |------------------|--------------------------------------------------------------------|
//! | [`Distillation`] | `hard` against the labels, `soft` against one teacher              |
//! | [`WeightedTeachers`] | `hard` against the labels, `soft` against several teachers by the batch's weights |
//! | [`PerHead`]      | `hard` of a gold head, `soft` of a head for each teacher           |
//! | [`WeightedSum`]  | any, by name: functions of output and batch                        |
//! | a closure        | its own: `Fn(&Output, &Batch, step) -> Result<Loss>`               |
//!
//! Weights and temperatures are [`ValueSchedule`](crate::schedule::ValueSchedule)s of the step, so numbers or ramps.

mod distillation;
mod heads;
mod weighted_sum;
mod weighted_teachers;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};

pub use self::distillation::{CrfTarget, Distillation};
pub use self::heads::{PerHead, SoftLoss};
pub use self::weighted_sum::{Part, Point, WeightedSum};
pub use self::weighted_teachers::WeightedTeachers;
use crate::batch::Batch;
use crate::model::Output;

/// A step's loss and its parts, all scalars; the parts before their weights.
#[derive(Debug, Clone)]
pub struct Loss {
    /// What is minimised.
    pub total: Tensor,
    /// The parts by name, for reports. A part of weight 0 is not computed and not here.
    pub parts: BTreeMap<String, Tensor>,
}

impl Loss {
    /// A loss of one piece.
    pub fn of(total: Tensor) -> Self {
        Self { total, parts: BTreeMap::new() }
    }

    /// The same loss, with the part `name` to report.
    #[must_use]
    pub fn with_part(mut self, name: &str, value: Tensor) -> Self {
        self.parts.insert(name.to_string(), value);
        self
    }

    /// The part called `name`, if it was computed.
    pub fn part(&self, name: &str) -> Option<&Tensor> {
        self.parts.get(name)
    }

    /// The total and the parts as numbers, read from the device at once.
    ///
    /// # Errors
    /// If one is not a scalar.
    pub fn values(&self) -> Result<(f64, BTreeMap<String, f64>)> {
        let of_loss = std::iter::once(&self.total).chain(self.parts.values());
        // In f64 only where it holds more: not every device has it.
        let dtype = if of_loss.clone().any(|value| value.dtype() == DType::F64) { DType::F64 } else { DType::F32 };
        let scalars = of_loss.map(|value| value.detach().to_dtype(dtype)?.reshape(())).collect::<Result<Vec<_>>>()?;
        let values: Vec<f64> = Tensor::stack(&scalars, 0)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?;
        let parts = self.parts.keys().cloned().zip(values[1..].iter().copied());
        Ok((values[0], parts.collect()))
    }
}

/// From a model's output and a batch to a loss.
///
/// Where a trainer accumulates the gradients of several batches it weighs them by their rows, so that they are those
/// of one large batch if the loss is a mean over rows.
pub trait Objective {
    /// The loss of `output` on `batch` at step `step`, counted from 0; its `total` has a graph behind it.
    fn loss(&self, output: &Output, batch: &Batch, step: usize) -> Result<Loss>;

    /// Its settings. A checkpoint keeps them, and a run that goes on from it under others is refused.
    ///
    /// The default says nothing, which fits every run of an objective that says nothing.
    fn describe(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl<F: Fn(&Output, &Batch, usize) -> Result<Loss>> Objective for F {
    fn loss(&self, output: &Output, batch: &Batch, step: usize) -> Result<Loss> {
        self(output, batch, step)
    }
}

/// What a part of a loss ran into, with the part's name in front.
fn in_part<T>(name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|error| candle_core::Error::msg(format!("loss part `{name}`: {error}")))
}
