//! XLNet's content stream (Yang et al. 2019): attention by content, by distance and by segment.
//!
//! ```text
//! x = dropout(word[id])
//! per layer:  S[i, j] = ((q_i + u) · k_j  +  (q_i + v) · r_(i-j)  +  (q_i + w) · s[segment_i ≠ segment_j]) / √d
//!             a = LayerNorm(x + dropout(W_o · (dropout(softmax(S)) v)))
//!             x = LayerNorm(a + dropout(W_2 · dropout(f(W_1 a))))
//! last = dropout(x)
//! ```
//!
//! with `u`, `v`, `w` the variables `r_w_bias`, `r_r_bias`, `r_s_bias`, `s` `seg_embed`, and `r_n` the layer's map of the
//! sinusoids of distance `n` (Dai et al. 2019, section 3.3; Yang et al. 2019, section 2.4 and 2.5). Attention looks at the whole
//! sequence, without the memory of sequences before it; the query stream of pretraining is left out, and with it `mask_emb`.
//! What is equal for all keys of a query changes no probability, so only the difference of the two rows of `s` is computed
//! with. Without segments the third term is left out.
//!
//! Weights are stored as transformers stores them, `(hidden, heads, hidden / heads)`. The layers are composed of single ops,
//! where those of [`super::bert`] are one: same kinds of results, slower.

use candle_core::{D, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kd_core::batch::Sequence;
use kd_core::model::Mode;
use kd_core::ops;
use kd_core::ops::Activation;
use kd_core::ops::encoder_layer::Affine;
use kd_core::ops::layer_norm::layer_norm_residual;
use kd_core::ops::packed::Precision;

use super::attend::{Attended, attend, split_heads};
use super::map::{Map, copy_affine, rounded};
use super::packed::copy;
use super::{Encoded, Request, init};
use crate::config::EncoderConfig;

/// Embeddings and layers.
#[derive(Debug, Clone)]
pub(super) struct Body {
    words: Tensor,
    layers: Vec<Layer>,
    clamp_len: Option<usize>,
    dropout: f64,
}

/// Each bias is `(heads, hidden / heads)`.
#[derive(Debug, Clone)]
struct Layer {
    query: Map,
    key: Map,
    value: Map,
    output: Map,
    distance: Map,
    content_bias: Tensor,
    distance_bias: Tensor,
    segment_bias: Tensor,
    /// `(2, heads, hidden / heads)`: the same segment, and another.
    segments: Tensor,
    attention_norm: Affine,
    inner: Map,
    activation: Activation,
    outer: Map,
    norm: Affine,
    eps: f64,
    dropout: f64,
}

/// What all layers read besides the hidden states.
struct Surroundings<'a> {
    mask: &'a Tensor,
    /// Sinusoids of the distances `len, len - 1, .., 1 - len`, `(1 or batch, 2 · len, hidden)`.
    distances: Tensor,
    /// 1 where query and key are in different segments, `(batch, 1, len, len)`.
    differ: Option<Tensor>,
}

