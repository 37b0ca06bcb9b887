//! A fine-tuned teacher that is asked.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use kd_core::batch::Tokens;
use kd_core::model::{Frozen, Output, Student, Teacher};
use kd_core::ops::packed::Precision;
use kd_data::digest;
use kd_data::encode::{Encode, EncodedTexts, EncodedWords, WordPieces};
use kd_data::teacher_outputs::{About, Attention, Content, FloatType, Hidden, Stored};
use kd_teachers::config::EncoderConfig;
use kd_teachers::encoder::Wanted;
use kd_teachers::heads::{SequenceClassifier, TokenTagger};
use kd_teachers::hub::ModelFiles;
use serde_json::Value;

use super::frozen::FrozenConfig;

/// Longest sequence where none is asked for, in tokens.
const MAX_LEN: usize = 128;

/// What a teacher's layers compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compute {
    /// As the weights are.
    #[default]
    F32,
    /// Half of it.
    Bf16,
    /// On the CPU only.
    Int8,
}

impl Compute {
    const NAMES: [(&str, Self); 3] = [("f32", Self::F32), ("bf16", Self::Bf16), ("int8", Self::Int8)];

    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

impl FromStr for Compute {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let known = Self::NAMES.into_iter().find(|(name, _)| *name == text);
        known.map(|(_, compute)| compute).ok_or_else(|| format!("expected f32, bf16 or int8, found `{text}`"))
    }
}

/// What is kept besides all logits.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    /// The largest logits only.
    pub top_k: Option<usize>,
    /// Hidden states.
    pub hidden: Option<FloatType>,
    /// Which; none: all, the embeddings (0) with them.
    pub hidden_layers: Option<Vec<usize>>,
    /// Attention probabilities.
    pub attention: Option<FloatType>,
    /// Which, counted from 0; none: all.
    pub attention_layers: Option<Vec<usize>>,
}

impl Keep {
    fn stored(&self, config: &EncoderConfig) -> Stored {
        let all = |layers: &Option<Vec<usize>>, n: usize| layers.clone().unwrap_or_else(|| (0..n).collect());
        Stored {
            top_k: self.top_k,
            hidden: self.hidden.map(|dtype| Hidden {
                dtype,
                layers: all(&self.hidden_layers, config.layers + 1),
                width: config.hidden,
            }),
            attention: self.attention.map(|dtype| Attention {
                dtype,
                layers: all(&self.attention_layers, config.layers),
                heads: config.heads,
            }),
            ..Stored::default()
        }
    }
}

/// A fine-tuned classifier or tagger, its tokenizer, and what a store has to know of it.
pub struct AskedTeacher {
    model: Box<dyn Teacher>,
    tags_words: bool,
    pieces: WordPieces,
    about: About,
    device: Device,
}

impl std::fmt::Debug for AskedTeacher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AskedTeacher").field("about", &self.about).finish_non_exhaustive()
    }
}

impl AskedTeacher {
    /// Loads what `config.json` says that the files hold.
    ///
    /// # Errors
    /// If they do not fit, are not fine-tuned, or `max_len` is more than the model can read.
    pub fn load(
        files: &ModelFiles,
        max_len: Option<usize>,
        compute: Compute,
        keep: &Keep,
        device: &Device,
    ) -> Result<Self> {
        let json = read_json(&files.config)?;
        let architecture = json.pointer("/architectures/0").and_then(Value::as_str).unwrap_or_default();
        let tags_words = architecture.ends_with("ForTokenClassification");
        let kind = match FrozenConfig::of(files, &json)? {
            Some(config) => Kind::Frozen(config),
            None => Kind::Own(EncoderConfig::read(&files.config)?),
        };
        let (max_positions, vocabulary, stored) = match &kind {
            Kind::Own(config) => (config.max_positions, config.vocabulary, keep.stored(config)),
            Kind::Frozen(config) => (config.max_positions, config.vocabulary, config.stored(keep)?),
        };
        if let Some(max_len) = max_len.filter(|&max_len| max_len > max_positions) {
            bail!("--max-len: expected at most {max_positions}, the model's positions, found {max_len}");
        }
        let max_len = max_len.unwrap_or(MAX_LEN).min(max_positions);
        let pieces = WordPieces::from_file(&files.tokenizer)?;
        pieces.check_vocabulary(vocabulary)?;
        let wanted = Wanted { hidden: keep.hidden.is_some(), attention: keep.attention.is_some() };
        let model: Box<dyn Teacher> = match kind {
            Kind::Frozen(config) => config.load(files, compute, device)?,
            Kind::Own(_) if tags_words => {
                let tagger = TokenTagger::load_files(files, device)?.0.returning(wanted);
                let classes = tagger.classes().to_vec();
                match asked_in(compute, device)? {
                    In::Packed(precision) => match tagger.pack(precision) {
                        Ok(packed) => Box::new(Frozen::new(packed, classes)),
                        Err(error) => unpacked(tagger, classes, compute, error)?,
                    },
                    In::Layers(dtype) => Box::new(Frozen::new(tagger.computing_in(dtype), classes)),
                }
            }
            Kind::Own(_) => {
                let classifier = SequenceClassifier::load_files(files, device)?.0.returning(wanted);
                let classes = classifier.classes().to_vec();
                match asked_in(compute, device)? {
                    In::Packed(precision) => match classifier.pack(precision) {
                        Ok(packed) => Box::new(Frozen::new(packed, classes)),
                        Err(error) => unpacked(classifier, classes, compute, error)?,
                    },
                    In::Layers(dtype) => Box::new(Frozen::new(classifier.computing_in(dtype), classes)),
                }
            }
        };
        // The configuration decides outputs too: activations, pooling, names of classes.
        let digests = files.weights.iter().chain([&files.config]).map(digest::of_file);
        let about = About {
            model: files.id.clone(),
            revision: Some(files.revision.clone()),
            weights: digest::of_parts(digests.collect::<kd_data::Result<Vec<_>>>()?),
            tokenizer: pieces.digest().to_string(),
            max_len,
            compute: compute.name().to_string(),
            classes: model.classes().to_vec(),
            stored,
        };
        about.check()?;
        Ok(Self { model, tags_words, pieces, about, device: device.clone() })
    }

