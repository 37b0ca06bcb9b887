//! From probabilities to choices, and from choices to teacher weights.

use candle_core::{DType, Result, Tensor, bail};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Draws one action per row and teacher: 1 with the given probability, else 0.
///
/// The draws are made on the host in row-major order, one number each, so the same generator gives the same
/// actions on every device.
///
/// # Shapes
/// - `probs`: `(rows, teachers)` float in `[0, 1]`
/// - returns `(rows, teachers)` of 0 and 1, dtype and device of `probs`, without a graph
///
/// # Errors
/// If there are no teachers, or a probability is not a number in `[0, 1]`; the message names its place.
pub fn select(probs: &Tensor, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let shape = probs.dims2()?;
    if shape.1 == 0 {
        bail!("there are no teachers to choose from: probabilities of shape {:?}", probs.dims());
    }
    let values = probs.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let mut actions = Vec::with_capacity(shape.0 * shape.1);
    for (row, probs) in values.iter().enumerate() {
        for (teacher_idx, &prob) in probs.iter().enumerate() {
            if !(0.0..=1.0).contains(&prob) {
                bail!("row {row}, teacher {teacher_idx}: expected a probability in [0, 1], found {prob}");
            }
            actions.push(f64::from(u8::from(rng.random::<f64>() < prob)));
        }
    }
    Tensor::from_vec(actions, shape, probs.device())?.to_dtype(probs.dtype())
}

/// Teacher weights, and how they came about.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Weight of each teacher on each row, `(rows, teachers)`; each row sums to 1.
    pub weights: Tensor,
    /// Number of rows on which no teacher was chosen and all got the same weight instead.
    pub empty: usize,
}

/// The chosen teachers of a row share its weight evenly: `w_k = a_k / Σ_j a_j`.
///
/// A row without a chosen teacher has no such weights. It falls back to all teachers alike, so that the soft term's
/// share of the loss never depends on the draw; such rows are counted in [`Weights::empty`]. The action itself stays
/// as it was drawn, for [`crate::reinforce::reinforce_loss`].
///
/// # Shapes
/// - `actions`: `(rows, teachers)` of 0 and 1, as [`select`] draws them
///
/// # Errors
/// If there are no teachers, or an action is neither 0 nor 1; the message names its place.
pub fn weights(actions: &Tensor) -> Result<Weights> {
    let (rows, teachers) = actions.dims2()?;
    if teachers == 0 {
        bail!("there are no teachers to weigh: actions of shape {:?}", actions.dims());
    }
    let (mut weights, mut empty) = (Vec::with_capacity(rows * teachers), 0);
    for (row, actions) in actions.to_dtype(DType::F64)?.to_vec2::<f64>()?.iter().enumerate() {
        if let Some(teacher_idx) = actions.iter().position(|&action| action != 0.0 && action != 1.0) {
            bail!("row {row}, teacher {teacher_idx}: expected an action of 0 or 1, found {}", actions[teacher_idx]);
        }
        let chosen: f64 = actions.iter().sum();
        empty += usize::from(chosen == 0.0);
        weights.extend(actions.iter().map(|a| if chosen == 0.0 { 1.0 / teachers as f64 } else { a / chosen }));
    }
    let weights = Tensor::from_vec(weights, (rows, teachers), actions.device())?.to_dtype(actions.dtype())?;
    Ok(Weights { weights, empty })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use rand::SeedableRng;

    #[test]
    fn choices_come_as_often_as_their_probability_says() {
        let (rows, probs) = (40_000, [0.0, 0.2, 0.5, 1.0]);
        let tensor = Tensor::new(&[probs], &Device::Cpu).unwrap().repeat((rows, 1)).unwrap();
        let actions = select(&tensor, &mut ChaCha8Rng::seed_from_u64(5)).unwrap();
        let means = actions.mean(0).unwrap().to_vec1::<f64>().unwrap();
        for (mean, prob) in means.iter().zip(probs) {
            // Four standard errors: a false alarm in one of 16,000 draws of the seed, for each of two columns.
            assert!((mean - prob).abs() <= 4.0 * (prob * (1.0 - prob) / rows as f64).sqrt(), "{mean} for {prob}");
        }
    }

    #[test]
    fn the_generator_alone_decides() {
        let probs = Tensor::full(0.5f32, (8, 4), &Device::Cpu).unwrap();
        let draw = |seed| {
            let actions = select(&probs, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
            actions.to_vec2::<f32>().unwrap()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn weights_are_shared_and_an_empty_choice_is_counted() {
        let actions = [[1f32, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]];
        let found = weights(&Tensor::new(&actions, &Device::Cpu).unwrap()).unwrap();
        let expected = [[0.5f32, 0.0, 0.5, 0.0], [0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]];
        assert_eq!(found.weights.to_vec2::<f32>().unwrap(), expected);
        assert_eq!(found.empty, 1);
    }

    #[test]
    fn what_is_no_probability_or_action_is_named() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let tensor = |values: [[f32; 2]; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
        for (bad, found) in [(f32::NAN, "found NaN"), (1.5, "found 1.5"), (-0.5, "found -0.5")] {
            let message = select(&tensor([[0.5, 0.5], [0.5, bad]]), &mut rng).unwrap_err().to_string();
            assert!(message.contains("row 1, teacher 1") && message.contains(found), "{message}");
        }
        for (bad, found) in [(f32::NAN, "found NaN"), (0.5, "found 0.5")] {
            let message = weights(&tensor([[1.0, bad], [0.0, 1.0]])).unwrap_err().to_string();
            assert!(message.contains("row 0, teacher 1") && message.contains(found), "{message}");
        }
        let none = Tensor::zeros((2, 0), DType::F32, &Device::Cpu).unwrap();
        assert!(select(&none, &mut rng).unwrap_err().to_string().contains("no teachers to choose from"));
        assert!(weights(&none).unwrap_err().to_string().contains("no teachers to weigh"));
    }
}
