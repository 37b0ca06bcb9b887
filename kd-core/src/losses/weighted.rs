//! Several teachers for one head, each with its weight on each row.

use candle_core::{Result, Tensor, bail};

use super::preconditions::pair;
use super::{Temperature, kl_divergence_rows, mean};

/// `mean_rows Σ_k w_rk · T² KL(softmax(teacher_k / T) ‖ softmax(student / T))`: each row learns from its own mix of teachers.
///
/// Its gradient is that of the divergence from the mixture `Σ_k w_rk · softmax(teacher_k / T)`, for weights that sum to 1;
/// the value is larger by how much the teachers disagree, `Σ_k w_rk KL(p_k ‖ mixture)` (Yuan et al. 2021, the loss of the
/// chosen teachers).
///
/// # Shapes
/// - `student_logits`: `(rows, classes)` float; `teacher_logits`: one such tensor for each teacher
/// - `weights`: `(rows, teachers)` float, at least 0, rows sum to 1 (not checked: they may lie on a GPU)
/// - returns a scalar; differentiable in `student_logits` only
///
/// # Errors
/// If there are no teachers, shapes or dtypes differ, there are no rows, or a temperature is not finite and positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64, 0.]], &Device::Cpu)?;
/// let teachers = [[0f64, 0.], [0., 3f64.ln()]].map(|row| Tensor::new(&[row], &Device::Cpu).unwrap());
/// let weights = Tensor::new(&[[0.5f64, 0.5]], &Device::Cpu)?; // one agrees, one says (1/4, 3/4)
/// let loss = kd_core::losses::weighted_kl_divergence(&student, &teachers, &weights, 1.)?.to_scalar::<f64>()?;
/// assert!((loss - 0.5 * (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln())).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn weighted_kl_divergence(
    student_logits: &Tensor,
    teacher_logits: &[Tensor],
    weights: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    mean(&weighted_kl_divergence_rows(student_logits, teacher_logits, weights, temperature)?)
}

/// [`weighted_kl_divergence`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn weighted_kl_divergence_rows(
    student_logits: &Tensor,
    teacher_logits: &[Tensor],
    weights: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    let temperature = temperature.into();
    let Some(first) = teacher_logits.first() else { bail!("weighted_kl_divergence: expected teachers, found none") };
    let (rows, _) = pair("weighted_kl_divergence", student_logits, first)?;
    let expected = [rows, teacher_logits.len()];
    if weights.dims() != expected {
        bail!(
            "weighted_kl_divergence: expected weights (rows, teachers) of shape {expected:?}, found {:?}",
            weights.dims()
        );
    }
    let in_teacher = |(idx, teacher): (usize, &Tensor)| {
        let rows = kl_divergence_rows(student_logits, teacher, temperature);
        rows.map_err(|error| candle_core::Error::msg(format!("teacher {idx}: {error}")))
    };
    let divergences = teacher_logits.iter().enumerate().map(in_teacher).collect::<Result<Vec<_>>>()?;
    let divergences = Tensor::stack(&divergences, 1)?; // (rows, teachers)
    let weights = weights.detach().to_dtype(divergences.dtype())?;
    (divergences * weights)?.sum(1)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::losses::{kl_divergence_rows, soft_cross_entropy};
    use crate::ops::softmax;
    use crate::testing::{assert_close, check_gradient, random};

    #[test]
    fn its_gradient_is_that_of_the_mixture() {
        let (student, temperature) = (random(1, (3, 4)).unwrap(), 2.0);
        let teachers: Vec<_> = (2..4).map(|seed| (random(seed, (3, 4)).unwrap() * 2.0).unwrap()).collect();
        let weights = Tensor::new(&[[1f64, 0.], [0.25, 0.75], [0.5, 0.5]], &Device::Cpu).unwrap();
        let loss = |x: &Tensor| weighted_kl_divergence(x, &teachers, &weights, temperature);
        check_gradient(loss, &student, 1e-6).unwrap();
        let probs = |k: usize| softmax(&(&teachers[k] / temperature).unwrap()).unwrap();
        let part = |k: usize| probs(k).broadcast_mul(&weights.narrow(1, k, 1).unwrap()).unwrap();
        let mixture = (part(0) + part(1)).unwrap();
        let x = candle_core::Var::from_tensor(&student).unwrap();
        let gradient = |loss: Tensor| loss.backward().unwrap().get(&x).unwrap().clone();
        let of_mixture = gradient(soft_cross_entropy(&x, &mixture, temperature).unwrap());
        assert_close(&gradient(loss(&x).unwrap()), &of_mixture, 1e-12, 1e-12).unwrap();
    }

    #[test]
    fn a_teacher_alone_is_plain_distillation() {
        let (student, teacher) = (random(1, (3, 4)).unwrap(), random(2, (3, 4)).unwrap());
        let plain = kl_divergence_rows(&student, &teacher, 3.0).unwrap().to_vec1::<f64>().unwrap();
        let other = random(3, (3, 4)).unwrap();
        let alone = |weights: Tensor, teachers: &[Tensor]| {
            weighted_kl_divergence_rows(&student, teachers, &weights, 3.0).unwrap().to_vec1::<f64>().unwrap()
        };
        assert_eq!(
            alone(Tensor::ones((3, 1), candle_core::DType::F32, &Device::Cpu).unwrap(), std::slice::from_ref(&teacher)),
            plain
        );
        let second = Tensor::new(&[[0f32, 1.]; 3], &Device::Cpu).unwrap();
        assert_eq!(alone(second, &[other, teacher]), plain);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let logits = |rows| Tensor::zeros((rows, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let message = |teachers: &[Tensor], weights| {
            weighted_kl_divergence(&logits(2), teachers, &weights, 1.0).unwrap_err().to_string()
        };
        assert!(message(&[], logits(2)).contains("expected teachers, found none"));
        assert!(message(&[logits(2)], logits(2)).contains("of shape [2, 1], found [2, 2]"));
        assert!(message(&[logits(2), logits(3)], logits(2)).contains("teacher 1: kl_divergence: expected two tensors"));
    }
}
