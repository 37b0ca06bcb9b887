//! NAdam.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::groups::Group;
use super::slots::{Slots, bookkeeping};
use super::update::Rule;
use super::{Optimizer, ensure, is_at_least_zero};
use crate::ops::embedding::SparseGradient;

/// Settings of [`NAdam`].
///
/// | field                    | default | range  | source                          |
/// |--------------------------|---------|--------|---------------------------------|
/// | `lr`                     | –       | ≥ 0    | peak rate; a schedule scales it |
/// | `beta1`                  | 0.9     | [0, 1) | PyTorch's default               |
/// | `beta2`                  | 0.999   | [0, 1) | PyTorch's default               |
/// | `eps`                    | 1e-8    | > 0    | PyTorch's default               |
/// | `weight_decay`           | 0       | ≥ 0    | PyTorch's default               |
/// | `momentum_decay`         | 0.004   | ≥ 0    | Dozat 2016                      |
/// | `decoupled_weight_decay` | false   |        | PyTorch's default               |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NAdamConfig {
    /// Peak learning rate; PyTorch's default is 0.002.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decay of weights, not applied to biases and norms.
    pub weight_decay: f64,
    /// How soon the momentum rises from half of `beta1` to `beta1`.
    pub momentum_decay: f64,
    /// Whether weights shrink apart from the gradient, as AdamW's, or the decay is added to the gradient.
    pub decoupled_weight_decay: bool,
}

impl NAdamConfig {
    /// The defaults of the table with a learning rate.
    pub fn with_lr(lr: f64) -> Self {
        let (momentum_decay, decoupled_weight_decay) = (4e-3, false);
        Self { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, momentum_decay, decoupled_weight_decay }
    }

    fn check(&self) -> crate::Result<()> {
        let Self { lr, beta1, beta2, eps, weight_decay, momentum_decay, .. } = *self;
        ensure(is_at_least_zero(lr), "lr", "a finite rate of at least 0", lr)?;
        ensure((0.0..1.0).contains(&beta1), "beta1", "a value in [0, 1)", beta1)?;
        ensure((0.0..1.0).contains(&beta2), "beta2", "a value in [0, 1)", beta2)?;
        ensure(eps.is_finite() && eps > 0.0, "eps", "a finite value above 0", eps)?;
        ensure(is_at_least_zero(weight_decay), "weight_decay", "a finite value of at least 0", weight_decay)?;
        ensure(is_at_least_zero(momentum_decay), "momentum_decay", "a finite value of at least 0", momentum_decay)
    }

    /// `μ_t = β₁ (1 - ½ · 0.96^{tψ})`
    fn momentum(&self, updates: usize) -> f64 {
        self.beta1 * (1.0 - 0.5 * 0.96f64.powf(updates as f64 * self.momentum_decay))
    }
}

/// Adam with Nesterov's momentum (Dozat 2016, "Incorporating Nesterov momentum into Adam"), as PyTorch's `NAdam`.
///
/// `g ← g + λθ`, `m ← β₁m + (1-β₁)g`, `v ← β₂v + (1-β₂)g²`, and with `μ_t = β₁ (1 - ½ · 0.96^{tψ})` and `Π_t = μ_1 ⋯ μ_t`
/// `θ ← θ - lr · ((1-μ_t) / (1-Π_t) · g + μ_{t+1} / (1-Π_{t+1}) · m) / (√v̂ + ε)` with `v̂ = v / (1-β₂ᵗ)`. A decoupled weight decay is
/// `θ ← θ - lr·λ·θ` in front instead; the other is a part of the gradient that clipping does not see. Its state is `NAME.m` and
/// `NAME.v`.
///
/// Of a variable with a sparse gradient only the rows with a gradient move, only their moments and weights decay, and
/// the corrections count all updates.
#[derive(Debug)]
pub struct NAdam {
    config: NAdamConfig,
    slots: Slots,
    /// How many updates, and the product of their momentums.
    product: (usize, f64),
}

impl NAdam {
    /// An optimiser of `named` with fresh moments.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(named: Vec<(String, Var)>, config: NAdamConfig) -> crate::Result<Self> {
        Self::with_groups(named, config, &[])
    }

    /// [`NAdam::new`] where some variables have settings of their own.
    ///
    /// # Errors
    /// If a setting is outside its range, or a group has no variable.
    pub fn with_groups(named: Vec<(String, Var)>, config: NAdamConfig, groups: &[Group]) -> crate::Result<Self> {
        config.check()?;
        Ok(Self {
            config,
            slots: Slots::new("nadam", &["m", "v"], named, groups, config.weight_decay)?,
            product: (0, 1.0),
        })
    }
}

