//! Squared differences of logits and of probabilities.

use candle_core::{D, Result, Tensor};

use super::preconditions::{pair, wide};
use super::unit::centred;
use super::{Temperature, mean};
use crate::ops;

/// Squared difference of logits, mean over rows and classes (logit units squared) (Ba and Caruana 2014, §2).
///
/// A constant added to all logits of a row changes no probability and yet this loss: [`centred_logit_mse`] ignores it.
///
/// # Shapes
/// - both: `(rows, classes)` float; the teacher is detached
///
/// # Errors
/// If shapes or dtypes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64, 1.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[2f64, 2.]], &Device::Cpu)?;
/// let loss = kd_core::losses::logit_mse(&student, &teacher)?;
/// assert_eq!(loss.to_scalar::<f64>()?, 2.5); // (4 + 1) / 2
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn logit_mse(student_logits: &Tensor, teacher_logits: &Tensor) -> Result<Tensor> {
    mean(&logit_mse_rows(student_logits, teacher_logits)?)
}

/// [`logit_mse`] of each row: the mean over its classes, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn logit_mse_rows(student_logits: &Tensor, teacher_logits: &Tensor) -> Result<Tensor> {
    pair("logit_mse", student_logits, teacher_logits)?;
    let difference = (wide(student_logits)? - wide(&teacher_logits.detach())?)?;
    difference.sqr()?.mean(D::Minus1)?.to_dtype(student_logits.dtype())
}

/// [`logit_mse`] after each row's mean is taken from both sides, mean over rows and classes.
///
/// Equal to `logit_mse` with the best constant added to each row of the student: the variance of `student - teacher`
/// over the classes of a row. The limit of [`kl_divergence`](super::kl_divergence) at high temperature is half of it
/// (Hinton et al. 2015, §2.1, for centred logits).
///
/// # Shapes
/// - both: `(rows, classes)` float; the teacher is detached
///
/// # Errors
/// If shapes or dtypes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64, 1.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[2f64, 2.]], &Device::Cpu)?;
/// let loss = kd_core::losses::centred_logit_mse(&student, &teacher)?;
/// assert_eq!(loss.to_scalar::<f64>()?, 0.25); // -1/2 and 1/2 against 0 and 0
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn centred_logit_mse(student_logits: &Tensor, teacher_logits: &Tensor) -> Result<Tensor> {
    mean(&centred_logit_mse_rows(student_logits, teacher_logits)?)
}

/// [`centred_logit_mse`] of each row: the mean over its classes, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn centred_logit_mse_rows(student_logits: &Tensor, teacher_logits: &Tensor) -> Result<Tensor> {
    pair("centred_logit_mse", student_logits, teacher_logits)?;
    let difference = (centred(&wide(student_logits)?)? - centred(&wide(&teacher_logits.detach())?)?)?;
    difference.sqr()?.mean(D::Minus1)?.to_dtype(student_logits.dtype())
}

/// `T² ·` squared difference of `softmax(student / T)` and `softmax(teacher / T)`, mean over rows and classes.
///
/// `classes` times it is the Brier score (Brier 1950) with the teacher's probabilities as the outcome. A student that is
/// surely wrong has almost no gradient here: its softmax is flat.
///
/// # Shapes
/// - both: `(rows, classes)` float, logits; the teacher is detached
/// - returns a scalar, at most `2 T² / classes`
///
/// # Errors
/// If shapes or dtypes differ, there are no rows, or a temperature is not finite and positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64, 0.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/4 and 3/4
/// let loss = kd_core::losses::probability_mse(&student, &teacher, 1.)?.to_scalar::<f64>()?;
/// assert!((loss - 0.0625).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn probability_mse(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    mean(&probability_mse_rows(student_logits, teacher_logits, temperature)?)
}

/// [`probability_mse`] of each row: the mean over its classes, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn probability_mse_rows(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    pair("probability_mse", student_logits, teacher_logits)?;
    let temperature = temperature.into().check("probability_mse")?;
    let student = ops::softmax(&(wide(student_logits)? / temperature.student)?)?;
    let teacher = ops::softmax(&(wide(&teacher_logits.detach())? / temperature.teacher)?)?;
    let rows = (student - teacher)?.sqr()?.mean(D::Minus1)?;
    (rows * temperature.factor())?.to_dtype(student_logits.dtype())
}
