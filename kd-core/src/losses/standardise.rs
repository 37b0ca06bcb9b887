//! Logits of mean 0 and standard deviation 1.

use candle_core::{Result, Tensor};

use super::preconditions::{logits as check_logits, wide};
use super::unit::{centred, unit};

/// Each row of `logits` less its mean, divided by its standard deviation over the classes.
///
/// A student so compared learns the shape of the teacher's logits and not their size, which a small model cannot follow
/// (Sun et al. 2024, "Logit Standardization in Knowledge Distillation", algorithm 1): both sides are standardised, then softened and
/// compared. The student's predictions stay those of its own logits. The standard deviation divides by `classes`, as
/// the paper's; its published code divides by `classes - 1`, as if
/// the temperature were higher by the factor `√(classes / (classes - 1))`.
///
/// A row of equal logits has no shape: it becomes 0, the logits of the uniform distribution, and its gradient is 0.
///
/// # Shapes
/// - `logits`: `(rows, classes)` float
/// - returns the same shape and dtype; differentiable
///
/// # Errors
/// If `logits` is not `(rows, classes)` or no float.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{kl_divergence, standardise};
/// let student = Tensor::new(&[[1f64, 3.]], &Device::Cpu)?;
/// let shape = standardise(&student)?.to_vec2::<f64>()?; // mean 2, standard deviation 1
/// assert!((shape[0][0] + 1.).abs() < 1e-12 && (shape[0][1] - 1.).abs() < 1e-12);
/// let teacher = Tensor::new(&[[-50f64, 70.]], &Device::Cpu)?;
/// let loss = kl_divergence(&standardise(&student)?, &standardise(&teacher)?, 2.)?;
/// assert!(loss.to_scalar::<f64>()?.abs() < 1e-12); // the same shape
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn standardise(logits: &Tensor) -> Result<Tensor> {
    let (_, classes) = check_logits("standardise", "logits", logits)?;
    // A vector of length √classes has the mean square 1.
    (unit(&centred(&wide(logits)?)?)? * (classes as f64).sqrt())?.to_dtype(logits.dtype())
}
