//! From probabilities to choices, and from choices to teacher weights.
//!
//! Every draw is a pure function of a seed, the number of the batch and the place in it: nothing is kept between draws, so
//! a resumed run chooses what an uninterrupted one would have chosen, on every device.

use candle_core::{DType, Device, Result, Tensor, bail};
use kd_core::variables::mix;
use serde::{Deserialize, Serialize};

/// How many teachers a policy chooses for a row.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Any set of them: an action of 0 or 1 for each, drawn apart (Yuan et al. 2021).
    #[default]
    Subset,
    /// One of them: probabilities of a row sum to 1, and so do its actions.
    One,
    /// All of them by weights that sum to 1, drawn around those of the policy: `w = softmax(ln p + σ ε)` with `ε` normal, the
    /// logistic-normal distribution (Aitchison & Shen 1980). A row's actions are the weights.
    Weights {
        /// `σ`, in nats, > 0.
        deviation: f64,
    },
}

/// A number in `[0, 1)` that depends on the three arguments alone.
pub fn uniform(seed: u64, number: usize, index: usize) -> f64 {
    let bits = mix(mix(seed, number as u64), index as u64);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// A normal number of mean 0 and variance 1 that depends on the three arguments alone (Box & Muller 1958).
fn normal(seed: u64, number: usize, index: usize) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(seed, number, 2 * index)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(seed, number, 2 * index + 1)).cos()
}

/// Draws the actions of batch `number`: of every row and teacher, 1 for chosen and 0 for not, or its weight.
///
/// # Shapes
/// - `probs`: `(rows, teachers)` float in `[0, 1]`; each row sums to 1, but for [`Choice::Subset`]; above 0 for
///   [`Choice::Weights`]
/// - returns `(rows, teachers)` of 0 and 1, of weights for [`Choice::Weights`], dtype and device of `probs`, without a graph
///
/// # Errors
/// If there are no teachers, a probability is not a number in `[0, 1]`, or a row that should does not sum to 1
/// within 1e-3; the message names the place.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_rl::selection::{Choice, select};
/// let probs = Tensor::new(&[[1f32, 0.], [0., 1.]], &Device::Cpu)?;
/// assert_eq!(select(Choice::Subset, &probs, 7, 0)?.to_vec2::<f32>()?, [[1., 0.], [0., 1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn select(choice: Choice, probs: &Tensor, seed: u64, number: usize) -> Result<Tensor> {
    let (rows, teachers) = probs.dims2()?;
    if teachers == 0 {
        bail!("there are no teachers to choose from: probabilities of shape {:?}", probs.dims());
    }
    let mut actions = Vec::with_capacity(rows * teachers);
    for (row, probs) in host(probs)?.iter().enumerate() {
        if let Some(teacher_idx) = probs.iter().position(|prob| !(0.0..=1.0).contains(prob)) {
            let prob = probs[teacher_idx];
            bail!("row {row}, teacher {teacher_idx}: expected a probability in [0, 1], found {prob}");
        }
        match choice {
            Choice::Subset => actions.extend(probs.iter().enumerate().map(|(teacher_idx, &prob)| {
                f64::from(u8::from(uniform(seed, number, row * teachers + teacher_idx) < prob))
            })),
            Choice::Weights { deviation } => {
                sum_of(row, probs)?;
                if let Some(idx) = probs.iter().position(|&prob| prob == 0.0) {
                    bail!("row {row}, teacher {idx}: expected a weight above 0 to draw around, found 0");
                }
                let noise = |idx| deviation * normal(seed, number, row * teachers + idx);
                let logits: Vec<f64> = probs.iter().enumerate().map(|(idx, prob)| prob.ln() + noise(idx)).collect();
                let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let exps: Vec<f64> = logits.into_iter().map(|logit| (logit - largest).exp()).collect();
                let sum: f64 = exps.iter().sum();
                actions.extend(exps.into_iter().map(|exp| exp / sum));
            }
            Choice::One => {
                let sum = sum_of(row, probs)?;
                let draw = uniform(seed, number, row) * sum;
                let ends = probs.iter().scan(0.0, |end, prob| {
                    *end += prob;
                    Some(*end)
                });
                let chosen = ends.take_while(|&end| end <= draw).count();
                // Rounding may leave the draw beyond the last end; then it is the last teacher that can be drawn.
                let last = probs.iter().rposition(|&prob| prob > 0.0).unwrap_or(teachers - 1);
                actions.extend((0..teachers).map(|idx| f64::from(u8::from(idx == chosen.min(last)))));
            }
        }
    }
    place(actions, probs)
}

