//! A whole Transformer encoder layer in one op.
//!
//! ```text
//! a = LayerNorm(x + dropout(W_o · attention(W_q x, W_k x, W_v x) + b_o))
//! y = LayerNorm(a + dropout(W_2 · f(W_1 a + b_1) + b_2))
//! ```
//!
//! (Vaswani et al. 2017, with the norm behind the sum; Devlin et al. 2019, where `f` is the GELU.) The values and gradients are those of
//! [`linear`], [`attention()`], [`layer_norm_residual`] and [`linear_activation`] one after the other; what goes is
//! Candle's frame between them, which starts the gradient of every intermediate tensor and weight as zeros and adds to
//! it. Gradients of residual branches are added by the products that compute them, and what the forward kept is freed
//! as the backward goes: three projections, the attention's output, the product before the activation and the two sums
//! before the norms. The norms' outputs, the activation, the attention probabilities and all dropout masks are made again.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use kd_core::{model::Mode, ops::encoder_layer::{Affine, EncoderLayer, encoder_layer}, ops::Activation};
//! let affine = |out: usize, width: usize| -> candle_core::Result<Affine> {
//!     let (f32, cpu) = (DType::F32, &Device::Cpu);
//!     Ok(Affine { weight: Tensor::zeros((out, width), f32, cpu)?, bias: Tensor::zeros(out, f32, cpu)? })
//! };
//! let norm = || -> candle_core::Result<Affine> {
//!     let ones = Tensor::ones(2, DType::F32, &Device::Cpu)?;
//!     Ok(Affine { bias: ones.zeros_like()?, weight: ones })
//! };
//! let layer = EncoderLayer {
//!     query: affine(2, 2)?, key: affine(2, 2)?, value: affine(2, 2)?, output: affine(2, 2)?, attention_norm: norm()?,
//!     inner: affine(8, 2)?, outer: affine(2, 8)?, norm: norm()?,
//!     activation: Activation::Gelu, heads: 1, eps: 0.0, attention_dropout: 0.1, output_dropout: 0.1, hidden_dropout: 0.1,
//! };
//! // With all products zero, the layer normalises its input.
//! let x = Tensor::new(&[[[1f32, 5.], [4., 2.]]], &Device::Cpu)?;
//! let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
//! assert_eq!(encoder_layer(&x, &mask, &layer, Mode::Eval)?.to_vec3::<f32>()?, [[[-1., 1.], [1., -1.]]]);
//! # Ok::<(), candle_core::Error>(())
//! ```

pub(crate) mod kernel;

use std::any::Any;
use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::attention::{self, Kernel, attention};
use super::cpu::{self, Float, for_float};
use super::dropout::Mask;
use super::layer_norm::layer_norm_residual;
use super::linear::{Activation, linear, linear_activation};
use super::tie::Ties;
use crate::model::Mode;
use kernel::{Gradients, Kept, Layer, Settings, slot};

/// A weight and what is added behind it: of a linear map `(out, in)` and `(out,)`, of a norm `(width,)` both.
#[derive(Debug, Clone)]
pub struct Affine {
    /// The matrix of a linear map or the scale of a norm.
    pub weight: Tensor,
    /// The bias or the shift.
    pub bias: Tensor,
}

/// Weights and settings of a layer. The probabilities of dropout are in `[0, 1)` and count in training only.
#[derive(Debug, Clone)]
pub struct EncoderLayer {
    /// `W_q`, `(hidden, hidden)`.
    pub query: Affine,
    /// `W_k`, `(hidden, hidden)`.
    pub key: Affine,
    /// `W_v`, `(hidden, hidden)`.
    pub value: Affine,
    /// `W_o`, `(hidden, hidden)`.
    pub output: Affine,
    /// The norm behind attention, `(hidden,)`.
    pub attention_norm: Affine,
    /// `W_1`, `(intermediate, hidden)`.
    pub inner: Affine,
    /// The function between the two.
    pub activation: Activation,
    /// `W_2`, `(hidden, intermediate)`.
    pub outer: Affine,
    /// The norm at the end, `(hidden,)`.
    pub norm: Affine,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// What the norms add to the variance.
    pub eps: f64,
    /// Dropout of attention probabilities, at site 0 of the mode.
    pub attention_dropout: f64,
    /// Dropout behind `W_o`, at site 1.
    pub output_dropout: f64,
    /// Dropout behind `W_2`, at site 2.
    pub hidden_dropout: f64,
}

