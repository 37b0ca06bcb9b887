//! A function of each value, chosen by name, with what it learns.
//!
//! | kind | value | | kind | value |
//! |---|---|---|---|---|
//! | `Sigmoid` | `σ(x) = 1 / (1 + e^-x)` | | `Hardtanh` | `x` held in `[-1, 1]` |
//! | `Tanh` | `tanh x` | | `Softplus` | `ln(1 + e^x)` |
//! | `ReLU` | `max(x, 0)` | | `Softshrink` | `x` moved towards 0 by 0.5, 0 within |
//! | `PReLU` | `max(x, 0) + a min(x, 0)` | | `Softsign` | `x / (1 + \|x\|)` |
//! | `ReLU6` | `x` held in `[0, 6]` | | `Tanhshrink` | `x - tanh x` |
//! | `LeakyReLU` | `max(x, 0) + 0.01 min(x, 0)` | | `Softmin` | softmax of `-x` |
//! | `LogSigmoid` | `ln σ(x)` | | `Softmax` | [`ops::softmax`] |
//! | `ELU` | `x`, below 0 `e^x - 1` | | `Softmax2d` | softmax over axis 1 of four |
//! | `SELU` | `λ x`, below 0 `λ α (e^x - 1)` | | `LogSoftmax` | [`ops::log_softmax`] |
//! | `Threshold` | `x`, at or below 0 it is 0 | | | |
//!
//! Names and constants are those of PyTorch's modules made without arguments; `Threshold`, which PyTorch does not make without,
//! has the threshold and the value 0. The softmaxes of no named axis are over the last, where PyTorch takes the first of three.
//! `PReLU` (He et al. 2015, §2.1) learns one slope `a` for all values, from 0.25; the others have no variables.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use kd_core::nn::{Activation, ActivationKind};
//! use kd_core::variables::Variables;
//! let variables = Variables::new(1, DType::F32, &Device::Cpu);
//! let activation = Activation::new(ActivationKind::PReLU, variables.builder())?;
//! let y = activation.forward(&Tensor::new(&[-2f32, 3.], &Device::Cpu)?)?;
//! assert_eq!(y.to_vec1::<f32>()?, [-0.5, 3.]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};

use crate::ops;

/// Which function; in JSON its name as PyTorch spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the table of the module says what each is
pub enum ActivationKind {
    Sigmoid,
    Tanh,
    ReLU,
    PReLU,
    ReLU6,
    LeakyReLU,
    LogSigmoid,
    ELU,
    SELU,
    Threshold,
    Hardtanh,
    Softplus,
    Softshrink,
    Softsign,
    Tanhshrink,
    Softmin,
    Softmax,
    Softmax2d,
    LogSoftmax,
}

impl ActivationKind {
    /// All kinds, in the order of PyTorch's documentation.
    pub const ALL: [Self; 19] = [
        Self::Sigmoid,
        Self::Tanh,
        Self::ReLU,
        Self::PReLU,
        Self::ReLU6,
        Self::LeakyReLU,
        Self::LogSigmoid,
        Self::ELU,
        Self::SELU,
        Self::Threshold,
        Self::Hardtanh,
        Self::Softplus,
        Self::Softshrink,
        Self::Softsign,
        Self::Tanhshrink,
        Self::Softmin,
        Self::Softmax,
        Self::Softmax2d,
        Self::LogSoftmax,
    ];

    /// Number of trained values: 1 for `PReLU`, else 0.
    pub fn parameters(self) -> usize {
        usize::from(self == Self::PReLU)
    }
}

/// A function of each value (or, the softmaxes, of each row) with its variables.
///
/// | variable | shape | start |
/// |---|---|---|
/// | `weight` (`PReLU` only) | `(1,)` | 0.25 |
#[derive(Debug, Clone)]
pub struct Activation {
    kind: ActivationKind,
    slope: Option<Tensor>,
}

/// `λ` and `α` of the scaled exponential unit (Klambauer et al. 2017, §3.2).
const SELU: (f64, f64) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);

