//! Encoders with a head: what is fine-tuned, and then teaches.
//!
//! | model                  | rows     | head                                              |
//! |------------------------|----------|---------------------------------------------------|
//! | [`TokenTagger`]        | words    | dropout, linear, on the word's first piece        |
//! | [`SequenceClassifier`] | examples | [`Pooling`], dropout, linear                      |
//!
//! The head's variables are `classifier.weight` (normal, standard deviation 0.02 as in BERT) and `classifier.bias` (0).
//! [`TokenTagger::from_files`] puts a new head on a pretrained encoder; [`TokenTagger::save`] and
//! [`TokenTagger::load`] keep the fine-tuned whole in a folder that transformers' `AutoModelForTokenClassification` reads too.
//!
//! ```no_run
//! use candle_core::Device;
//! use kd_core::model::Frozen;
//! use kd_core::ops::packed::Precision;
//! use kd_teachers::heads::{HeadOptions, TokenTagger};
//! use kd_teachers::hub::{HubEnvironment, ModelFiles};
//! let files = ModelFiles::find("intfloat/e5-small", "main", &HubEnvironment::from_env()?)?;
//! let classes = ["O", "B-PER", "I-PER"].map(String::from);
//! let (tagger, variables) = TokenTagger::from_files(&files, &classes, 7, &Device::Cpu, &HeadOptions::default())?;
//! // ... train `variables` ...
//! tagger.save(&variables, &files.tokenizer, "teacher".as_ref())?;
//! let teacher = Frozen::new(tagger.pack(Precision::Int8)?, classes.to_vec()); // or `tagger` itself, in f32
//! # Ok::<(), kd_teachers::Error>(())
//! ```

use std::path::Path;

use candle_core::{DType, Device, Result as TensorResult, Tensor, bail};
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_core::model::{Mode, Output, Student};
use kd_core::nn::Linear;
use kd_core::ops;
use kd_core::ops::packed::Precision;
use kd_core::variables::Variables;

use crate::config::EncoderConfig;
use crate::encoder::packed::copy_linear;
use crate::encoder::{Encode, Encoded, Encoder, PackedEncoder, Wanted, dense};
use crate::error::{Error, Result};
use crate::folder::{self, Kind};
use crate::hub::ModelFiles;

/// How a sequence becomes one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// The first token's hidden state.
    Cls,
    /// The mean of the hidden states of all tokens that are not padding, which sentence encoders are trained with.
    #[default]
    Mean,
}

impl Pooling {
    pub(crate) const ALL: [Pooling; 2] = [Pooling::Cls, Pooling::Mean];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Pooling::Cls => "cls",
            Pooling::Mean => "mean",
        }
    }

    /// One vector per example, `(batch, width)`, of `hidden`, `(batch, len, width)`; the mean divides by the number of
    /// tokens (by 1 if there is none).
    pub fn pool(self, hidden: &Tensor, sequence: &Sequence) -> TensorResult<Tensor> {
        match self {
            Pooling::Cls => Rows::Examples.select(hidden),
            Pooling::Mean => {
                let mask = sequence.mask.to_dtype(hidden.dtype())?; // (batch, len)
                let count = mask.sum_keepdim(1)?.maximum(1.0)?; // (batch, 1)
                let share = mask.broadcast_div(&count)?.unsqueeze(2)?; // (batch, len, 1)
                hidden.broadcast_mul(&share)?.sum(1)
            }
        }
    }
}

/// What is not in a checkpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeadOptions {
    /// Use only that many of the checkpoint's layers, the first ones, at least 1; none: all.
    pub layers: Option<usize>,
    /// Dropout probability before the head, in `[0, 1)`; none: the checkpoint's `classifier_dropout` or hidden dropout.
    pub head_dropout: Option<f64>,
    /// How a [`SequenceClassifier`] makes one vector of a sequence; a [`TokenTagger`] does not look at it.
    pub pooling: Pooling,
    /// Whether outputs carry all hidden states, for losses that match them.
    pub hidden_states: bool,
    /// Whether outputs carry the attention probabilities of every layer, for losses that match them.
    pub attention: bool,
    /// What the encoder's layers compute in, bf16 or f16, with weights and gradients in f32; none: in f32. See
    /// [`Encoder::computing_in`].
    pub compute: Option<DType>,
}

