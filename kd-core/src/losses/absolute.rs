//! Differences of numbers where a large one counts once: absolute, and rounded off at 0.

use candle_core::{D, Result, Tensor};

use super::mean;
use super::preconditions::{number, pair, wide};

/// `|prediction - target|`, mean over rows and columns, in the targets' unit.
///
/// # Shapes
/// - both: `(rows, columns)` float; the targets are detached
/// - returns a scalar of the dtype of `predictions`; its slope where both are equal is 0
///
/// # Errors
/// If shapes or dtypes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let predictions = Tensor::new(&[[0f64], [3.]], &Device::Cpu)?;
/// let targets = Tensor::new(&[[1f64], [1.]], &Device::Cpu)?;
/// assert_eq!(kd_core::losses::absolute_error(&predictions, &targets)?.to_scalar::<f64>()?, 1.5);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn absolute_error(predictions: &Tensor, targets: &Tensor) -> Result<Tensor> {
    mean(&absolute_error_rows(predictions, targets)?)
}

/// [`absolute_error`] of each row: the mean over its columns, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn absolute_error_rows(predictions: &Tensor, targets: &Tensor) -> Result<Tensor> {
    pair("absolute_error", predictions, targets)?;
    let difference = (wide(predictions)? - wide(&targets.detach())?)?;
    let absolute = (&difference * sign(&difference)?)?;
    absolute.mean(D::Minus1)?.to_dtype(predictions.dtype())
}

/// Absolute errors, squared ones below `beta`, mean over rows and columns (Girshick 2015, Eq. 3, there with `beta` 1).
///
/// ```text
/// d = |prediction - target|        d² / (2 beta) where d < beta, else d - beta / 2
/// ```
///
/// `torch.nn.functional.smooth_l1_loss`; `beta` 0 is [`absolute_error`].
///
/// # Shapes
/// - both: `(rows, columns)` float; the targets are detached
/// - returns a scalar of the dtype of `predictions`
///
/// # Errors
/// If shapes or dtypes differ, there are no rows, or `beta` is not finite and at least 0.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let predictions = Tensor::new(&[[0.5f64], [3.]], &Device::Cpu)?;
/// let targets = Tensor::new(&[[1f64], [1.]], &Device::Cpu)?;
/// let loss = kd_core::losses::smooth_absolute_error(&predictions, &targets, 1.)?;
/// assert_eq!(loss.to_scalar::<f64>()?, (0.125 + 1.5) / 2.);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn smooth_absolute_error(predictions: &Tensor, targets: &Tensor, beta: f64) -> Result<Tensor> {
    mean(&smooth_absolute_error_rows(predictions, targets, beta)?)
}

/// [`smooth_absolute_error`] of each row: the mean over its columns, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn smooth_absolute_error_rows(predictions: &Tensor, targets: &Tensor, beta: f64) -> Result<Tensor> {
    pair("smooth_absolute_error", predictions, targets)?;
    number("smooth_absolute_error", "beta", beta, "a finite value of at least 0", beta >= 0.0)?;
    if beta == 0.0 {
        return absolute_error_rows(predictions, targets);
    }
    let difference = (wide(predictions)? - wide(&targets.detach())?)?;
    let absolute = (&difference * sign(&difference)?)?;
    let near = absolute.lt(beta)?;
    let values = near.where_cond(&(difference.sqr()? * (0.5 / beta))?, &(absolute - beta / 2.0)?)?;
    values.mean(D::Minus1)?.to_dtype(predictions.dtype())
}

/// 1, 0 or -1, a constant. Candle's `abs` has the slope 1 at 0.
fn sign(x: &Tensor) -> Result<Tensor> {
    let x = x.detach();
    x.gt(0f64)?.to_dtype(x.dtype())? - x.lt(0f64)?.to_dtype(x.dtype())?
}
