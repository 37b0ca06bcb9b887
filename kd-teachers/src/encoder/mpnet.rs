//! MPNet (Song et al. 2020): BERT's layers with a bias of relative positions in every attention.
//!
//! ```text
//! P_h = softmax(q_h k_hᵀ / √d + B_h),   B_h[i, j] = bias[bucket(j - i), h],   one table for all layers
//! ```
//!
//! Positions count from row 2 of their table, behind the padding's id 1; there are no segments. Distances are put into 32
//! buckets as in T5 (Raffel et al. 2020, section 2.1): half of them for keys behind the query, of each half 8 for the
//! distances 0 to 7 and 8 for logarithmically wider ranges up to 128, the last for all that are farther.
//!
//! The layers are composed of single ops, where those of [`super::bert`] are one: same kinds of results, slower.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use kd_core::batch::Sequence;
use kd_core::model::Mode;
use kd_core::ops;
use kd_core::ops::Activation;
use kd_core::ops::encoder_layer::{Affine, EncoderLayer};
use kd_core::ops::layer_norm::layer_norm_residual;
use kd_core::ops::packed::Precision;

use super::attend::{Attended, attend, split_heads};
use super::bert::{Embeddings, layer};
use super::map::{Map, copy_affine, rounded};
use super::packed::copy;
use super::{Encoded, Request, init};
use crate::config::EncoderConfig;

/// Number of buckets; what transformers' `MPNetEncoder.compute_position_bias` uses whatever config.json says.
const BUCKETS: usize = 32;
/// The distance from which on all are in the last bucket; the same method's default.
const MAX_DISTANCE: usize = 128;

/// Embeddings, layers, and the bias that they share.
#[derive(Debug, Clone)]
pub(super) struct Body {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    /// `(buckets, heads)`.
    bias: Tensor,
}

#[derive(Debug, Clone)]
struct Layer {
    query: Map,
    key: Map,
    value: Map,
    output: Map,
    attention_norm: Affine,
    inner: Map,
    activation: Activation,
    outer: Map,
    norm: Affine,
    heads: usize,
    eps: f64,
    attention_dropout: f64,
    hidden_dropout: f64,
}

impl Body {
    pub(super) fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        if config.relative_buckets != BUCKETS {
            bail!(
                "unsupported `relative_attention_num_buckets`: expected {BUCKETS}, found {}",
                config.relative_buckets
            );
        }
        let parent = vb.pp(config.family.layers());
        let bias = vb.pp("encoder.relative_attention_bias");
        Ok(Self {
            embeddings: Embeddings::new(config, vb)?,
            layers: (0..config.layers)
                .map(|idx| Ok(Layer::of(layer(config, &parent.pp(idx))?)))
                .collect::<Result<_>>()?,
            bias: bias.get_with_hints((BUCKETS, config.heads), "weight", init(config))?,
        })
    }

    /// A copy without variables whose linear maps are packed.
    pub(super) fn pack(&self, precision: Precision) -> Result<Self> {
        Ok(Self {
            embeddings: self.embeddings.copy()?,
            layers: self.layers.iter().map(|layer| layer.pack(precision)).collect::<Result<_>>()?,
            bias: copy(&self.bias)?,
        })
    }

    pub(super) fn encode(&self, sequence: &Sequence, request: &Request) -> Result<Encoded> {
        let Request { mode, wanted, .. } = *request;
        let embedded = self.embeddings.forward(sequence, mode.site(0))?;
        let dtype = embedded.dtype();
        let mut hidden = embedded.to_dtype(request.compute.unwrap_or(dtype))?;
        let bias = rounded(&self.position_bias(hidden.dim(1)?)?, &hidden)?;
        let mut encoded = Encoded { last: embedded, hidden: Vec::new(), attention: Vec::new() };
        if wanted.hidden {
            encoded.hidden.push(encoded.last.clone());
        }
        for (layer, site) in self.layers.iter().zip(1..) {
            let (output, probs) = layer.forward(&hidden, &bias, &sequence.mask, mode.site(site))?;
            hidden = output;
            if wanted.attention {
                encoded.attention.push(probs.to_dtype(dtype)?);
            }
            if wanted.hidden {
                encoded.hidden.push(hidden.to_dtype(dtype)?);
            }
        }
        encoded.last = hidden.to_dtype(dtype)?;
        Ok(encoded)
    }

    /// `B`, `(heads, len, len)`.
    fn position_bias(&self, len: usize) -> Result<Tensor> {
        let buckets: Vec<u32> =
            (0..len).flat_map(|query| (0..len).map(move |key| bucket(key as i64 - query as i64))).collect();
        let buckets = Tensor::from_vec(buckets, (len, len), self.bias.device())?;
        ops::embedding(&self.bias, &buckets)?.permute((2, 0, 1))?.contiguous()
    }
}

