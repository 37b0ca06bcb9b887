//! Other people's models as teachers.
//!
//! A [`FrozenModel`] is class names and a function from tokens to logits: whatever can be computed with Candle can
//! teach. Its output is detached.
//!
//! With the feature `candle-transformers`, `FrozenModel::from_files` makes one of a checkpoint with a head for sequences or
//! for tokens, of a family of [candle-transformers](https://docs.rs/candle-transformers) 0.11.1:
//!
//! | `model_type`             | encoder there                 | checked with transformers                                 |
//! |--------------------------|-------------------------------|-----------------------------------------------------------|
//! | `bert`                   | `bert::BertModel`             | both heads                                                |
//! | `roberta`, `xlm-roberta` | `xlm_roberta::XLMRobertaModel`| both heads                                                |
//! | `deberta-v2` (v3 too)    | `debertav2::DebertaV2Model`   | both heads, with and without position buckets             |
//! | `modernbert`             | `modernbert::ModernBert`      | both heads, `cls` and `mean` pooling, local attention     |
//!
//! Only the encoders are theirs, the heads are put on here, because three of that crate's heads are no use to a student:
//! its `ModernBertForSequenceClassification` returns probabilities instead of logits, its `DebertaV2NERModel` leaves the
//! classifier's bias out, and BERT and tokens in ModernBERT and XLM-RoBERTa have none. What its encoders do not do is an error
//! here: DeBERTa's convolution (`conv_kernel_size`; it would panic) and table of positions (`position_biased_input`; it fails on
//! batches), ModernBERT's biases (ignored). DistilBERT is not among
//! them: that crate computes the hyperbolic tangent's approximation of GELU where config.json says `gelu`, which moves the
//! logits of a tiny model by 2.5e-4; [`crate::heads`] has DistilBERT, and BERT, RoBERTa and more, right and faster.
//! These models are for frozen teachers only: their layer norm has no backward pass and their dropout does nothing.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use kd_core::{batch::{Rows, Tokens, pad}, model::Teacher};
//! use kd_teachers::frozen::FrozenModel;
//! let longer_than_two = |tokens: &Tokens| {
//!     let logits: Vec<f32> = tokens.first.lengths()?.iter().flat_map(|&len| [0.0, len as f32 - 2.5]).collect();
//!     Tensor::from_vec(logits, (tokens.batch()?, 2), &Device::Cpu)
//! };
//! let teacher = FrozenModel::new(["short", "long"].map(String::from).to_vec(), longer_than_two);
//! let first = pad(&[vec![5, 6, 7], vec![5]], &Device::Cpu)?;
//! let output = teacher.teach(&Tokens { first, second: None, more: Vec::new(), rows: Rows::Examples })?;
//! assert_eq!(output.logits()?.to_vec2::<f32>()?, [[0.0, 0.5], [0.0, -1.5]]);
//! # Ok::<(), candle_core::Error>(())
//! ```

#[cfg(feature = "candle-transformers")]
mod upstream;

use candle_core::{Result, Tensor, bail};
use kd_core::batch::Tokens;
use kd_core::model::{Output, Teacher};

type Forward = dyn Fn(&Tokens) -> Result<Tensor>;

/// Class names and a function from tokens to logits, `(rows, classes)`.
pub struct FrozenModel {
    classes: Vec<String>,
    forward: Box<Forward>,
}

impl std::fmt::Debug for FrozenModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrozenModel").field("classes", &self.classes).finish_non_exhaustive()
    }
}

impl FrozenModel {
    /// A teacher whose logits are `forward`'s, with a column for each of `classes`.
    pub fn new(classes: Vec<String>, forward: impl Fn(&Tokens) -> Result<Tensor> + 'static) -> Self {
        Self { classes, forward: Box::new(forward) }
    }
}

impl Teacher for FrozenModel {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn teach(&self, tokens: &Tokens) -> Result<Output> {
        let logits = (self.forward)(tokens)?.detach();
        let (rows, expected) = (tokens.rows_per_example()?.iter().sum::<usize>(), self.classes.len());
        if logits.dims() != [rows, expected] {
            bail!(
                "the frozen model's logits have shape {:?}, expected {rows} rows of {expected} classes",
                logits.dims()
            );
        }
        Ok(Output::from_logits(logits))
    }
}
