//! From config.json.

use std::path::Path;

use kd_core::ops::Activation;
use serde_json::{Map, Value, json};

use super::{EncoderConfig, Family, ProblemType};
use crate::error::{Error, Result};

/// The activations and how config.json may call them; the first name is written.
pub(super) const ACTIVATIONS: [(Activation, &[&str]); 3] = [
    (Activation::Gelu, &["gelu"]),
    (Activation::GeluTanh, &["gelu_new", "gelu_pytorch_tanh"]),
    (Activation::Relu, &["relu"]),
];

/// The names of problem types.
pub(super) const PROBLEM_TYPES: [(ProblemType, &str); 3] = [
    (ProblemType::SingleLabel, "single_label_classification"),
    (ProblemType::MultiLabel, "multi_label_classification"),
    (ProblemType::Regression, "regression"),
];

impl EncoderConfig {
    /// Reads a config.json.
    ///
    /// # Errors
    /// If the file cannot be read, is of another `model_type`, lacks a size, or asks for something that is not implemented.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, &source))?;
        Self::parse(&text, path)
    }

    /// Reads the text of a config.json; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`EncoderConfig::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|source| Error::config(path, source.to_string()))?;
        let Value::Object(object) = value else {
            return Err(Error::config(path, "expected a JSON object"));
        };
        let reader = Reader { object: &object, path };
        let family = reader.family()?;
        reader.check_options(family)?;
        let (keys, base) = (family.keys(), Self::base(family));
        let padding_id = reader.id("pad_token_id")?.unwrap_or(family.padding_id());
        let first_position = match family {
            Family::MpNet => 2,
            _ if family.is_roberta() => padding_id as usize + 1,
            _ => 0,
        };
        let max_positions = match family {
            Family::XlNet => usize::MAX,
            _ => reader.size("max_position_embeddings")?,
        };
        let hidden = reader.size(keys.hidden)?;
        let embedding = match family {
            // 128 is transformers' default.
            Family::Albert | Family::Electra => Some(reader.maybe_size("embedding_size")?.unwrap_or(128)),
            _ => None,
        };
        let embedding = embedding.filter(|&width| width != hidden);
        let config = Self {
            family,
            vocabulary: reader.size("vocab_size")?,
            hidden,
            embedding,
            layers: reader.size(keys.layers)?,
            groups: match family {
                Family::Albert => reader.maybe_size("num_hidden_groups")?.unwrap_or(1),
                _ => 1,
            },
            heads: reader.size(keys.heads)?,
            intermediate: reader.size(keys.intermediate)?,
            activation: reader.one_of(keys.activation, &ACTIVATIONS)?.unwrap_or(base.activation),
            max_positions: match max_positions.checked_sub(first_position) {
                Some(positions) if positions > 0 => positions,
                _ => {
                    let message = format!(
                        "`max_position_embeddings`: expected more than {first_position}, the row of the first token, \
                         found {max_positions}"
                    );
                    return Err(Error::config(path, message));
                }
            },
            first_position,
            padding_id,
            segments: if family.has_segments() { reader.size("type_vocab_size")? } else { 0 },
            relative_buckets: reader.maybe_size("relative_attention_num_buckets")?.unwrap_or(base.relative_buckets),
            clamp_len: reader.clamp_len()?,
            hidden_dropout: reader.probability(keys.hidden_dropout)?.unwrap_or(base.hidden_dropout),
            attention_dropout: reader.probability(keys.attention_dropout)?.unwrap_or(base.attention_dropout),
            classifier_dropout: reader.probability(keys.classifier_dropout)?.or(base.classifier_dropout),
            summary_dropout: keys.summary_dropout.map(|key| reader.probability(key)).transpose()?.flatten(),
            layer_norm_eps: match family {
                Family::DistilBert => 1e-12,
                _ => reader.number("layer_norm_eps")?.unwrap_or(1e-12),
            },
            initializer_range: reader.number("initializer_range")?.unwrap_or(0.02),
            classes: reader.classes()?,
            problem_type: reader.one_of("problem_type", &PROBLEM_TYPES.map(|(kind, name)| (kind, [name])))?,
        };
        config.check(path, &reader)?;
        Ok(config)
    }

    fn check(&self, path: &Path, reader: &Reader<'_>) -> Result<()> {
        let Self { hidden, heads, layers, groups, .. } = *self;
        if !hidden.is_multiple_of(heads) {
            let message = format!("the width {hidden} is no multiple of the {heads} attention heads");
            return Err(Error::config(path, message));
        }
        if !layers.is_multiple_of(groups) {
            let message = format!("the {layers} layers are no multiple of the {groups} groups that share weights");
            return Err(Error::config(path, message));
        }
        if self.family == Family::XlNet {
            reader.only("d_head", &json!(hidden / heads))?;
        }
        Ok(())
    }
}

/// Keys of a JSON object, with the file in every error.
struct Reader<'a> {
    object: &'a Map<String, Value>,
    path: &'a Path,
}