impl Optimizer for NAdam {
    fn step_sparse(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        lr_factor: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        let config = self.config;
        let NAdamConfig { lr, beta1, beta2, eps, .. } = config;
        let updates = self.slots.updates() + 1;
        if self.product.0 + 1 != updates {
            // Restored: the same factors in the same order.
            self.product = (updates - 1, (1..updates).map(|update| config.momentum(update)).product());
        }
        let [momentum, next] = [updates, updates + 1].map(|update| config.momentum(update));
        let product = self.product.1 * momentum;
        self.slots.step(gradients, sparse, |step| {
            let lr = lr * lr_factor * step.lr_factor;
            let (coupled, decoupled) =
                if config.decoupled_weight_decay { (0.0, step.weight_decay) } else { (step.weight_decay, 0.0) };
            NAdamRule {
                gradient_scale,
                keep: [beta1, beta2],
                take: [1.0 - beta1, 1.0 - beta2],
                of_gradient: lr * (1.0 - momentum) / (1.0 - product),
                of_mean: lr * next / (1.0 - product * next),
                root: 1.0 / (1.0 - beta2.powi(step.updates)).sqrt(),
                eps,
                weight_decay: coupled,
                decay: 1.0 - lr * decoupled,
            }
        })?;
        self.product = (updates, product);
        Ok(())
    }

    bookkeeping!();
}

/// Numbers of one step, made in f64 as those of AdamW.
#[derive(Debug, Clone, Copy)]
struct NAdamRule {
    gradient_scale: f64,
    /// `[β₁, β₂]`
    keep: [f64; 2],
    /// `[1 - β₁, 1 - β₂]`
    take: [f64; 2],
    of_gradient: f64,
    of_mean: f64,
    /// `1 / √(1 - β₂ᵗ)`
    root: f64,
    eps: f64,
    /// Of the gradient.
    weight_decay: f64,
    /// `1 - lr · λ` of the decoupled decay.
    decay: f64,
}

impl Rule<2> for NAdamRule {
    const NAME: &'static str = "nadam";

    #[inline(always)]
    fn apply(self, weights: &mut [f32], gradient: &[f32], [m, v]: [&mut [f32]; 2]) {
        let (keep, take) = (self.keep.map(|x| x as f32), self.take.map(|x| x as f32));
        let [gradient_scale, of_gradient, of_mean, root] =
            [self.gradient_scale, self.of_gradient, self.of_mean, self.root].map(|x| x as f32);
        let [eps, weight_decay, decay] = [self.eps, self.weight_decay, self.decay].map(|x| x as f32);
        for (((weight, &gradient), m), v) in weights.iter_mut().zip(gradient).zip(m).zip(v) {
            let gradient = gradient * gradient_scale + weight_decay * *weight;
            *m = keep[0] * *m + take[0] * gradient;
            *v = keep[1] * *v + take[1] * gradient * gradient;
            *weight = *weight * decay - (of_gradient * gradient + of_mean * *m) / (v.sqrt() * root + eps);
        }
    }

    fn composed(self, weights: &Tensor, gradient: &Tensor, [m, v]: [&Tensor; 2]) -> Result<(Tensor, [Tensor; 2])> {
        let Self { keep, take, .. } = self;
        let gradient = ((gradient * self.gradient_scale)? + (weights * self.weight_decay)?)?;
        let m = ((m * keep[0])? + (&gradient * take[0])?)?;
        let v = ((v * keep[1])? + (gradient.sqr()? * take[1])?)?;
        let change = ((gradient * self.of_gradient)? + (&m * self.of_mean)?)?;
        let change = (change / v.sqrt()?.affine(self.root, self.eps)?)?;
        Ok((((weights * self.decay)? - change)?, [m, v]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::after;
    use super::*;

    #[test]
    fn a_step_by_hand() {
        // θ₀ = 1, g = 2, lr 0.1, ψ = 0: μ = β₁/2 = 0.45 in every step, m̂ is g and √v̂ is 2 (ε is lost).
        // (1-μ)/(1-μ) g = 2, μ/(1-μ²) m = 0.45 / 0.7975 · 0.2, θ = 1 - 0.1 · (2 + 0.09 / 0.7975) / 2.
        let config = NAdamConfig { momentum_decay: 0.0, ..NAdamConfig::with_lr(0.1) };
        let expected = 1.0 - 0.1 * (2.0 + 0.09 / 0.7975) / 2.0;
        assert!(after(config, &[2.0]).iter().all(|found| (found - expected).abs() < 1e-6));
        // λ 0.5: g = 1.5 + 0.5, or θ is 0.95 first.
        let config = NAdamConfig { weight_decay: 0.5, ..config };
        assert!(after(config, &[1.5]).iter().all(|found| (found - expected).abs() < 1e-6));
        let config = NAdamConfig { decoupled_weight_decay: true, ..config };
        assert!(after(config, &[2.0]).iter().all(|found| (found - expected + 0.05).abs() < 1e-6));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = |config| NAdam::new(vec![], config).unwrap_err().to_string();
        let config = NAdamConfig::with_lr(0.1);
        assert_eq!(message(NAdamConfig { beta1: 1.0, ..config }), "beta1: expected a value in [0, 1), found 1");
        let wrong = NAdamConfig { momentum_decay: -1.0, ..config };
        assert_eq!(message(wrong), "momentum_decay: expected a finite value of at least 0, found -1");
    }
}