impl Body {
    pub(super) fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let (table, parent) = (vb.pp("word_embedding"), vb.pp(config.family.layers()));
        Ok(Self {
            words: table.get_with_hints((config.vocabulary, config.hidden), "weight", init(config))?,
            layers: (0..config.layers).map(|idx| Layer::new(config, &parent.pp(idx))).collect::<Result<_>>()?,
            clamp_len: config.clamp_len,
            dropout: config.hidden_dropout,
        })
    }

    /// A copy without variables whose linear maps are packed, but for that of the distances, which stays in f32.
    pub(super) fn pack(&self, precision: Precision) -> Result<Self> {
        let layers = self.layers.iter().map(|layer| layer.pack(precision)).collect::<Result<_>>()?;
        Ok(Self { words: copy(&self.words)?, layers, ..*self })
    }

    pub(super) fn encode(&self, sequence: &Sequence, request: &Request) -> Result<Encoded> {
        let Request { mode, wanted, .. } = *request;
        let words = ops::embedding(&self.words, &sequence.ids)?;
        let embedded = ops::dropout(&words, self.dropout, mode.site(0))?;
        let dtype = embedded.dtype();
        let mut hidden = embedded.to_dtype(request.compute.unwrap_or(dtype))?;
        let surroundings = self.surroundings(sequence, &hidden, mode.site(1))?;
        let mut encoded = Encoded { last: embedded, hidden: Vec::new(), attention: Vec::new() };
        if wanted.hidden {
            encoded.hidden.push(encoded.last.clone());
        }
        for (layer, site) in self.layers.iter().zip(3..) {
            let (output, probs) = layer.forward(&hidden, &surroundings, mode.site(site))?;
            hidden = output;
            if wanted.attention {
                encoded.attention.push(probs.to_dtype(dtype)?);
            }
            if wanted.hidden {
                encoded.hidden.push(hidden.to_dtype(dtype)?);
            }
        }
        encoded.last = ops::dropout(&hidden.to_dtype(dtype)?, self.dropout, mode.site(2))?;
        Ok(encoded)
    }

    fn surroundings<'a>(&self, sequence: &'a Sequence, hidden: &Tensor, mode: Mode) -> Result<Surroundings<'a>> {
        let (batch, len, width) = hidden.dims3()?;
        let farthest = self.clamp_len.map_or(f32::INFINITY, |len| len as f32);
        // In f32, as transformers computes it: sin and cos of large angles depend on their rounding.
        let frequencies: Vec<f32> =
            (0..width).step_by(2).map(|idx| 1.0 / 10_000f32.powf(idx as f32 / width as f32)).collect();
        let mut sinusoids = Vec::with_capacity(2 * len * width);
        for position in 0..2 * len {
            let distance = (len as f32 - position as f32).clamp(-farthest, farthest);
            sinusoids.extend(frequencies.iter().map(|frequency| (distance * frequency).sin()));
            sinusoids.extend(frequencies.iter().map(|frequency| (distance * frequency).cos()));
        }
        let sinusoids = Tensor::from_vec(sinusoids, (1, 2 * len, 2 * frequencies.len()), hidden.device())?;
        let sinusoids = sinusoids.to_dtype(hidden.dtype())?;
        // Each example drops sinusoids of its own.
        let distances = match mode {
            Mode::Train { .. } if self.dropout > 0.0 => {
                let repeated = sinusoids.broadcast_as((batch, 2 * len, 2 * frequencies.len()))?.contiguous()?;
                ops::dropout(&repeated, self.dropout, mode)?
            }
            _ => sinusoids,
        };
        let differ = match &sequence.segments {
            Some(segments) => {
                let (of_query, of_key) = (segments.unsqueeze(2)?, segments.unsqueeze(1)?);
                Some(of_query.broadcast_ne(&of_key)?.to_dtype(hidden.dtype())?.unsqueeze(1)?)
            }
            None => None,
        };
        Ok(Surroundings { mask: &sequence.mask, distances, differ })
    }
}

