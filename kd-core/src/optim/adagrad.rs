//! Adagrad.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::groups::Group;
use super::slots::{Slots, bookkeeping};
use super::update::Rule;
use super::{Optimizer, ensure, is_at_least_zero};
use crate::ops::embedding::SparseGradient;

/// Settings of [`Adagrad`].
///
/// | field                       | default | range | source                          |
/// |-----------------------------|---------|-------|---------------------------------|
/// | `lr`                        | –       | ≥ 0   | peak rate; a schedule scales it |
/// | `lr_decay`                  | 0       | ≥ 0   | PyTorch's default               |
/// | `weight_decay`              | 0       | ≥ 0   | PyTorch's default               |
/// | `initial_accumulator_value` | 0       | ≥ 0   | PyTorch's default               |
/// | `eps`                       | 1e-10   | > 0   | PyTorch's default               |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdagradConfig {
    /// Peak learning rate; PyTorch's default is 0.01.
    pub lr: f64,
    /// The rate of update `t`, from 1 on, is divided by `1 + (t - 1) · lr_decay`.
    pub lr_decay: f64,
    /// Times the weight it is added to the gradient; not applied to biases and norms.
    pub weight_decay: f64,
    /// What the sums of squared gradients start at.
    pub initial_accumulator_value: f64,
    /// Added to the root of the sum.
    pub eps: f64,
}

impl AdagradConfig {
    /// The defaults of the table with a learning rate.
    pub fn with_lr(lr: f64) -> Self {
        Self { lr, lr_decay: 0.0, weight_decay: 0.0, initial_accumulator_value: 0.0, eps: 1e-10 }
    }

    fn check(&self) -> crate::Result<()> {
        let Self { lr, lr_decay, weight_decay, initial_accumulator_value: initial, eps } = *self;
        ensure(is_at_least_zero(lr), "lr", "a finite rate of at least 0", lr)?;
        ensure(is_at_least_zero(lr_decay), "lr_decay", "a finite value of at least 0", lr_decay)?;
        ensure(is_at_least_zero(weight_decay), "weight_decay", "a finite value of at least 0", weight_decay)?;
        ensure(is_at_least_zero(initial), "initial_accumulator_value", "a finite value of at least 0", initial)?;
        ensure(eps.is_finite() && eps > 0.0, "eps", "a finite value above 0", eps)
    }
}

/// Steps by the root of the sum of all squared gradients (Duchi et al. 2011, §1.1), as PyTorch's `Adagrad`.
///
/// `g ← g + λθ`, `s ← s + g²`, `θ ← θ - lr / (1 + (t-1) · lr_decay) · g / (√s + ε)`. The weight decay is a part of the gradient,
/// but clipping does not see it. Its state is `NAME.sum`, `s` without what it starts at.
///
/// Of a variable with a sparse gradient only the rows with a gradient move, and only their sums grow and weights decay.
#[derive(Debug)]
pub struct Adagrad {
    config: AdagradConfig,
    slots: Slots,
}

impl Adagrad {
    /// An optimiser of `named` with fresh moments.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(named: Vec<(String, Var)>, config: AdagradConfig) -> crate::Result<Self> {
        Self::with_groups(named, config, &[])
    }

    /// [`Adagrad::new`] where some variables have settings of their own.
    ///
    /// # Errors
    /// If a setting is outside its range, or a group has no variable.
    pub fn with_groups(named: Vec<(String, Var)>, config: AdagradConfig, groups: &[Group]) -> crate::Result<Self> {
        config.check()?;
        Ok(Self { config, slots: Slots::new("adagrad", &["sum"], named, groups, config.weight_decay)? })
    }
}

impl Optimizer for Adagrad {
    fn step_sparse(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        lr_factor: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        let AdagradConfig { lr, lr_decay, initial_accumulator_value: initial, eps, .. } = self.config;
        self.slots.step(gradients, sparse, |step| AdagradRule {
            gradient_scale,
            step: lr * lr_factor * step.lr_factor / (1.0 + f64::from(step.updates - 1) * lr_decay),
            initial,
            eps,
            weight_decay: step.weight_decay,
        })
    }

    bookkeeping!();
}

#[derive(Debug, Clone, Copy)]
struct AdagradRule {
    gradient_scale: f64,
    step: f64,
    initial: f64,
    eps: f64,
    weight_decay: f64,
}

impl Rule<1> for AdagradRule {
    const NAME: &'static str = "adagrad";

    #[inline(always)]
    fn apply(self, weights: &mut [f32], gradient: &[f32], [sum]: [&mut [f32]; 1]) {
        let [gradient_scale, step, initial, eps, weight_decay] =
            [self.gradient_scale, self.step, self.initial, self.eps, self.weight_decay].map(|x| x as f32);
        for ((weight, &gradient), sum) in weights.iter_mut().zip(gradient).zip(sum) {
            let gradient = gradient * gradient_scale + weight_decay * *weight;
            *sum += gradient * gradient;
            *weight -= step * gradient / ((*sum + initial).sqrt() + eps);
        }
    }

    fn composed(self, weights: &Tensor, gradient: &Tensor, [sum]: [&Tensor; 1]) -> Result<(Tensor, [Tensor; 1])> {
        let gradient = ((gradient * self.gradient_scale)? + (weights * self.weight_decay)?)?;
        let sum = (sum + gradient.sqr()?)?;
        let size = ((&sum + self.initial)?.sqrt()? + self.eps)?;
        Ok(((weights - ((gradient * self.step)? / size)?)?, [sum]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::after;
    use super::*;

    #[test]
    fn two_steps_by_hand() {
        // θ₀ = 1, lr 0.5, lr_decay 1, sums start at 7 (ε is lost). g = 3: s = 16, θ = 1 - 0.5 · 3/4 = 0.625.
        // g = 3 again: s = 25, θ = 0.625 - 0.5/2 · 3/5 = 0.475.
        let config = AdagradConfig { lr_decay: 1.0, initial_accumulator_value: 7.0, ..AdagradConfig::with_lr(0.5) };
        assert!(after(config, &[3.0, 3.0]).iter().all(|found| (found - 0.475).abs() < 1e-6));
        // λ 1: g = 2 + 1 = 3.
        let config = AdagradConfig { weight_decay: 1.0, ..config };
        assert!(after(config, &[2.0]).iter().all(|found| (found - 0.625).abs() < 1e-6));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = |config| Adagrad::new(vec![], config).unwrap_err().to_string();
        let config = AdagradConfig::with_lr(0.1);
        let wrong = AdagradConfig { lr_decay: -1.0, ..config };
        assert_eq!(message(wrong), "lr_decay: expected a finite value of at least 0, found -1");
        assert_eq!(message(AdagradConfig { eps: 0.0, ..config }), "eps: expected a finite value above 0, found 0");
    }
}
