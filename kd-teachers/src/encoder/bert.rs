//! The encoders that are shaped as BERT: all but MPNet and XLNet.
//!
//! ```text
//! x = dropout(LayerNorm(word[id] + position[first + idx] (+ segment[segment id])))
//! x = W x + b                                     ALBERT, and ELECTRA where the widths differ
//! per layer:  a = LayerNorm(x + dropout(W_o · attention(W_q x, W_k x, W_v x)))
//!             x = LayerNorm(a + dropout(W_2 · f(W_1 a)))
//! ```
//!
//! | family     | `first`        | segments | projection | dropout behind `W_o` | behind `W_2` | layers' weights |
//! |------------|----------------|----------|------------|----------------------|--------------|-----------------|
//! | BERT       | 0              | yes      | no         | yes                  | yes          | their own       |
//! | RoBERTa    | padding id + 1 | yes      | no         | yes                  | yes          | their own       |
//! | DistilBERT | 0              | no       | no         | no                   | yes          | their own       |
//! | ALBERT     | 0              | yes      | yes        | yes                  | no           | a group's       |
//! | ELECTRA    | 0              | yes      | if wider   | yes                  | yes          | their own       |

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use kd_core::batch::Sequence;
use kd_core::model::Mode;
use kd_core::nn::{LayerNorm, Linear};
use kd_core::ops;
use kd_core::ops::encoder_layer::{Affine, EncoderLayer};

use super::{Encoded, Request, dense, init, names};
use crate::config::{EncoderConfig, Family};

/// Embeddings and layers.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) embeddings: Embeddings,
    /// The layers that have weights of their own: one a layer, or one a group.
    pub(super) layers: Vec<EncoderLayer>,
    /// How many times in a row each of them is used.
    pub(super) repeats: usize,
}

/// What stands below the layers.
#[derive(Debug, Clone)]
pub(super) struct Embeddings {
    pub(super) words: Tensor,
    pub(super) positions: Tensor,
    pub(super) segments: Option<Tensor>,
    pub(super) norm: LayerNorm,
    pub(super) projection: Option<Linear>,
    pub(super) first_position: usize,
    pub(super) dropout: f64,
}

impl Body {
    pub(super) fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let parent = vb.pp(config.family.layers());
        let (own, repeats) = match config.family {
            Family::Albert => (config.groups, config.layers / config.groups),
            _ => (config.layers, 1),
        };
        Ok(Self {
            embeddings: Embeddings::new(config, vb)?,
            layers: (0..own).map(|idx| layer(config, &parent.pp(idx))).collect::<Result<_>>()?,
            repeats,
        })
    }

    pub(super) fn encode(&self, sequence: &Sequence, request: &Request) -> Result<Encoded> {
        let Request { mode, wanted, .. } = *request;
        let embedded = self.embeddings.forward(sequence, mode.site(0))?;
        let dtype = embedded.dtype();
        let mut hidden = embedded.to_dtype(request.compute.unwrap_or(dtype))?;
        let mut encoded = Encoded { last: embedded, hidden: Vec::new(), attention: Vec::new() };
        if wanted.hidden {
            encoded.hidden.push(encoded.last.clone());
        }
        for (layer, site) in self.layers.iter().flat_map(|layer| std::iter::repeat_n(layer, self.repeats)).zip(1..) {
            if wanted.attention {
                encoded.attention.push(attention_probs(&hidden, &sequence.mask, layer)?.to_dtype(dtype)?);
            }
            hidden = ops::encoder_layer(&hidden, &sequence.mask, layer, mode.site(site))?;
            if wanted.hidden {
                encoded.hidden.push(hidden.to_dtype(dtype)?);
            }
        }
        encoded.last = hidden.to_dtype(dtype)?;
        Ok(encoded)
    }
}

/// The probabilities that the layer's attention of `hidden` comes to, `(batch, heads, len, len)`.
fn attention_probs(hidden: &Tensor, mask: &Tensor, layer: &EncoderLayer) -> Result<Tensor> {
    let project = |map: &Affine| -> Result<Tensor> {
        let rounded = |weight: &Tensor| weight.to_dtype(hidden.dtype());
        ops::linear(hidden, &rounded(&map.weight)?, Some(&rounded(&map.bias)?))
    };
    ops::attention_probs(&project(&layer.query)?, &project(&layer.key)?, layer.heads, mask)
}

