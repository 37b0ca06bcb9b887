//! A model's config.json, in the words of this crate.
//!
//! The file is somebody else's: keys that do not change the forward pass are ignored, each family's spelling of a key is
//! read, and a value that would change it and is not implemented is an error that names the key.
//!
//! | here               | BERT and most others           | DistilBERT            | XLNet                  |
//! |--------------------|--------------------------------|-----------------------|------------------------|
//! | `hidden`           | `hidden_size`                  | `dim`                 | `d_model`              |
//! | `layers`           | `num_hidden_layers`            | `n_layers`            | `n_layer`              |
//! | `heads`            | `num_attention_heads`          | `n_heads`             | `n_head`               |
//! | `intermediate`     | `intermediate_size`            | `hidden_dim`          | `d_inner`              |
//! | `activation`       | `hidden_act`                   | `activation`          | `ff_activation`        |
//! | `max_positions`    | `max_position_embeddings`, less `first_position` | the same | none               |
//! | `segments`         | `type_vocab_size`; MPNet: none | none                  | none                   |
//! | `hidden_dropout`   | `hidden_dropout_prob`          | `dropout`             | `dropout`              |
//! | `attention_dropout`| `attention_probs_dropout_prob` | `attention_dropout`   | `dropout`              |
//! | `classifier_dropout` | the same; ALBERT: `classifier_dropout_prob` | the same | the same             |
//! | `summary_dropout`  | none                           | `seq_classif_dropout` | `summary_last_dropout` |
//! | `layer_norm_eps`   | `layer_norm_eps`               | always 1e-12          | `layer_norm_eps`       |
//!
//! ```
//! use std::path::Path;
//! use kd_teachers::config::{EncoderConfig, Family};
//! let text = EncoderConfig::base(Family::Roberta).to_json("RobertaModel", &[]).to_string();
//! let config = EncoderConfig::parse(&text, Path::new("config.json"))?;
//! assert_eq!((config.hidden, config.max_positions, config.first_position), (768, 512, 2)); // 514 rows
//! # Ok::<(), kd_teachers::Error>(())
//! ```

use kd_core::ops::Activation;

mod family;
mod read;
mod write;

pub use family::Family;

/// What the outputs of a sequence classifier mean, and with that the loss they are trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemType {
    /// One class per example: logits of a softmax ([`kd_core::losses::cross_entropy`]).
    SingleLabel,
    /// Any number of classes per example: each column is the logit of a class alone
    /// ([`kd_core::losses::binary_cross_entropy`]).
    MultiLabel,
    /// Columns are the numbers themselves ([`kd_core::losses::logit_mse`]).
    Regression,
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
    /// Width of the embeddings of ALBERT and ELECTRA; none: as `hidden`, which all others have.
    pub embedding: Option<usize>,
    /// Number of layers.
    pub layers: usize,
    /// ALBERT's groups of layers that share their weights; divides `layers`. 1 in all others, where it means nothing.
    pub groups: usize,
    /// Attention heads of a layer; divides `hidden`.
    pub heads: usize,
    /// Width between the two products of a feed-forward block.
    pub intermediate: usize,
    /// The function between them.
    pub activation: Activation,
    /// Tokens of the longest sequence; `usize::MAX` in XLNet, which has no table of positions.
    pub max_positions: usize,
    /// Row of the first token in the table of positions, which has `first_position + max_positions` rows: 0, in RoBERTa
    /// one more than `padding_id`, in MPNet 2.
    pub first_position: usize,
    /// Id of padding.
    pub padding_id: u32,
    /// Number of segment ids; 0 in DistilBERT and MPNet, which have none, and in XLNet, which compares them instead.
    pub segments: usize,
    /// MPNet's number of biases for relative positions, `relative_attention_num_buckets`.
    pub relative_buckets: usize,
    /// XLNet's largest distance between two tokens, `clamp_len`; larger ones count as it. None: no largest.
    pub clamp_len: Option<usize>,
    /// Dropout probability of hidden states, in `[0, 1)`.
    pub hidden_dropout: f64,
    /// Dropout probability of attention probabilities, in `[0, 1)`; XLNet has one probability for both.
    pub attention_dropout: f64,
    /// Dropout probability before the head, in `[0, 1)`; none: as `hidden_dropout`.
    pub classifier_dropout: Option<f64>,
    /// DistilBERT's and XLNet's dropout probability in their own sequence classifier's head, in `[0, 1)`; none: 0.2 and
    /// 0.1, as in transformers.
    pub summary_dropout: Option<f64>,
    /// What layer norm adds to the variance.
    pub layer_norm_eps: f64,
    /// Standard deviation of random weights.
    pub initializer_range: f64,
    /// Names of the classes of the checkpoint's head.
    pub classes: Option<Vec<String>>,
    /// What the outputs of the checkpoint's sequence classifier mean, if it says so.
    pub problem_type: Option<ProblemType>,
}

impl EncoderConfig {
    /// The shape of `bert-base-uncased`: 12 layers of width 768, 110 M parameters with random weights.
    pub fn bert_base() -> Self {
        Self::base(Family::Bert)
    }

    /// The shape of a family's first model of 768 wide hidden states: `bert-base-uncased`, `roberta-base`,
    /// `xlm-roberta-base`, `camembert-base`, `distilbert-base-uncased`, `albert-base-v2`,
    /// `google/electra-base-discriminator`, `microsoft/mpnet-base` and `xlnet-base-cased`; the numbers are those of their
    /// config.json.
    pub fn base(family: Family) -> Self {
        let bert = Self {
            family,
            vocabulary: 30_522,
            hidden: 768,
            embedding: None,
            layers: 12,
            groups: 1,
            heads: 12,
            intermediate: 3072,
            activation: Activation::Gelu,
            max_positions: 512,
            first_position: 0,
            padding_id: family.padding_id(),
            segments: if family.has_segments() { 2 } else { 0 },
            relative_buckets: 32,
            clamp_len: None,
            hidden_dropout: 0.1,
            attention_dropout: 0.1,
            classifier_dropout: None,
            summary_dropout: None,
            layer_norm_eps: 1e-12,
            initializer_range: 0.02,
            classes: None,
            problem_type: None,
        };
        let roberta = Self { first_position: 2, segments: 1, layer_norm_eps: 1e-5, ..bert.clone() };
        match family {
            Family::Bert => bert,
            Family::Roberta => Self { vocabulary: 50_265, ..roberta },
            Family::XlmRoberta => Self { vocabulary: 250_002, ..roberta },
            Family::Camembert => Self { vocabulary: 32_005, ..roberta },
            Family::DistilBert => Self { layers: 6, ..bert },
            Family::Albert => Self {
                vocabulary: 30_000,
                embedding: Some(128),
                activation: Activation::GeluTanh,
                hidden_dropout: 0.0,
                attention_dropout: 0.0,
                classifier_dropout: Some(0.1),
                ..bert
            },
            Family::Electra => bert,
            Family::MpNet => Self { vocabulary: 30_527, first_position: 2, layer_norm_eps: 1e-5, ..bert },
            Family::XlNet => Self { vocabulary: 32_000, max_positions: usize::MAX, ..bert },
        }
    }

    /// Width of the embeddings.
    pub fn embedding_width(&self) -> usize {
        self.embedding.unwrap_or(self.hidden)
    }
}

#[cfg(test)]
mod tests;
