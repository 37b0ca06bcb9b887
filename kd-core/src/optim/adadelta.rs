//! Adadelta.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::groups::Group;
use super::slots::{Slots, bookkeeping};
use super::update::Rule;
use super::{Optimizer, ensure, is_at_least_zero};
use crate::ops::embedding::SparseGradient;

/// Settings of [`Adadelta`].
///
/// | field          | default | range  | source                                   |
/// |----------------|---------|--------|------------------------------------------|
/// | `lr`           | –       | ≥ 0    | peak factor; a schedule scales it        |
/// | `rho`          | 0.9     | [0, 1) | PyTorch's default; Zeiler 2012 has 0.95  |
/// | `eps`          | 1e-6    | > 0    | Zeiler 2012, §4.1                        |
/// | `weight_decay` | 0       | ≥ 0    | PyTorch's default                        |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdadeltaConfig {
    /// Factor on the steps that the method finds by itself; PyTorch's default is 1.
    pub lr: f64,
    /// Decay of the means of squares.
    pub rho: f64,
    /// Added to both means under the roots.
    pub eps: f64,
    /// Times the weight it is added to the gradient; not applied to biases and norms.
    pub weight_decay: f64,
}

impl AdadeltaConfig {
    /// The defaults of the table with a learning rate.
    pub fn with_lr(lr: f64) -> Self {
        Self { lr, rho: 0.9, eps: 1e-6, weight_decay: 0.0 }
    }

    fn check(&self) -> crate::Result<()> {
        let Self { lr, rho, eps, weight_decay } = *self;
        ensure(is_at_least_zero(lr), "lr", "a finite rate of at least 0", lr)?;
        ensure((0.0..1.0).contains(&rho), "rho", "a value in [0, 1)", rho)?;
        ensure(eps.is_finite() && eps > 0.0, "eps", "a finite value above 0", eps)?;
        ensure(is_at_least_zero(weight_decay), "weight_decay", "a finite value of at least 0", weight_decay)
    }
}

/// Steps of the size of the last ones (Zeiler 2012, "ADADELTA: an adaptive learning rate method", algorithm 1), as PyTorch's
/// `Adadelta`.
///
/// `g ← g + λθ`, `v ← ρv + (1-ρ)g²`, `d = √(u + ε) / √(v + ε) · g`, `u ← ρu + (1-ρ)d²`, `θ ← θ - lr · d`. The weight decay is a
/// part of the gradient, but clipping does not see it. Its state is `NAME.v` and `NAME.u`.
///
/// Of a variable with a sparse gradient only the rows with a gradient move, and only their means and weights decay.
#[derive(Debug)]
pub struct Adadelta {
    config: AdadeltaConfig,
    slots: Slots,
}

impl Adadelta {
    /// An optimiser of `named` with fresh moments.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(named: Vec<(String, Var)>, config: AdadeltaConfig) -> crate::Result<Self> {
        Self::with_groups(named, config, &[])
    }

    /// [`Adadelta::new`] where some variables have settings of their own.
    ///
    /// # Errors
    /// If a setting is outside its range, or a group has no variable.
    pub fn with_groups(named: Vec<(String, Var)>, config: AdadeltaConfig, groups: &[Group]) -> crate::Result<Self> {
        config.check()?;
        Ok(Self { config, slots: Slots::new("adadelta", &["v", "u"], named, groups, config.weight_decay)? })
    }
}

impl Optimizer for Adadelta {
    fn step_sparse(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        lr_factor: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        let AdadeltaConfig { lr, rho, eps, .. } = self.config;
        self.slots.step(gradients, sparse, |step| AdadeltaRule {
            gradient_scale,
            lr: lr * lr_factor * step.lr_factor,
            keep: rho,
            take: 1.0 - rho,
            eps,
            weight_decay: step.weight_decay,
        })
    }

    bookkeeping!();
}

#[derive(Debug, Clone, Copy)]
struct AdadeltaRule {
    gradient_scale: f64,
    lr: f64,
    /// `ρ`
    keep: f64,
    /// `1 - ρ`
    take: f64,
    eps: f64,
    weight_decay: f64,
}

impl Rule<2> for AdadeltaRule {
    const NAME: &'static str = "adadelta";

    #[inline(always)]
    fn apply(self, weights: &mut [f32], gradient: &[f32], [v, u]: [&mut [f32]; 2]) {
        let [gradient_scale, lr, keep, take, eps, weight_decay] =
            [self.gradient_scale, self.lr, self.keep, self.take, self.eps, self.weight_decay].map(|x| x as f32);
        for (((weight, &gradient), v), u) in weights.iter_mut().zip(gradient).zip(v).zip(u) {
            let gradient = gradient * gradient_scale + weight_decay * *weight;
            *v = keep * *v + take * gradient * gradient;
            let change = (*u + eps).sqrt() / (*v + eps).sqrt() * gradient;
            *u = keep * *u + take * change * change;
            *weight -= lr * change;
        }
    }

    fn composed(self, weights: &Tensor, gradient: &Tensor, [v, u]: [&Tensor; 2]) -> Result<(Tensor, [Tensor; 2])> {
        let gradient = ((gradient * self.gradient_scale)? + (weights * self.weight_decay)?)?;
        let v = ((v * self.keep)? + (gradient.sqr()? * self.take)?)?;
        let change = (((u + self.eps)?.sqrt()? / (&v + self.eps)?.sqrt()?)? * gradient)?;
        let u = ((u * self.keep)? + (change.sqr()? * self.take)?)?;
        Ok(((weights - (change * self.lr)?)?, [v, u]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::after;
    use super::*;

    #[test]
    fn two_steps_by_hand() {
        // θ₀ = 1, ρ 0.5, ε 0.5, lr 1, g = 1: v = 0.5, d = √0.5 / √1, u = 0.5 · 0.5 = 0.25, θ = 1 - √0.5.
        // g = 1: v = 0.75, d = √0.75 / √1.25, θ = 1 - √0.5 - √0.6.
        let config = AdadeltaConfig { rho: 0.5, eps: 0.5, ..AdadeltaConfig::with_lr(1.0) };
        let expected = 1.0 - 0.5f64.sqrt() - 0.6f64.sqrt();
        assert!(after(config, &[1.0, 1.0]).iter().all(|found| (found - expected).abs() < 1e-6));
        let config = AdadeltaConfig { weight_decay: 0.5, ..config };
        assert!(after(config, &[0.5]).iter().all(|found| (found - 1.0 + 0.5f64.sqrt()).abs() < 1e-6));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = |config| Adadelta::new(vec![], config).unwrap_err().to_string();
        let config = AdadeltaConfig::with_lr(1.0);
        assert_eq!(message(AdadeltaConfig { rho: 1.0, ..config }), "rho: expected a value in [0, 1), found 1");
        assert_eq!(message(AdadeltaConfig { eps: 0.0, ..config }), "eps: expected a finite value above 0, found 0");
    }
}
