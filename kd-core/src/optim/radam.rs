//! RAdam.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::groups::Group;
use super::slots::{Slots, bookkeeping};
use super::update::Rule;
use super::{Optimizer, ensure, is_at_least_zero};
use crate::ops::embedding::SparseGradient;

/// Settings of [`RAdam`].
///
/// | field                    | default | range  | source                          |
/// |--------------------------|---------|--------|---------------------------------|
/// | `lr`                     | –       | ≥ 0    | peak rate; a schedule scales it |
/// | `beta1`                  | 0.9     | [0, 1) | Liu et al. 2020                 |
/// | `beta2`                  | 0.999   | [0, 1) | Liu et al. 2020                 |
/// | `eps`                    | 1e-8    | > 0    | PyTorch's default               |
/// | `weight_decay`           | 0       | ≥ 0    | PyTorch's default               |
/// | `decoupled_weight_decay` | false   |        | PyTorch's default               |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RAdamConfig {
    /// Peak learning rate; PyTorch's default is 0.001.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decay of weights, not applied to biases and norms.
    pub weight_decay: f64,
    /// Whether weights shrink apart from the gradient, as AdamW's, or the decay is added to the gradient.
    pub decoupled_weight_decay: bool,
}

impl RAdamConfig {
    /// The defaults of the table with a learning rate.
    pub fn with_lr(lr: f64) -> Self {
        Self { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decoupled_weight_decay: false }
    }

    fn check(&self) -> crate::Result<()> {
        let Self { lr, beta1, beta2, eps, weight_decay, .. } = *self;
        ensure(is_at_least_zero(lr), "lr", "a finite rate of at least 0", lr)?;
        ensure((0.0..1.0).contains(&beta1), "beta1", "a value in [0, 1)", beta1)?;
        ensure((0.0..1.0).contains(&beta2), "beta2", "a value in [0, 1)", beta2)?;
        ensure(eps.is_finite() && eps > 0.0, "eps", "a finite value above 0", eps)?;
        ensure(is_at_least_zero(weight_decay), "weight_decay", "a finite value of at least 0", weight_decay)
    }

    /// `r_t`, or `None` while the variance of the squares' mean has no finite value.
    fn rectification(&self, updates: i32) -> Option<f64> {
        let power = self.beta2.powi(updates);
        let longest = 2.0 / (1.0 - self.beta2) - 1.0;
        let length = longest - 2.0 * f64::from(updates) * power / (1.0 - power);
        let part = |length: f64| (length - 4.0) * (length - 2.0) / length;
        (length > 5.0).then(|| (part(length) / part(longest)).sqrt())
    }
}

/// Adam whose first steps do without the second moment (Liu et al. 2020, "On the variance of the adaptive learning rate and
/// beyond", algorithm 2), as PyTorch's `RAdam`.
///
/// `g ← g + λθ`, `m ← β₁m + (1-β₁)g`, `v ← β₂v + (1-β₂)g²`, `m̂ = m / (1-β₁ᵗ)`. With `ρ∞ = 2/(1-β₂) - 1` and
/// `ρ = ρ∞ - 2tβ₂ᵗ/(1-β₂ᵗ)`: `θ ← θ - lr · m̂` as long as `ρ ≤ 5`, then `θ ← θ - lr · r · m̂ · √(1-β₂ᵗ) / (√v + ε)` with
/// `r² = (ρ-4)(ρ-2)ρ∞ / ((ρ∞-4)(ρ∞-2)ρ)`. A decoupled weight decay is `θ ← θ - lr·λ·θ` in front instead; the other is a part of
/// the gradient that clipping does not see. Its state is `NAME.m` and `NAME.v`.
///
/// Of a variable with a sparse gradient only the rows with a gradient move, only their moments and weights decay, and
/// the corrections count all updates.
#[derive(Debug)]
pub struct RAdam {
    config: RAdamConfig,
    slots: Slots,
}

impl RAdam {
    /// An optimiser of `named` with fresh moments.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(named: Vec<(String, Var)>, config: RAdamConfig) -> crate::Result<Self> {
        Self::with_groups(named, config, &[])
    }

    /// [`RAdam::new`] where some variables have settings of their own.
    ///
    /// # Errors
    /// If a setting is outside its range, or a group has no variable.
    pub fn with_groups(named: Vec<(String, Var)>, config: RAdamConfig, groups: &[Group]) -> crate::Result<Self> {
        config.check()?;
        Ok(Self { config, slots: Slots::new("radam", &["m", "v"], named, groups, config.weight_decay)? })
    }
}

