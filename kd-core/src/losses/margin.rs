//! Losses of logits that are 0 once the right answer is far enough ahead.

use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::mean;
use super::preconditions::{
    class_weights as check_class_weights, labels as read_labels, logits as check_logits, number, pair, positive,
    softplus, wide,
};

/// How [`multi_class_margin`] counts; the defaults are those of `torch.nn.MultiMarginLoss`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultiClassMargin {
    /// How far ahead the label shall be, finite; in units of logits.
    pub margin: f64,
    /// Whether what is missing is squared.
    pub squared: bool,
    /// One factor per class of the label, finite and ≥ 0; none is 1 for all.
    pub class_weights: Option<Vec<f64>>,
}

impl Default for MultiClassMargin {
    fn default() -> Self {
        Self { margin: 1.0, squared: false, class_weights: None }
    }
}

/// `w_y Σ_{c ≠ y} max(0, margin - z_y + z_c)^p / classes` with label `y`, mean over rows (Crammer and Singer 2001, there the
/// largest instead of the sum); `p` is 2 where `squared`.
///
/// # Shapes
/// - `logits`: `(rows, classes)` float, `labels`: `(rows,)` u32
/// - returns a scalar of the dtype of `logits`
///
/// # Errors
/// If shapes differ, there are no rows, a label is not below `classes`, the margin is not finite, or there is not one finite
/// weight ≥ 0 per class.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{MultiClassMargin, multi_class_margin};
/// let logits = Tensor::new(&[[1f64, 0.5, -3.]], &Device::Cpu)?;
/// let loss = multi_class_margin(&logits, &Tensor::new(&[0u32], &Device::Cpu)?, &MultiClassMargin::default())?;
/// assert!((loss.to_scalar::<f64>()? - 0.5 / 3.).abs() < 1e-12); // 1 - 1 + 0.5, and 1 - 1 - 3 is below 0
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn multi_class_margin(logits: &Tensor, labels: &Tensor, config: &MultiClassMargin) -> Result<Tensor> {
    mean(&multi_class_margin_rows(logits, labels, config)?)
}

/// [`multi_class_margin`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn multi_class_margin_rows(logits: &Tensor, labels: &Tensor, config: &MultiClassMargin) -> Result<Tensor> {
    let shape = check_logits("multi_class_margin", "logits", logits)?;
    number("multi_class_margin", "margin", config.margin, "a finite value", true)?;
    read_labels("multi_class_margin", labels, shape)?;
    let (z, index) = (wide(logits)?, labels.to_device(logits.device())?.unsqueeze(1)?);
    let of_label = z.gather(&index, 1)?;
    let missing = positive(&(z.broadcast_sub(&of_label)? + config.margin)?)?;
    let missing = if config.squared { missing.sqr()? } else { missing };
    // The label itself is no rival.
    let classes = Tensor::arange(0u32, shape.1 as u32, logits.device())?;
    let rivals = classes.broadcast_ne(&index)?.to_dtype(z.dtype())?;
    let mut rows = ((missing * rivals)?.sum(D::Minus1)? / shape.1 as f64)?;
    if let Some(weights) = &config.class_weights {
        check_class_weights("multi_class_margin", weights, shape.1)?;
        let weights = Tensor::new(weights.as_slice(), logits.device())?.to_dtype(rows.dtype())?;
        rows = (rows * weights.index_select(&index.squeeze(1)?, 0)?)?;
    }
    rows.to_dtype(logits.dtype())
}

/// `Σ_{y in Y, c not in Y} max(0, 1 - z_y + z_c) / classes` for the set `Y` of a row's classes, mean over rows.
///
/// `torch.nn.functional.multilabel_margin_loss`, which is told the classes as indices instead of zeros and ones.
///
/// # Shapes
/// - `logits`: `(rows, classes)` float, `targets`: the same shape and dtype, 1 for the classes of a row and 0 for others
/// - returns a scalar of the dtype of `logits`; a row of no classes, or of all, has the value 0
///
/// # Errors
/// If shapes or dtypes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[[1f64, 0.5, -3.]], &Device::Cpu)?;
/// let targets = Tensor::new(&[[1f64, 0., 1.]], &Device::Cpu)?;
/// let loss = kd_core::losses::multi_label_margin(&logits, &targets)?;
/// assert!((loss.to_scalar::<f64>()? - (0.5 + 4.5) / 3.).abs() < 1e-12); // 1 - 1 + 0.5 and 1 + 3 + 0.5
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn multi_label_margin(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    mean(&multi_label_margin_rows(logits, targets)?)
}

