//! An encoder that labels examples.

use std::path::Path;

use candle_core::{DType, Device, Result as TensorResult, Tensor, bail};
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_core::model::{Mode, Output, Student};
use kd_core::ops::packed::Precision;
use kd_core::variables::Variables;

use super::head::{FamilyHead, Head};
use super::{HeadOptions, Pooling, encoder};
use crate::config::{EncoderConfig, ProblemType};
use crate::encoder::{Encode, Encoded, Encoder, PackedEncoder, Wanted};
use crate::error::{Error, Result};
use crate::folder::{self, Kind};
use crate::hub::ModelFiles;

/// An encoder with a head on each example.
#[derive(Debug, Clone)]
pub struct SequenceClassifier<E = Encoder> {
    encoder: E,
    head: Top,
    classes: Vec<String>,
    wanted: Wanted,
}

/// A pooling and what stands on it.
#[derive(Debug, Clone)]
enum Top {
    Linear(Pooling, Head),
    Family(FamilyHead),
}

impl Top {
    fn copy(&self) -> TensorResult<Self> {
        Ok(match self {
            Top::Linear(pooling, head) => Top::Linear(*pooling, head.copy()?),
            Top::Family(head) => Top::Family(head.copy()?),
        })
    }

    fn pooling(&self) -> Pooling {
        match self {
            Top::Linear(pooling, _) => *pooling,
            Top::Family(_) => Pooling::Family,
        }
    }

    /// The pooled vectors, `(batch, hidden)`, and the logits, `(batch, classes)`.
    fn forward(&self, hidden: &Tensor, sequence: &Sequence, mode: Mode) -> TensorResult<(Tensor, Tensor)> {
        match self {
            Top::Linear(pooling, head) => {
                let pooled = pooling.pool(hidden, sequence)?;
                let logits = head.forward(&pooled, mode)?;
                Ok((pooled, logits))
            }
            Top::Family(head) => {
                let pooled = head.pool(hidden, sequence, mode)?;
                let logits = head.forward(&pooled, mode)?;
                Ok((pooled, logits))
            }
        }
    }
}

impl SequenceClassifier {
    /// A classifier of random weights, drawn into `variables` where they are not yet there.
    ///
    /// # Errors
    /// If there are no classes, a class is named twice, or an option is out of its range.
    pub fn new(
        config: &EncoderConfig,
        classes: &[String],
        variables: &Variables,
        options: &HeadOptions,
    ) -> Result<Self> {
        let config = folder::apply(config, classes, options)?;
        Ok(Self {
            encoder: encoder(&config, variables, options)?,
            head: match options.pooling {
                Pooling::Family => Top::Family(FamilyHead::new(&config, classes.len(), variables)?),
                pooling => Top::Linear(pooling, Head::new(&config, classes.len(), variables)?),
            },
            classes: classes.to_vec(),
            wanted: options.wanted(),
        })
    }

    /// A pretrained encoder under a new head drawn from `seed`, and the variables of both.
    ///
    /// # Errors
    /// If the files do not fit the model they describe, or an option is out of its range.
    pub fn from_files(
        files: &ModelFiles,
        classes: &[String],
        seed: u64,
        device: &Device,
        options: &HeadOptions,
    ) -> Result<(Self, Variables)> {
        folder::pretrained(files, seed, device, (options.layers, options.new_pooler), |config, variables| {
            Self::new(config, classes, variables, options)
        })
    }

    /// Writes config.json, model.safetensors (f32) and the tokenizer's files into `folder`, which appears whole or not at all.
    /// With [`Pooling::Family`] it is what transformers' `AutoModelForSequenceClassification` reads.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn save(&self, variables: &Variables, tokenizer: &Path, folder: &Path) -> Result<()> {
        let kind = Kind::Classifier(self.head.pooling());
        folder::save(self.encoder.config(), &self.classes, kind, variables, tokenizer, folder)
    }

    /// A fine-tuned classifier from a folder: one of [`SequenceClassifier::save`], or of transformers'
    /// `*ForSequenceClassification`, whose classes are called `LABEL_0` and `LABEL_1` if config.json names none.
    ///
    /// # Errors
    /// If a file is missing or does not fit, or holds another kind of model.
    pub fn load(folder: &Path, device: &Device) -> Result<(Self, Variables)> {
        Self::load_files(&ModelFiles::in_folder(folder)?, device)
    }

    /// A fine-tuned classifier from files that were found on the hub.
    ///
    /// # Errors
    /// As [`SequenceClassifier::load`].
    pub fn load_files(files: &ModelFiles, device: &Device) -> Result<(Self, Variables)> {
        folder::fine_tuned(files, device, |kind, config, classes, variables| match kind {
            Kind::Classifier(pooling) => {
                Self::new(config, classes, variables, &HeadOptions { pooling, ..HeadOptions::default() })
            }
            Kind::Tagger => {
                Err(Error::config(&files.config, "expected a sequence classifier, found a token classifier"))
            }
        })
    }

    /// The same model with layers that compute in `dtype`: [`Encoder::computing_in`].
    pub fn computing_in(self, dtype: DType) -> Self {
        Self { encoder: self.encoder.computing_in(dtype), ..self }
    }

    /// A copy for inference whose encoder is packed in `precision` ([`Encoder::pack`]); the head stays in f32.
    ///
    /// # Errors
    /// As [`Encoder::pack`].
    pub fn pack(&self, precision: Precision) -> TensorResult<SequenceClassifier<PackedEncoder>> {
        Ok(SequenceClassifier {
            encoder: self.encoder.pack(precision)?,
            head: self.head.copy()?,
            classes: self.classes.clone(),
            wanted: self.wanted,
        })
    }
}

impl<E> SequenceClassifier<E> {
    /// The same model with outputs that carry what is `wanted` besides the logits.
    pub fn returning(self, wanted: Wanted) -> Self {
        Self { wanted, ..self }
    }

    /// Names of the classes, in the order of the logits' columns.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The encoder.
    pub fn encoder(&self) -> &E {
        &self.encoder
    }

    /// How it makes one vector of a sequence.
    pub fn pooling(&self) -> Pooling {
        self.head.pooling()
    }
}

impl<E: Encode> SequenceClassifier<E> {
    /// What its outputs mean: what config.json or [`HeadOptions::problem_type`] says, else numbers if there is one column
    /// and one class per example if there are more.
    pub fn problem_type(&self) -> ProblemType {
        let otherwise = if self.classes.len() == 1 { ProblemType::Regression } else { ProblemType::SingleLabel };
        self.encoder.config().problem_type.unwrap_or(otherwise)
    }
}

impl<E: Encode> Student for SequenceClassifier<E> {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> TensorResult<Output> {
        if !matches!(tokens.rows, Rows::Examples) {
            bail!("a sequence classifier labels examples, and these tokens have a row per word");
        }
        if tokens.second.is_some() {
            bail!("a sequence classifier reads one sequence, and these tokens have a second one that is encoded apart");
        }
        let Encoded { last, hidden, attention } = self.encoder.encode(&tokens.first, mode.site(0), self.wanted)?;
        let (pooled, logits) = self.head.forward(&last, &tokens.first, mode.site(1))?;
        Ok(Output { hidden, attention, pooled: Some(pooled), ..Output::from_logits(logits) })
    }
}
