//! Divergence from the teacher, split at the label.

use candle_core::{D, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::preconditions::{labels as read_labels, pair, weight, wide};
use super::{Temperature, mean};
use crate::ops::distillation::kl_divergence_rows;

/// Weights of the two parts of [`decoupled_divergence`] and how logits are softened.
///
/// | field         | purpose                                        | range       | in the paper            |
/// |---------------|------------------------------------------------|-------------|-------------------------|
/// | `target`      | `α`, weight of the label against all the rest  | finite, ≥ 0 | 1                       |
/// | `non_target`  | `β`, weight of the classes among the rest      | finite, ≥ 0 | 0.5 to 10               |
/// | `temperature` | softens both sides, both parts                 | > 0         | 4 (CIFAR), 1 (ImageNet) |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decoupled {
    /// `α`; finite, ≥ 0.
    pub target: f64,
    /// `β`; finite, ≥ 0.
    pub non_target: f64,
    /// Of both parts.
    pub temperature: Temperature,
}

/// `T² · mean_rows (α KL(b_teacher ‖ b_student) + β KL(n_teacher ‖ n_student))` (Zhao et al. 2022, "Decoupled Knowledge
/// Distillation", §3).
///
/// `b` is the probability of the label and of all other classes together, `n` the distribution over the other classes alone.
/// [`kl_divergence`](super::kl_divergence) is `KL(b) + (1 - p_label) KL(n)` with the teacher's `p`: where the teacher is sure of the
/// label, nothing is left of what it knows about the rest. Here that part keeps its weight.
///
/// # Shapes
/// - both logits: `(rows, classes)` float, `labels`: `(rows,)` u32; differentiable in `student_logits` only
///
/// # Errors
/// If there are fewer than three classes (the rest would be one class, and its part always 0), shapes or dtypes differ, there
/// are no rows, a label is not below `classes`, a weight is negative or not finite, or a temperature not finite and positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{Decoupled, decoupled_divergence};
/// let student = Tensor::new(&[[2f64.ln(), 0., 0.]], &Device::Cpu)?; // label 1/2; rest 1/2, 1/2
/// let teacher = Tensor::new(&[[4f64.ln(), 3f64.ln(), 0.]], &Device::Cpu)?; // label 1/2; rest 3/4, 1/4
/// let config = Decoupled { target: 1., non_target: 8., temperature: 1f64.into() };
/// let loss = decoupled_divergence(&student, &teacher, &Tensor::new(&[0u32], &Device::Cpu)?, &config)?;
/// assert!((loss.to_scalar::<f64>()? - 8. * (0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln())).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn decoupled_divergence(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    labels: &Tensor,
    config: &Decoupled,
) -> Result<Tensor> {
    mean(&decoupled_divergence_rows(student_logits, teacher_logits, labels, config)?)
}

/// [`decoupled_divergence`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn decoupled_divergence_rows(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    labels: &Tensor,
    config: &Decoupled,
) -> Result<Tensor> {
    const NAME: &str = "decoupled_divergence";
    let (rows, classes) = pair(NAME, student_logits, teacher_logits)?;
    if classes < 3 {
        bail!("{NAME}: expected at least 3 classes, found {classes}");
    }
    weight(NAME, "target weight", config.target)?;
    weight(NAME, "non-target weight", config.non_target)?;
    let temperature = config.temperature.check(NAME)?;
    let ids = read_labels(NAME, labels, (rows, classes))?;
    if rows == 0 {
        return student_logits.sum(D::Minus1);
    }
    let others: Vec<u32> =
        ids.iter().flat_map(|&label| (0..classes as u32).filter(move |&class| class != label)).collect();
    let others = Tensor::from_vec(others, (rows, classes - 1), student_logits.device())?;
    let labels = labels.to_device(student_logits.device())?.unsqueeze(1)?;
    // Logits of the label and of all the rest, and the logits of the rest.
    let split = |logits: &Tensor, temperature: f64| {
        let logits = (logits / temperature)?;
        let rest = logits.gather(&others, 1)?;
        let sides = Tensor::cat(&[logits.gather(&labels, 1)?, log_sum_exp(&rest)?], 1)?;
        Ok::<_, candle_core::Error>((sides, rest))
    };
    let (student_sides, student_rest) = split(&wide(student_logits)?, temperature.student)?;
    let (teacher_sides, teacher_rest) = split(&wide(&teacher_logits.detach())?, temperature.teacher)?;
    let target = kl_divergence_rows(&student_sides, &teacher_sides, 1.0)?;
    let non_target = kl_divergence_rows(&student_rest, &teacher_rest, 1.0)?;
    let total = ((target * config.target)? + (non_target * config.non_target)?)?;
    (total * temperature.factor())?.to_dtype(student_logits.dtype())
}

/// `log Σ exp` over the last dimension, kept.
fn log_sum_exp(x: &Tensor) -> Result<Tensor> {
    // A constant: the logarithm of the sum does not depend on it.
    let largest = x.detach().max_keepdim(D::Minus1)?;
    let sum = x.broadcast_sub(&largest)?.exp()?.sum_keepdim(D::Minus1)?;
    largest + sum.log()?
}
