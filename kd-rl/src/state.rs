//! What a policy sees of a row: `[shared | teacher 0's own | teacher 1's own | …]`.
//!
//! Shared is a vector of the instance, from a frozen encoder, and whatever the caller knows of the student. A teacher's own
//! are its probabilities at temperature 1 and `ln(1 + CE)` of its cross-entropy against the label (Yuan et al. 2021 have the
//! cross-entropy itself, which has no bound). Without labels the latter are left out.
//!
//! The parts have different sizes, so [`Standardiser`] brings each feature to mean 0 and variance 1, by statistics that run
//! along. A vector of 768 such numbers would still drown the rest, and more: an optimiser that moves every weight by its learning
//! rate, as Adam, moves a logit by that rate times the sum over all features, whatever the gradient's size. So
//! [`Layout::scales`] lets the shared features vary by no more together than the teachers' own.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use kd_core::{losses, ops};
use serde::{Deserialize, Serialize};

/// Where in a state what stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Features at the beginning that belong to no teacher.
    pub shared: usize,
    /// Features of each teacher.
    pub own: usize,
    /// Number of teachers.
    pub teachers: usize,
}

impl Layout {
    /// The layout of [`features`]: own are `classes` probabilities, and a cross-entropy if there are labels.
    pub fn new(shared: usize, classes: usize, has_labels: bool, teachers: usize) -> Self {
        Self { shared, own: classes + usize::from(has_labels), teachers }
    }

    /// Length of a state.
    pub fn features(&self) -> usize {
        self.shared + self.own * self.teachers
    }

    /// What a policy multiplies each standardised feature by: `√(own · teachers / shared)` the shared ones where they are more
    /// than all teachers' own and there are any of these, else 1.
    ///
    /// ```
    /// let layout = kd_rl::state::Layout { shared: 8, own: 1, teachers: 2 };
    /// assert_eq!(layout.scales(), [[0.5; 8].as_slice(), &[1.0; 2]].concat());
    /// ```
    pub fn scales(&self) -> Vec<f64> {
        let (shared, own) = (self.shared, self.own * self.teachers);
        let scale = if own > 0 && shared > own { (own as f64 / shared as f64).sqrt() } else { 1.0 };
        [vec![scale; shared], vec![1.0; own]].concat()
    }
}

/// The states of a batch, not standardised.
///
/// # Shapes
/// - `shared`: `(rows, width)` float, or `None` for a width of 0; `teacher_logits`: `(rows, classes)` for each teacher
/// - `labels`: `(rows,)` u32
/// - returns `(rows, width + teachers · classes)`, or with labels `(rows, width + teachers · (classes + 1))`, without a graph,
///   in the dtype of the first teacher
///
/// # Errors
/// If there are no teachers, shapes differ, or a label is no class.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let teacher = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/4 and 3/4
/// let labels = Tensor::new(&[1u32], &Device::Cpu)?;
/// let state = kd_rl::state::features(None, &[teacher], Some(&labels))?.to_vec2::<f64>()?;
/// assert!((state[0][1] - 0.75).abs() < 1e-12 && (state[0][2] - (1. + (4f64 / 3.).ln()).ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn features(shared: Option<&Tensor>, teacher_logits: &[Tensor], labels: Option<&Tensor>) -> Result<Tensor> {
    let Some(first) = teacher_logits.first() else { bail!("a state needs teachers, found none") };
    let mut parts = Vec::with_capacity(1 + 2 * teacher_logits.len());
    parts.extend(shared.map(|shared| shared.detach().to_dtype(first.dtype())).transpose()?);
    for (idx, logits) in teacher_logits.iter().enumerate() {
        if logits.dims() != first.dims() {
            bail!("the logits of teacher 0 are {:?}, those of teacher {idx} {:?}", first.dims(), logits.dims());
        }
        let logits = logits.detach();
        parts.push(ops::softmax(&logits)?);
        if let Some(labels) = labels {
            let cross_entropy = losses::cross_entropy_rows(&logits, labels)?;
            parts.push(cross_entropy.affine(1.0, 1.0)?.log()?.unsqueeze(1)?);
        }
    }
    Tensor::cat(&parts, 1)
}

/// Refuses states that are not numbers.
///
/// # Errors
/// If a row has a feature that is NaN or infinite; the message names the first such row.
pub fn ensure_finite(states: &Tensor) -> Result<()> {
    let sums = states.sum(1)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    match sums.iter().position(|sum| !sum.is_finite()) {
        Some(row) => bail!("row {row}: expected a state of finite numbers, found a sum of {}", sums[row]),
        None => Ok(()),
    }
}

/// Running mean and variance of every feature (Chan et al. 1979), and what they make of a state.
#[derive(Debug, Clone, Default)]
pub struct Standardiser {
    rows: f64,
    /// Mean and sum of squared deviations, `(features,)` each.
    moments: Option<[Tensor; 2]>,
}

impl Standardiser {
    /// Takes in a batch of states, `(rows, features)`. No rows change nothing.
    ///
    /// # Errors
    /// If the number of features differs from the one so far, or a state is not finite; nothing has changed then.
    pub fn update(&mut self, states: &Tensor) -> Result<()> {
        let (rows, features) = states.dims2()?;
        if let Some([mean, _]) = &self.moments
            && mean.dims() != [features]
        {
            bail!("expected states of {:?} features, found {features}", mean.dims());
        }
        ensure_finite(states)?;
        if rows == 0 {
            return Ok(());
        }
        let (states, count) = (states.detach(), rows as f64);
        let mean = states.mean(0)?;
        let squares = states.broadcast_sub(&mean)?.sqr()?.sum(0)?;
        self.moments = Some(match &self.moments {
            None => [mean, squares],
            Some([old_mean, old_squares]) => {
                let (all, apart) = (self.rows + count, (&mean - old_mean)?);
                let between = (apart.sqr()? * (self.rows * count / all))?;
                [(old_mean + (apart * (count / all))?)?, ((old_squares + squares)? + between)?]
            }
        });
        self.rows += count;
        Ok(())
    }

