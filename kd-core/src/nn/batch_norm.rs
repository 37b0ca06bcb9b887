//! A batch normalisation layer.

use candle_core::{DType, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};

use crate::model::Mode;

/// Normalises each of the last dimension's values over all positions of the batch, then scales and shifts it (Ioffe and
/// Szegedy 2015, Algorithms 1 and 2).
///
/// ```text
/// training:    y = γ · (x - μ) / √(σ² + ε) + β              μ, σ² of the batch's positions, σ² divided by their number n
///              m ← 0.9 m + 0.1 μ,  v ← 0.9 v + 0.1 σ² n / (n - 1)
/// evaluation:  y = γ · (x - m) / √(v + ε) + β
/// ```
///
/// | variable | shape | start | |
/// |---|---|---|---|
/// | `weight` (γ) | `(width,)` | 1 | trained |
/// | `bias` (β) | `(width,)` | 0 | trained |
/// | `running_mean` (m) | `(width,)` | 0 | a [statistic](crate::variables::is_statistic) |
/// | `running_var` (v) | `(width,)` | 1 | a statistic |
///
/// As PyTorch's `BatchNorm1d` with its defaults, but for two things. Padding does not count: a mask says which positions are
/// in the statistics. And a batch of one position, which has no variance, is normalised as in evaluation and leaves the
/// running statistics as they are, where PyTorch fails.
///
/// The forward pass writes the two statistics in training, in place, and so is no pure function. They are functions of the
/// batches seen: a checkpoint holds them, and a run that goes on from it ends in the same bytes. A batch whose mean or
/// variance is not finite does not enter.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

/// 1e-5, the `eps` of PyTorch's `BatchNorm1d`.
const EPS: f64 = 1e-5;
/// 0.1, its `momentum`: the weight of the newest batch in the running statistics.
const MOMENTUM: f64 = 0.1;

impl BatchNorm {
    /// A layer over `width` values.
    ///
    /// # Errors
    /// If `vb` has variables of other shapes.
    pub fn new(width: usize, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints(width, "weight", Init::Const(1.0))?,
            bias: vb.get_with_hints(width, "bias", Init::Const(0.0))?,
            running_mean: vb.get_with_hints(width, "running_mean", Init::Const(0.0))?,
            running_var: vb.get_with_hints(width, "running_var", Init::Const(1.0))?,
        })
    }

    /// `(.., width)` → the same shape. `mask`, u8 of the shape without its last dimension, is 0 where a position does
    /// not count; what stands there is normalised like the rest, and no gradient flows from it to the statistics.
    ///
    /// # Errors
    /// If the last dimension is not `width`, or the mask has another shape.
    pub fn forward(&self, xs: &Tensor, mask: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        let width = self.weight.dim(0)?;
        let Some((&last, positions)) = xs.dims().split_last() else {
            bail!("batch norm needs a dimension, found none")
        };
        if last != width {
            bail!("expected a last dimension of {width}, found {:?}", xs.dims());
        }
        if let Some(mask) = mask
            && mask.dims() != positions
        {
            bail!("expected a mask of shape {positions:?}, found {:?}", mask.dims());
        }
        let rows = xs.contiguous()?.reshape(((), width))?;
        let (mean, var) = match mode {
            Mode::Eval => (self.running_mean.detach(), self.running_var.detach()),
            Mode::Train { .. } => self.observe(&rows, mask)?,
        };
        let scale = (self.weight.broadcast_div(&(var + EPS)?.sqrt()?))?;
        rows.broadcast_sub(&mean)?.broadcast_mul(&scale)?.broadcast_add(&self.bias)?.reshape(xs.shape())
    }

    /// Mean and variance of the rows that count, after the running ones have moved towards them.
    fn observe(&self, rows: &Tensor, mask: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (count, _) = rows.dims2()?;
        let (mean, var, count) = match mask {
            None => {
                let mean = rows.mean(0)?;
                let var = rows.broadcast_sub(&mean)?.sqr()?.mean(0)?;
                (mean, var, Tensor::new(count as f64, rows.device())?.to_dtype(rows.dtype())?)
            }
            Some(mask) => {
                let counts = mask.ne(0u8)?.reshape((count, 1))?;
                let is_counted = counts.broadcast_as(rows.shape())?;
                let zeros = rows.zeros_like()?;
                let count = counts.to_dtype(DType::F32)?.sum_all()?.to_dtype(rows.dtype())?;
                let divisor = count.maximum(1.0)?;
                let mean = is_counted.where_cond(rows, &zeros)?.sum(0)?.broadcast_div(&divisor)?;
                let deviations = is_counted.where_cond(&rows.broadcast_sub(&mean)?, &zeros)?;
                (mean, deviations.sqr()?.sum(0)?.broadcast_div(&divisor)?, count)
            }
        };
        // Whether there is a variance at all, and how its estimate is freed of its bias.
        let has_variance = count.gt(1.0)?.broadcast_as(mean.shape())?;
        let unbiased = count.div(&(&count - 1.0)?.maximum(1.0)?)?;
        let (running_mean, running_var) = (self.running_mean.copy()?.detach(), self.running_var.copy()?.detach());
        let observed =
            [(&self.running_mean, mean.detach()), (&self.running_var, var.detach().broadcast_mul(&unbiased)?)];
        let is_usable = (has_variance.to_dtype(DType::U8)? * is_finite(&mean)?)?.mul(&is_finite(&var)?)?;
        for (running, observed) in observed {
            let moved = ((running.detach() * (1.0 - MOMENTUM))? + (observed * MOMENTUM)?)?;
            running.slice_set(&is_usable.where_cond(&moved, &running.copy()?.detach())?.contiguous()?, 0, 0)?;
        }
        Ok((has_variance.where_cond(&mean, &running_mean)?, has_variance.where_cond(&var, &running_var)?))
    }
}

/// 1 where a value is neither NaN nor infinite, u8.
fn is_finite(xs: &Tensor) -> Result<Tensor> {
    (xs.detach() * 0.0)?.eq(0.0)
}
