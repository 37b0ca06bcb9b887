//! How far a student's distribution is from its teacher's.
//!
//! ```text
//! kl_divergence              T² KL(p ‖ q)                       p = softmax(teacher / T), q = softmax(student / T)
//! reverse_kl_divergence      T² KL(q ‖ p)
//! jensen_shannon_divergence  T² (KL(p ‖ m) + KL(q ‖ m)) / 2     m = (p + q) / 2
//! ```

use candle_core::{D, Result, Tensor};

use super::preconditions::{pair, wide};
use super::{Temperature, mean};
use crate::ops;

/// `T² · mean_rows KL(softmax(teacher / T) ‖ softmax(student / T))`.
///
/// The teacher's distribution is the first argument of the divergence: the student is drawn to cover all that
/// the teacher holds possible. Both logarithms come from logits, so a probability that underflows gives no NaN.
///
/// # Shapes
/// - `student_logits`, `teacher_logits`: `(rows, classes)` float
/// - returns a scalar; differentiable in `student_logits` only
///
/// # Errors
/// If shapes or dtypes differ, if there are no rows, or if a temperature is not finite and positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64, 0.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/4 and 3/4
/// let loss = kd_core::losses::kl_divergence(&student, &teacher, 1.)?.to_scalar::<f64>()?;
/// assert!((loss - (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln())).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn kl_divergence(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    mean(&kl_divergence_rows(student_logits, teacher_logits, temperature)?)
}

/// [`kl_divergence`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn kl_divergence_rows(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    pair("kl_divergence", student_logits, teacher_logits)?;
    let temperature = temperature.into().check("kl_divergence")?;
    let teacher_logits = at_students(teacher_logits, temperature)?;
    let rows = ops::distillation::kl_divergence_rows(student_logits, &teacher_logits, temperature.student)?;
    unscale(rows, temperature)
}

/// [`cross_entropy`](super::cross_entropy) against `labels` and [`kl_divergence`] from the teacher, in one visit to the
/// logits.
///
/// # Errors
/// As those of the two.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64, 0.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/4 and 3/4
/// let labels = Tensor::new(&[1u32], &Device::Cpu)?;
/// let (hard, soft) = kd_core::losses::distillation(&student, &teacher, &labels, 1.)?;
/// assert!((hard.to_scalar::<f64>()? - 2f64.ln()).abs() < 1e-12);
/// assert!((soft.to_scalar::<f64>()? - (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln())).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn distillation(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    labels: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<(Tensor, Tensor)> {
    pair("distillation", student_logits, teacher_logits)?;
    let temperature = temperature.into().check("distillation")?;
    let teacher_logits = at_students(teacher_logits, temperature)?;
    let (hard, soft) =
        ops::distillation::distillation_rows(student_logits, &teacher_logits, labels, temperature.student)?;
    Ok((mean(&hard)?, mean(&unscale(soft, temperature)?)?))
}

/// The teacher's logits, detached, so that the student's temperature softens them as the teacher's was to.
fn at_students(teacher_logits: &Tensor, temperature: Temperature) -> Result<Tensor> {
    let teacher_logits = teacher_logits.detach();
    if temperature.student == temperature.teacher {
        return Ok(teacher_logits);
    }
    teacher_logits * (temperature.student / temperature.teacher)
}

/// Rows that are multiplied by the square of the student's temperature, as `temperature` has it.
fn unscale(rows: Tensor, temperature: Temperature) -> Result<Tensor> {
    if temperature.scaled { Ok(rows) } else { rows * (temperature.student * temperature.student).recip() }
}

/// `T² · mean_rows KL(softmax(student / T) ‖ softmax(teacher / T))`.
///
/// The student's distribution is the first argument: it is drawn to what the teacher holds most probable and pays little
/// for classes it leaves out (Gu et al. 2024, MiniLLM, §2.1). The value is at most
/// `T²` times `range / T + ln classes` with the range of the teacher's logits, so a very sure teacher makes it large.
///
/// # Shapes
/// - `student_logits`, `teacher_logits`: `(rows, classes)` float
/// - returns a scalar; differentiable in `student_logits` only
///
/// # Errors
/// As [`kl_divergence`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64, 0.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/4 and 3/4
/// let loss = kd_core::losses::reverse_kl_divergence(&student, &teacher, 1.)?.to_scalar::<f64>()?;
/// assert!((loss - 0.5 * (2f64.ln() + (2f64 / 3.).ln())).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn reverse_kl_divergence(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    mean(&reverse_kl_divergence_rows(student_logits, teacher_logits, temperature)?)
}

/// [`reverse_kl_divergence`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn reverse_kl_divergence_rows(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    let temperature = temperature.into();
    let [student, teacher] = log_probs("reverse_kl_divergence", student_logits, teacher_logits, temperature)?;
    let rows = (student.exp()? * (&student - teacher)?)?.sum(D::Minus1)?;
    (rows * temperature.factor())?.to_dtype(student_logits.dtype())
}