    /// `(state - mean) / √(variance + 1e-6)`; a feature that never varies becomes 0. Before the first update the states as
    /// they are.
    ///
    /// # Errors
    /// If the number of features differs.
    pub fn apply(&self, states: &Tensor) -> Result<Tensor> {
        let Some([mean, squares]) = &self.moments else { return Ok(states.detach()) };
        let deviation = squares.affine(1.0 / self.rows, 1e-6)?.sqrt()?;
        states.detach().broadcast_sub(mean)?.broadcast_div(&deviation)
    }

    /// Rows taken in so far.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Its tensors `mean` and `squares`, none before the first update; with [`rows`](Self::rows) all there is to it.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let named = |[mean, squares]: &[Tensor; 2]| {
            [("mean".to_string(), mean.clone()), ("squares".to_string(), squares.clone())]
        };
        self.moments.iter().flat_map(named).collect()
    }

    /// What [`tensors`](Self::tensors) and [`rows`](Self::rows) gave.
    ///
    /// # Errors
    /// If one of the two tensors is missing though there were rows.
    pub fn from_tensors(tensors: &BTreeMap<String, Tensor>, rows: usize) -> Result<Self> {
        match (tensors.get("mean"), tensors.get("squares")) {
            (Some(mean), Some(squares)) => {
                Ok(Self { rows: rows as f64, moments: Some([mean.clone(), squares.clone()]) })
            }
            (None, None) if rows == 0 => Ok(Self::default()),
            _ => bail!("the statistics of {rows} states: expected `mean` and `squares`, found {:?}", tensors.keys()),
        }
    }
}

#[cfg(test)]
mod tests {
    use kd_core::testing::{assert_close, random};

    use super::*;

    #[test]
    fn statistics_do_not_depend_on_how_rows_come() {
        let states = (random(3, (10, 4)).unwrap() * 3.0).unwrap().affine(1.0, 5.0).unwrap();
        let (mut whole, mut parts) = (Standardiser::default(), Standardiser::default());
        whole.update(&states).unwrap();
        for (start, rows) in [(0, 1), (1, 0), (1, 6), (7, 3)] {
            parts.update(&states.narrow(0, start, rows).unwrap()).unwrap();
        }
        let standardised = parts.apply(&states).unwrap();
        assert_close(&standardised, &whole.apply(&states).unwrap(), 1e-12, 1e-12).unwrap();
        let squares = standardised.sqr().unwrap().mean(0).unwrap().to_vec1::<f64>().unwrap();
        assert!(squares.iter().all(|square| (square - 1.0).abs() < 1e-4), "{squares:?}");
        assert_eq!(parts.rows(), 10);
        let back = Standardiser::from_tensors(&parts.tensors(), parts.rows()).unwrap();
        let bits = |tensor: Tensor| tensor.to_vec2::<f64>().unwrap();
        assert_eq!(bits(back.apply(&states).unwrap()), bits(standardised));
    }

    #[test]
    fn a_feature_that_never_varies_is_0() {
        let mut standardiser = Standardiser::default();
        let states = Tensor::new(&[[7f64], [7.]], &Device::Cpu).unwrap();
        assert_eq!(standardiser.apply(&states).unwrap().to_vec2::<f64>().unwrap(), [[7.], [7.]]);
        standardiser.update(&states).unwrap();
        assert_eq!(standardiser.apply(&states).unwrap().to_vec2::<f64>().unwrap(), [[0.], [0.]]);
    }

    #[test]
    fn states_that_are_no_numbers_are_refused_and_forgotten() {
        let mut standardiser = Standardiser::default();
        let bad = Tensor::new(&[[0f32, 1.], [f32::NAN, 1.]], &Device::Cpu).unwrap();
        let message = standardiser.update(&bad).unwrap_err().to_string();
        assert!(message.contains("row 1: expected a state of finite numbers"), "{message}");
        assert_eq!(standardiser.rows(), 0);
        standardiser.update(&bad.narrow(0, 0, 1).unwrap()).unwrap();
        let narrow = Tensor::zeros((1, 3), DType::F32, &Device::Cpu).unwrap();
        assert!(standardiser.update(&narrow).unwrap_err().to_string().contains("found 3"));
        assert!(Standardiser::from_tensors(&BTreeMap::new(), 3).unwrap_err().to_string().contains("of 3 states"));
    }

    #[test]
    fn a_state_holds_shared_and_own_features_in_order() {
        let logits = |values: [f64; 2]| Tensor::new(&[values], &Device::Cpu).unwrap();
        let shared = Tensor::new(&[[9f32]], &Device::Cpu).unwrap();
        let teachers = [logits([0., 0.]), logits([0., 3f64.ln()])];
        let state = features(Some(&shared), &teachers, None).unwrap().to_vec2::<f64>().unwrap();
        for (found, expected) in state[0].iter().zip([9., 0.5, 0.5, 0.25, 0.75]) {
            assert!((found - expected).abs() < 1e-12, "{state:?}");
        }
        assert_eq!(Layout::new(1, 2, false, 2).features(), state[0].len());
        let message = features(None, &[], None).unwrap_err().to_string();
        assert!(message.contains("needs teachers, found none"), "{message}");
        let wide = Tensor::zeros((1, 3), DType::F64, &Device::Cpu).unwrap();
        let message = features(None, &[logits([0., 0.]), wide], None).unwrap_err().to_string();
        assert!(message.contains("those of teacher 1 [1, 3]"), "{message}");
    }
}