/// [`multi_label_margin`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn multi_label_margin_rows(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let (_, classes) = pair("multi_label_margin", logits, targets)?;
    let (z, targets) = (wide(logits)?, wide(&targets.detach())?);
    // (rows, classes in Y, classes not in Y)
    let missing = positive(&(z.unsqueeze(1)?.broadcast_sub(&z.unsqueeze(2)?)? + 1.0)?)?;
    let counted = targets.unsqueeze(2)?.broadcast_mul(&targets.affine(-1.0, 1.0)?.unsqueeze(1)?)?;
    let rows = ((missing * counted)?.sum(D::Minus1)?.sum(D::Minus1)? / classes as f64)?;
    rows.to_dtype(logits.dtype())
}

/// `ln(1 + e^(-y z))` of signs `y`, mean over rows and columns, in nats: logistic regression with labels 1 and -1.
///
/// It is [`binary_cross_entropy`](super::binary_cross_entropy) with targets `(y + 1) / 2`.
///
/// # Shapes
/// - `logits`: `(rows, columns)` float, `signs`: the same shape, 1 or -1; detached
/// - returns a scalar of the dtype of `logits`
///
/// # Errors
/// If shapes or dtypes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[[3f64.ln(), 0.]], &Device::Cpu)?;
/// let signs = Tensor::new(&[[1f64, -1.]], &Device::Cpu)?;
/// let loss = kd_core::losses::soft_margin(&logits, &signs)?.to_scalar::<f64>()?;
/// assert!((loss - ((4f64 / 3.).ln() + 2f64.ln()) / 2.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn soft_margin(logits: &Tensor, signs: &Tensor) -> Result<Tensor> {
    mean(&soft_margin_rows(logits, signs)?)
}

/// [`soft_margin`] of each row: the mean over its columns, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn soft_margin_rows(logits: &Tensor, signs: &Tensor) -> Result<Tensor> {
    pair("soft_margin", logits, signs)?;
    let values = softplus(&(wide(logits)? * wide(&signs.detach())?)?.neg()?)?;
    values.mean(D::Minus1)?.to_dtype(logits.dtype())
}

/// A distance `x` where the sign is 1, `max(0, margin - x)` where it is -1, mean over rows and columns.
///
/// `torch.nn.functional.hinge_embedding_loss`: what belongs together shall be near, the rest at least `margin` apart.
///
/// # Shapes
/// - `distances`: `(rows, columns)` float, `signs`: the same shape, 1 or -1; detached
/// - returns a scalar of the dtype of `distances`, in their unit
///
/// # Errors
/// If shapes or dtypes differ, there are no rows, or the margin is not finite.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let distances = Tensor::new(&[[0.5f64, 0.25, 3.]], &Device::Cpu)?;
/// let signs = Tensor::new(&[[1f64, -1., -1.]], &Device::Cpu)?;
/// let loss = kd_core::losses::hinge_embedding(&distances, &signs, 1.)?.to_scalar::<f64>()?;
/// assert!((loss - (0.5 + 0.75 + 0.) / 3.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn hinge_embedding(distances: &Tensor, signs: &Tensor, margin: f64) -> Result<Tensor> {
    mean(&hinge_embedding_rows(distances, signs, margin)?)
}

/// [`hinge_embedding`] of each row: the mean over its columns, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn hinge_embedding_rows(distances: &Tensor, signs: &Tensor, margin: f64) -> Result<Tensor> {
    pair("hinge_embedding", distances, signs)?;
    number("hinge_embedding", "margin", margin, "a finite value", true)?;
    let (x, together) = (wide(distances)?, signs.gt(0f64)?);
    let apart = positive(&x.affine(-1.0, margin)?)?;
    together.where_cond(&x, &apart)?.mean(D::Minus1)?.to_dtype(distances.dtype())
}