    /// What a store has to know of it.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Texts, pairs or sentences in the teacher's own pieces.
    ///
    /// # Errors
    /// If they are mixed, or words where the teacher labels texts, or texts where it labels words.
    pub fn encode(&self, examples: &[Content<'_>]) -> Result<Box<dyn Encode>> {
        let (mut texts, mut pairs, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for &example in examples {
            match example {
                Content::Text(text) => texts.push(text),
                Content::Pair(first, second) => pairs.push((first, second)),
                Content::Words(sentence) => words.push(sentence),
            }
        }
        let Self { pieces, device, about: About { model, max_len, .. }, .. } = self;
        let (expected, encoded): (_, Box<dyn Encode>) = match (texts.len(), pairs.len(), words.len()) {
            (n, 0, 0) if n > 0 => (false, Box::new(EncodedTexts::new(pieces, texts, *max_len, device)?)),
            (0, n, 0) if n > 0 => (false, Box::new(EncodedTexts::pairs(pieces, pairs, *max_len, device)?)),
            (0, 0, n) if n > 0 => (true, Box::new(EncodedWords::new(pieces, words, *max_len, device)?)),
            (texts, pairs, words) => {
                bail!("expected texts, pairs or sentences, found {texts} texts, {pairs} pairs and {words} sentences")
            }
        };
        if expected != self.tags_words {
            let name = |words: bool| if words { "sentences of words" } else { "texts" };
            bail!("{model}: expected {}, which it labels, found {}", name(self.tags_words), name(expected));
        }
        Ok(encoded)
    }

    /// What it says, detached.
    ///
    /// # Errors
    /// If it cannot read the tokens.
    pub fn ask(&self, tokens: &Tokens) -> candle_core::Result<Output> {
        self.model.teach(tokens)
    }
}

/// Whose layers a model is made of.
enum Kind {
    /// kd-teachers'.
    Own(EncoderConfig),
    /// Those of candle-transformers.
    Frozen(FrozenConfig),
}

/// How layers are run.
enum In {
    Packed(Precision),
    Layers(DType),
}

fn asked_in(compute: Compute, device: &Device) -> Result<In> {
    Ok(match (compute, device.is_cpu()) {
        (Compute::F32, true) => In::Packed(Precision::F32),
        (Compute::Bf16, true) => In::Packed(Precision::Bf16),
        (Compute::Int8, true) => In::Packed(Precision::Int8),
        (Compute::F32, false) => In::Layers(DType::F32),
        (Compute::Bf16, false) => In::Layers(DType::BF16),
        (Compute::Int8, false) => bail!("--compute: expected f32 or bf16 on a GPU, found int8"),
    })
}

/// A model whose family has no packed layers, in f32.
fn unpacked(
    model: impl Student + 'static,
    classes: Vec<String>,
    compute: Compute,
    error: candle_core::Error,
) -> Result<Box<dyn Teacher>> {
    if compute != Compute::F32 {
        return Err(error.into());
    }
    eprintln!("note: {error}; its trainable layers are asked instead, which is slower");
    Ok(Box::new(Frozen::new(model, classes)))
}

fn read_json(path: &Path) -> Result<Value> {
    let named = || path.display().to_string();
    serde_json::from_str(&std::fs::read_to_string(path).with_context(named)?).with_context(named)
}
