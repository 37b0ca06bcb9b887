//! A model's config.json, in the words of this crate.
//!
//! The file is somebody else's: keys that do not change the forward pass are ignored, both families' spellings of a
//! key are read, and a value that would change it and is not implemented is an error that names the key.
//!
//! | here               | BERT                           | DistilBERT            |
//! |--------------------|--------------------------------|-----------------------|
//! | `hidden`           | `hidden_size`                  | `dim`                 |
//! | `layers`           | `num_hidden_layers`            | `n_layers`            |
//! | `heads`            | `num_attention_heads`          | `n_heads`             |
//! | `intermediate`     | `intermediate_size`            | `hidden_dim`          |
//! | `max_positions`    | `max_position_embeddings`      | the same              |
//! | `segments`         | `type_vocab_size`              | none                  |
//! | `hidden_dropout`   | `hidden_dropout_prob`          | `dropout`             |
//! | `attention_dropout`| `attention_probs_dropout_prob` | `attention_dropout`   |
//! | `layer_norm_eps`   | `layer_norm_eps`               | always 1e-12          |

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// The families of encoders that are implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// BERT and what keeps its shape: MiniLM, E5, BGE and others.
    Bert,
    /// DistilBERT: no segments, no dropout after attention.
    DistilBert,
}

impl Family {
    /// The `model_type` of config.json, which is also the prefix of the tensors' names in a model with a head.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Bert => "bert",
            Family::DistilBert => "distilbert",
        }
    }
}

/// The shape of an encoder and the settings of its training.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// The family.
    pub family: Family,
    /// Number of word pieces.
    pub vocabulary: usize,
    /// Width of the hidden states.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads of a layer; divides `hidden`.
    pub heads: usize,
    /// Width between the two products of a feed-forward block.
    pub intermediate: usize,
    /// Tokens of the longest sequence.
    pub max_positions: usize,
    /// Number of segment ids; 0 in DistilBERT.
    pub segments: usize,
    /// Dropout probability of hidden states, in `[0, 1)`.
    pub hidden_dropout: f64,
    /// Dropout probability of attention probabilities, in `[0, 1)`.
    pub attention_dropout: f64,
    /// Dropout probability before the head, in `[0, 1)`; none: as `hidden_dropout`.
    pub classifier_dropout: Option<f64>,
    /// What layer norm adds to the variance.
    pub layer_norm_eps: f64,
    /// Standard deviation of random weights.
    pub initializer_range: f64,
    /// Names of the classes of the checkpoint's head.
    pub classes: Option<Vec<String>>,
}