/// The bucket of a key `distance` tokens behind its query.
fn bucket(distance: i64) -> u32 {
    let half = BUCKETS / 2;
    let exact = half / 2;
    let (side, far) = (if distance > 0 { half } else { 0 }, distance.unsigned_abs() as usize);
    let within = if far < exact {
        far
    } else {
        // In f32, as transformers computes it: what is a whole number there is cut off at the same place.
        let share = (far as f32 / exact as f32).ln() / (MAX_DISTANCE as f32 / exact as f32).ln();
        (exact + (share * (half - exact) as f32) as usize).min(half - 1)
    };
    (side + within) as u32
}

impl Layer {
    fn of(layer: EncoderLayer) -> Self {
        Self {
            query: Map::Affine(layer.query),
            key: Map::Affine(layer.key),
            value: Map::Affine(layer.value),
            output: Map::Affine(layer.output),
            attention_norm: layer.attention_norm,
            inner: Map::Affine(layer.inner),
            activation: layer.activation,
            outer: Map::Affine(layer.outer),
            norm: layer.norm,
            heads: layer.heads,
            eps: layer.eps,
            attention_dropout: layer.attention_dropout,
            hidden_dropout: layer.hidden_dropout,
        }
    }

    fn pack(&self, precision: Precision) -> Result<Self> {
        Ok(Self {
            query: self.query.pack(precision, None)?,
            key: self.key.pack(precision, None)?,
            value: self.value.pack(precision, None)?,
            output: self.output.pack(precision, None)?,
            attention_norm: copy_affine(&self.attention_norm)?,
            inner: self.inner.pack(precision, Some(self.activation))?,
            outer: self.outer.pack(precision, None)?,
            norm: copy_affine(&self.norm)?,
            ..*self
        })
    }

    /// What the layer says, and its probabilities.
    fn forward(&self, xs: &Tensor, bias: &Tensor, mask: &Tensor, mode: Mode) -> Result<(Tensor, Tensor)> {
        let heads = |map: &Map| split_heads(&map.forward(xs)?, self.heads);
        let (query, key, value) = (heads(&self.query)?, heads(&self.key)?, heads(&self.value)?);
        let scale = 1.0 / (query.dim(3)? as f64).sqrt();
        let scores = (query.matmul(&key.t()?.contiguous()?)? * scale)?.broadcast_add(bias)?;
        let Attended { mixed, probs } = attend(&scores, &value, mask, self.attention_dropout, mode.site(0))?;
        let attended = self.output.forward(&mixed)?;
        let xs = self.add_and_normalise(&attended, xs, &self.attention_norm, mode.site(1))?;
        let outer = self.outer.forward(&self.inner.activated(&xs, self.activation)?)?;
        Ok((self.add_and_normalise(&outer, &xs, &self.norm, mode.site(2))?, probs))
    }

    fn add_and_normalise(&self, x: &Tensor, residual: &Tensor, norm: &Affine, mode: Mode) -> Result<Tensor> {
        let (weight, bias) = (rounded(&norm.weight, x)?, rounded(&norm.bias, x)?);
        layer_norm_residual(x, residual, &weight, &bias, self.eps, self.hidden_dropout, mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From transformers' `MPNetEncoder.relative_position_bucket`, for the distances of its argument.
    #[test]
    fn buckets_are_those_of_transformers() {
        let table = [
            (-600, 15),
            (-128, 15),
            (-127, 15),
            (-91, 15),
            (-90, 14),
            (-64, 14),
            (-63, 13),
            (-46, 13),
            (-45, 12),
            (-32, 12),
            (-31, 11),
            (-23, 11),
            (-22, 10),
            (-16, 10),
            (-15, 9),
            (-12, 9),
            (-11, 8),
            (-8, 8),
            (-7, 7),
            (-1, 1),
            (0, 0),
            (1, 17),
            (7, 23),
            (8, 24),
            (11, 24),
            (12, 25),
            (16, 26),
            (31, 27),
            (32, 28),
            (64, 30),
            (90, 30),
            (91, 31),
            (600, 31),
        ];
        for (distance, expected) in table {
            assert_eq!(bucket(distance), expected, "{distance}");
        }
    }
}
