//! An encoder that labels words.

use std::path::Path;

use candle_core::{DType, Device, Result as TensorResult, bail};
use kd_core::batch::{Rows, Tokens};
use kd_core::model::{Mode, Output, Student};
use kd_core::ops::packed::Precision;
use kd_core::variables::Variables;

use super::head::Head;
use super::{HeadOptions, encoder};
use crate::config::EncoderConfig;
use crate::encoder::{Encode, Encoded, Encoder, PackedEncoder, Wanted};
use crate::error::{Error, Result};
use crate::folder::{self, Kind};
use crate::hub::ModelFiles;

/// An encoder with a linear head on each word.
#[derive(Debug, Clone)]
pub struct TokenTagger<E = Encoder> {
    encoder: E,
    head: Head,
    classes: Vec<String>,
    wanted: Wanted,
}

impl TokenTagger {
    /// A tagger of random weights, drawn into `variables` where they are not yet there.
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
            head: Head::new(&config, classes.len(), variables)?,
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
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn save(&self, variables: &Variables, tokenizer: &Path, folder: &Path) -> Result<()> {
        folder::save(self.encoder.config(), &self.classes, Kind::Tagger, variables, tokenizer, folder)
    }

    /// A fine-tuned tagger from a folder: one of [`TokenTagger::save`], or of transformers' `*ForTokenClassification`.
    ///
    /// # Errors
    /// If a file is missing or does not fit, or holds another kind of model.
    pub fn load(folder: &Path, device: &Device) -> Result<(Self, Variables)> {
        Self::load_files(&ModelFiles::in_folder(folder)?, device)
    }

    /// A fine-tuned tagger from files that were found on the hub.
    ///
    /// # Errors
    /// As [`TokenTagger::load`].
    pub fn load_files(files: &ModelFiles, device: &Device) -> Result<(Self, Variables)> {
        folder::fine_tuned(files, device, |kind, config, classes, variables| match kind {
            Kind::Tagger => Self::new(config, classes, variables, &HeadOptions::default()),
            Kind::Classifier(_) => {
                Err(Error::config(&files.config, "expected a token classifier, found a sequence classifier"))
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
    pub fn pack(&self, precision: Precision) -> TensorResult<TokenTagger<PackedEncoder>> {
        Ok(TokenTagger {
            encoder: self.encoder.pack(precision)?,
            head: self.head.copy()?,
            classes: self.classes.clone(),
            wanted: self.wanted,
        })
    }
}

impl<E> TokenTagger<E> {
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
}

impl<E: Encode> Student for TokenTagger<E> {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> TensorResult<Output> {
        if matches!(tokens.rows, Rows::Examples) {
            bail!("a token tagger labels words, and these tokens have a row per example");
        }
        let Encoded { last, hidden, attention } = self.encoder.encode(&tokens.first, mode.site(0), self.wanted)?;
        let logits = self.head.forward(&tokens.rows.select(&last)?, mode.site(1))?;
        Ok(Output { hidden, attention, ..Output::from_logits(logits) })
    }
}