impl EncoderConfig {
    /// The shape of `bert-base-uncased`: 12 layers of width 768, 110 M parameters with random weights.
    pub fn bert_base() -> Self {
        Self {
            family: Family::Bert,
            vocabulary: 30_522,
            hidden: 768,
            layers: 12,
            heads: 12,
            intermediate: 3072,
            max_positions: 512,
            segments: 2,
            hidden_dropout: 0.1,
            attention_dropout: 0.1,
            classifier_dropout: None,
            layer_norm_eps: 1e-12,
            initializer_range: 0.02,
            classes: None,
        }
    }

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
        let family = match object.get("model_type").and_then(Value::as_str) {
            Some("bert") => Family::Bert,
            Some("distilbert") => Family::DistilBert,
            Some(other) => return Err(Error::UnsupportedModel { path: path.into(), found: other.into() }),
            None => return Err(Error::config(path, "expected `model_type`, a text, found none")),
        };
        let bert = family == Family::Bert;
        for option in ["hidden_act", "activation"] {
            reader.only(option, &json!("gelu"))?;
        }
        reader.only("position_embedding_type", &json!("absolute"))?;
        for option in ["is_decoder", "add_cross_attention", "sinusoidal_pos_embds"] {
            reader.only(option, &json!(false))?;
        }
        let config = Self {
            family,
            vocabulary: reader.size(&["vocab_size"])?,
            hidden: reader.size(&["hidden_size", "dim"])?,
            layers: reader.size(&["num_hidden_layers", "n_layers"])?,
            heads: reader.size(&["num_attention_heads", "n_heads"])?,
            intermediate: reader.size(&["intermediate_size", "hidden_dim"])?,
            max_positions: reader.size(&["max_position_embeddings"])?,
            segments: if bert { reader.size(&["type_vocab_size"])? } else { 0 },
            hidden_dropout: reader.probability(&["hidden_dropout_prob", "dropout"])?.unwrap_or(0.1),
            attention_dropout: reader
                .probability(&["attention_probs_dropout_prob", "attention_dropout"])?
                .unwrap_or(0.1),
            classifier_dropout: reader.probability(&["classifier_dropout"])?,
            layer_norm_eps: if bert { reader.number(&["layer_norm_eps"])?.unwrap_or(1e-12) } else { 1e-12 },
            initializer_range: reader.number(&["initializer_range"])?.unwrap_or(0.02),
            classes: reader.classes()?,
        };
        if !config.hidden.is_multiple_of(config.heads) {
            let message = format!("the width {} is no multiple of the {} attention heads", config.hidden, config.heads);
            return Err(Error::config(path, message));
        }
        Ok(config)
    }

    /// A config.json that transformers reads too, of a model with a head over `classes`.
    pub fn to_json(&self, architecture: &str, classes: &[String]) -> Value {
        let id2label: Map<String, Value> =
            classes.iter().enumerate().map(|(idx, name)| (idx.to_string(), json!(name))).collect();
        let label2id: Map<String, Value> =
            classes.iter().enumerate().map(|(idx, name)| (name.clone(), json!(idx))).collect();
        let mut value = match self.family {
            Family::Bert => json!({
                "hidden_size": self.hidden,
                "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads,
                "intermediate_size": self.intermediate,
                "type_vocab_size": self.segments,
                "hidden_act": "gelu",
                "position_embedding_type": "absolute",
                "hidden_dropout_prob": self.hidden_dropout,
                "attention_probs_dropout_prob": self.attention_dropout,
                "layer_norm_eps": self.layer_norm_eps,
            }),
            Family::DistilBert => json!({
                "dim": self.hidden,
                "n_layers": self.layers,
                "n_heads": self.heads,
                "hidden_dim": self.intermediate,
                "activation": "gelu",
                "sinusoidal_pos_embds": false,
                "dropout": self.hidden_dropout,
                "attention_dropout": self.attention_dropout,
            }),
        };
        let shared = json!({
            "architectures": [architecture],
            "model_type": self.family.model_type(),
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.max_positions,
            "pad_token_id": 0,
            "initializer_range": self.initializer_range,
            "classifier_dropout": self.classifier_dropout,
            "id2label": id2label,
            "label2id": label2id,
        });
        if let (Value::Object(value), Value::Object(shared)) = (&mut value, shared) {
            value.extend(shared);
        }
        value
    }
}

/// Keys of a JSON object, with the file in every error.
struct Reader<'a> {
    object: &'a Map<String, Value>,
    path: &'a Path,
}

