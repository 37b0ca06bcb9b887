//! Adamax.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::groups::Group;
use super::slots::{Slots, bookkeeping};
use super::update::Rule;
use super::{Optimizer, ensure, is_at_least_zero};
use crate::ops::embedding::SparseGradient;

/// Settings of [`Adamax`].
///
/// | field          | default | range        | source                          |
/// |----------------|---------|--------------|---------------------------------|
/// | `lr`           | –       | ≥ 0          | peak rate; a schedule scales it |
/// | `beta1`        | 0.9     | [0, 1)       | Kingma & Ba 2015, §7.1          |
/// | `beta2`        | 0.999   | [0, 1)       | Kingma & Ba 2015, §7.1          |
/// | `eps`          | 1e-8    | > 0          | PyTorch's default               |
/// | `weight_decay` | 0       | ≥ 0          | PyTorch's default               |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamaxConfig {
    /// Peak learning rate; Kingma & Ba use 0.002.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the largest gradient.
    pub beta2: f64,
    /// Added to the size of the gradient.
    pub eps: f64,
    /// Times the weight it is added to the gradient; not applied to biases and norms.
    pub weight_decay: f64,
}

impl AdamaxConfig {
    /// The defaults of the table with a learning rate.
    pub fn with_lr(lr: f64) -> Self {
        Self { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }

    fn check(&self) -> crate::Result<()> {
        let Self { lr, beta1, beta2, eps, weight_decay } = *self;
        ensure(is_at_least_zero(lr), "lr", "a finite rate of at least 0", lr)?;
        ensure((0.0..1.0).contains(&beta1), "beta1", "a value in [0, 1)", beta1)?;
        ensure((0.0..1.0).contains(&beta2), "beta2", "a value in [0, 1)", beta2)?;
        ensure(eps.is_finite() && eps > 0.0, "eps", "a finite value above 0", eps)?;
        ensure(is_at_least_zero(weight_decay), "weight_decay", "a finite value of at least 0", weight_decay)
    }
}

/// Adam under the maximum norm (Kingma & Ba 2015, §7.1) over named variables, as PyTorch's `Adamax`.
///
/// `g ← g + λθ`, `m ← β₁m + (1-β₁)g`, `u ← max(β₂u, |g| + ε)`, `θ ← θ - lr / (1-β₁ᵗ) · m / u`. The weight decay is
/// coupled: it is a part of the gradient, but clipping does not see it. Its state is `NAME.m` and `NAME.u`.
///
/// Of a variable with a sparse gradient only the rows with a gradient move, only their moments and weights decay, and
/// the bias correction counts all updates.
#[derive(Debug)]
pub struct Adamax {
    config: AdamaxConfig,
    slots: Slots,
}

impl Adamax {
    /// An optimiser of `named` with fresh moments.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(named: Vec<(String, Var)>, config: AdamaxConfig) -> crate::Result<Self> {
        Self::with_groups(named, config, &[])
    }

    /// [`Adamax::new`] where some variables have settings of their own.
    ///
    /// # Errors
    /// If a setting is outside its range, or a group has no variable.
    pub fn with_groups(named: Vec<(String, Var)>, config: AdamaxConfig, groups: &[Group]) -> crate::Result<Self> {
        config.check()?;
        Ok(Self { config, slots: Slots::new("adamax", &["m", "u"], named, groups, config.weight_decay)? })
    }
}

impl Optimizer for Adamax {
    fn step_sparse(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        lr_factor: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        let AdamaxConfig { lr, beta1, beta2, eps, .. } = self.config;
        self.slots.step(gradients, sparse, |step| AdamaxRule {
            gradient_scale,
            keep: [beta1, beta2],
            take: 1.0 - beta1,
            step: lr * lr_factor * step.lr_factor / (1.0 - beta1.powi(step.updates)),
            eps,
            weight_decay: step.weight_decay,
        })
    }

    bookkeeping!();
}

/// Numbers of one step, made in f64 as those of AdamW.
#[derive(Debug, Clone, Copy)]
struct AdamaxRule {
    gradient_scale: f64,
    /// `[β₁, β₂]`
    keep: [f64; 2],
    /// `1 - β₁`
    take: f64,
    /// `lr / (1 - β₁ᵗ)`
    step: f64,
    eps: f64,
    weight_decay: f64,
}

impl Rule<2> for AdamaxRule {
    const NAME: &'static str = "adamax";

    #[inline(always)]
    fn apply(self, weights: &mut [f32], gradient: &[f32], [m, u]: [&mut [f32]; 2]) {
        let keep = self.keep.map(|x| x as f32);
        let [gradient_scale, take, step, eps, weight_decay] =
            [self.gradient_scale, self.take, self.step, self.eps, self.weight_decay].map(|x| x as f32);
        for (((weight, &gradient), m), u) in weights.iter_mut().zip(gradient).zip(m).zip(u) {
            let gradient = gradient * gradient_scale + weight_decay * *weight;
            *m = keep[0] * *m + take * gradient;
            let (kept, size) = (keep[1] * *u, gradient.abs() + eps);
            // A gradient that is no number shows, which `max` would hide.
            *u = if kept > size { kept } else { size };
            *weight -= step * *m / *u;
        }
    }

    fn composed(self, weights: &Tensor, gradient: &Tensor, [m, u]: [&Tensor; 2]) -> Result<(Tensor, [Tensor; 2])> {
        let gradient = ((gradient * self.gradient_scale)? + (weights * self.weight_decay)?)?;
        let m = ((m * self.keep[0])? + (&gradient * self.take)?)?;
        let u = (u * self.keep[1])?.maximum(&gradient.abs()?.affine(1.0, self.eps)?)?;
        let change = ((&m * self.step)? / &u)?;
        Ok(((weights - change)?, [m, u]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn two_steps_by_hand() {
        // loss = θ², g = 2θ, θ₀ = 1, lr 0.1, λ 0.5, β₁ 0.9, β₂ 0.5 (ε is lost).
        // g₁ = 2 + 0.5 = 2.5, m = 0.25, u = 2.5, θ₁ = 1 - 0.1 / 0.1 · 0.1 = 0.9.
        // g₂ = 1.8 + 0.45 = 2.25, m = 0.225 + 0.225 = 0.45, u = max(1.25, 2.25), θ₂ = 0.9 - 0.1 / 0.19 · 0.2.
        let expected = 0.9 - 0.1 / 0.19 * 0.2;
        for dtype in [DType::F32, DType::F64] {
            let var = Var::ones((1, 1), dtype, &Device::Cpu).unwrap();
            let config = AdamaxConfig { beta2: 0.5, weight_decay: 0.5, ..AdamaxConfig::with_lr(0.1) };
            let mut adamax = Adamax::new(vec![("w".to_string(), var.clone())], config).unwrap();
            for _ in 0..2 {
                adamax.step(&var.sqr().unwrap().sum_all().unwrap().backward().unwrap(), 1.0, 1.0).unwrap();
            }
            let found = var.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap()[0][0];
            assert!((found - expected).abs() < 1e-6, "{dtype:?}: {found} {expected}");
            let u = adamax.state().unwrap()["w.u"].to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap()[0][0];
            assert!((u - 2.25).abs() < 1e-6, "{u}");
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = |config| Adamax::new(vec![], config).unwrap_err().to_string();
        let config = AdamaxConfig::with_lr(0.1);
        assert_eq!(message(AdamaxConfig { beta2: 1.0, ..config }), "beta2: expected a value in [0, 1), found 1");
        assert_eq!(message(AdamaxConfig { eps: 0.0, ..config }), "eps: expected a finite value above 0, found 0");
    }
}