impl Layer {
    /// The variables of a layer, below `vb`.
    fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let (hidden, heads, intermediate) = (config.hidden, config.heads, config.intermediate);
        let width = hidden / heads;
        let attention = vb.pp("rel_attn");
        let map = |name: &str| attention.get_with_hints((hidden, heads, width), name, init(config));
        let bias = |name: &str| attention.get_with_hints((heads, width), name, init(config));
        let norm = |vb: VarBuilder| -> Result<Affine> {
            Ok(Affine {
                weight: vb.get_with_hints(hidden, "weight", Init::Const(1.0))?,
                bias: vb.get_with_hints(hidden, "bias", Init::Const(0.0))?,
            })
        };
        let linear = |name: &str, input: usize, output: usize| -> Result<Map> {
            let vb = vb.pp("ff").pp(name);
            Ok(Map::Affine(Affine {
                weight: vb.get_with_hints((output, input), "weight", init(config))?,
                bias: vb.get_with_hints(output, "bias", Init::Const(0.0))?,
            }))
        };
        Ok(Self {
            query: Map::IntoHeads(map("q")?),
            key: Map::IntoHeads(map("k")?),
            value: Map::IntoHeads(map("v")?),
            output: Map::FromHeads(map("o")?),
            distance: Map::IntoHeads(map("r")?),
            content_bias: bias("r_w_bias")?,
            distance_bias: bias("r_r_bias")?,
            segment_bias: bias("r_s_bias")?,
            segments: attention.get_with_hints((2, heads, width), "seg_embed", init(config))?,
            attention_norm: norm(attention.pp("layer_norm"))?,
            inner: linear("layer_1", hidden, intermediate)?,
            activation: config.activation,
            outer: linear("layer_2", intermediate, hidden)?,
            norm: norm(vb.pp("ff").pp("layer_norm"))?,
            eps: config.layer_norm_eps,
            dropout: config.hidden_dropout,
        })
    }

    fn pack(&self, precision: Precision) -> Result<Self> {
        Ok(Self {
            query: self.query.pack(precision, None)?,
            key: self.key.pack(precision, None)?,
            value: self.value.pack(precision, None)?,
            output: self.output.pack(precision, None)?,
            distance: self.distance.pack(Precision::F32, None)?,
            content_bias: copy(&self.content_bias)?,
            distance_bias: copy(&self.distance_bias)?,
            segment_bias: copy(&self.segment_bias)?,
            segments: copy(&self.segments)?,
            attention_norm: copy_affine(&self.attention_norm)?,
            inner: self.inner.pack(precision, Some(self.activation))?,
            outer: self.outer.pack(precision, None)?,
            norm: copy_affine(&self.norm)?,
            ..*self
        })
    }

    /// What the layer says, and its probabilities.
    fn forward(&self, xs: &Tensor, around: &Surroundings, mode: Mode) -> Result<(Tensor, Tensor)> {
        let (heads, width) = self.content_bias.dims2()?;
        let into_heads = |map: &Map| split_heads(&map.forward(xs)?, heads);
        let (query, key, value) = (into_heads(&self.query)?, into_heads(&self.key)?, into_heads(&self.value)?);
        let shifted = |bias: &Tensor| query.broadcast_add(&rounded(bias, xs)?.reshape((heads, 1, width))?);
        let by_content = shifted(&self.content_bias)?.matmul(&key.t()?.contiguous()?)?; // (batch, heads, len, len)
        let by_distance = self.by_distance(&shifted(&self.distance_bias)?, &around.distances)?;
        let mut scores = (by_content + by_distance)?;
        if let Some(differ) = &around.differ {
            let difference = (self.segments.get(1)? - self.segments.get(0)?)?; // (heads, width)
            let difference = rounded(&difference, xs)?.reshape((1, heads, 1, width))?;
            let other = shifted(&self.segment_bias)?.broadcast_mul(&difference)?.sum_keepdim(D::Minus1)?;
            scores = (scores + other.broadcast_mul(differ)?)?;
        }
        let scores = (scores * (1.0 / (width as f64).sqrt()))?;
        let Attended { mixed, probs } = attend(&scores, &value, around.mask, self.dropout, mode.site(0))?;
        let attended = self.output.forward(&mixed)?;
        let xs = self.add_and_normalise(&attended, xs, &self.attention_norm, mode.site(1))?;
        let inner = ops::dropout(&self.inner.activated(&xs, self.activation)?, self.dropout, mode.site(2))?;
        let outer = self.outer.forward(&inner)?;
        Ok((self.add_and_normalise(&outer, &xs, &self.norm, mode.site(3))?, probs))
    }

    /// `query_i · r_(i-j)`, `(batch, heads, len, len)`; `query` `(batch, heads, len, width)`.
    fn by_distance(&self, query: &Tensor, distances: &Tensor) -> Result<Tensor> {
        let (batch, heads, len, width) = query.dims4()?;
        let keys = split_heads(&self.distance.forward(distances)?, heads)?.transpose(2, 3)?.contiguous()?;
        let all = if keys.dim(0)? == batch {
            query.matmul(&keys)? // (batch, heads, len, 2 · len)
        } else {
            // All examples have the same keys: one product per head.
            let by_head = query.transpose(0, 1)?.contiguous()?.reshape((heads, batch * len, width))?;
            by_head.matmul(&keys.squeeze(0)?)?.reshape((heads, batch, len, 2 * len))?.transpose(0, 1)?.contiguous()?
        };
        // Column p is the distance len - p, and (i, j) wants len - (i - j). Read as rows of 2 · len - 1 values from the
        // len-th value on, row i begins len - i columns later than before.
        let shifted = all.reshape((batch, heads, 2 * len, len))?.narrow(2, 1, 2 * len - 1)?.contiguous()?;
        shifted.reshape((batch, heads, len, 2 * len - 1))?.narrow(3, 0, len)?.contiguous()
    }

    fn add_and_normalise(&self, x: &Tensor, residual: &Tensor, norm: &Affine, mode: Mode) -> Result<Tensor> {
        let (weight, bias) = (rounded(&norm.weight, x)?, rounded(&norm.bias, x)?);
        layer_norm_residual(x, residual, &weight, &bias, self.eps, self.dropout, mode)
    }
}
