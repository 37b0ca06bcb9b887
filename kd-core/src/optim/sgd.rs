//! Gradient descent.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::groups::Group;
use super::slots::{Slots, bookkeeping};
use super::update::Rule;
use super::{Optimizer, ensure, is_at_least_zero};
use crate::ops::embedding::SparseGradient;

/// Settings of [`Sgd`].
///
/// | field          | default | range               | source                                   |
/// |----------------|---------|---------------------|------------------------------------------|
/// | `lr`           | –       | ≥ 0                 | peak rate; a schedule scales it          |
/// | `momentum`     | 0       | [0, 1)              | Sutskever et al. 2013; 0 keeps no state  |
/// | `nesterov`     | false   | needs a `momentum`  | Sutskever et al. 2013                    |
/// | `weight_decay` | 0       | ≥ 0                 | PyTorch's default                        |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SgdConfig {
    /// Peak learning rate.
    pub lr: f64,
    /// What is kept of the sum of gradients at each step.
    #[serde(default)]
    pub momentum: f64,
    /// Whether the step looks ahead by one momentum.
    #[serde(default)]
    pub nesterov: bool,
    /// Times the weight it is added to the gradient; not applied to biases and norms.
    #[serde(default)]
    pub weight_decay: f64,
}

impl SgdConfig {
    /// The defaults of the table with a learning rate.
    pub fn with_lr(lr: f64) -> Self {
        Self { lr, momentum: 0.0, nesterov: false, weight_decay: 0.0 }
    }

    fn check(&self) -> crate::Result<()> {
        let Self { lr, momentum, nesterov, weight_decay } = *self;
        ensure(is_at_least_zero(lr), "lr", "a finite rate of at least 0", lr)?;
        ensure((0.0..1.0).contains(&momentum), "momentum", "a value in [0, 1)", momentum)?;
        ensure(!nesterov || momentum > 0.0, "momentum", "a value above 0 where `nesterov` is set", momentum)?;
        ensure(is_at_least_zero(weight_decay), "weight_decay", "a finite value of at least 0", weight_decay)
    }
}

/// Gradient descent over named variables, as PyTorch's `SGD` without dampening.
///
/// `g ← g + λθ`, `b ← μb + g`, `θ ← θ - lr · b`, or `θ ← θ - lr · (g + μb)` with Nesterov's momentum. The weight
/// decay is coupled: it is a part of the gradient and of the momentum, but clipping does not see it. Its state is
/// `NAME.momentum`, and nothing without momentum.
///
/// Of a variable with a sparse gradient only the rows with a gradient move, and only their momentum and weights decay.
#[derive(Debug)]
pub struct Sgd {
    config: SgdConfig,
    slots: Slots,
}

impl Sgd {
    /// An optimiser of `named` without momentum yet.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(named: Vec<(String, Var)>, config: SgdConfig) -> crate::Result<Self> {
        Self::with_groups(named, config, &[])
    }

    /// [`Sgd::new`] where some variables have settings of their own.
    ///
    /// # Errors
    /// If a setting is outside its range, or a group has no variable.
    pub fn with_groups(named: Vec<(String, Var)>, config: SgdConfig, groups: &[Group]) -> crate::Result<Self> {
        config.check()?;
        let kinds: &[&str] = if config.momentum > 0.0 { &["momentum"] } else { &[] };
        Ok(Self { config, slots: Slots::new("sgd", kinds, named, groups, config.weight_decay)? })
    }
}

impl Optimizer for Sgd {
    fn step_sparse(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        lr_factor: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        let SgdConfig { lr, momentum, nesterov, .. } = self.config;
        let plain = |step: super::slots::Step| PlainRule {
            gradient_scale,
            lr: lr * lr_factor * step.lr_factor,
            weight_decay: step.weight_decay,
        };
        if momentum > 0.0 {
            self.slots.step(gradients, sparse, |step| MomentumRule { plain: plain(step), momentum, nesterov })
        } else {
            self.slots.step(gradients, sparse, plain)
        }
    }

    bookkeeping!();
}

#[derive(Debug, Clone, Copy)]
struct PlainRule {
    gradient_scale: f64,
    lr: f64,
    weight_decay: f64,
}

impl PlainRule {
    /// `scale · g + λθ`
    fn decayed(self, weights: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        (gradient * self.gradient_scale)? + (weights * self.weight_decay)?
    }
}

impl Rule<0> for PlainRule {
    const NAME: &'static str = "sgd";

