//! `Transformer`, `MultiHeadAttention` and `MLP`: a stack of layers of self-attention (Vaswani et al. 2017, §3).
//!
//! ```text
//! n = norm1(attention(h) + h)        h' = norm2(mlp(n) + n)
//! attention(h) = dropout(W_o softmax(q kᵀ / √d) v + b_o)   of heads of d values, [q; k; v] = W h + b
//! mlp(n) = dropout(W_2 gelu(W_1 n + b_1) + b_2)            4 times as wide inside, gelu by its hyperbolic tangent
//! ```
//!
//! The published block is that of GPT: `causal`, a word sees those before it, and sees padding. Here words see all words of the
//! text and no padding, unless `causal` is true; with `legacy_padding` both are as published where the file does not say
//! otherwise. Dropout is off in evaluation, where the published code left it on. Positions are not encoded here: an embedding
//! cluster or a recurrent layer does that.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::nn::{LayerNorm, Linear};
use kd_core::ops;
use serde::Deserialize;

use super::dropout::check_probability;
use super::{Block, BlockConfig, Shape, Site, Value, mask_or_ones};

/// Configuration of `MultiHeadAttention`: `(batch, len, width)` → the same.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultiHeadAttentionConfig {
    /// Number of heads; divides the width.
    pub n_head: usize,
    /// Whether scores are divided by the root of a head's width.
    pub scale: bool,
    /// Probability of dropping an attention probability, in `[0, 1)`.
    pub attn_dropout: f64,
    /// Probability of dropping a value of the output, in `[0, 1)`.
    pub resid_dropout: f64,
    /// Whether a word sees only itself and those before it; none is no, and yes with `legacy_padding`.
    pub causal: Option<bool>,
}

impl Default for MultiHeadAttentionConfig {
    fn default() -> Self {
        Self { n_head: 12, scale: true, attn_dropout: 0.1, resid_dropout: 0.1, causal: None }
    }
}

/// Configuration of `MLP`: `(.., width)` → the same.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MlpConfig {
    /// Probability of dropping a value of the output, in `[0, 1)`.
    pub dropout: f64,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self { dropout: 0.1 }
    }
}

/// Nothing: the layer norm of a `Transformer` has no settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Configuration of `Transformer`: `(batch, len, width)` → the same.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformerConfig {
    /// `MultiHeadAttention`.
    pub attention: String,
    /// Settings of the attention.
    pub attention_conf: MultiHeadAttentionConfig,
    /// `LayerNorm`.
    pub layernorm_1: String,
    /// Settings of the normalisation after attention.
    pub layernorm1_conf: NoConfig,
    /// `MLP`.
    pub mlp: String,
    /// Settings of what follows.
    pub mlp_conf: MlpConfig,
    /// `LayerNorm`.
    pub layernorm_2: String,
    /// Settings of the normalisation after that.
    pub layernorm2_conf: NoConfig,
    /// Number of layers, ≥ 1.
    pub n_layer: usize,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        let [attention, norm, mlp] = ["MultiHeadAttention", "LayerNorm", "MLP"].map(String::from);
        Self {
            attention,
            attention_conf: MultiHeadAttentionConfig::default(),
            layernorm_1: norm.clone(),
            layernorm1_conf: NoConfig {},
            mlp,
            mlp_conf: MlpConfig::default(),
            layernorm_2: norm,
            layernorm2_conf: NoConfig {},
            n_layer: 12,
        }
    }
}

impl BlockConfig for MultiHeadAttentionConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([3])?;
        let width = inputs[0].width()?;
        if self.n_head == 0 || width % self.n_head != 0 {
            return Err(format!("n_head: expected a number that divides the width of {width}, found {}", self.n_head));
        }
        check_probability("attn_dropout", self.attn_dropout)?;
        check_probability("resid_dropout", self.resid_dropout)?;
        Ok(inputs[0].clone())
    }

    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(MultiHeadAttention::new(self, &inputs[0], site, vb)?))
    }
}

impl BlockConfig for MlpConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        check_probability("dropout", self.dropout)?;
        inputs[0].width()?;
        Ok(inputs[0].clone())
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(Mlp::new(self, &inputs[0], vb)?))
    }
}

impl BlockConfig for TransformerConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], site: &Site) -> std::result::Result<Shape, String> {
        for (key, expected, found) in [
            ("attention", "MultiHeadAttention", &self.attention),
            ("layernorm_1", "LayerNorm", &self.layernorm_1),
            ("mlp", "MLP", &self.mlp),
            ("layernorm_2", "LayerNorm", &self.layernorm_2),
        ] {
            if found != expected {
                return Err(format!("{key}: expected `{expected}`, found `{found}`"));
            }
        }
        if self.n_layer == 0 {
            return Err("n_layer: expected at least 1, found 0".to_string());
        }
        let shape = self.attention_conf.infer(inputs, site).map_err(|error| format!("attention_conf.{error}"))?;
        self.mlp_conf.infer(&[shape], site).map_err(|error| format!("mlp_conf.{error}"))
    }

    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let width = inputs[0].width().map_err(candle_core::Error::msg)?;
        let layer = |idx: usize| {
            let vb = vb.pp(idx);
            Ok::<_, crate::Error>(Layer {
                attention: MultiHeadAttention::new(&self.attention_conf, &inputs[0], site, vb.pp("attention"))?,
                first: LayerNorm::new(width, EPS, vb.pp("layernorm_1"))?,
                mlp: Mlp::new(&self.mlp_conf, &inputs[0], vb.pp("mlp"))?,
                second: LayerNorm::new(width, EPS, vb.pp("layernorm_2"))?,
            })
        };
        Ok(Box::new(Transformer { layers: (0..self.n_layer).map(layer).collect::<crate::Result<Vec<_>>>()? }))
    }
}

