//! What a model reads: padded sequences, the rows in them that get a label, and what was said of those rows.

use candle_core::{Device, Result, Tensor, bail};

use crate::model::Output;

/// A padded batch of token sequences.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Token or word ids, `(batch, len)` u32; the value on padding does not matter.
    pub ids: Tensor,
    /// 1 on tokens and 0 on padding, `(batch, len)` u8; padding stands at the end only.
    pub mask: Tensor,
    /// Segment ids of a sentence pair, `(batch, len)` u32.
    pub segments: Option<Tensor>,
    /// Character ids of each word, `(batch, len, chars)` u32; 0 is padding and stands at the end only.
    pub chars: Option<Tensor>,
    /// Ids of further columns that say something of each token (part of speech, position), `(batch, len)` u32 each, in an
    /// order that the model defines; empty for most.
    pub features: Vec<Tensor>,
}

impl Sequence {
    /// Number of tokens of each sequence, from the mask.
    pub fn lengths(&self) -> Result<Vec<usize>> {
        let rows: Vec<Vec<u8>> = self.mask.to_vec2()?;
        Ok(rows.iter().map(|row| row.iter().filter(|&&m| m != 0).count()).collect())
    }

    /// Every token that is not padding as a row, for losses on hidden states: [`Rows::select`] takes them out of
    /// `(batch, len, width)`. Reads the mask from its device, so it is called once per batch.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let sequence = kd_core::batch::pad(&[vec![5], vec![6, 7]], &Device::Cpu)?;
    /// let hidden = Tensor::new(&[[[0f32], [1.]], [[2.], [3.]]], &Device::Cpu)?;
    /// assert_eq!(sequence.token_rows()?.select(&hidden)?.to_vec2::<f32>()?, [[0.], [2.], [3.]]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn token_rows(&self) -> Result<Rows> {
        let mask: Vec<Vec<u8>> = self.mask.to_vec2()?;
        let tokens = |row: &Vec<u8>| row.iter().filter(|&&m| m != 0).count();
        let per_example = mask.iter().map(tokens).collect();
        let index = (0u32..).zip(mask.concat()).filter(|&(_, m)| m != 0).map(|(position, _)| position);
        let index = Tensor::new(index.collect::<Vec<u32>>(), self.mask.device())?;
        Ok(Rows::Words { index, per_example })
    }
}

/// Which positions get a label.
#[derive(Debug, Clone)]
pub enum Rows {
    /// One row per example: classification.
    Examples,
    /// One row per word: tagging.
    Words {
        /// Position of each row's token in the flattened `(batch · len)` sequence, `(rows,)` u32,
        /// example by example and in order.
        index: Tensor,
        /// Number of rows of each example; sums to `rows`.
        per_example: Vec<usize>,
    },
}

impl Rows {
    /// The rows of `hidden`, `(batch, len, width)` → `(rows, width)`; for [`Rows::Examples`] the first position.
    pub fn select(&self, hidden: &Tensor) -> Result<Tensor> {
        let (batch, len, width) = hidden.dims3()?;
        match self {
            Rows::Examples => hidden.narrow(1, 0, 1)?.contiguous()?.reshape((batch, width)),
            Rows::Words { index, .. } => {
                crate::ops::embedding(&hidden.contiguous()?.reshape((batch * len, width))?, index)
            }
        }
    }
}

/// The input of a model.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The text, or the first text of a pair that is encoded apart.
    pub first: Sequence,
    /// The second text of a pair that is encoded apart.
    pub second: Option<Sequence>,
    /// The texts after the second, for models that read more than two.
    pub more: Vec<Sequence>,
    /// The positions that get a label.
    pub rows: Rows,
}

impl Tokens {
    /// Number of sequences of `first`: of examples, unless one is so long that it was encoded in several.
    pub fn batch(&self) -> Result<usize> {
        self.first.ids.dim(0)
    }

    /// All texts in their order: `first`, `second` if there is one, and `more`.
    pub fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        std::iter::once(&self.first).chain(&self.second).chain(&self.more)
    }

    /// Number of rows of each example.
    pub fn rows_per_example(&self) -> Result<Vec<usize>> {
        match &self.rows {
            Rows::Examples => Ok(vec![1; self.batch()?]),
            Rows::Words { per_example, .. } => Ok(per_example.clone()),
        }
    }
}

