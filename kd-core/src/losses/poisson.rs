//! Counts.

use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::mean;
use super::preconditions::{number, pair, wide};

/// How [`poisson`] reads its predictions; the defaults are those of `torch.nn.PoissonNLLLoss`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Poisson {
    /// Whether a prediction is the logarithm of a rate, or the rate.
    pub log_input: bool,
    /// Add Stirling's `ln k!`, `k ln k - k + ln(2πk) / 2`, for targets above 1. It has no gradient.
    pub full: bool,
    /// What is added to a rate before its logarithm, > 0; unused with `log_input`.
    pub epsilon: f64,
}

impl Default for Poisson {
    fn default() -> Self {
        Self { log_input: true, full: false, epsilon: 1e-8 }
    }
}

/// Negative log-likelihood of counts under Poisson's distribution but for a constant, mean over rows and columns, in nats.
///
/// ```text
/// e^x - k x        with log_input, x the logarithm of the rate
/// x - k ln(x + ε)  without
/// ```
///
/// # Shapes
/// - both: `(rows, columns)` float; the targets `k` at least 0, detached
/// - returns a scalar of the dtype of `predictions`
///
/// # Errors
/// If shapes or dtypes differ, there are no rows, or `epsilon` is not finite and above 0.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{Poisson, poisson};
/// let (log_rates, counts) = (Tensor::new(&[[2f64.ln()]], &Device::Cpu)?, Tensor::new(&[[3f64]], &Device::Cpu)?);
/// let loss = poisson(&log_rates, &counts, &Poisson::default())?.to_scalar::<f64>()?;
/// assert!((loss - (2. - 3. * 2f64.ln())).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn poisson(predictions: &Tensor, targets: &Tensor, config: &Poisson) -> Result<Tensor> {
    mean(&poisson_rows(predictions, targets, config)?)
}

/// [`poisson`] of each row: the mean over its columns, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn poisson_rows(predictions: &Tensor, targets: &Tensor, config: &Poisson) -> Result<Tensor> {
    pair("poisson", predictions, targets)?;
    number("poisson", "epsilon", config.epsilon, "a finite value above 0", config.epsilon > 0.0)?;
    let (x, k) = (wide(predictions)?, wide(&targets.detach())?);
    let mut values = match config.log_input {
        true => (x.exp()? - (&k * &x)?)?,
        false => (&x - (&k * (&x + config.epsilon)?.log()?)?)?,
    };
    if config.full {
        let above = k.gt(1f64)?;
        let k = above.where_cond(&k, &k.ones_like()?)?;
        let stirling = (((&k * k.log()?)? - &k)? + ((&k * std::f64::consts::TAU)?.log()? * 0.5)?)?;
        values = (values + above.where_cond(&stirling, &stirling.zeros_like()?)?)?;
    }
    values.mean(D::Minus1)?.to_dtype(predictions.dtype())
}