/// 1e-5, that of the format's `LayerNorm`.
const EPS: f64 = 1e-5;

#[derive(Debug)]
struct Transformer {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    attention: MultiHeadAttention,
    first: LayerNorm,
    mlp: Mlp,
    second: LayerNorm,
}

impl Block for Transformer {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        let mut h = inputs[0].with_last(inputs[0].vectors()?);
        for (idx, layer) in (0u64..).zip(&self.layers) {
            let mode = mode.site(idx);
            let n = layer.first.forward(&(layer.attention.attend(&h, mode.site(0))? + &h.tensor)?)?;
            h = inputs[0].with_last(layer.second.forward(&(layer.mlp.map(&n, mode.site(1))? + &n)?)?);
        }
        Ok(h)
    }
}

/// | variable | shape |
/// |---|---|
/// | `c_attn.weight`, `.bias` | `(3 · width, width)` for queries, keys and values, one after another |
/// | `c_proj.weight`, `.bias` | `(width, width)` |
#[derive(Debug)]
struct MultiHeadAttention {
    of_all: Linear,
    output: Linear,
    heads: usize,
    scale: f64,
    dropouts: [f64; 2],
    causal: bool,
    legacy_padding: bool,
}

impl MultiHeadAttention {
    fn new(config: &MultiHeadAttentionConfig, input: &Shape, site: &Site, vb: VarBuilder<'_>) -> crate::Result<Self> {
        let width = input.width().map_err(candle_core::Error::msg)?;
        Ok(Self {
            of_all: Linear::new(width, 3 * width, vb.pp("c_attn"))?,
            output: Linear::new(width, width, vb.pp("c_proj"))?,
            heads: config.n_head,
            scale: if config.scale { 1.0 / ((width / config.n_head) as f64).sqrt() } else { 1.0 },
            dropouts: [config.attn_dropout, config.resid_dropout],
            causal: config.causal.unwrap_or(site.legacy_padding),
            legacy_padding: site.legacy_padding,
        })
    }

    fn attend(&self, input: &Value, mode: Mode) -> Result<Tensor> {
        let (batch, len, width) = input.tensor.dims3()?;
        let mask = input.mask.as_ref().filter(|_| !self.legacy_padding);
        let mask = mask_or_ones(mask, batch, len, &input.tensor)?;
        let all = self.of_all.forward(&input.tensor)?.reshape((batch, len, 3, self.heads, width / self.heads))?;
        let part = |at: usize| all.narrow(2, at, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let [query, key, value] = [part(0)?, part(1)?, part(2)?]; // (batch, heads, len, width / heads)
        let mut scores = query.matmul(&key.t()?.contiguous()?)?;
        if self.causal {
            scores = scores.broadcast_add(&later_words(len, &scores)?)?;
        }
        let probs = ops::masked_softmax(&scores, self.scale, &mask, self.dropouts[0], mode.site(0))?;
        let seen = probs.matmul(&value)?.transpose(1, 2)?.contiguous()?.reshape((batch, len, width))?;
        ops::dropout(&self.output.forward(&seen)?, self.dropouts[1], mode.site(1))
    }
}

/// Minus infinity where the key stands after the query, else 0; `(len, len)`.
fn later_words(len: usize, like: &Tensor) -> Result<Tensor> {
    let at = Tensor::arange(0u32, len as u32, like.device())?;
    let later = at.unsqueeze(0)?.broadcast_gt(&at.unsqueeze(1)?)?;
    let [hidden, seen] = [f32::NEG_INFINITY, 0.0].map(|value| Tensor::full(value, (len, len), like.device()));
    later.where_cond(&hidden?, &seen?)?.to_dtype(like.dtype())
}

impl Block for MultiHeadAttention {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        Ok(inputs[0].with_last(self.attend(&inputs[0].with_last(inputs[0].vectors()?), mode)?))
    }
}

/// | variable | shape |
/// |---|---|
/// | `c_fc.weight`, `.bias` | `(4 · width, width)` |
/// | `c_proj.weight`, `.bias` | `(width, 4 · width)` |
#[derive(Debug)]
struct Mlp {
    inner: Linear,
    output: Linear,
    dropout: f64,
}

impl Mlp {
    fn new(config: &MlpConfig, input: &Shape, vb: VarBuilder<'_>) -> crate::Result<Self> {
        let width = input.width().map_err(candle_core::Error::msg)?;
        let [inner, output] = [("c_fc", width, 4 * width), ("c_proj", 4 * width, width)]
            .map(|(name, from, to)| Linear::new(from, to, vb.pp(name)));
        Ok(Self { inner: inner?, output: output?, dropout: config.dropout })
    }

    fn map(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let inner = match self.inner.bias() {
            Some(bias) => ops::linear_activation(x, self.inner.weight(), bias, ops::Activation::GeluTanh)?,
            None => self.inner.forward(x)?.gelu()?,
        };
        ops::dropout(&self.output.forward(&inner)?, self.dropout, mode)
    }
}

impl Block for Mlp {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        Ok(inputs[0].with_last(self.map(&inputs[0].vectors()?, mode)?))
    }
}

#[cfg(test)]
mod tests;