/// One step's data: tokens, labels and what the teachers said.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The model's input.
    pub tokens: Tokens,
    /// Class of each row, `(rows,)` u32: gold, or a teacher's arg-max on unlabelled text. An objective of its own may read
    /// other labels: numbers of a regression, or which of several classes a row has, `(rows, columns)` float.
    pub labels: Option<Tensor>,
    /// What else was said of each row, a column each in an order that the objective knows: classes, `(rows,)` u32, or numbers
    /// such as a teacher's score, `(rows,)` float. Empty where `labels` is all there is.
    pub targets: Vec<Tensor>,
    /// Each teacher's output on the same rows, detached, its classes in the student's order.
    pub teachers: Vec<Output>,
    /// Weight of each teacher on each row, `(rows, teachers)`; each row sums to 1. Read by
    /// [`WeightedTeachers`](crate::objective::WeightedTeachers), to which `None` means all alike.
    pub weights: Option<Tensor>,
    /// Which task of a multi-task run the batch belongs to.
    pub task: usize,
    /// Ids of the examples in their data set.
    pub examples: Vec<usize>,
}

impl Batch {
    /// Number of rows, which is what a mean loss divides by.
    pub fn rows(&self) -> Result<usize> {
        match &self.tokens.rows {
            Rows::Examples => self.tokens.batch(),
            Rows::Words { index, .. } => index.dim(0),
        }
    }

    /// The labels, or an error that says they are missing.
    pub fn labels(&self) -> Result<&Tensor> {
        match &self.labels {
            Some(labels) => Ok(labels),
            None => bail!("the batch of examples {:?} has no labels", self.examples),
        }
    }

    /// Column `target_idx` of the targets, `(rows,)`, or an error that says it is missing.
    pub fn target(&self, target_idx: usize) -> Result<&Tensor> {
        match self.targets.get(target_idx) {
            Some(target) => Ok(target),
            None => bail!(
                "the batch of examples {:?} has {} target columns, column {target_idx} was asked for",
                self.examples,
                self.targets.len()
            ),
        }
    }

    /// The first head of teacher `teacher_idx`, `(rows, classes)`, or an error that says it is missing.
    pub fn teacher_logits(&self, teacher_idx: usize) -> Result<&Tensor> {
        match self.teachers.get(teacher_idx) {
            Some(output) => output.logits(),
            None => bail!(
                "the batch of examples {:?} has the outputs of {} teachers, teacher {teacher_idx} was asked for",
                self.examples,
                self.teachers.len()
            ),
        }
    }
}

/// Where batches come from: batch `step` is a function of `step` alone, so a resumed run sees what an
/// uninterrupted one would have seen.
pub trait Batches {
    /// The batch of step `step`, counted from 0 without end (a source restarts its data as often as needed).
    fn batch(&self, step: usize) -> Result<Batch>;

    /// Number of batches in which every example comes once, if that is known.
    fn steps_per_epoch(&self) -> Option<usize> {
        None
    }

    /// What decides which batch comes when: seed, batch size, a digest of the data. A checkpoint keeps it, and a run
    /// that goes on from it with other batches is refused.
    ///
    /// The default says nothing, which fits every run of batches that say nothing.
    fn describe(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl<F: Fn(usize) -> Result<Batch>> Batches for F {
    fn batch(&self, step: usize) -> Result<Batch> {
        self(step)
    }
}

/// [`Batches`] from a closure that say more of themselves than a bare one.
///
/// ```
/// use kd_core::batch::{Batch, Batches, Described};
/// # let plan_seed = 3;
/// # let collate = |_step: usize| -> candle_core::Result<Batch> { candle_core::bail!("no data") };
/// let description = serde_json::json!({"seed": plan_seed, "batch_size": 32});
/// let batches = Described { batch: collate, steps_per_epoch: Some(120), description };
/// assert_eq!(batches.steps_per_epoch(), Some(120));
/// ```
#[derive(Debug, Clone)]
pub struct Described<F> {
    /// The batch of a step.
    pub batch: F,
    /// See [`Batches::steps_per_epoch`].
    pub steps_per_epoch: Option<usize>,
    /// See [`Batches::describe`].
    pub description: serde_json::Value,
}

impl<F: Fn(usize) -> Result<Batch>> Batches for Described<F> {
    fn batch(&self, step: usize) -> Result<Batch> {
        (self.batch)(step)
    }

    fn steps_per_epoch(&self) -> Option<usize> {
        self.steps_per_epoch
    }

    fn describe(&self) -> serde_json::Value {
        self.description.clone()
    }
}

/// Pads ragged id lists to `(batch, longest)` and makes the mask.
pub fn pad(ids: &[Vec<u32>], device: &Device) -> Result<Sequence> {
    let (batch, len) = (ids.len(), ids.iter().map(Vec::len).max().unwrap_or(0));
    let (mut flat, mut mask) = (vec![0u32; batch * len], vec![0u8; batch * len]);
    for (row, ids) in ids.iter().enumerate() {
        flat[row * len..row * len + ids.len()].copy_from_slice(ids);
        mask[row * len..row * len + ids.len()].fill(1);
    }
    Ok(Sequence {
        ids: Tensor::from_vec(flat, (batch, len), device)?,
        mask: Tensor::from_vec(mask, (batch, len), device)?,
        segments: None,
        chars: None,
        features: Vec::new(),
    })
}