/// `T² · mean_rows (KL(p ‖ m) + KL(q ‖ m)) / 2` with `m = (p + q) / 2`: symmetric, and at most `T² ln 2` (Lin 1991).
///
/// # Shapes
/// - `student_logits`, `teacher_logits`: `(rows, classes)` float
/// - returns a scalar; differentiable in `student_logits` only
///
/// # Errors
/// As [`kl_divergence`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[1e4, 0.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[0., 1e4]], &Device::Cpu)?; // nothing in common
/// let loss = kd_core::losses::jensen_shannon_divergence(&student, &teacher, 1.)?.to_scalar::<f64>()?;
/// assert!((loss - 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn jensen_shannon_divergence(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    mean(&jensen_shannon_divergence_rows(student_logits, teacher_logits, temperature)?)
}

/// [`jensen_shannon_divergence`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn jensen_shannon_divergence_rows(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    let temperature = temperature.into();
    let [student, teacher] = log_probs("jensen_shannon_divergence", student_logits, teacher_logits, temperature)?;
    // log (p + q) from the larger logarithm, which is a constant here: the sum's logarithm does not depend on it.
    let larger = student.detach().maximum(&teacher)?;
    let sum = ((&student - &larger)?.exp()? + (&teacher - &larger)?.exp()?)?;
    let middle = ((larger + sum.log()?)? - std::f64::consts::LN_2)?;
    let gaps = [&student, &teacher].map(|side| side.exp()? * (side - &middle)?);
    let [student_gaps, teacher_gaps] = gaps;
    let rows = (student_gaps? + teacher_gaps?)?.sum(D::Minus1)?;
    (rows * (0.5 * temperature.factor()))?.to_dtype(student_logits.dtype())
}

/// Softened log-probabilities of student and teacher, in at least f32, the teacher's detached.
fn log_probs(loss: &str, student: &Tensor, teacher: &Tensor, temperature: Temperature) -> Result<[Tensor; 2]> {
    pair(loss, student, teacher)?;
    temperature.check(loss)?;
    Ok([
        ops::log_softmax(&(wide(student)? / temperature.student)?)?,
        ops::log_softmax(&(wide(&teacher.detach())? / temperature.teacher)?)?,
    ])
}

/// `mean_rows KL(teacher ‖ student)` of distributions given by their logarithms, such as a CRF's token marginals.
///
/// # Shapes
/// - both: `(rows, classes)` float, each row's exponentials sum to 1; the teacher is detached
///
/// # Errors
/// If shapes or dtypes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0.5f64, 0.5]], &Device::Cpu)?.log()?;
/// let teacher = Tensor::new(&[[0.25f64, 0.75]], &Device::Cpu)?.log()?;
/// let loss = kd_core::losses::kl_from_log_probs(&student, &teacher)?.to_scalar::<f64>()?;
/// assert!((loss - (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln())).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn kl_from_log_probs(student_log_probs: &Tensor, teacher_log_probs: &Tensor) -> Result<Tensor> {
    mean(&kl_from_log_probs_rows(student_log_probs, teacher_log_probs)?)
}

/// [`kl_from_log_probs`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn kl_from_log_probs_rows(student_log_probs: &Tensor, teacher_log_probs: &Tensor) -> Result<Tensor> {
    pair("kl_from_log_probs", student_log_probs, teacher_log_probs)?;
    let teacher = wide(&teacher_log_probs.detach())?;
    let rows = (teacher.exp()? * (&teacher - wide(student_log_probs)?)?)?.sum(D::Minus1)?;
    rows.to_dtype(student_log_probs.dtype())
}

/// `KL(target ‖ student)` of a model that says logarithms of probabilities and targets that are probabilities, mean over rows.
///
/// `Σ_c t_c (ln t_c - s_c)` with 0 where `t` is 0; PyTorch's `KLDivLoss` is `1 / classes` of it with `reduction="mean"`, and it
/// with `"batchmean"`. Where a teacher's logits are at hand, [`kl_divergence`] is more exact.
///
/// # Shapes
/// - `student_log_probs`, `target_probs`: `(rows, classes)` float; the targets at least 0, detached
///
/// # Errors
/// If shapes or dtypes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0.5f64, 0.5]], &Device::Cpu)?.log()?;
/// let targets = Tensor::new(&[[1f64, 0.]], &Device::Cpu)?;
/// let loss = kd_core::losses::kl_from_probs(&student, &targets)?.to_scalar::<f64>()?;
/// assert!((loss - 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn kl_from_probs(student_log_probs: &Tensor, target_probs: &Tensor) -> Result<Tensor> {
    mean(&kl_from_probs_rows(student_log_probs, target_probs)?)
}

/// [`kl_from_probs`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn kl_from_probs_rows(student_log_probs: &Tensor, target_probs: &Tensor) -> Result<Tensor> {
    pair("kl_from_probs", student_log_probs, target_probs)?;
    let targets = wide(&target_probs.detach())?;
    let some = targets.gt(0f64)?;
    let logs = some.where_cond(&targets, &targets.ones_like()?)?.log()?;
    let rows = (targets * (logs - wide(student_log_probs)?)?)?.sum(D::Minus1)?;
    rows.to_dtype(student_log_probs.dtype())
}
