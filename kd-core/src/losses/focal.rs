//! Cross-entropy in which rows that are right already count less.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::mean;
use super::preconditions::{class_weights as check_class_weights, labels as read_labels, logits, number, wide};
use crate::ops;

/// How [`focal`] weighs rows. Lin et al. 2017 find `gamma` 2 best (§5.1); 0 is a weighted cross-entropy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Focal {
    /// `γ`: how fast a row's weight falls with the probability of its label, finite and ≥ 0.
    pub gamma: f64,
    /// `α`: one factor per class, finite and ≥ 0; none is 1 for all.
    pub class_weights: Option<Vec<f64>>,
}

/// `-(1 - p)^γ α log p` of the label's probability `p`, mean over rows, in nats times weight (Lin et al. 2017, Eq. 5).
///
/// # Shapes
/// - `logits`: `(rows, classes)` float, `labels`: `(rows,)` u32
/// - returns a scalar of the dtype of `logits`; the mean divides by rows, whatever their weights
///
/// # Errors
/// If shapes differ, there are no rows, a label is not below `classes`, `gamma` is out of its range, or there is not one finite
/// weight ≥ 0 per class.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{Focal, focal};
/// let logits = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/4 and 3/4
/// let config = Focal { gamma: 2., class_weights: Some(vec![0.5, 0.25]) };
/// let loss = focal(&logits, &Tensor::new(&[1u32], &Device::Cpu)?, &config)?.to_scalar::<f64>()?;
/// assert!((loss + 0.0625 * 0.25 * 0.75f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn focal(logits: &Tensor, labels: &Tensor, config: &Focal) -> Result<Tensor> {
    mean(&focal_rows(logits, labels, config)?)
}

/// [`focal`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn focal_rows(logits: &Tensor, labels: &Tensor, config: &Focal) -> Result<Tensor> {
    let shape = self::logits("focal", "logits", logits)?;
    number("focal", "gamma", config.gamma, "a finite value of at least 0", config.gamma >= 0.0)?;
    read_labels("focal", labels, shape)?;
    let index = labels.to_device(logits.device())?.unsqueeze(1)?;
    let log_probs = ops::log_softmax(&wide(logits)?)?.gather(&index, 1)?.squeeze(1)?;
    let mut rows = log_probs.neg()?;
    if config.gamma > 0.0 {
        // Held above 0, where a power below 1 has no slope; the product with log p has none there either.
        let rest = log_probs.exp()?.affine(-1.0, 1.0)?.maximum(1e-12)?;
        rows = (rows * rest.powf(config.gamma)?)?;
    }
    if let Some(weights) = &config.class_weights {
        check_class_weights("focal", weights, shape.1)?;
        let weights = Tensor::new(weights.as_slice(), logits.device())?.to_dtype(rows.dtype())?;
        rows = (rows * weights.index_select(&index.squeeze(1)?, 0)?)?;
    }
    rows.to_dtype(logits.dtype())
}
