//! Other ways to weigh teachers, under the same trait and from the same teacher outputs.
//!
//! What a policy is worth shows beside these. Each is a plain function of tensors; a [`Rule`] makes a
//! [`TeacherWeighting`] of one.
//!
//! | weighting                               | weights                                        | source                       |
//! |-----------------------------------------|------------------------------------------------|------------------------------|
//! | [`uniform`]                             | `1/K`                                          | U-Ensemble, Yuan et al. 2021 |
//! | [`random_single`]                       | one teacher for the batch, by chance           | Rand-Single-Ensemble, there  |
//! | [`fixed`], by [`mixture_weights`]       | one vector, the mixture that fits labels best  | W-Ensemble, there; EM, Dempster et al. 1977 |
//! | [`fixed`], by [`pool_weights`]          | one vector, a logistic regression              | LR-Ensemble, LR-Dev-Ensemble, there |
//! | [`fixed`], by [`covariance_weights`]    | one vector, least squared error in closed form | Bates & Granger 1969; Perrone & Cooper 1993 |
//! | [`best_single`]                         | the teacher of least CE on the row             | Best-Single-Ensemble, there  |
//! | [`confidence`]                          | `(1 - softmax(CE)_k) / (K - 1)`                | CA-MKD, Zhang et al. 2022    |
//! | [`inverse_cross_entropy`]               | `1 / (1 + CE_k)`, sum 1                        | MT-BERT, Wu et al. 2021      |
//! | [`Consensus`]                           | least norm of the mean gradient                | AE-KD, Du et al. 2020        |
//! | [`LinUcb`]                              | one teacher, by optimism in the row's state    | Li et al. 2010               |
//!
//! The vectors are fitted once, on whatever labelled outputs are given: on the development set (W-, LR-Dev-) or the
//! training set (LR-); the paper's own definitions are known from summaries. Weights by cross-entropy need the labels of
//! training rows, as the policy's state does.

mod bandit;
mod by_label;
mod consensus;
mod fitted;
mod solve;

use candle_core::{DType, Result, Tensor, bail};
use kd_core::batch::Batch;
use kd_core::weighting::TeacherWeighting;
use serde_json::{Value, json};

pub use self::bandit::LinUcb;
pub use self::by_label::{
    best_single, best_single_weights, confidence, confidence_weights, inverse_cross_entropy,
    inverse_cross_entropy_weights,
};
pub use self::consensus::{Consensus, consensus_weights};
pub use self::fitted::{covariance_weights, mixture_weights, pool_weights};
use crate::selection;

/// A weighting that is a function of the batch and its number, and learns nothing.
pub struct Rule<F> {
    description: Value,
    function: F,
}

impl<F: FnMut(&Batch, usize) -> Result<Tensor>> Rule<F> {
    /// `function` gives `(rows, teachers)`, rows sum to 1; `description` is what a checkpoint keeps of it.
    pub fn new(description: Value, function: F) -> Self {
        Self { description, function }
    }
}

impl<F> std::fmt::Debug for Rule<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule").field("description", &self.description).finish_non_exhaustive()
    }
}

impl<F: FnMut(&Batch, usize) -> Result<Tensor>> TeacherWeighting for Rule<F> {
    fn weigh(&mut self, batch: &Batch, number: usize) -> Result<Tensor> {
        if batch.teachers.is_empty() {
            bail!("the batch of examples {:?} has no teachers", batch.examples);
        }
        (self.function)(batch, number)
    }

    fn describe(&self) -> Value {
        self.description.clone()
    }
}

/// All teachers alike.
pub fn uniform() -> impl TeacherWeighting {
    Rule::new(json!("uniform"), |batch, _| {
        let teachers = batch.teachers.len();
        every_row(batch, &vec![1.0 / teachers as f64; teachers])
    })
}

/// One teacher for all rows of a batch, drawn from `seed` and the batch's number.
pub fn random_single(seed: u64) -> impl TeacherWeighting {
    Rule::new(json!({ "random_single": seed }), move |batch, number| {
        let teachers = batch.teachers.len();
        let chosen = (selection::uniform(seed, number, 0) * teachers as f64) as usize;
        every_row(batch, &(0..teachers).map(|idx| f64::from(u8::from(idx == chosen))).collect::<Vec<_>>())
    })
}

/// The same weights on every row.
///
/// # Errors
/// If a weight is negative or no number, or they do not sum to 1 within 1e-6.
///
/// ```
/// assert!(kd_rl::rivals::fixed(&[0.25, 0.75]).is_ok());
/// assert!(kd_rl::rivals::fixed(&[0.5, 0.75]).is_err());
/// ```
pub fn fixed(weights: &[f64]) -> Result<impl TeacherWeighting + use<>> {
    let sum: f64 = weights.iter().sum();
    let is_weight = |weight: &f64| weight.is_finite() && *weight >= 0.0;
    if !weights.iter().all(is_weight) || (sum - 1.0).abs() > 1e-6 {
        bail!("expected weights of at least 0 that sum to 1, found {weights:?}");
    }
    let weights = weights.to_vec();
    Ok(Rule::new(json!({ "fixed": weights }), move |batch, _| {
        if batch.teachers.len() != weights.len() {
            bail!("there are weights for {} teachers, the batch has {}", weights.len(), batch.teachers.len());
        }
        every_row(batch, &weights)
    }))
}

/// These weights on each row of the batch, f32, where its teachers are.
fn every_row(batch: &Batch, weights: &[f64]) -> Result<Tensor> {
    let device = batch.teacher_logits(0)?.device();
    let row = Tensor::new(weights, &candle_core::Device::Cpu)?.to_dtype(DType::F32)?.to_device(device)?;
    row.unsqueeze(0)?.repeat((batch.rows()?, 1))
}

#[cfg(test)]
mod tests;
