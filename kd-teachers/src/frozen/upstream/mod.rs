//! Checkpoints of candle-transformers' families as frozen models.

mod deberta;
mod head;
mod modernbert;
mod plain;
mod source;

use candle_core::{Device, Result as CandleResult, Tensor};
use kd_core::batch::Sequence;

use super::FrozenModel;
use crate::error::{Error, Result};
use crate::hub::ModelFiles;
use head::Head;
use source::Source;

/// From a padded batch to its last hidden states, `(batch, len, hidden)`.
type Encoder = Box<dyn Fn(&Sequence) -> CandleResult<Tensor>>;

const MODEL_TYPES: &str = "`bert`, `roberta`, `xlm-roberta`, `deberta-v2`, `modernbert`";

impl FrozenModel {
    /// The encoder of candle-transformers that config.json's `model_type` names, under the head of the same checkpoint, in f32.
    ///
    /// The first of `architectures` says which head: `*ForSequenceClassification`, one row per example, or
    /// `*ForTokenClassification`, one row per word. Classes are called as `id2label` says, or `LABEL_0`, `LABEL_1` and so on
    /// without one.
    ///
    /// # Errors
    /// If a file cannot be read, the `model_type` or an option is none of the table above, or a tensor is missing.
    pub fn from_files(files: &ModelFiles, device: &Device) -> Result<Self> {
        let source = Source::read(files, device)?;
        let (encoder, head): (Encoder, Head) = match source.model_type.as_str() {
            "bert" => (plain::bert(&source)?, plain::bert_head(&source)?),
            "roberta" | "xlm-roberta" => (plain::roberta(&source)?, plain::roberta_head(&source)?),
            "deberta-v2" => (deberta::encoder(&source)?, deberta::head(&source)?),
            "modernbert" => (modernbert::encoder(&source)?, modernbert::head(&source)?),
            other => {
                let message = format!("`model_type`: expected one of {MODEL_TYPES}, found `{other}`");
                return Err(Error::config(&source.config_path, message));
            }
        };
        let task = source.task;
        Ok(Self::new(source.classes, move |tokens| {
            task.check(&tokens.rows)?;
            if tokens.second.is_some() {
                candle_core::bail!(
                    "a frozen model reads one sequence, found a second one: encode pairs in one sequence"
                );
            }
            head.forward(&encoder(&tokens.first)?, tokens)
        }))
    }

    /// [`FrozenModel::from_files`] for a BERT only.
    ///
    /// # Errors
    /// As there, and for any other `model_type`.
    pub fn bert(files: &ModelFiles, device: &Device) -> Result<Self> {
        let found = Source::read(files, device)?.model_type;
        if found != "bert" {
            return Err(Error::config(&files.config, format!("`model_type`: expected `bert`, found `{found}`")));
        }
        Self::from_files(files, device)
    }
}

/// The segments of a batch, zeros without any.
fn segments(sequence: &Sequence) -> CandleResult<Tensor> {
    match &sequence.segments {
        Some(segments) => Ok(segments.clone()),
        None => sequence.ids.zeros_like(),
    }
}