impl Optimizer for RAdam {
    fn step_sparse(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        lr_factor: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        let config = self.config;
        let RAdamConfig { lr, beta1, beta2, eps, .. } = config;
        self.slots.step(gradients, sparse, |step| {
            let lr = lr * lr_factor * step.lr_factor;
            let (coupled, decoupled) =
                if config.decoupled_weight_decay { (0.0, step.weight_decay) } else { (step.weight_decay, 0.0) };
            let root = (1.0 - beta2.powi(step.updates)).sqrt();
            // Without the second moment the mean is divided by 0 · √v + 1.
            let (factor, of_root, eps) = match config.rectification(step.updates) {
                Some(rectification) => (rectification * root, 1.0, eps),
                None => (1.0, 0.0, 1.0),
            };
            RAdamRule {
                gradient_scale,
                keep: [beta1, beta2],
                take: [1.0 - beta1, 1.0 - beta2],
                step: lr * factor / (1.0 - beta1.powi(step.updates)),
                of_root,
                eps,
                weight_decay: coupled,
                decay: 1.0 - lr * decoupled,
            }
        })
    }

    bookkeeping!();
}

/// Numbers of one step, made in f64 as those of AdamW.
#[derive(Debug, Clone, Copy)]
struct RAdamRule {
    gradient_scale: f64,
    /// `[β₁, β₂]`
    keep: [f64; 2],
    /// `[1 - β₁, 1 - β₂]`
    take: [f64; 2],
    step: f64,
    /// 1, or 0 in the first steps.
    of_root: f64,
    eps: f64,
    /// Of the gradient.
    weight_decay: f64,
    /// `1 - lr · λ` of the decoupled decay.
    decay: f64,
}

impl Rule<2> for RAdamRule {
    const NAME: &'static str = "radam";

    #[inline(always)]
    fn apply(self, weights: &mut [f32], gradient: &[f32], [m, v]: [&mut [f32]; 2]) {
        let (keep, take) = (self.keep.map(|x| x as f32), self.take.map(|x| x as f32));
        let [gradient_scale, step, of_root, eps, weight_decay, decay] =
            [self.gradient_scale, self.step, self.of_root, self.eps, self.weight_decay, self.decay].map(|x| x as f32);
        for (((weight, &gradient), m), v) in weights.iter_mut().zip(gradient).zip(m).zip(v) {
            let gradient = gradient * gradient_scale + weight_decay * *weight;
            *m = keep[0] * *m + take[0] * gradient;
            *v = keep[1] * *v + take[1] * gradient * gradient;
            *weight = *weight * decay - step * *m / (v.sqrt() * of_root + eps);
        }
    }

    fn composed(self, weights: &Tensor, gradient: &Tensor, [m, v]: [&Tensor; 2]) -> Result<(Tensor, [Tensor; 2])> {
        let Self { keep, take, .. } = self;
        let gradient = ((gradient * self.gradient_scale)? + (weights * self.weight_decay)?)?;
        let m = ((m * keep[0])? + (&gradient * take[0])?)?;
        let v = ((v * keep[1])? + (gradient.sqr()? * take[1])?)?;
        let change = ((&m * self.step)? / v.sqrt()?.affine(self.of_root, self.eps)?)?;
        Ok((((weights * self.decay)? - change)?, [m, v]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::after;
    use super::*;

    #[test]
    fn the_first_steps_do_without_the_second_moment() {
        // β₂ 0.999: ρ is t to within 0.1 at first, so up to the fifth step it is at most 5. m̂ of equal gradients is they.
        let config = RAdamConfig::with_lr(0.1);
        assert!((1..=5).all(|updates| config.rectification(updates).is_none()));
        assert!(after(config, &[2.0; 5]).iter().all(|found| (found - 1.0 + 5.0 * 0.1 * 2.0).abs() < 1e-5));
        // The sixth is lr · r · 2 / √(2²) = 0.1 r.
        let r = config.rectification(6).unwrap();
        assert!(r > 0.0 && r < 0.1, "{r}");
        assert!(after(config, &[2.0; 6]).iter().all(|found| (found + 0.1 * r).abs() < 1e-5));
        // λ 0.5: g = 1.5 + 0.5, or θ is 0.95 first.
        let config = RAdamConfig { weight_decay: 0.5, ..config };
        assert!(after(config, &[1.5]).iter().all(|found| (found - 0.8).abs() < 1e-6));
        let config = RAdamConfig { decoupled_weight_decay: true, ..config };
        assert!(after(config, &[2.0]).iter().all(|found| (found - 0.75).abs() < 1e-6));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = |config| RAdam::new(vec![], config).unwrap_err().to_string();
        let config = RAdamConfig::with_lr(0.1);
        assert_eq!(message(RAdamConfig { beta2: 1.0, ..config }), "beta2: expected a value in [0, 1), found 1");
        assert_eq!(message(RAdamConfig { eps: 0.0, ..config }), "eps: expected a finite value above 0, found 0");
    }
}