impl Embeddings {
    fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let (tables, width) = (vb.pp("embeddings"), config.embedding_width());
        let table = |rows: usize, name: &str| tables.pp(name).get_with_hints((rows, width), "weight", init(config));
        let projection = match names::projection(config.family) {
            Some(name) if width != config.hidden || config.family == Family::Albert => {
                Some(dense(config, width, config.hidden, vb.pp(name))?)
            }
            _ if width != config.hidden => {
                let family = config.family.model_type();
                bail!("{family} has embeddings as wide as its hidden states, {}, found {width}", config.hidden)
            }
            _ => None,
        };
        Ok(Self {
            words: table(config.vocabulary, "word_embeddings")?,
            positions: table(config.first_position + config.max_positions, "position_embeddings")?,
            segments: match config.segments {
                0 => None,
                segments => Some(table(segments, "token_type_embeddings")?),
            },
            norm: LayerNorm::new(width, config.layer_norm_eps, tables.pp("LayerNorm"))?,
            projection,
            first_position: config.first_position,
            dropout: config.hidden_dropout,
        })
    }

    /// `(batch, len, hidden)`.
    pub(super) fn forward(&self, sequence: &Sequence, mode: Mode) -> Result<Tensor> {
        let (_batch, len) = sequence.ids.dims2()?;
        let max_positions = self.positions.dim(0)? - self.first_position;
        if len > max_positions {
            bail!("a sequence has {len} tokens, the encoder has {max_positions} positions");
        }
        let words = ops::embedding(&self.words, &sequence.ids)?; // (batch, len, width)
        let positions = self.positions.narrow(0, self.first_position, len)?; // (len, width)
        let sum = match (&self.segments, &sequence.segments) {
            (None, _) => words.broadcast_add(&positions)?,
            (Some(table), None) => words.broadcast_add(&positions.broadcast_add(&table.narrow(0, 0, 1)?)?)?,
            (Some(table), Some(ids)) => (words + ops::embedding(table, ids)?)?.broadcast_add(&positions)?,
        };
        let normed = ops::dropout(&self.norm.forward(&sum)?, self.dropout, mode)?;
        match &self.projection {
            Some(projection) => projection.forward(&normed),
            None => Ok(normed),
        }
    }
}

/// The variables of a layer, below `vb`.
fn layer(config: &EncoderConfig, vb: &VarBuilder) -> Result<EncoderLayer> {
    let (names, hidden, intermediate) = (names::layer(config.family), config.hidden, config.intermediate);
    let affine = |name: &str, weight: (&[usize], Init), bias: usize| -> Result<Affine> {
        let vb = vb.pp(name);
        Ok(Affine {
            weight: vb.get_with_hints(weight.0, "weight", weight.1)?,
            bias: vb.get_with_hints(bias, "bias", Init::Const(0.0))?,
        })
    };
    let map = |name: &str, input: usize, output: usize| affine(name, (&[output, input], init(config)), output);
    let norm = |name: &str| affine(name, (&[hidden], Init::Const(1.0)), hidden);
    Ok(EncoderLayer {
        query: map(names.query, hidden, hidden)?,
        key: map(names.key, hidden, hidden)?,
        value: map(names.value, hidden, hidden)?,
        output: map(names.output, hidden, hidden)?,
        attention_norm: norm(names.attention_norm)?,
        inner: map(names.inner, hidden, intermediate)?,
        activation: config.activation,
        outer: map(names.outer, intermediate, hidden)?,
        norm: norm(names.norm)?,
        heads: config.heads,
        eps: config.layer_norm_eps,
        attention_dropout: config.attention_dropout,
        output_dropout: if config.family == Family::DistilBert { 0.0 } else { config.hidden_dropout },
        hidden_dropout: if config.family == Family::Albert { 0.0 } else { config.hidden_dropout },
    })
}
