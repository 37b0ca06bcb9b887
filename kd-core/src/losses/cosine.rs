//! The angle between logits.

use candle_core::{D, Result, Tensor};

use super::mean;
use super::preconditions::{pair, wide};
use super::unit::unit;

/// `1 - cos(student, teacher)`, mean over rows: 0 for the same direction, 2 for the opposite one; no unit.
///
/// The length of the logits does not matter, a constant added to them does. A row of zeros has no direction: its loss is 1
/// and its gradient 0. (Sanh et al. 2019, DistilBERT, §2 has it of hidden states.)
///
/// # Shapes
/// - both: `(rows, classes)` float; the teacher is detached
///
/// # Errors
/// If shapes or dtypes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[1f64, 0.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[3f64, 4.]], &Device::Cpu)?;
/// let loss = kd_core::losses::cosine_distance(&student, &teacher)?.to_scalar::<f64>()?;
/// assert!((loss - 0.4).abs() < 1e-12); // 1 - 3/5
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn cosine_distance(student_logits: &Tensor, teacher_logits: &Tensor) -> Result<Tensor> {
    mean(&cosine_distance_rows(student_logits, teacher_logits)?)
}

/// [`cosine_distance`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn cosine_distance_rows(student_logits: &Tensor, teacher_logits: &Tensor) -> Result<Tensor> {
    pair("cosine_distance", student_logits, teacher_logits)?;
    let (student, teacher) = (unit(&wide(student_logits)?)?, unit(&wide(&teacher_logits.detach())?)?);
    (student * teacher)?.sum(D::Minus1)?.affine(-1.0, 1.0)?.to_dtype(student_logits.dtype())
}
