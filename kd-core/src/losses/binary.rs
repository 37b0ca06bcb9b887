//! Cross-entropy where every class is a yes or no of its own, as in multi-label classification.

use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::preconditions::{class_weights as check_class_weights, pair, softplus, wide};
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
    let [z, targets] = wide_pair("binary_cross_entropy", logits, targets)?;
    let terms = (softplus(&z)? - (targets * z)?)?;
    terms.mean(D::Minus1)?.to_dtype(logits.dtype())
}

/// Factors of [`weighted_binary_cross_entropy`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BinaryWeights {
    /// Factor of each class, finite and ≥ 0; none is 1 for all.
    pub class_weights: Option<Vec<f64>>,
    /// Factor of the yes of each class, finite and ≥ 0: the number of its noes for each yes balances them. None is 1 for all.
    pub positive_weights: Option<Vec<f64>>,
}

/// [`binary_cross_entropy`] with a factor for each class and for its yes, mean over rows and classes, in nats times weight.
///
/// ```text
/// w_c (-v_c y log σ(z) - (1 - y) log(1 - σ(z)))
/// ```
///
/// `torch.nn.functional.binary_cross_entropy_with_logits` with `weight` and `pos_weight`; the mean divides by rows and classes,
/// not by weights.
///
/// # Shapes
/// - `logits`: `(rows, classes)` float, `targets`: the same shape, in `[0, 1]`; detached
/// - returns a scalar of the dtype of `logits`
///
/// # Errors
/// If shapes or dtypes differ, there are no rows, or there is not one finite weight ≥ 0 per class.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{BinaryWeights, weighted_binary_cross_entropy};
/// let logits = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/2 and 3/4
/// let targets = Tensor::new(&[[1f64, 0.]], &Device::Cpu)?;
/// let weights = BinaryWeights { class_weights: Some(vec![1., 3.]), positive_weights: Some(vec![5., 7.]) };
/// let loss = weighted_binary_cross_entropy(&logits, &targets, &weights)?.to_scalar::<f64>()?;
/// assert!((loss - (5. * 2f64.ln() + 3. * 4f64.ln()) / 2.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn weighted_binary_cross_entropy(logits: &Tensor, targets: &Tensor, weights: &BinaryWeights) -> Result<Tensor> {
    mean(&weighted_binary_cross_entropy_rows(logits, targets, weights)?)
}

/// [`weighted_binary_cross_entropy`] of each row: the mean over its classes, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn weighted_binary_cross_entropy_rows(
    logits: &Tensor,
    targets: &Tensor,
    weights: &BinaryWeights,
) -> Result<Tensor> {
    let [z, targets] = wide_pair("weighted_binary_cross_entropy", logits, targets)?;
    let factors = |weights: &Option<Vec<f64>>| match weights {
        Some(weights) => {
            check_class_weights("weighted_binary_cross_entropy", weights, z.dim(1)?)?;
            Tensor::new(weights.as_slice(), z.device())?.to_dtype(z.dtype())
        }
        None => Tensor::ones(z.dim(1)?, z.dtype(), z.device()),
    };
    // softplus(-z) = -log σ(z) and z + softplus(-z) = -log(1 - σ(z)).
    let of_yes = targets.broadcast_mul(&factors(&weights.positive_weights)?)?;
    let no = targets.affine(-1.0, 1.0)?;
    let terms = ((&no * &z)? + ((of_yes + no)? * softplus(&z.neg()?)?)?)?;
    terms.broadcast_mul(&factors(&weights.class_weights)?)?.mean(D::Minus1)?.to_dtype(logits.dtype())
}

/// [`binary_cross_entropy`] of a model that says probabilities itself, mean over rows and classes.
///
/// `torch.nn.functional.binary_cross_entropy`: logarithms are held above -100 nats and, in the slope
/// `(p - y) / (p (1 - p))`, the divisor above 1e-12, so a probability of 0 or 1 that is wrong costs 100. Where there are
/// logits, [`binary_cross_entropy`] has no such limits.
///
/// # Shapes
/// - `probs`: `(rows, classes)` float in `[0, 1]`, `targets`: the same shape, in `[0, 1]`; detached
/// - returns a scalar of the dtype of `probs`; it has no second derivative
///
/// # Errors
/// If shapes or dtypes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let probs = Tensor::new(&[[0.5f64, 1.]], &Device::Cpu)?;
/// let targets = Tensor::new(&[[1f64, 0.]], &Device::Cpu)?;
/// let loss = kd_core::losses::binary_cross_entropy_of_probs(&probs, &targets)?.to_scalar::<f64>()?;
/// assert!((loss - (2f64.ln() + 100.) / 2.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn binary_cross_entropy_of_probs(probs: &Tensor, targets: &Tensor) -> Result<Tensor> {
    mean(&binary_cross_entropy_of_probs_rows(probs, targets)?)
}

/// [`binary_cross_entropy_of_probs`] of each row: the mean over its classes, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn binary_cross_entropy_of_probs_rows(probs: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let [p, targets] = wide_pair("binary_cross_entropy_of_probs", probs, targets)?;
    let (at, no) = (p.detach(), targets.affine(-1.0, 1.0)?);
    let log = |x: &Tensor| x.log()?.maximum(-100f64);
    let rest = at.affine(-1.0, 1.0)?;
    let values = ((&targets * log(&at)?)? + (no * log(&rest)?)?)?.neg()?;
    // The value, and the slope times a difference that is 0: the logarithms' own slopes are infinite at 0 and 1.
    let slopes = ((&at - targets)? / (&at * rest)?.maximum(1e-12)?)?;
    let terms = (values + (slopes * (p - at)?)?)?;
    terms.mean(D::Minus1)?.to_dtype(probs.dtype())
}

/// Logits or probabilities, and their targets detached; half precision in f32.
fn wide_pair(loss: &str, of_student: &Tensor, targets: &Tensor) -> Result<[Tensor; 2]> {
    pair(loss, of_student, targets)?;
    Ok([wide(of_student)?, wide(&targets.detach())?])
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
