//! Pearson correlation of a student's probabilities with its teacher's, along rows and along columns.
//!
//! Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher" (DIST), §4. A teacher far stronger than its student is
//! followed in what it prefers, not in every value: a correlation ignores the scale and the shift of either side.
//!
//! ```text
//! p = softmax(teacher / T), q = softmax(student / T), both (rows, classes)
//! inter-class:  mean over rows     of 1 - corr(q[row, :], p[row, :])
//! intra-class:  mean over classes  of 1 - corr(q[:, class], p[:, class])
//! ```
//!
//! A row or column of equal values has no correlation: its `corr` is 0, its part of the loss 1, its gradient 0. So the
//! intra-class relation of a single row is 1 and teaches nothing.

use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::preconditions::{pair, weight, wide};
use super::unit::{centred, unit};
use super::{Temperature, mean};
use crate::ops;

/// Weights of the two relations of [`correlation`] and how logits are softened.
///
/// | field         | purpose                             | range       | in the paper               |
/// |---------------|-------------------------------------|-------------|----------------------------|
/// | `inter_class` | `β`, weight of the rows' relation   | finite, ≥ 0 | 1 to 2                     |
/// | `intra_class` | `γ`, weight of the columns' relation | finite, ≥ 0 | 1 to 2                    |
/// | `temperature` | softens both sides                  | > 0         | 1 (ImageNet), 4 (CIFAR-100) |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correlation {
    /// Weight of [`row_correlation`]; finite, ≥ 0.
    pub inter_class: f64,
    /// Weight of [`column_correlation`]; finite, ≥ 0.
    pub intra_class: f64,
    /// Of both relations.
    pub temperature: Temperature,
}

/// The inter-class relation: `T² · mean_rows (1 - corr(row of q, row of p))`; 0 to `2 T²`, no unit.
///
/// # Shapes
/// - both: `(rows, classes)` float, logits; the teacher is detached
///
/// # Errors
/// If shapes or dtypes differ, there are no rows, or a temperature is not finite and positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[3f64.ln(), 0.]], &Device::Cpu)?; // probabilities 3/4 and 1/4
/// let teacher = Tensor::new(&[[0f64, 9f64.ln()]], &Device::Cpu)?; // the other way round
/// let loss = kd_core::losses::row_correlation(&student, &teacher, 1.)?.to_scalar::<f64>()?;
/// assert!((loss - 2.).abs() < 1e-12); // two classes correlate with 1 or -1
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn row_correlation(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    mean(&row_correlation_rows(student_logits, teacher_logits, temperature)?)
}

/// [`row_correlation`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn row_correlation_rows(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    let temperature = temperature.into();
    let [student, teacher] = probs("row_correlation", student_logits, teacher_logits, temperature)?;
    (distances(&student, &teacher)? * temperature.factor())?.to_dtype(student_logits.dtype())
}

/// The intra-class relation: `T² · mean_classes (1 - corr(column of q, column of p))`; 0 to `2 T²`, no unit.
///
/// It compares how strongly the rows of a batch ask for a class, so it has no value per row: every correlation is one of
/// all rows, and that of a batch is not the mean of those of its parts. The mean is over classes.
///
/// # Shapes
/// - both: `(rows, classes)` float, logits; the teacher is detached
///
/// # Errors
/// As [`row_correlation`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64, 1.], [0., 2.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[0f64, 9.], [0., 5.]], &Device::Cpu)?; // class 1 more in row 0 than in row 1
/// let loss = kd_core::losses::column_correlation(&student, &teacher, 1.)?.to_scalar::<f64>()?;
/// assert!((loss - 2.).abs() < 1e-12); // two rows correlate with 1 or -1
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn column_correlation(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    let temperature = temperature.into();
    let [student, teacher] = probs("column_correlation", student_logits, teacher_logits, temperature)?;
    if student.dim(0)? == 0 {
        return mean(&student);
    }
    let distances = distances(&student.t()?.contiguous()?, &teacher.t()?.contiguous()?)?;
    (mean(&distances)? * temperature.factor())?.to_dtype(student_logits.dtype())
}

/// `β ·` [`row_correlation`] `+ γ ·` [`column_correlation`], a scalar.
///
/// # Shapes
/// - both: `(rows, classes)` float, logits; the teacher is detached
///
/// # Errors
/// As [`row_correlation`], and if a weight is negative or not finite.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{Correlation, correlation};
/// let student = Tensor::new(&[[0f64, 1.], [0., 2.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[0f64, 9.], [0., 5.]], &Device::Cpu)?; // rows agree, columns are the other way round
/// let config = Correlation { inter_class: 1., intra_class: 3., temperature: 1f64.into() };
/// assert!((correlation(&student, &teacher, &config)?.to_scalar::<f64>()? - (0. + 3. * 2.)).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn correlation(student_logits: &Tensor, teacher_logits: &Tensor, config: &Correlation) -> Result<Tensor> {
    weight("correlation", "inter-class weight", config.inter_class)?;
    weight("correlation", "intra-class weight", config.intra_class)?;
    let inter = row_correlation(student_logits, teacher_logits, config.temperature)?;
    let intra = column_correlation(student_logits, teacher_logits, config.temperature)?;
    (inter * config.inter_class)? + (intra * config.intra_class)?
}

/// Softened probabilities of student and teacher, in at least f32, the teacher's detached.
fn probs(loss: &str, student: &Tensor, teacher: &Tensor, temperature: Temperature) -> Result<[Tensor; 2]> {
    pair(loss, student, teacher)?;
    temperature.check(loss)?;
    Ok([
        ops::softmax(&(wide(student)? / temperature.student)?)?,
        ops::softmax(&(wide(&teacher.detach())? / temperature.teacher)?)?,
    ])
}

/// `1 - corr` of each row of two tensors.
fn distances(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let (student, teacher) = (unit(&centred(student)?)?, unit(&centred(teacher)?)?);
    (student * teacher)?.sum(D::Minus1)?.affine(-1.0, 1.0)
}