/// The sum of a row of probabilities, which is 1 but for rounding.
fn sum_of(row: usize, probs: &[f64]) -> Result<f64> {
    let sum: f64 = probs.iter().sum();
    if (sum - 1.0).abs() > 1e-3 {
        bail!("row {row}: expected probabilities that sum to 1, found a sum of {sum}");
    }
    Ok(sum)
}

/// Teacher weights, and how they came about.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Weight of each teacher on each row, `(rows, teachers)`; each row sums to 1.
    pub weights: Tensor,
    /// Number of rows on which no teacher was chosen and the most probable one stepped in.
    pub empty: usize,
}

/// The chosen teachers of a row share its weight evenly: `w_k = a_k / Σ_j a_j`.
///
/// A row without a chosen teacher has no such weights. There the most probable teacher steps in, the first of several,
/// so that the soft term's share of the loss never depends on the draw; such rows are counted. The action itself stays
/// as it was drawn, for [`log_prob`](crate::reinforce::log_prob): the policy is judged by what came of drawing nothing.
///
/// # Shapes
/// - `actions`: `(rows, teachers)` of 0 and 1, as [`select`] draws them; `probs`: `(rows, teachers)`, what they were drawn from
///
/// # Errors
/// If there are no teachers, the shapes differ, or an action is neither 0 nor 1; the message names its place.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let actions = Tensor::new(&[[1f32, 0., 1.], [0., 0., 0.]], &Device::Cpu)?;
/// let probs = Tensor::new(&[[0.5f32, 0.5, 0.5], [0.1, 0.3, 0.2]], &Device::Cpu)?;
/// let found = kd_rl::selection::weights(&actions, &probs)?;
/// assert_eq!(found.weights.to_vec2::<f32>()?, [[0.5, 0., 0.5], [0., 1., 0.]]);
/// assert_eq!(found.empty, 1);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn weights(actions: &Tensor, probs: &Tensor) -> Result<Weights> {
    let (rows, teachers) = actions.dims2()?;
    if teachers == 0 {
        bail!("there are no teachers to weigh: actions of shape {:?}", actions.dims());
    }
    if probs.dims() != actions.dims() {
        bail!("expected probabilities of shape {:?}, as the actions, found {:?}", actions.dims(), probs.dims());
    }
    let (mut weights, mut empty) = (Vec::with_capacity(rows * teachers), 0);
    for (row, (actions, probs)) in host(actions)?.iter().zip(host(probs)?).enumerate() {
        if let Some(teacher_idx) = actions.iter().position(|&action| action != 0.0 && action != 1.0) {
            bail!("row {row}, teacher {teacher_idx}: expected an action of 0 or 1, found {}", actions[teacher_idx]);
        }
        let chosen: f64 = actions.iter().sum();
        if chosen > 0.0 {
            weights.extend(actions.iter().map(|action| action / chosen));
        } else {
            empty += 1;
            let best = (1..teachers).fold(0, |best, idx| if probs[idx] > probs[best] { idx } else { best });
            weights.extend((0..teachers).map(|idx| f64::from(u8::from(idx == best))));
        }
    }
    Ok(Weights { weights: place(weights, actions)?, empty })
}

/// The values of a matrix; converted here, since not every device has f64.
fn host(matrix: &Tensor) -> Result<Vec<Vec<f64>>> {
    matrix.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec2()
}

