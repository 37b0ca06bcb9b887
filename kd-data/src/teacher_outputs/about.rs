//! Who was asked, and what was kept of the answer.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest;
use crate::error::{Error, Result};

/// Part of every key; a change of how outputs are made or stored changes it.
const FORMAT: &str = "teacher outputs 2";

/// A teacher and what is stored of it: everything its outputs depend on, but for the examples.
///
/// The [key](About::key) is made of all of it but `model` and `revision`, which are for people: the same weights under
/// another name are the same teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// A hub id, a folder or any other name.
    pub model: String,
    /// Revision on the hub.
    #[serde(default)]
    pub revision: Option<String>,
    /// Digest of the weights ([`crate::digest`]), or what else tells one version of the teacher from another.
    pub weights: String,
    /// Digest of the tokenizer; empty where there is none to know (an API).
    pub tokenizer: String,
    /// Longest sequence, in tokens; 0 where it is not known.
    pub max_len: usize,
    /// What it computed in: `f32`, `bf16`, `int8`.
    pub compute: String,
    /// Names of the classes, in the order of the logits' columns.
    pub classes: Vec<String>,
    /// What is kept.
    pub stored: Stored,
}

/// What is kept of a teacher's output. The default is all logits, in f32.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// How logits are kept; f32 unless they are to be small.
    pub logits: FloatType,
    /// Keep that many of the largest logits of a row, 1 to the number of classes, and the log of the summed
    /// exponentials of the others; none: all. See [`super::TeacherRows`] for what comes back.
    #[serde(default)]
    pub top_k: Option<usize>,
    /// Hidden states.
    #[serde(default)]
    pub hidden: Option<Hidden>,
    /// Attention probabilities.
    #[serde(default)]
    pub attention: Option<Attention>,
}

/// Which hidden states are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hidden {
    /// How they are kept.
    pub dtype: FloatType,
    /// Which of the teacher's: 0 is the embeddings, 1 the first layer's.
    pub layers: Vec<usize>,
    /// Values of a token.
    pub width: usize,
}

/// Which attention probabilities are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// How they are kept.
    pub dtype: FloatType,
    /// Which of the teacher's layers, counted from 0.
    pub layers: Vec<usize>,
    /// Heads of a layer.
    pub heads: usize,
}

/// How a number is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    /// 4 bytes, as it is.
    #[default]
    F32,
    /// 2 bytes: 11 significant bits, at most 65,504.
    F16,
}

impl About {
    /// A teacher of these classes of which only the logits are kept, known by its name and by `version`, which tells one of
    /// its versions from another; for a model that is not in Rust, an API for example.
    pub fn named(model: impl Into<String>, version: impl AsRef<str>, classes: Vec<String>) -> Self {
        let model = model.into();
        Self {
            revision: None,
            weights: digest::of_parts([model.as_str(), version.as_ref()]),
            model,
            tokenizer: String::new(),
            max_len: 0,
            compute: FloatType::F32.name().to_string(),
            classes,
            stored: Stored::default(),
        }
    }

    /// SHA-256 of everything that outputs depend on.
    pub fn key(&self) -> String {
        let Self { weights, tokenizer, max_len, compute, classes, stored, .. } = self;
        let rest = serde_json::json!([weights, tokenizer, max_len, compute, classes, stored]).to_string();
        digest::of_parts([FORMAT, &rest])
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// If there are no classes, one is named twice, or a number of [`Stored`] is out of its range.
    pub fn check(&self) -> Result<()> {
        let Self { classes, stored, .. } = self;
        let wrong = |what: &str, expected: &str, found: String| {
            Err(Error::argument(format!("teacher outputs: {what}"), expected, found))
        };
        if classes.is_empty() {
            return wrong("classes", "at least one", "none".to_string());
        }
        let mut seen = HashSet::new();
        if let Some(name) = classes.iter().find(|name| !seen.insert(name.as_str())) {
            return wrong("classes", "each name once", format!("`{name}` twice"));
        }
        if let Some(k) = stored.top_k.filter(|k| !(1..=classes.len()).contains(k)) {
            return wrong("top_k", &format!("1 to {}, the number of classes", classes.len()), k.to_string());
        }
        let hidden = stored.hidden.as_ref().map(|hidden| ("hidden", &hidden.layers, hidden.width));
        let attention = stored.attention.as_ref().map(|attention| ("attention", &attention.layers, attention.heads));
        for (what, layers, size) in [hidden, attention].into_iter().flatten() {
            if layers.is_empty() || size == 0 {
                return wrong(what, "at least one layer, and width or heads", format!("layers {layers:?} of {size}"));
            }
        }
        Ok(())
    }

    /// As it stands in files, with format and key.
    pub(super) fn to_json(&self) -> Result<Value> {
        let mut value = serde_json::to_value(self)
            .map_err(|cause| Error::argument("teacher outputs: about", "what JSON can hold", cause.to_string()))?;
        value["format"] = FORMAT.into();
        value["key"] = self.key().into();
        Ok(value)
    }

    /// Reads what [`About::to_json`] made; `path` is what errors call it.
    pub(super) fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
        let wrong = |found: String| Error::file(path, format!("a description of `{FORMAT}`"), found);
        let mut value: Value = serde_json::from_slice(bytes).map_err(|cause| wrong(cause.to_string()))?;
        let mut take = |name: &str| {
            let text = value.as_object_mut().and_then(|object| object.shift_remove(name)).unwrap_or(Value::Null);
            text.as_str().map(str::to_string).ok_or_else(|| wrong(format!("{name} {text}")))
        };
        let (format, key) = (take("format")?, take("key")?);
        if format != FORMAT {
            return Err(wrong(format!("the format `{format}`")));
        }
        let about: Self = serde_json::from_value(value).map_err(|cause| wrong(cause.to_string()))?;
        about.check()?;
        if about.key() != key {
            let (expected, found) = (about.key(), key);
            return Err(Error::Stale { path: path.to_path_buf(), expected, found });
        }
        Ok(about)
    }
}

impl Stored {
    /// Whether something is kept that has a length in tokens.
    pub(super) fn has_tokens(&self) -> bool {
        self.hidden.is_some() || self.attention.is_some()
    }
}

impl FloatType {
    /// `f32` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// Bytes of a number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

impl std::str::FromStr for FloatType {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        [Self::F32, Self::F16]
            .into_iter()
            .find(|dtype| dtype.name() == text)
            .ok_or_else(|| format!("expected f32 or f16, found `{text}`"))
    }
}