impl Activation {
    /// The function `kind`.
    ///
    /// # Errors
    /// If `vb` has a slope of another shape.
    pub fn new(kind: ActivationKind, vb: VarBuilder<'_>) -> Result<Self> {
        let slope = (kind == ActivationKind::PReLU).then(|| vb.get_with_hints(1, "weight", Init::Const(0.25)));
        Ok(Self { kind, slope: slope.transpose()? })
    }

    /// Which function it is.
    pub fn kind(&self) -> ActivationKind {
        self.kind
    }

    /// The function of `xs`: any shape → the same, differentiable.
    ///
    /// Where a function has a corner its slope is that of the left side, as PyTorch's.
    ///
    /// # Errors
    /// `Softmax2d` of other than four axes, a softmax of a scalar.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        use ActivationKind as Kind;
        match self.kind {
            Kind::Sigmoid => candle_nn::ops::sigmoid(xs),
            Kind::Tanh => xs.tanh(),
            Kind::ReLU | Kind::Threshold => positive(xs),
            Kind::PReLU => match &self.slope {
                Some(slope) => positive(xs)? + negative(xs)?.broadcast_mul(slope)?,
                None => bail!("PReLU has no slope"),
            },
            Kind::ReLU6 => held(xs, 0.0, 6.0),
            Kind::LeakyReLU => positive(xs)? + (negative(xs)? * 0.01)?,
            Kind::LogSigmoid => softplus(&xs.neg()?)?.neg(),
            Kind::ELU => positive(xs)? + (negative(xs)?.exp()? - 1.0)?,
            Kind::SELU => {
                let (scale, alpha) = SELU;
                (positive(xs)? * scale)? + ((negative(xs)?.exp()? - 1.0)? * (scale * alpha))?
            }
            Kind::Hardtanh => held(xs, -1.0, 1.0),
            Kind::Softplus => softplus(xs),
            Kind::Softshrink => positive(&(xs - 0.5)?)? - positive(&xs.affine(-1.0, -0.5)?)?,
            Kind::Softsign => xs / (positive(xs)? + negative(xs)?.neg()?)?.affine(1.0, 1.0)?,
            Kind::Tanhshrink => xs - xs.tanh()?,
            Kind::Softmin => ops::softmax(&xs.neg()?),
            Kind::Softmax => ops::softmax(xs),
            Kind::Softmax2d => match xs.rank() {
                4 => ops::softmax(&xs.transpose(1, 3)?)?.transpose(1, 3)?.contiguous(),
                _ => bail!("Softmax2d: expected the shape (batch, channels, height, width), found {:?}", xs.dims()),
            },
            Kind::LogSoftmax => ops::log_softmax(xs),
        }
    }
}

impl Module for Activation {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Activation::forward(self, xs)
    }
}

/// `max(x, 0)`, with slope 0 at 0, where Candle's has 1.
fn positive(xs: &Tensor) -> Result<Tensor> {
    xs.gt(0f64)?.where_cond(xs, &constant(xs, 0.0)?)
}

/// `min(x, 0)`, with slope 1 at 0.
fn negative(xs: &Tensor) -> Result<Tensor> {
    xs.gt(0f64)?.where_cond(&constant(xs, 0.0)?, xs)
}

/// `x` held in `[low, high]`, with slope 1 strictly between them.
fn held(xs: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    let above = xs.gt(low)?.where_cond(xs, &constant(xs, low)?)?;
    xs.lt(high)?.where_cond(&above, &constant(xs, high)?)
}

/// One value in the shape of `xs`, without its memory.
fn constant(xs: &Tensor, value: f64) -> Result<Tensor> {
    Tensor::new(value as f32, xs.device())?.to_dtype(xs.dtype())?.broadcast_as(xs.shape())
}

/// `ln(1 + e^x)` from the larger of `x` and 0, so that nothing overflows.
fn softplus(xs: &Tensor) -> Result<Tensor> {
    // A constant: the logarithm of the sum does not depend on it, and so has the right slope at 0 too.
    let larger = positive(&xs.detach())?;
    &larger + ((xs - &larger)?.exp()? + larger.neg()?.exp()?)?.log()?
}

#[cfg(test)]
mod tests;
