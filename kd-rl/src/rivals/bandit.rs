//! A contextual bandit: one teacher for each row, by what choosing it earned in states like this.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use kd_core::batch::Batch;
use kd_core::losses;
use kd_core::model::Mode;
use kd_core::weighting::{Feedback, TeacherWeighting, WeightingState};
use serde_json::{Value, json};

use crate::reinforced::teacher_logits;
use crate::reward::gold;
use crate::state::{Standardiser, features};

type Embed<'a> = Box<dyn Fn(&Batch) -> Result<Tensor> + 'a>;

/// LinUCB with a model for each teacher (Li et al. 2010, algorithm 1): on a row of state `x` it takes the teacher with the largest
/// `θ_k · x + α √(xᵀ A_k⁻¹ x)`, the first of several, where `A_k = 1 + Σ x xᵀ` and `θ_k = A_k⁻¹ Σ r x` run over the rows on which
/// teacher `k` was taken. It draws nothing by chance: doubt is what makes it explore.
///
/// States are those of a policy, standardised, and a constant 1; the reward is minus the updated student's cross-entropy of the
/// row ([`gold`]). Time and memory of a row are those of a square of the state's length: it is for states of a few
/// hundred numbers.
pub struct LinUcb<'a> {
    alpha: f64,
    teachers: usize,
    has_labels: bool,
    embed: Option<Embed<'a>>,
    standardiser: Standardiser,
    /// One for each teacher, from the first batch on.
    arms: Vec<Arm>,
    /// States with their constant, and the teacher taken, of each row.
    pending: BTreeMap<usize, Vec<(Vec<f64>, usize)>>,
}

/// `A⁻¹`, row by row, and `Σ r x`.
#[derive(Debug, Clone, PartialEq)]
struct Arm {
    inverse: Vec<f64>,
    rewards: Vec<f64>,
}

impl Arm {
    fn new(features: usize) -> Self {
        let inverse = (0..features * features).map(|idx| f64::from(u8::from(idx % (features + 1) == 0))).collect();
        Self { inverse, rewards: vec![0.0; features] }
    }

    /// `A⁻¹ x`.
    fn product(&self, x: &[f64]) -> Vec<f64> {
        self.inverse.chunks(x.len()).map(|row| dot(row, x)).collect()
    }

    /// `A ← A + x xᵀ` by Sherman and Morrison's formula, and the reward.
    fn learn(&mut self, x: &[f64], reward: f64) {
        let product = self.product(x);
        let scale = 1.0 / (1.0 + dot(&product, x));
        for (row, left) in self.inverse.chunks_mut(x.len()).zip(&product) {
            row.iter_mut().zip(&product).for_each(|(value, right)| *value -= scale * left * right);
        }
        self.rewards.iter_mut().zip(x).for_each(|(sum, x)| *sum += reward * x);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl std::fmt::Debug for LinUcb<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { alpha, teachers, .. } = self;
        f.debug_struct("LinUcb").field("alpha", alpha).field("teachers", teachers).finish_non_exhaustive()
    }
}

impl<'a> LinUcb<'a> {
    /// A bandit over `teachers` teachers that adds `alpha` standard errors to what it expects, in the reward's unit; with
    /// `labels_in_state` states hold the teachers' cross-entropies.
    ///
    /// # Errors
    /// If there are no teachers, or `alpha` is not finite and at least 0.
    pub fn new(teachers: usize, alpha: f64, labels_in_state: bool) -> Result<Self> {
        if teachers == 0 {
            bail!("a bandit needs teachers, found none");
        }
        if !(alpha.is_finite() && alpha >= 0.0) {
            bail!("`alpha`: expected a finite number of at least 0, found {alpha}");
        }
        let (standardiser, arms, pending) = (Standardiser::default(), Vec::new(), BTreeMap::new());
        Ok(Self { alpha, teachers, has_labels: labels_in_state, embed: None, standardiser, arms, pending })
    }

    /// With vectors of a batch's rows, `(rows, width)`, in front of the state.
    #[must_use]
    pub fn with_embedding(mut self, embed: impl Fn(&Batch) -> Result<Tensor> + 'a) -> Self {
        self.embed = Some(Box::new(embed));
        self
    }
}

