//! Cross-entropy where every class is a yes or no of its own, as in multi-label classification.

use candle_core::{D, Result, Tensor};

use super::preconditions::{pair, wide};
use super::{Temperature, mean};

/// Cross-entropy of `σ(logits)` against the probability of each label, mean over rows and classes.
///
/// ```text
/// log(1 + e^z) - y z  =  -y log σ(z) - (1 - y) log(1 - σ(z))
/// ```
///
/// `log(1 + e^z)` is taken from the larger of `z` and 0, so no logit is too large. Targets may be soft: 0 and 1 are
/// labels, anything between is what a teacher believes.
///
/// # Shapes
/// - `logits`: `(rows, classes)` float, `targets`: the same shape, in `[0, 1]`; detached
/// - returns a scalar of the dtype of `logits`
///
/// # Errors
/// If shapes or dtypes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/2 and 3/4
/// let targets = Tensor::new(&[[1f64, 0.]], &Device::Cpu)?;
/// let loss = kd_core::losses::binary_cross_entropy(&logits, &targets)?.to_scalar::<f64>()?;
/// assert!((loss - (2f64.ln() + 4f64.ln()) / 2.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn binary_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    mean(&binary_cross_entropy_rows(logits, targets)?)
}

/// [`binary_cross_entropy`] of each row: the mean over its classes, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn binary_cross_entropy_rows(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    pair("binary_cross_entropy", logits, targets)?;
    let (z, targets) = (wide(logits)?, wide(&targets.detach())?);
    // A constant: the logarithm of the sum does not depend on it, and so has the right gradient at 0 too.
    let larger = z.detach().maximum(0f64)?;
    let sum = ((&z - &larger)?.exp()? + larger.neg()?.exp()?)?;
    let terms = ((larger + sum.log()?)? - (targets * z)?)?;
    terms.mean(D::Minus1)?.to_dtype(logits.dtype())
}

/// `T² ·` [`binary_cross_entropy`] of `student / T` against `σ(teacher / T)`, mean over rows and classes
/// (Hinton et al. 2015, §2, with a distribution of two outcomes for each class).
///
/// # Shapes
/// - both: `(rows, classes)` float, logits; the teacher is detached
///
/// # Errors
/// If shapes or dtypes differ, there are no rows, or a temperature is not finite and positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[5f64]], &Device::Cpu)?;
/// let loss = kd_core::losses::binary_cross_entropy_from_logits(&student, &teacher, 2.)?.to_scalar::<f64>()?;
/// assert!((loss - 4. * 2f64.ln()).abs() < 1e-12); // a student that knows nothing: ln 2 whatever the teacher says
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn binary_cross_entropy_from_logits(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    mean(&binary_cross_entropy_from_logits_rows(student_logits, teacher_logits, temperature)?)
}

/// [`binary_cross_entropy_from_logits`] of each row: the mean over its classes, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn binary_cross_entropy_from_logits_rows(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    pair("binary_cross_entropy_from_logits", student_logits, teacher_logits)?;
    let temperature = temperature.into().check("binary_cross_entropy_from_logits")?;
    // σ(x) = (1 + tanh(x / 2)) / 2 overflows nowhere.
    let halves = (wide(&teacher_logits.detach())? / (2.0 * temperature.teacher))?;
    let targets = halves.tanh()?.affine(0.5, 0.5)?;
    let rows = binary_cross_entropy_rows(&(wide(student_logits)? / temperature.student)?, &targets)?;
    (rows * temperature.factor())?.to_dtype(student_logits.dtype())
}