/// `values` in the shape and dtype and on the device of `like`.
fn place(values: Vec<f64>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_come_as_often_as_their_probability_says() {
        let rows = 40_000;
        for (choice, probs) in [(Choice::Subset, [0.0, 0.2, 0.5, 1.0]), (Choice::One, [0.0, 0.2, 0.5, 0.3])] {
            let tensor = Tensor::new(&[probs], &Device::Cpu).unwrap().repeat((rows, 1)).unwrap();
            let actions = select(choice, &tensor, 5, 0).unwrap();
            for (mean, prob) in actions.mean(0).unwrap().to_vec1::<f64>().unwrap().iter().zip(probs) {
                // Four standard errors: a false alarm in one of 16,000 seeds, for each of five columns.
                assert!((mean - prob).abs() <= 4.0 * (prob * (1.0 - prob) / rows as f64).sqrt(), "{mean} for {prob}");
            }
            if choice == Choice::One {
                let sums = actions.sum(1).unwrap().to_vec1::<f64>().unwrap();
                assert!(sums.iter().all(|&sum| sum == 1.0));
            }
        }
    }

    #[test]
    fn weights_are_drawn_around_those_of_the_policy() {
        // ln(w_1 / w_0) is normal around ln(p_1 / p_0) = ln 3 with the variance σ² + σ².
        let (rows, deviation) = (40_000, 0.5);
        let probs = Tensor::new(&[[0.25f64, 0.75]], &Device::Cpu).unwrap().repeat((rows, 1)).unwrap();
        let drawn = select(Choice::Weights { deviation }, &probs, 5, 0).unwrap().to_vec2::<f64>().unwrap();
        assert!(drawn.iter().all(|row| (row[0] + row[1] - 1.0).abs() < 1e-12));
        let ratios: Vec<f64> = drawn.iter().map(|row| (row[1] / row[0]).ln()).collect();
        let mean = ratios.iter().sum::<f64>() / rows as f64;
        let variance = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / rows as f64;
        // Four standard errors: √(0.5 / rows) of the mean, √(2 / rows) · 0.5 of the variance.
        assert!((mean - 3f64.ln()).abs() < 4.0 * (0.5 / rows as f64).sqrt(), "{mean}");
        assert!((variance - 0.5).abs() < 4.0 * 0.5 * (2.0 / rows as f64).sqrt(), "{variance}");
        let zero = Tensor::new(&[[0f64, 1.0]], &Device::Cpu).unwrap();
        let message = select(Choice::Weights { deviation }, &zero, 5, 0).unwrap_err().to_string();
        assert!(message.contains("row 0, teacher 0: expected a weight above 0"), "{message}");
    }

    #[test]
    fn seed_number_and_place_alone_decide() {
        let probs = Tensor::full(0.5f32, (8, 4), &Device::Cpu).unwrap();
        let draw = |seed, number| select(Choice::Subset, &probs, seed, number).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(draw(1, 3), draw(1, 3));
        assert_ne!(draw(1, 3), draw(2, 3));
        assert_ne!(draw(1, 3), draw(1, 4));
        // A row's draw does not depend on the rows after it.
        let fewer = select(Choice::Subset, &probs.narrow(0, 0, 3).unwrap(), 1, 3).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(draw(1, 3)[..3], fewer);
    }

    #[test]
    fn what_is_no_probability_or_action_is_named() {
        let tensor = |values: [[f32; 2]; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
        for (bad, found) in [(f32::NAN, "found NaN"), (1.5, "found 1.5"), (-0.5, "found -0.5")] {
            let message = select(Choice::Subset, &tensor([[0.5, 0.5], [0.5, bad]]), 0, 0).unwrap_err().to_string();
            assert!(message.contains("row 1, teacher 1") && message.contains(found), "{message}");
        }
        let message = select(Choice::One, &tensor([[0.5, 0.5], [0.5, 0.0]]), 0, 0).unwrap_err().to_string();
        assert!(message.contains("row 1: expected probabilities that sum to 1, found a sum of 0.5"), "{message}");
        let probs = tensor([[0.5; 2]; 2]);
        for (bad, found) in [(f32::NAN, "found NaN"), (0.5, "found 0.5")] {
            let message = weights(&tensor([[1.0, bad], [0.0, 1.0]]), &probs).unwrap_err().to_string();
            assert!(message.contains("row 0, teacher 1") && message.contains(found), "{message}");
        }
        let none = Tensor::zeros((2, 0), DType::F32, &Device::Cpu).unwrap();
        assert!(select(Choice::Subset, &none, 0, 0).unwrap_err().to_string().contains("no teachers to choose from"));
        assert!(weights(&none, &none).unwrap_err().to_string().contains("no teachers to weigh"));
        assert!(weights(&probs, &none).unwrap_err().to_string().contains("as the actions, found [2, 0]"));
    }
}
