//! A layer's linear map: its variables, or a packed copy of them.

use candle_core::{Result, Tensor};
use kd_core::ops;
use kd_core::ops::Activation;
use kd_core::ops::encoder_layer::Affine;
use kd_core::ops::packed::{PackedLinear, Precision};

use super::packed::copy;

/// From `(batch, len, in)` to `(batch, len, out)`.
#[derive(Debug, Clone)]
pub(super) enum Map {
    /// `x Wᵀ + b`, weight `(out, in)`.
    Affine(Affine),
    /// `x W`, weight `(in, heads, out / heads)`.
    IntoHeads(Tensor),
    /// `x Wᵀ`, weight `(out, heads, in / heads)`.
    FromHeads(Tensor),
    /// A copy without variables; an activation is in it.
    Packed(PackedLinear),
}

impl Map {
    /// In the dtype of `xs`, whatever that of the weights.
    pub(super) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        match self {
            Map::Affine(map) => ops::linear(xs, &rounded(&map.weight, xs)?, Some(&rounded(&map.bias, xs)?)),
            Map::IntoHeads(weight) => {
                let (batch, len, input) = xs.dims3()?;
                let weight = rounded(weight, xs)?.flatten_from(1)?; // (in, out)
                let output = weight.dim(1)?;
                xs.reshape((batch * len, input))?.matmul(&weight)?.reshape((batch, len, output))
            }
            Map::FromHeads(weight) => ops::linear(xs, &rounded(weight, xs)?.flatten_from(1)?, None),
            Map::Packed(map) => map.forward(xs),
        }
    }

    /// The map and a function behind it; a packed map has been given the function already.
    pub(super) fn activated(&self, xs: &Tensor, activation: Activation) -> Result<Tensor> {
        match self {
            Map::Affine(map) => {
                ops::linear_activation(xs, &rounded(&map.weight, xs)?, &rounded(&map.bias, xs)?, activation)
            }
            Map::Packed(map) => map.forward(xs),
            _ => candle_core::bail!("a map of heads has no activation"),
        }
    }

    /// A packed copy, with an activation if there is one.
    pub(super) fn pack(&self, precision: Precision, activation: Option<Activation>) -> Result<Self> {
        let packed = match self {
            Map::Affine(map) => PackedLinear::new(&map.weight, Some(&map.bias), precision)?,
            Map::IntoHeads(weight) => PackedLinear::new(&weight.flatten_from(1)?.t()?.contiguous()?, None, precision)?,
            Map::FromHeads(weight) => PackedLinear::new(&weight.flatten_from(1)?, None, precision)?,
            Map::Packed(map) => map.clone(),
        };
        Ok(Map::Packed(match activation {
            Some(activation) => packed.with_activation(activation.into()),
            None => packed,
        }))
    }
}

/// A weight in the dtype that the layers compute in.
pub(super) fn rounded(weight: &Tensor, xs: &Tensor) -> Result<Tensor> {
    weight.to_dtype(xs.dtype())
}

/// The same scale and shift without variables.
pub(super) fn copy_affine(affine: &Affine) -> Result<Affine> {
    Ok(Affine { weight: copy(&affine.weight)?, bias: copy(&affine.bias)? })
}