impl Reader<'_> {
    fn find(&self, names: &[&'static str]) -> Option<(&'static str, &Value)> {
        names.iter().find_map(|name| Some((*name, self.object.get(*name).filter(|value| !value.is_null())?)))
    }

    fn only(&self, option: &'static str, expected: &Value) -> Result<()> {
        match self.find(&[option]) {
            Some((_, found)) if found != expected => Err(Error::UnsupportedOption {
                path: self.path.into(),
                option,
                expected: expected.to_string(),
                found: found.to_string(),
            }),
            _ => Ok(()),
        }
    }

    fn size(&self, names: &[&'static str]) -> Result<usize> {
        let expected = |name: &str, found: &str| {
            Error::config(self.path, format!("`{name}`: expected a whole number from 1, found {found}"))
        };
        let (name, value) = self.find(names).ok_or_else(|| expected(&names.join("` or `"), "none"))?;
        match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
            Some(size) if size > 0 => Ok(size),
            _ => Err(expected(name, &value.to_string())),
        }
    }

    fn number(&self, names: &[&'static str]) -> Result<Option<f64>> {
        let Some((name, value)) = self.find(names) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number >= 0.0 => Ok(Some(number)),
            _ => Err(Error::config(self.path, format!("`{name}`: expected a number from 0, found {value}"))),
        }
    }

    fn probability(&self, names: &[&'static str]) -> Result<Option<f64>> {
        match self.number(names)? {
            Some(p) if p >= 1.0 => Err(Error::config(
                self.path,
                format!("`{}`: expected a probability below 1, found {p}", names.join("` or `")),
            )),
            p => Ok(p),
        }
    }

    /// The names of `id2label`, by id.
    fn classes(&self) -> Result<Option<Vec<String>>> {
        let Some((_, value)) = self.find(&["id2label"]) else { return Ok(None) };
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERT: &str = r#"{"model_type": "bert", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 40, "type_vocab_size": 2,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.2, "somebody_elses_key": [1]}"#;
    const DISTILBERT: &str = r#"{"model_type": "distilbert", "vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4,
        "hidden_dim": 64, "max_position_embeddings": 40, "activation": "gelu", "dropout": 0.3,
        "id2label": {"1": "I", "0": "O"}}"#;

    fn parse(text: &str) -> Result<EncoderConfig> {
        EncoderConfig::parse(text, Path::new("folder/config.json"))
    }

    #[test]
    fn both_spellings_are_read() {
        let (bert, distilbert) = (parse(BERT).unwrap(), parse(DISTILBERT).unwrap());
        for config in [&bert, &distilbert] {
            let sizes = (config.vocabulary, config.hidden, config.layers, config.heads, config.intermediate);
            assert_eq!((sizes, config.max_positions), ((100, 32, 2, 4, 64), 40));
            assert_eq!((config.layer_norm_eps, config.attention_dropout), (1e-12, 0.1));
        }
        assert_eq!((bert.segments, distilbert.segments), (2, 0));
        assert_eq!((bert.hidden_dropout, distilbert.hidden_dropout), (0.2, 0.3));
        assert_eq!(bert.classes, None);
        assert_eq!(distilbert.classes, Some(vec!["O".to_string(), "I".to_string()]));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in [BERT, DISTILBERT] {
            let classes = vec!["B".to_string(), "A".to_string()];
            let config = EncoderConfig { classes: Some(classes.clone()), ..parse(text).unwrap() };
            assert_eq!(parse(&config.to_json("X", &classes).to_string()).unwrap(), config);
        }
    }

    #[test]
    fn what_is_not_implemented_is_an_error_that_names_it() {
        let check = |text: &str, from: &str, to: &str, expected: &str| {
            assert!(text.contains(from), "{from}");
            let message = parse(&text.replace(from, to)).unwrap_err().to_string();
            assert!(message.starts_with("folder/config.json: ") && message.contains(expected), "{message}");
        };
        check(
            BERT,
            "\"bert\"",
            "\"roberta\"",
            "unsupported model_type `roberta`, expected one of `bert`, `distilbert`",
        );
        check(BERT, "\"gelu\"", "\"gelu_new\"", "unsupported `hidden_act`: expected \"gelu\", found \"gelu_new\"");
        check(DISTILBERT, "\"gelu\"", "\"relu\"", "unsupported `activation`: expected \"gelu\", found \"relu\"");
        let relative = r#""position_embedding_type": "relative_key", "hidden_act""#;
        check(
            BERT,
            "\"hidden_act\"",
            relative,
            "`position_embedding_type`: expected \"absolute\", found \"relative_key\"",
        );
        check(BERT, "\"hidden_size\": 32, ", "", "`hidden_size` or `dim`: expected a whole number from 1, found none");
        check(
            BERT,
            "\"hidden_size\": 32",
            "\"hidden_size\": 33",
            "the width 33 is no multiple of the 4 attention heads",
        );
        check(
            BERT,
            "\"vocab_size\": 100",
            "\"vocab_size\": -1",
            "`vocab_size`: expected a whole number from 1, found -1",
        );
        check(BERT, "0.2", "1.0", "expected a probability below 1, found 1");
        check(DISTILBERT, "\"1\": \"I\"", "\"2\": \"I\"", "`id2label`: expected an object with a name for each");
        check(BERT, "{\"model_type\"", "{model_type", "key must be a string at line 1 column 2");
    }
}
