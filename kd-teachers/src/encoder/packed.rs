//! An encoder that is only asked: its linear layers packed once, in f32, bf16 or int8.

use candle_core::{Result, Tensor, bail};
use kd_core::batch::Sequence;
use kd_core::model::Mode;
use kd_core::nn::LayerNorm;
use kd_core::ops::attention;
use kd_core::ops::encoder_layer::{Affine, EncoderLayer};
use kd_core::ops::layer_norm::layer_norm_residual;
use kd_core::ops::packed::{Activation, PackedLinear, Precision, forward_all};

use super::Encoder;

/// An [`Encoder`] for inference, made by [`Encoder::pack`]: the same hidden states within the precision's rounding, without
/// dropout and without gradients.
///
/// Embeddings, attention and normalisation stay in f32; the linear layers are [`PackedLinear`]s.
#[derive(Debug, Clone)]
pub struct PackedEncoder {
    /// The encoder without its layers.
    embeddings: Encoder,
    layers: Vec<Layer>,
    precision: Precision,
}

#[derive(Debug, Clone)]
struct Layer {
    query: PackedLinear,
    key: PackedLinear,
    value: PackedLinear,
    output: PackedLinear,
    attention_norm: Affine,
    /// With the GELU.
    inner: PackedLinear,
    outer: PackedLinear,
    norm: Affine,
    heads: usize,
    eps: f64,
}

impl Encoder {
    /// A copy of the encoder as it is now, for inference; training the encoder on does not change it.
    ///
    /// A checkpoint in int8 ([`crate::int8`]) packed in int8 keeps the multiples that it was stored with.
    ///
    /// # Errors
    /// If a variable is not f32, or not finite in int8.
    pub fn pack(&self, precision: Precision) -> Result<PackedEncoder> {
        let pack = |map: &Affine| PackedLinear::new(&map.weight, Some(&map.bias), precision);
        let norm =
            |norm: &Affine| -> Result<Affine> { Ok(Affine { weight: copy(&norm.weight)?, bias: copy(&norm.bias)? }) };
        let layer = |layer: &EncoderLayer| -> Result<Layer> {
            Ok(Layer {
                query: pack(&layer.query)?,
                key: pack(&layer.key)?,
                value: pack(&layer.value)?,
                output: pack(&layer.output)?,
                attention_norm: norm(&layer.attention_norm)?,
                inner: pack(&layer.inner)?.with_activation(Activation::Gelu),
                outer: pack(&layer.outer)?,
                norm: norm(&layer.norm)?,
                heads: layer.heads,
                eps: layer.eps,
            })
        };
        let embeddings = Encoder {
            config: self.config.clone(),
            words: copy(&self.words)?,
            positions: copy(&self.positions)?,
            segments: self.segments.as_ref().map(copy).transpose()?,
            norm: LayerNorm::from_tensors(copy(self.norm.weight())?, copy(self.norm.bias())?, self.norm.eps()),
            layers: Vec::new(),
            compute: None,
        };
        Ok(PackedEncoder { embeddings, layers: self.layers.iter().map(layer).collect::<Result<_>>()?, precision })
    }
}

/// The values of a variable, in memory of their own and without a graph.
pub(crate) fn copy(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.copy()?.detach())
}

impl PackedEncoder {
    /// The shape that it was made with.
    pub fn config(&self) -> &crate::config::EncoderConfig {
        self.embeddings.config()
    }

    /// What its linear layers are packed in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The last hidden states, `(batch, len, hidden)`, as [`Encoder::forward`] without dropout.
    ///
    /// # Errors
    /// As [`Encoder::forward`]; and in [`Mode::Train`], because there is nothing to train.
    pub fn forward(&self, sequence: &Sequence, mode: Mode) -> Result<Tensor> {
        self.run(sequence, mode, &mut |_| {})
    }

    /// All hidden states, as [`Encoder::hidden_states`] without dropout.
    ///
    /// # Errors
    /// As [`PackedEncoder::forward`].
    pub fn hidden_states(&self, sequence: &Sequence, mode: Mode) -> Result<Vec<Tensor>> {
        let mut states = Vec::with_capacity(self.layers.len() + 1);
        self.run(sequence, mode, &mut |hidden| states.push(hidden.clone()))?;
        Ok(states)
    }

    fn run(&self, sequence: &Sequence, mode: Mode, each: &mut dyn FnMut(&Tensor)) -> Result<Tensor> {
        if mode != Mode::Eval {
            bail!("a packed encoder has no variables: train the encoder and pack it afterwards");
        }
        let mut hidden = self.embeddings.forward(sequence, mode)?;
        each(&hidden);
        for layer in &self.layers {
            hidden = layer.forward(&hidden, &sequence.mask)?;
            each(&hidden);
        }
        Ok(hidden)
    }
}

impl Layer {
    fn forward(&self, xs: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let [query, key, value] = forward_all([&self.query, &self.key, &self.value], xs)?;
        let mixed = attention(&query, &key, &value, self.heads, mask, 0.0, Mode::Eval)?;
        let xs = self.add_and_normalise(&self.output.forward(&mixed)?, xs, &self.attention_norm)?;
        self.add_and_normalise(&self.outer.forward(&self.inner.forward(&xs)?)?, &xs, &self.norm)
    }

    fn add_and_normalise(&self, x: &Tensor, residual: &Tensor, norm: &Affine) -> Result<Tensor> {
        layer_norm_residual(x, residual, &norm.weight, &norm.bias, self.eps, 0.0, Mode::Eval)
    }
}