/// One post-norm encoder layer with a mask over the keys.
///
/// # Shapes
/// - `xs`: `(batch, len, hidden)`, `mask`: `(batch, len)` u8, 0 on padding
/// - returns `(batch, len, hidden)`, differentiable in `xs` and all weights; on padding it means nothing
///
/// With `xs` in half precision the weights may stay in `f32` (mixed precision): they are rounded where they are used, and
/// their gradients are `f32`.
///
/// # Errors
/// If shapes or dtypes do not fit, or `eps` or a probability is out of range.
pub fn encoder_layer(xs: &Tensor, mask: &Tensor, layer: &EncoderLayer, mode: Mode) -> Result<Tensor> {
    let intermediate = layer.check(xs, mask)?;
    #[cfg(feature = "cuda")]
    if super::cuda::has_norm(xs)? {
        let call = super::cuda::Call {
            mask,
            heads: layer.heads,
            intermediate,
            eps: layer.eps,
            activation: layer.activation,
            attention_dropout: Mask::new(layer.attention_dropout, mode.site(0))?,
            output_dropout: Mask::new(layer.output_dropout, mode.site(1))?,
            hidden_dropout: Mask::new(layer.hidden_dropout, mode.site(2))?,
        };
        return super::cuda::encoder_layer(xs, &layer.weights().map(Tensor::clone), &call);
    }
    if !cpu::has_kernel(xs) {
        return composed(xs, mask, layer, mode);
    }
    let (batch, len, hidden) = xs.dims3()?;
    let weights = layer.weights().into_iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
    let (ties, token) = Ties::new(&weights)?;
    let op = Op {
        settings: Settings {
            rows: batch * len,
            hidden,
            intermediate,
            eps: layer.eps,
            activation: layer.activation,
            attention: Kernel::new(layer.heads, mask, Mask::new(layer.attention_dropout, mode.site(0))?)?,
            output_dropout: Mask::new(layer.output_dropout, mode.site(1))?,
            hidden_dropout: Mask::new(layer.hidden_dropout, mode.site(2))?,
        },
        weights: weights.iter().map(Tensor::detach).collect(),
        ties,
        keep: xs.track_op() || token.track_op(),
        kept: Mutex::new(None),
    };
    xs.contiguous()?.apply_op2(&token, op)
}

/// The same as [`encoder_layer()`] from the other ops.
fn composed(xs: &Tensor, mask: &Tensor, layer: &EncoderLayer, mode: Mode) -> Result<Tensor> {
    let rounded = |weight: &Tensor| weight.to_dtype(xs.dtype());
    let project = |x: &Tensor, map: &Affine| linear(x, &rounded(&map.weight)?, Some(&rounded(&map.bias)?));
    let add_and_normalise = |x: &Tensor, residual: &Tensor, norm: &Affine, p: f64, mode: Mode| {
        layer_norm_residual(x, residual, &norm.weight, &norm.bias, layer.eps, p, mode)
    };
    let (query, key, value) = (project(xs, &layer.query)?, project(xs, &layer.key)?, project(xs, &layer.value)?);
    let mixed = attention(&query, &key, &value, layer.heads, mask, layer.attention_dropout, mode.site(0))?;
    let mixed = project(&mixed, &layer.output)?;
    let xs = add_and_normalise(&mixed, xs, &layer.attention_norm, layer.output_dropout, mode.site(1))?;
    let (weight, bias) = (rounded(&layer.inner.weight)?, rounded(&layer.inner.bias)?);
    let inner = linear_activation(&xs, &weight, &bias, layer.activation)?;
    add_and_normalise(&project(&inner, &layer.outer)?, &xs, &layer.norm, layer.hidden_dropout, mode.site(2))
}

impl EncoderLayer {
    /// The weights by [`slot`].
    fn weights(&self) -> [&Tensor; slot::COUNT] {
        let [q, k, v, o] = [&self.query, &self.key, &self.value, &self.output];
        let [attention_norm, inner, outer, norm] = [&self.attention_norm, &self.inner, &self.outer, &self.norm];
        [
            &q.weight,
            &q.bias,
            &k.weight,
            &k.bias,
            &v.weight,
            &v.bias,
            &o.weight,
            &o.bias,
            &attention_norm.weight,
            &attention_norm.bias,
            &inner.weight,
            &inner.bias,
            &outer.weight,
            &outer.bias,
            &norm.weight,
            &norm.bias,
        ]
    }

