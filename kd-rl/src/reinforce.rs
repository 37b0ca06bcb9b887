//! The policy gradient of Williams (1992), *Simple statistical gradient-following algorithms*.
//!
//! With actions `a ~ π` and a reward `R(a)`, `∇ E[R] = E[(R - b) · ∇ log π(a)]`: since `Σ_a π(a) = 1`, the part of the
//! baseline is `b · ∇ Σ_a π(a) = 0`. So `b` changes the variance and not the mean, as long as it does not depend on the
//! action it judges. `R - b` is the *advantage*; [`Baseline`](crate::baseline::Baseline) makes it.

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::selection::Choice;

/// `log π(a)` of each row: of a subset `Σ_k log (p_k if a_k = 1, else 1 - p_k)`, of one teacher `log p_k` of the one chosen,
/// of weights `-Σ_k (d_k - mean d)² / 2σ²`, `d_k = ln (a_k / p_k)`, the logarithm of their density but for what does not depend on
/// the policy.
///
/// # Shapes
/// - `probs`: `(rows, teachers)` float in `[0, 1]`, with the policy's graph; `actions`: the same, of 0 and 1 or weights above 0
/// - returns `(rows,)`, differentiable in `probs` only
///
/// # Errors
/// If shapes differ, or there are no teachers.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_rl::{reinforce::log_prob, selection::Choice};
/// let probs = Tensor::new(&[[0.5f64, 0.25]], &Device::Cpu)?;
/// let found = log_prob(Choice::Subset, &probs, &Tensor::new(&[[1f64, 0.]], &Device::Cpu)?)?.to_vec1::<f64>()?;
/// assert!((found[0] - (0.5f64 * 0.75).ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn log_prob(choice: Choice, probs: &Tensor, actions: &Tensor) -> Result<Tensor> {
    let (_rows, teachers) = probs.dims2()?;
    if teachers == 0 || actions.dims() != probs.dims() {
        bail!("expected actions of shape {:?} with teachers, found {:?}", probs.dims(), actions.dims());
    }
    let actions = actions.detach().to_dtype(probs.dtype())?;
    match choice {
        // One logarithm of the probability of what was done: a sum over both cases would be 0 · ln 0 at p = 0 or 1.
        Choice::Subset => {
            ((&actions * probs)? + (actions.affine(-1.0, 1.0)? * probs.affine(-1.0, 1.0)?)?)?.log()?.sum(1)
        }
        Choice::One => (&actions * probs)?.sum(1)?.log(),
        Choice::Weights { deviation } => {
            let apart = (actions.log()? - probs.log()?)?;
            let apart = apart.broadcast_sub(&apart.mean_keepdim(1)?)?;
            apart.sqr()?.sum(1)?.affine(-0.5 / (deviation * deviation), 0.0)
        }
    }
}

/// `-mean_rows advantage · log π(a)`: a step down this loss is a step up the expected reward.
///
/// # Shapes
/// - `log_prob`: `(rows,)`, from [`log_prob`]; `advantages`: `(rows,)` float on any device, detached here
/// - returns a scalar, differentiable in `log_prob` only
///
/// # Errors
/// If shapes differ, there are no rows, or an advantage is not finite; the message names its row.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_rl::{reinforce::{log_prob, reinforce_loss}, selection::Choice};
/// let (probs, actions) = (Tensor::new(&[[0.5f64, 0.5]], &Device::Cpu)?, Tensor::new(&[[1f64, 0.]], &Device::Cpu)?);
/// let loss = reinforce_loss(&log_prob(Choice::Subset, &probs, &actions)?, &Tensor::new(&[2f64], &Device::Cpu)?)?;
/// assert!((loss.to_scalar::<f64>()? - 2.0 * 2.0 * 2f64.ln()).abs() < 1e-12); // two choices of ln 2 each, times 2
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn reinforce_loss(log_prob: &Tensor, advantages: &Tensor) -> Result<Tensor> {
    let rows = log_prob.dims1()?;
    if rows == 0 || advantages.dims() != [rows] {
        bail!("expected advantages (rows,) as the {rows} rows of log π, at least one, found {:?}", advantages.dims());
    }
    let values = advantages.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    if let Some(row) = values.iter().position(|value| !value.is_finite()) {
        bail!("row {row}: expected a finite advantage, found {}", values[row]);
    }
    let advantages = advantages.detach().to_dtype(log_prob.dtype())?.to_device(log_prob.device())?;
    (log_prob * advantages)?.mean(0)?.neg()
}

