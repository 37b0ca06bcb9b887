//! An encoder that is only asked: its linear layers packed once, in f32, bf16 or int8.

use candle_core::{Result, Tensor, bail};
use kd_core::batch::Sequence;
use kd_core::model::Mode;
use kd_core::nn::{LayerNorm, Linear};
use kd_core::ops::encoder_layer::{Affine, EncoderLayer};
use kd_core::ops::layer_norm::layer_norm_residual;
use kd_core::ops::packed::{PackedLinear, Precision, forward_all};
use kd_core::ops::{attention, attention_probs};

use super::bert::Embeddings;
use super::{Body, Encode, Encoded, Encoder, Wanted};
use crate::config::EncoderConfig;

/// An [`Encoder`] for inference, made by [`Encoder::pack`]: the same hidden states within the precision's rounding, without
/// dropout and without gradients.
///
/// Embeddings, attention and normalisation stay in f32; the linear layers are [`PackedLinear`]s.
#[derive(Debug, Clone)]
pub struct PackedEncoder {
    config: EncoderConfig,
    embeddings: Embeddings,
    /// Those that have weights of their own.
    layers: Vec<Layer>,
    /// How many times in a row each of them is used.
    repeats: usize,
    precision: Precision,
}

#[derive(Debug, Clone)]
struct Layer {
    query: PackedLinear,
    key: PackedLinear,
    value: PackedLinear,
    output: PackedLinear,
    attention_norm: Affine,
    /// With the activation.
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
    /// If a variable is not f32, or not finite in int8; and of a family that is not shaped as BERT.
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
                inner: pack(&layer.inner)?.with_activation(layer.activation.into()),
                outer: pack(&layer.outer)?,
                norm: norm(&layer.norm)?,
                heads: layer.heads,
                eps: layer.eps,
            })
        };
        let Body::Bert(body) = &self.body;
        let embeddings = Embeddings {
            words: copy(&body.embeddings.words)?,
            positions: copy(&body.embeddings.positions)?,
            segments: body.embeddings.segments.as_ref().map(copy).transpose()?,
            norm: {
                let norm = &body.embeddings.norm;
                LayerNorm::from_tensors(copy(norm.weight())?, copy(norm.bias())?, norm.eps())
            },
            projection: body.embeddings.projection.as_ref().map(copy_linear).transpose()?,
            ..body.embeddings
        };
        Ok(PackedEncoder {
            config: self.config.clone(),
            embeddings,
            layers: body.layers.iter().map(layer).collect::<Result<_>>()?,
            repeats: body.repeats,
            precision,
        })
    }
}

/// The values of a variable, in memory of their own and without a graph.
pub(crate) fn copy(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.copy()?.detach())
}

/// The same layer without variables.
pub(crate) fn copy_linear(linear: &Linear) -> Result<Linear> {
    Ok(Linear::from_tensors(copy(linear.weight())?, linear.bias().map(copy).transpose()?))
}

impl PackedEncoder {
    /// The shape that it was made with.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
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
        Ok(self.encode(sequence, mode, Wanted::default())?.last)
    }

    /// All hidden states, as [`Encoder::hidden_states`] without dropout.
    ///
    /// # Errors
    /// As [`PackedEncoder::forward`].
    pub fn hidden_states(&self, sequence: &Sequence, mode: Mode) -> Result<Vec<Tensor>> {
        Ok(self.encode(sequence, mode, Wanted { hidden: true, attention: false })?.hidden)
    }

    /// The last hidden states and what else is `wanted`, as [`Encoder::encode`] without dropout.
    ///
    /// # Errors
    /// As [`PackedEncoder::forward`].
    pub fn encode(&self, sequence: &Sequence, mode: Mode, wanted: Wanted) -> Result<Encoded> {
        if mode != Mode::Eval {
            bail!("a packed encoder has no variables: train the encoder and pack it afterwards");
        }
        let embedded = self.embeddings.forward(sequence, mode)?;
        let mut encoded = Encoded { last: embedded, hidden: Vec::new(), attention: Vec::new() };
        if wanted.hidden {
            encoded.hidden.push(encoded.last.clone());
        }
        for layer in self.layers.iter().flat_map(|layer| std::iter::repeat_n(layer, self.repeats)) {
            let attention = wanted.attention.then_some(&mut encoded.attention);
            encoded.last = layer.forward(&encoded.last, &sequence.mask, attention)?;
            if wanted.hidden {
                encoded.hidden.push(encoded.last.clone());
            }
        }
        Ok(encoded)
    }
}

impl Encode for PackedEncoder {
    fn encode(&self, sequence: &Sequence, mode: Mode, wanted: Wanted) -> Result<Encoded> {
        PackedEncoder::encode(self, sequence, mode, wanted)
    }

    fn config(&self) -> &EncoderConfig {
        PackedEncoder::config(self)
    }
}

impl Layer {
    fn forward(&self, xs: &Tensor, mask: &Tensor, probs: Option<&mut Vec<Tensor>>) -> Result<Tensor> {
        let [query, key, value] = forward_all([&self.query, &self.key, &self.value], xs)?;
        if let Some(probs) = probs {
            probs.push(attention_probs(&query, &key, self.heads, mask)?);
        }
        let mixed = attention(&query, &key, &value, self.heads, mask, 0.0, Mode::Eval)?;
        let xs = self.add_and_normalise(&self.output.forward(&mixed)?, xs, &self.attention_norm)?;
        self.add_and_normalise(&self.outer.forward(&self.inner.forward(&xs)?)?, &xs, &self.norm)
    }

    fn add_and_normalise(&self, x: &Tensor, residual: &Tensor, norm: &Affine) -> Result<Tensor> {
        layer_norm_residual(x, residual, &norm.weight, &norm.bias, self.eps, 0.0, Mode::Eval)
    }
}