    /// Checks everything but the probabilities; returns the intermediate width.
    fn check(&self, xs: &Tensor, mask: &Tensor) -> Result<usize> {
        let (_, _, hidden) = xs.dims3()?;
        attention::check(xs, xs, xs, self.heads, mask)?;
        if !(self.eps >= 0.0 && self.eps.is_finite()) {
            bail!("encoder_layer: expected a finite eps >= 0, found {}", self.eps);
        }
        let (intermediate, _) = self.inner.weight.dims2()?;
        let (square, norm) = (vec![hidden, hidden], vec![hidden]);
        for (name, affine, expected) in [
            ("query", &self.query, &square),
            ("key", &self.key, &square),
            ("value", &self.value, &square),
            ("output", &self.output, &square),
            ("attention_norm", &self.attention_norm, &norm),
            ("inner", &self.inner, &vec![intermediate, hidden]),
            ("outer", &self.outer, &vec![hidden, intermediate]),
            ("norm", &self.norm, &norm),
        ] {
            for (part, tensor, expected) in
                [("weight", &affine.weight, &expected[..]), ("bias", &affine.bias, &expected[..1])]
            {
                let is_mixed = matches!(xs.dtype(), DType::BF16 | DType::F16) && tensor.dtype() == DType::F32;
                if tensor.dims() != expected || (tensor.dtype() != xs.dtype() && !is_mixed) {
                    bail!(
                        "encoder_layer: expected the {part} of `{name}` as {:?} {expected:?}, found {:?} {:?}",
                        xs.dtype(),
                        tensor.dtype(),
                        tensor.dims()
                    );
                }
            }
        }
        Ok(intermediate)
    }
}

struct Op {
    settings: Settings,
    /// By [`slot`].
    weights: Vec<Tensor>,
    ties: Ties,
    keep: bool,
    /// A [`Kept`] of the dtype. The first backward takes it; another one runs the forward again.
    kept: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Op {
    fn with_layer<T: Float, R>(&self, work: impl FnOnce(Layer<'_, T>) -> Result<R>) -> Result<R> {
        let weights = self.weights.iter().map(cpu::values::<T>).collect::<Result<Vec<_>>>()?;
        work(Layer { settings: &self.settings, weights: std::array::from_fn(|slot| &*weights[slot]) })
    }

    fn backward<T: Float>(&self, x: &Tensor, dy: &[T]) -> Result<Option<Tensor>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let kept = kept.and_then(|kept| kept.downcast::<Kept<T>>().ok());
        let values = cpu::values::<T>(x)?;
        self.with_layer(|layer| {
            let kept = match kept {
                Some(kept) => Some(*kept),
                None => layer.forward(&values, true).1,
            };
            let Some(kept) = kept else { bail!("encoder_layer: the forward kept nothing") };
            match layer.backward(&values, dy, kept, x.track_op(), self)? {
                Some(dx) => Ok(Some(cpu::tensor(dx, x.shape())?)),
                None => Ok(None),
            }
        })
    }
}

impl<T: Float> Gradients<T> for Op {
    fn wants(&self, slot: usize) -> bool {
        self.ties.wants(slot)
    }

    fn give(&self, slot: usize, gradient: Vec<T>) -> Result<()> {
        self.ties.give(slot, || cpu::tensor(gradient, self.weights[slot].shape()))
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "encoder-layer"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        for_float!(x.dtype(), T => {
            let x = cpu::slice::<T>(x, layout)?;
            let (y, kept) = self.with_layer::<T, _>(|layer| Ok(layer.forward(x, self.keep)))?;
            if let Some(kept) = kept {
                *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(kept));
            }
            Ok((cpu::storage(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, token: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let dx = for_float!(x.dtype(), T => self.backward::<T>(x, &cpu::values(&grad)?)?);
        Ok((dx, self.ties.token_gradient(token)?))
    }
}

#[cfg(test)]
mod tests;