/// Entropy of the policy in each row, in nats: of a subset the sum over teachers, from 0 to `K ln 2`; of one teacher from 0 to
/// `ln K`, and so of the weights that others are drawn around, how even they are. Subtracted from the loss it keeps a policy from growing sure before it knows (Williams & Peng 1991).
///
/// # Shapes
/// - `probs`: `(rows, teachers)` float in `[0, 1]`; returns `(rows,)`, differentiable
///
/// # Errors
/// If `probs` is no matrix.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_rl::{reinforce::entropy, selection::Choice};
/// let probs = Tensor::new(&[[0.5f64, 0.5]], &Device::Cpu)?;
/// assert!((entropy(Choice::Subset, &probs)?.to_vec1::<f64>()?[0] - 2.0 * 2f64.ln()).abs() < 1e-9);
/// assert!((entropy(Choice::One, &probs)?.to_vec1::<f64>()?[0] - 2f64.ln()).abs() < 1e-9);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn entropy(choice: Choice, probs: &Tensor) -> Result<Tensor> {
    probs.dims2()?;
    // Away from 0 by less than f32 can tell at 1, so that a certain choice has the entropy 0 and not 0 · ln 0.
    let part = |probs: &Tensor| -> Result<Tensor> {
        let probs = probs.affine(1.0 - 1e-12, 1e-12)?;
        (&probs * probs.log()?)?.sum(1)
    };
    match choice {
        Choice::Subset => (part(probs)? + part(&probs.affine(-1.0, 1.0)?)?)?.neg(),
        Choice::One | Choice::Weights { .. } => part(probs)?.neg(),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use kd_core::testing::check_gradient;

    use super::*;

    #[test]
    fn a_certain_choice_is_no_nan() {
        let probs = Var::new(&[[1f32, 0.0]], &Device::Cpu).unwrap();
        let actions = Tensor::new(&[[1f32, 0.0]], &Device::Cpu).unwrap();
        let log_prob = log_prob(Choice::Subset, &probs, &actions).unwrap();
        let loss = reinforce_loss(&log_prob, &Tensor::new(&[2f32], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(loss.to_scalar::<f32>().unwrap(), 0.0);
        let grads = loss.backward().unwrap();
        // d(-2 · (ln p_0 + ln(1 - p_1))) = (-2, 2) at p = (1, 0).
        assert_eq!(grads.get(&probs).unwrap().to_vec2::<f32>().unwrap(), [[-2.0, 2.0]]);
        let entropy = entropy(Choice::Subset, &probs).unwrap();
        assert!(entropy.to_vec1::<f32>().unwrap()[0].abs() < 1e-9);
        let gradient = entropy.sum_all().unwrap().backward().unwrap().get(&probs).unwrap().to_vec2::<f32>().unwrap();
        assert!(gradient.concat().iter().all(|value| value.is_finite()), "{gradient:?}");
    }

    #[test]
    fn gradients_match_finite_differences() {
        let probs = Tensor::new(&[[0.3f64, 0.6], [0.5, 0.9]], &Device::Cpu).unwrap();
        let advantages = Tensor::new(&[1.5f64, -0.5], &Device::Cpu).unwrap();
        for (choice, actions) in [
            (Choice::Subset, [[1f64, 0.], [1., 1.]]),
            (Choice::One, [[1., 0.], [0., 1.]]),
            (Choice::Weights { deviation: 0.7 }, [[0.8, 0.2], [0.4, 0.6]]),
        ] {
            let actions = Tensor::new(&actions, &Device::Cpu).unwrap();
            let loss = |probs: &Tensor| reinforce_loss(&log_prob(choice, probs, &actions)?, &advantages);
            check_gradient(loss, &probs, 1e-6).unwrap();
            check_gradient(|probs| entropy(choice, probs)?.sum_all(), &probs, 1e-6).unwrap();
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let tensor = |rows: usize, teachers: usize| Tensor::full(0.5f32, (rows, teachers), &Device::Cpu).unwrap();
        let message = |result: Result<Tensor>| result.unwrap_err().to_string();
        assert!(
            message(log_prob(Choice::Subset, &tensor(2, 0), &tensor(2, 0))).contains("with teachers, found [2, 0]")
        );
        assert!(message(log_prob(Choice::Subset, &tensor(2, 3), &tensor(2, 2))).contains("shape [2, 3]"));
        let vector = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        assert!(message(reinforce_loss(&vector(&[]), &vector(&[]))).contains("the 0 rows of log π, at least one"));
        assert!(message(reinforce_loss(&vector(&[0., 0.]), &vector(&[0.]))).contains("found [1]"));
        let nan = message(reinforce_loss(&vector(&[0., 0.]), &vector(&[0., f32::NAN])));
        assert!(nan.contains("row 1: expected a finite advantage, found NaN"), "{nan}");
    }
}