impl TeacherWeighting for LinUcb<'_> {
    fn weigh(&mut self, batch: &Batch, number: usize) -> Result<Tensor> {
        if batch.teachers.len() != self.teachers {
            bail!("the bandit knows {} teachers, the batch has {}", self.teachers, batch.teachers.len());
        }
        let shared = self.embed.as_ref().map(|embed| embed(batch)).transpose()?;
        let labels = if self.has_labels { Some(batch.labels()?) } else { None };
        let states = features(shared.as_ref(), &teacher_logits(batch)?, labels)?;
        self.standardiser.update(&states)?;
        let states = self.standardiser.apply(&states)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let states: Vec<Vec<f64>> = states.into_iter().map(|state| [vec![1.0], state].concat()).collect();
        if let (Some(state), true) = (states.first(), self.arms.is_empty()) {
            self.arms = vec![Arm::new(state.len()); self.teachers];
        }
        let means: Vec<Vec<f64>> = self.arms.iter().map(|arm| arm.product(&arm.rewards)).collect();
        let (mut weights, mut chosen) = (Vec::with_capacity(states.len() * self.teachers), Vec::new());
        for state in states {
            let bound = |k: usize| {
                let width = dot(&self.arms[k].product(&state), &state).max(0.0).sqrt();
                dot(&means[k], &state) + self.alpha * width
            };
            let bounds: Vec<f64> = (0..self.teachers).map(bound).collect();
            let best = (1..self.teachers).fold(0, |best, k| if bounds[k] > bounds[best] { k } else { best });
            weights.extend((0..self.teachers).map(|k| if k == best { 1f32 } else { 0.0 }));
            chosen.push((state, best));
        }
        let device = batch.teacher_logits(0)?.device();
        let weights = Tensor::from_vec(weights, (chosen.len(), self.teachers), device)?;
        self.pending.insert(number, chosen);
        Ok(weights)
    }

    fn feedback(&mut self, feedback: &Feedback<'_>) -> Result<()> {
        self.pending = self.pending.split_off(&feedback.number);
        let Some(chosen) = self.pending.remove(&feedback.number) else {
            bail!("feedback on batch {}, which was not weighed", feedback.number);
        };
        let output = feedback.student.forward_batch(feedback.batch, Mode::Eval)?;
        let hard = losses::cross_entropy_rows(&output.logits()?.detach(), feedback.batch.labels()?)?;
        let rewards = gold(&hard)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        if let Some(row) = rewards.iter().position(|reward| !reward.is_finite()) {
            bail!("row {row}: expected a finite reward, found {}", rewards[row]);
        }
        for ((state, arm), reward) in chosen.iter().zip(rewards) {
            self.arms[*arm].learn(state, reward);
        }
        Ok(())
    }

    fn describe(&self) -> Value {
        json!({ "lin_ucb": { "alpha": self.alpha, "teachers": self.teachers, "labels_in_state": self.has_labels } })
    }

    fn state(&self) -> Result<WeightingState> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in self.standardiser.tensors() {
            tensors.insert(format!("states/{name}"), tensor.copy()?);
        }
        for (idx, Arm { inverse, rewards }) in self.arms.iter().enumerate() {
            tensors.insert(format!("inverse/{idx}"), Tensor::new(inverse.as_slice(), &Device::Cpu)?);
            tensors.insert(format!("rewards/{idx}"), Tensor::new(rewards.as_slice(), &Device::Cpu)?);
        }
        Ok(WeightingState { tensors, values: json!({ "rows": self.standardiser.rows(), "arms": self.arms.len() }) })
    }

    fn restore(&mut self, state: &WeightingState) -> Result<()> {
        let number = |name: &str| match state.values[name].as_u64() {
            Some(number) => Ok(number as usize),
            None => bail!("the state of a bandit lacks `{name}`, found {}", state.values),
        };
        let vector = |name: String| match state.tensors.get(&name) {
            Some(tensor) => tensor.to_vec1::<f64>(),
            None => bail!("the state of a bandit lacks `{name}`"),
        };
        let (rows, arms) = (number("rows")?, number("arms")?);
        if arms != 0 && arms != self.teachers {
            bail!("expected the state of {} teachers, found {arms}", self.teachers);
        }
        let arm =
            |idx| Ok(Arm { inverse: vector(format!("inverse/{idx}"))?, rewards: vector(format!("rewards/{idx}"))? });
        let arms = (0..arms).map(arm).collect::<Result<_>>()?;
        let named = state.tensors.iter();
        let named =
            named.filter_map(|(name, tensor)| Some((name.strip_prefix("states/")?.to_string(), tensor.clone())));
        self.standardiser = Standardiser::from_tensors(&named.collect(), rows)?;
        self.arms = arms;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_is_ridge_regression() {
        // Two observations x = (1, 0), (1, 2) with rewards 3, 1: A = [[3, 2], [2, 5]], b = (4, 2), θ = A⁻¹ b = (16, -2) / 11.
        let mut arm = Arm::new(2);
        arm.learn(&[1.0, 0.0], 3.0);
        arm.learn(&[1.0, 2.0], 1.0);
        for (found, expected) in arm.inverse.iter().zip([5.0, -2.0, -2.0, 3.0]) {
            assert!((found - expected / 11.0).abs() < 1e-12, "{arm:?}");
        }
        let theta = arm.product(&arm.rewards);
        assert!((theta[0] - 16.0 / 11.0).abs() < 1e-12 && (theta[1] + 2.0 / 11.0).abs() < 1e-12, "{theta:?}");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let message = |result: Result<LinUcb<'_>>| result.unwrap_err().to_string();
        assert!(message(LinUcb::new(0, 1.0, true)).contains("needs teachers, found none"));
        assert!(message(LinUcb::new(2, f64::NAN, true)).contains("`alpha`: expected"));
        let mut bandit = LinUcb::new(2, 1.0, true).unwrap();
        let error = bandit.restore(&WeightingState::default()).unwrap_err().to_string();
        assert!(error.contains("lacks `rows`"), "{error}");
    }
}
