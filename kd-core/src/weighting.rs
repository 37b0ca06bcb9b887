//! How much each teacher counts on each row, decided anew for every batch.
//!
//! ```text
//! weigh -> step (the objective reads Batch::weights) -> feedback -> observe
//! ```
//!
//! A [`TeacherWeighting`] may be a constant, a rule over what the teachers said, or something that learns from what came of
//! its choices. A [`Trainer`](crate::trainer::Trainer) asks it before each step and tells it after; a loop of one's own
//! calls the two functions itself.
//!
//! ```
//! use candle_core::{DType, Result, Tensor};
//! use kd_core::{batch::Batch, weighting::TeacherWeighting};
//! /// The first teacher alone.
//! struct First;
//! impl TeacherWeighting for First {
//!     fn weigh(&mut self, batch: &Batch, _number: usize) -> Result<Tensor> {
//!         let (rows, others, device) = (batch.rows()?, batch.teachers.len() - 1, batch.teacher_logits(0)?.device());
//!         Tensor::cat(&[Tensor::ones((rows, 1), DType::F32, device)?, Tensor::zeros((rows, others), DType::F32, device)?], 1)
//!     }
//! }
//! ```

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, bail};
use serde_json::Value;

use crate::batch::Batch;
use crate::model::{Output, Student};

/// Decides how much each teacher counts on each row.
pub trait TeacherWeighting {
    /// Weights of the teachers of `batch`, `(rows, teachers)` float, at least 0; each row sums to 1. They carry no graph.
    ///
    /// `number` counts the batches of a run from 0. What is drawn by chance is a function of a seed and this number, so a
    /// resumed run sees what an uninterrupted one would have seen.
    ///
    /// # Errors
    /// If the batch lacks what the decision needs.
    fn weigh(&mut self, batch: &Batch, number: usize) -> Result<Tensor>;

    /// What came of the weights of batch `feedback.number`, after the student's step. A batch whose step was skipped, for
    /// a loss that is no number, has none. The default does not listen.
    ///
    /// # Errors
    /// If what it learns from is not a number.
    fn feedback(&mut self, feedback: &Feedback<'_>) -> Result<()> {
        let _ = feedback;
        Ok(())
    }

    /// Its settings. A checkpoint keeps them, and a run that goes on from it under others is refused.
    ///
    /// The default says nothing, which fits every weighting that says nothing.
    fn describe(&self) -> Value {
        Value::Null
    }

    /// All that it has learnt, for a checkpoint. The default has learnt nothing.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    fn state(&self) -> Result<WeightingState> {
        Ok(WeightingState::default())
    }

    /// Takes back what [`state`](Self::state) gave, after which it decides as the one that gave it.
    ///
    /// # Errors
    /// If the state is that of another weighting; nothing has changed then.
    fn restore(&mut self, state: &WeightingState) -> Result<()> {
        if state.values != Value::Null || !state.tensors.is_empty() {
            bail!("the weighting keeps no state, found {} tensors and {}", state.tensors.len(), state.values);
        }
        Ok(())
    }
}

/// What a weighting has learnt: tensors by name, and the rest as JSON.
#[derive(Debug, Clone, Default)]
pub struct WeightingState {
    /// Its tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Everything else. Floats survive: JSON is written with all their digits.
    pub values: Value,
}

/// What came of a batch's weights.
pub struct Feedback<'a> {
    /// The batch's number, as [`TeacherWeighting::weigh`] was told.
    pub number: usize,
    /// The batch, with the weights that were used.
    pub batch: &'a Batch,
    /// What the student said of it *before* the step, without a graph. Its loss against the labels does not depend on
    /// the weights of this batch yet.
    pub output: &'a Output,
    /// The student after the step, to be asked again; that costs a forward pass.
    pub student: &'a dyn Student,
}

impl std::fmt::Debug for Feedback<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feedback").field("number", &self.number).field("batch", &self.batch).finish_non_exhaustive()
    }
}