    #[inline(always)]
    fn apply(self, weights: &mut [f32], gradient: &[f32], []: [&mut [f32]; 0]) {
        let [gradient_scale, lr, weight_decay] = [self.gradient_scale, self.lr, self.weight_decay].map(|x| x as f32);
        for (weight, &gradient) in weights.iter_mut().zip(gradient) {
            *weight -= lr * (gradient * gradient_scale + weight_decay * *weight);
        }
    }

    fn composed(self, weights: &Tensor, gradient: &Tensor, []: [&Tensor; 0]) -> Result<(Tensor, [Tensor; 0])> {
        Ok(((weights - (self.decayed(weights, gradient)? * self.lr)?)?, []))
    }
}

#[derive(Debug, Clone, Copy)]
struct MomentumRule {
    plain: PlainRule,
    momentum: f64,
    nesterov: bool,
}

impl Rule<1> for MomentumRule {
    const NAME: &'static str = "sgd";

    #[inline(always)]
    fn apply(self, weights: &mut [f32], gradient: &[f32], [buffer]: [&mut [f32]; 1]) {
        let PlainRule { gradient_scale, lr, weight_decay } = self.plain;
        let [gradient_scale, lr, weight_decay, momentum] =
            [gradient_scale, lr, weight_decay, self.momentum].map(|x| x as f32);
        // The change is `of_gradient · g + of_buffer · b`.
        let [of_gradient, of_buffer] = if self.nesterov { [1.0, momentum] } else { [0.0, 1.0] };
        for ((weight, &gradient), buffer) in weights.iter_mut().zip(gradient).zip(buffer) {
            let gradient = gradient * gradient_scale + weight_decay * *weight;
            *buffer = momentum * *buffer + gradient;
            *weight -= lr * (of_gradient * gradient + of_buffer * *buffer);
        }
    }

    fn composed(self, weights: &Tensor, gradient: &Tensor, [buffer]: [&Tensor; 1]) -> Result<(Tensor, [Tensor; 1])> {
        let gradient = self.plain.decayed(weights, gradient)?;
        let buffer = ((buffer * self.momentum)? + &gradient)?;
        let change = if self.nesterov { (gradient + (&buffer * self.momentum)?)? } else { buffer.clone() };
        Ok(((weights - (change * self.plain.lr)?)?, [buffer]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn three_steps_by_hand() {
        // θ₀ = 1, always g = 1, lr 0.5, λ 0.5.
        // Plain: θ ← θ - 0.5 (1 + 0.5 θ) = 0.75 θ - 0.5: 0.25, -0.3125, -0.734375.
        // μ = 0.5: b = 1.5, θ = 0.25; b = 0.75 + 1.125 = 1.875, θ = -0.6875; b = 0.9375 + 0.65625 = 1.59375, θ =
        // -1.484375. Nesterov: g = 1.5, b = 1.5, θ = 1 - 0.5 (1.5 + 0.75) = -0.125; g = 0.9375, b = 1.6875, θ =
        // -0.125 - 0.5 (0.9375 + 0.84375) = -1.015625; g = 0.4921875, b = 1.3359375, θ = -1.015625 - 0.5 (0.4921875 +
        // 0.66796875) = -1.595703125. All of them are exact in f32.
        let cases = [(0.0, false, -0.734375), (0.5, false, -1.484375), (0.5, true, -1.595703125)];
        for (momentum, nesterov, expected) in cases {
            for dtype in [DType::F32, DType::F64] {
                let var = Var::ones((1, 1), dtype, &Device::Cpu).unwrap();
                let config = SgdConfig { lr: 0.5, momentum, nesterov, weight_decay: 0.5 };
                let mut sgd = Sgd::new(vec![("w".to_string(), var.clone())], config).unwrap();
                for _ in 0..3 {
                    sgd.step(&var.sum_all().unwrap().backward().unwrap(), 1.0, 1.0).unwrap();
                }
                let found = var.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap()[0][0];
                assert_eq!(found, expected, "{momentum} {nesterov} {dtype:?}");
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = |config| Sgd::new(vec![], config).unwrap_err().to_string();
        let config = SgdConfig::with_lr(0.1);
        assert_eq!(message(SgdConfig { momentum: 1.0, ..config }), "momentum: expected a value in [0, 1), found 1");
        assert_eq!(
            message(SgdConfig { nesterov: true, ..config }),
            "momentum: expected a value above 0 where `nesterov` is set, found 0"
        );
        assert!(message(SgdConfig::with_lr(-1.0)).starts_with("lr: "));
        assert!(message(SgdConfig { weight_decay: -1.0, ..config }).starts_with("weight_decay: "));
    }
}