impl HeadOptions {
    fn wanted(&self) -> Wanted {
        Wanted { hidden: self.hidden_states, attention: self.attention }
    }
}

fn encoder(config: &EncoderConfig, variables: &Variables, options: &HeadOptions) -> TensorResult<Encoder> {
    let encoder = Encoder::new(config, variables.builder())?;
    Ok(match options.compute {
        Some(dtype) => encoder.computing_in(dtype),
        None => encoder,
    })
}

/// Dropout and a linear layer over the classes.
#[derive(Debug, Clone)]
struct Head {
    dropout: f64,
    linear: Linear,
}

impl Head {
    fn new(config: &EncoderConfig, classes: usize, variables: &Variables) -> TensorResult<Self> {
        let linear = dense(config, config.hidden, classes, variables.builder().pp("classifier"))?;
        Ok(Self { dropout: config.classifier_dropout.unwrap_or(config.hidden_dropout), linear })
    }

    /// The same head without variables.
    fn copy(&self) -> TensorResult<Self> {
        Ok(Self { dropout: self.dropout, linear: copy_linear(&self.linear)? })
    }

    fn forward(&self, rows: &Tensor, mode: Mode) -> TensorResult<Tensor> {
        self.linear.forward(&ops::dropout(rows, self.dropout, mode)?)
    }
}

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
        folder::pretrained(files, seed, device, options, |config, variables| {
            Self::new(config, classes, variables, options)
        })
    }

    /// Writes config.json, model.safetensors (f32) and tokenizer.json into `folder`, which appears whole or not at all.
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

/// An encoder with a linear head on each example.
#[derive(Debug, Clone)]
pub struct SequenceClassifier<E = Encoder> {
    encoder: E,
    head: Head,
    classes: Vec<String>,
    pooling: Pooling,
    wanted: Wanted,
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
            head: Head::new(&config, classes.len(), variables)?,
            classes: classes.to_vec(),
            pooling: options.pooling,
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
        folder::pretrained(files, seed, device, options, |config, variables| {
            Self::new(config, classes, variables, options)
        })
    }

    /// Writes config.json, model.safetensors (f32) and tokenizer.json into `folder`, which appears whole or not at all.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn save(&self, variables: &Variables, tokenizer: &Path, folder: &Path) -> Result<()> {
        let kind = Kind::Classifier(self.pooling);
        folder::save(self.encoder.config(), &self.classes, kind, variables, tokenizer, folder)
    }

    /// A fine-tuned classifier from a folder of [`SequenceClassifier::save`].
    ///
    /// # Errors
    /// If a file is missing or does not fit, or holds another kind of model. The `*ForSequenceClassification` of
    /// transformers are other kinds: they have a pooler or a second linear layer.
    pub fn load(folder: &Path, device: &Device) -> Result<(Self, Variables)> {
        let files = ModelFiles::in_folder(folder)?;
        folder::fine_tuned(&files, device, |kind, config, classes, variables| match kind {
            Kind::Classifier(pooling) => {
                Self::new(config, classes, variables, &HeadOptions { pooling, ..HeadOptions::default() })
            }
            Kind::Tagger => {
                Err(Error::config(&files.config, "expected a sequence classifier, found a token classifier"))
            }
        })
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
            pooling: self.pooling,
            wanted: self.wanted,
        })
    }
}

impl<E> SequenceClassifier<E> {
    /// Names of the classes, in the order of the logits' columns.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The encoder.
    pub fn encoder(&self) -> &E {
        &self.encoder
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
        let pooled = self.pooling.pool(&last, &tokens.first)?; // (batch, hidden)
        let logits = self.head.forward(&pooled, mode.site(1))?;
        Ok(Output { hidden, attention, pooled: Some(pooled), ..Output::from_logits(logits) })
    }
}