impl Reader<'_> {
    fn find(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn family(&self) -> Result<Family> {
        match self.find("model_type").and_then(Value::as_str) {
            Some(found) => Family::ALL
                .into_iter()
                .find(|family| family.model_type() == found)
                .ok_or_else(|| Error::UnsupportedModel { path: self.path.into(), found: found.into() }),
            None => Err(Error::config(self.path, "expected `model_type`, a text, found none")),
        }
    }

    /// Options that change the forward pass and have one value that is implemented.
    fn check_options(&self, family: Family) -> Result<()> {
        self.only("position_embedding_type", &json!("absolute"))?;
        for option in ["is_decoder", "add_cross_attention", "sinusoidal_pos_embds"] {
            self.only(option, &json!(false))?;
        }
        match family {
            Family::Albert => self.only("inner_group_num", &json!(1))?,
            Family::XlNet => {
                self.only("attn_type", &json!("bi"))?;
                for option in ["bi_data", "same_length"] {
                    self.only(option, &json!(false))?;
                }
                for option in ["untie_r", "summary_use_proj"] {
                    self.only(option, &json!(true))?;
                }
                self.only("summary_type", &json!("last"))?;
                self.only("summary_activation", &json!("tanh"))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn only(&self, option: &'static str, expected: &Value) -> Result<()> {
        match self.find(option) {
            Some(found) if found != expected => Err(self.unsupported(option, expected.to_string(), found)),
            _ => Ok(()),
        }
    }

    fn unsupported(&self, option: &'static str, expected: String, found: &Value) -> Error {
        Error::UnsupportedOption { path: self.path.into(), option, expected, found: found.to_string() }
    }

    /// The one of `known` that has the name that the option has.
    fn one_of<T: Copy>(&self, option: &'static str, known: &[(T, impl AsRef<[&'static str]>)]) -> Result<Option<T>> {
        let Some(found) = self.find(option) else { return Ok(None) };
        let is_named = |names: &[&str]| names.iter().any(|name| found.as_str() == Some(*name));
        match known.iter().find(|(_, names)| is_named(names.as_ref())) {
            Some((one, _)) => Ok(Some(*one)),
            None => {
                let names: Vec<_> = known
                    .iter()
                    .flat_map(|(_, names)| names.as_ref().iter().map(|name| format!("\"{name}\"")))
                    .collect();
                Err(self.unsupported(option, format!("one of {}", names.join(", ")), found))
            }
        }
    }

    fn size(&self, name: &str) -> Result<usize> {
        self.maybe_size(name)?.ok_or_else(|| self.no_size(name, "none"))
    }

    fn maybe_size(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.find(name) else { return Ok(None) };
        match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
            Some(size) if size > 0 => Ok(Some(size)),
            _ => Err(self.no_size(name, &value.to_string())),
        }
    }

    fn no_size(&self, name: &str, found: &str) -> Error {
        Error::config(self.path, format!("`{name}`: expected a whole number from 1, found {found}"))
    }

    fn id(&self, name: &str) -> Result<Option<u32>> {
        let Some(value) = self.find(name) else { return Ok(None) };
        match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(Error::config(self.path, format!("`{name}`: expected a word piece's id, found {value}"))),
        }
    }

    /// -1 stands for none.
    fn clamp_len(&self) -> Result<Option<usize>> {
        match self.find("clamp_len").filter(|value| value.as_i64() != Some(-1)) {
            Some(_) => self.maybe_size("clamp_len"),
            None => Ok(None),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.find(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number >= 0.0 => Ok(Some(number)),
            _ => Err(Error::config(self.path, format!("`{name}`: expected a number from 0, found {value}"))),
        }
    }

    fn probability(&self, name: &str) -> Result<Option<f64>> {
        match self.number(name)? {
            Some(p) if p >= 1.0 => {
                Err(Error::config(self.path, format!("`{name}`: expected a probability below 1, found {p}")))
            }
            p => Ok(p),
        }
    }

    /// The names of `id2label`, by id; without it those that transformers gives as many classes as `num_labels` says.
    fn classes(&self) -> Result<Option<Vec<String>>> {
        let Some(value) = self.find("id2label") else {
            return Ok(self.maybe_size("num_labels")?.map(Self::default_classes));
        };
        let wrong = || {
            let message =
                format!("`id2label`: expected an object with a name for each of \"0\", \"1\", ..., found {value}");
            Error::config(self.path, message)
        };
        let names = value.as_object().ok_or_else(wrong)?;
        (0..names.len())
            .map(|idx| Ok(names.get(&idx.to_string()).and_then(Value::as_str).ok_or_else(wrong)?.to_string()))
            .collect::<Result<_>>()
            .map(Some)
    }

    fn default_classes(count: usize) -> Vec<String> {
        EncoderConfig::default_classes(count)
    }
}

impl EncoderConfig {
    /// What transformers calls classes that have no names: `LABEL_0`, `LABEL_1` and so on.
    pub fn default_classes(count: usize) -> Vec<String> {
        (0..count).map(|idx| format!("LABEL_{idx}")).collect()
    }
}
