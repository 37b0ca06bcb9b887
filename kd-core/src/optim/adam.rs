//! Adam.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::adamw::AdamWRule;
use super::groups::Group;
use super::slots::{Slots, bookkeeping};
use super::update::Rule;
use super::{Optimizer, ensure, is_at_least_zero};
use crate::ops::embedding::SparseGradient;

/// Settings of [`Adam`].
///
/// | field          | default | range  | source                          |
/// |----------------|---------|--------|---------------------------------|
/// | `lr`           | –       | ≥ 0    | peak rate; a schedule scales it |
/// | `beta1`        | 0.9     | [0, 1) | Kingma & Ba 2015                |
/// | `beta2`        | 0.999   | [0, 1) | Kingma & Ba 2015                |
/// | `eps`          | 1e-8    | > 0    | Kingma & Ba 2015                |
/// | `weight_decay` | 0       | ≥ 0    | PyTorch's default               |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamConfig {
    /// Peak learning rate; Kingma & Ba use 0.001.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Times the weight it is added to the gradient; not applied to biases and norms.
    pub weight_decay: f64,
}

impl AdamConfig {
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

/// Adam (Kingma & Ba 2015, algorithm 1) over named variables, as PyTorch's `Adam`.
///
/// `g ← g + λθ`, then as [`AdamW`](super::AdamW) without decay. The weight decay is a part of the gradient and of both moments, so
/// that it is smaller where gradients are large, but clipping does not see it. Without decay the two are the same to the byte. Its
/// state is `NAME.m` and `NAME.v`.
///
/// Of a variable with a sparse gradient only the rows with a gradient move, only their moments and weights decay, and
/// the bias correction counts all updates, as in PyTorch's `SparseAdam`.
#[derive(Debug)]
pub struct Adam {
    config: AdamConfig,
    slots: Slots,
}

impl Adam {
    /// An optimiser of `named` with fresh moments.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(named: Vec<(String, Var)>, config: AdamConfig) -> crate::Result<Self> {
        Self::with_groups(named, config, &[])
    }

    /// [`Adam::new`] where some variables have settings of their own.
    ///
    /// # Errors
    /// If a setting is outside its range, or a group has no variable.
    pub fn with_groups(named: Vec<(String, Var)>, config: AdamConfig, groups: &[Group]) -> crate::Result<Self> {
        config.check()?;
        Ok(Self { config, slots: Slots::new("adam", &["m", "v"], named, groups, config.weight_decay)? })
    }
}

impl Optimizer for Adam {
    fn step_sparse(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        lr_factor: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        let AdamConfig { lr, beta1, beta2, eps, .. } = self.config;
        self.slots.step(gradients, sparse, |step| AdamRule {
            weight_decay: step.weight_decay,
            gradient_scale,
            without: AdamWRule::new([beta1, beta2], lr * lr_factor * step.lr_factor, eps, 0.0, step.updates),
        })
    }

    bookkeeping!();
}

#[derive(Debug, Clone, Copy)]
struct AdamRule {
    weight_decay: f64,
    gradient_scale: f64,
    /// The update by a gradient that is scaled and has the decay in it.
    without: AdamWRule,
}

impl Rule<2> for AdamRule {
    const NAME: &'static str = "adam";

    #[inline(always)]
    fn apply(self, weights: &mut [f32], gradient: &[f32], [m, v]: [&mut [f32]; 2]) {
        let [gradient_scale, weight_decay] = [self.gradient_scale, self.weight_decay].map(|x| x as f32);
        let numbers = self.without.numbers();
        for (((weight, &gradient), m), v) in weights.iter_mut().zip(gradient).zip(m).zip(v) {
            let mut gradient = gradient * gradient_scale;
            if weight_decay > 0.0 {
                gradient += weight_decay * *weight;
            }
            numbers.apply(weight, gradient, m, v);
        }
    }

    fn composed(self, weights: &Tensor, gradient: &Tensor, moments: [&Tensor; 2]) -> Result<(Tensor, [Tensor; 2])> {
        let gradient = (gradient * self.gradient_scale)?;
        let gradient = if self.weight_decay > 0.0 { (gradient + (weights * self.weight_decay)?)? } else { gradient };
        self.without.composed(weights, &gradient, moments)
    }

    #[cfg(feature = "cuda")]
    fn apply_on_cuda(self, weights: &Tensor, gradient: &Tensor, moments: [&Tensor; 2]) -> Result<bool> {
        if self.weight_decay > 0.0 {
            return Ok(false);
        }
        let mut rule = self.without;
        rule.gradient_scale = self.gradient_scale;
        rule.apply_on_cuda(weights, gradient, moments)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::tests::after;
    use super::*;
    use crate::optim::AdamWConfig;

    #[test]
    fn two_steps_by_hand() {
        // θ₀ = 1, lr 0.1, λ 1 (ε is lost). g = 1 + 1: the first step is sign-like, θ = 0.9. g = -1.9 + 0.9 = -1:
        // m̂ = (0.9 · 0.2 - 0.1) / 0.19, v̂ = (0.999 · 0.004 + 0.001) / 0.001999.
        let config = AdamConfig { weight_decay: 1.0, ..AdamConfig::with_lr(0.1) };
        let expected = 0.9 - 0.1 * (0.08 / 0.19) / (0.004996f64 / 0.001999).sqrt();
        let found = after(config, &[1.0, -1.9]);
        assert!(found.iter().all(|found| (found - expected).abs() < 1e-6), "{found:?} {expected}");
    }

    #[test]
    fn without_decay_it_is_adamw_to_the_byte() {
        let start = crate::testing::random(1, (9, 37)).unwrap().to_dtype(DType::F32).unwrap();
        let of = |config: super::super::OptimizerConfig| {
            let var = Var::from_tensor(&start.copy().unwrap()).unwrap();
            let mut optimizer = config.build(vec![("w".to_string(), var.clone())], &[]).unwrap();
            for _ in 0..4 {
                optimizer.step(&var.sin().unwrap().sum_all().unwrap().backward().unwrap(), 0.7, 0.3).unwrap();
            }
            var.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let adamw = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::with_lr(0.1) };
        assert_eq!(of(AdamConfig::with_lr(0.1).into()), of(adamw.into()));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = |config| Adam::new(vec![], config).unwrap_err().to_string();
        let config = AdamConfig::with_lr(0.1);
        assert_eq!(message(AdamConfig { beta2: 1.0, ..config }), "beta2: expected a value in [0, 1), found 1");
        assert!(message(AdamConfig { weight_decay: -1.0, ..config }).starts_with("weight_decay: "));
    }
}
