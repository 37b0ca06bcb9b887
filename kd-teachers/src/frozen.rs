//! Other people's models as teachers.
//!
//! A [`FrozenModel`] is class names and a function from tokens to logits: whatever can be computed with Candle can
//! teach. Its output is detached. With the feature `candle-transformers` there is `FrozenModel::bert`, which shows how
//! a model of [candle-transformers](https://docs.rs/candle-transformers) is wrapped. Those models are for frozen
//! teachers only: their layer norm has no backward pass and their dropout does nothing.
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
//! let output = teacher.teach(&Tokens { first, second: None, rows: Rows::Examples })?;
//! assert_eq!(output.logits()?.to_vec2::<f32>()?, [[0.0, 0.5], [0.0, -1.5]]);
//! # Ok::<(), candle_core::Error>(())
//! ```

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

#[cfg(feature = "candle-transformers")]
mod bert {
    use std::collections::HashMap;

    use candle_core::{DType, Device, Tensor};
    use candle_nn::var_builder::VarBuilder;
    use candle_transformers::models::bert::{BertModel, Config};

    use super::FrozenModel;
    use crate::checkpoint::Checkpoint;
    use crate::config::{EncoderConfig, Family};
    use crate::error::{Error, Result};
    use crate::hub::ModelFiles;

    impl FrozenModel {
        /// The `BertModel` of candle-transformers under the linear head of the same checkpoint, in f32.
        ///
        /// # Errors
        /// If the files do not hold a BERT with a head (`classifier.weight`, `classifier.bias`) and `id2label`.
        pub fn bert(files: &ModelFiles, device: &Device) -> Result<Self> {
            let encoder = EncoderConfig::read(&files.config)?;
            if encoder.family != Family::Bert {
                let found = encoder.family.model_type();
                return Err(Error::config(&files.config, format!("`model_type`: expected `bert`, found `{found}`")));
            }
            let text = std::fs::read_to_string(&files.config).map_err(|source| Error::io(&files.config, &source))?;
            let config: Config =
                serde_json::from_str(&text).map_err(|source| Error::config(&files.config, source.to_string()))?;
            // Checkpoint renames the keys, so the model is always found without a prefix.
            let config = Config { model_type: None, ..config };
            let mut tensors = HashMap::new();
            for (name, tensor) in Checkpoint::read(&files.weights, encoder.family)?.tensors() {
                tensors.insert(name.to_string(), tensor.to_device(device)?);
            }
            let vb = VarBuilder::from_tensors(tensors, DType::F32, device);
            let model = BertModel::load(vb.clone(), &config)?;
            let classes = encoder.classes.ok_or_else(|| {
                Error::config(&files.config, "expected `id2label`, the names of the classes, found none")
            })?;
            let weight = vb.get((classes.len(), encoder.hidden), "classifier.weight")?.t()?.contiguous()?;
            let bias = vb.get(classes.len(), "classifier.bias")?;
            Ok(Self::new(classes, move |tokens| {
                let sequence = &tokens.first;
                let segments = match &sequence.segments {
                    Some(segments) => segments.clone(),
                    None => Tensor::zeros_like(&sequence.ids)?,
                };
                let hidden = model.forward(&sequence.ids, &segments, Some(&sequence.mask))?;
                tokens.rows.select(&hidden)?.matmul(&weight)?.broadcast_add(&bias)
            }))
        }
    }
}
