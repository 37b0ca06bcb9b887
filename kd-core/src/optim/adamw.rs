//! AdamW.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::groups::Group;
use super::slots::{Slots, bookkeeping};
use super::update::Rule;
use super::{Optimizer, ensure, is_at_least_zero};
use crate::ops::embedding::SparseGradient;

/// Settings of [`AdamW`].
///
/// | field          | default | range        | source                         |
/// |----------------|---------|--------------|--------------------------------|
/// | `lr`           | –       | ≥ 0          | peak rate; a schedule scales it |
/// | `beta1`        | 0.9     | [0, 1)       | Kingma & Ba 2015               |
/// | `beta2`        | 0.999   | [0, 1)       | Kingma & Ba 2015               |
/// | `eps`          | 1e-8    | > 0          | Kingma & Ba 2015               |
/// | `weight_decay` | 0.01    | ≥ 0          | Devlin et al. 2019; 0 is Adam  |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay per step and unit of learning rate; not applied to biases and norms.
    pub weight_decay: f64,
}

impl AdamWConfig {
    /// The defaults of the table with a learning rate.
    pub fn with_lr(lr: f64) -> Self {
        Self { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
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

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019) over named variables.
///
/// `m ← β₁m + (1-β₁)g`, `v ← β₂v + (1-β₂)g²`, `θ ← θ - lr·λ·θ - lr · m̂ / (√v̂ + ε)` with `m̂ = m / (1-β₁ᵗ)` and
/// `v̂ = v / (1-β₂ᵗ)`. Its state is `NAME.m` and `NAME.v`.
///
/// Of a variable with a sparse gradient only the rows with a gradient move, only their moments and weights decay, and
/// the bias correction counts all updates, as in PyTorch's `SparseAdam`.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    slots: Slots,
}

impl AdamW {
    /// An optimiser of `named` with fresh moments.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(named: Vec<(String, Var)>, config: AdamWConfig) -> crate::Result<Self> {
        Self::with_groups(named, config, &[])
    }

    /// [`AdamW::new`] where some variables have settings of their own.
    ///
    /// # Errors
    /// If a setting is outside its range, or a group has no variable.
    pub fn with_groups(named: Vec<(String, Var)>, config: AdamWConfig, groups: &[Group]) -> crate::Result<Self> {
        config.check()?;
        Ok(Self { config, slots: Slots::new("adamw", &["m", "v"], named, groups, config.weight_decay)? })
    }
}

impl Optimizer for AdamW {
    fn step_sparse(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        lr_factor: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        let AdamWConfig { lr, beta1, beta2, eps, .. } = self.config;
        self.slots.step(gradients, sparse, |step| {
            let lr = lr * lr_factor * step.lr_factor;
            let rule = AdamWRule::new([beta1, beta2], lr, eps, step.weight_decay, step.updates);
            AdamWRule { gradient_scale, ..rule }
        })
    }

    bookkeeping!();
}

/// Numbers of one step. In f32 `1 - 0.999` would be off by 1e-5 of its value, so all of them are made in f64.
#[derive(Debug, Clone, Copy)]
pub(super) struct AdamWRule {
    pub(super) gradient_scale: f64,
    /// `[β₁, β₂]`
    keep: [f64; 2],
    /// `[1 - β₁, 1 - β₂]`
    take: [f64; 2],
    /// `lr / (1 - β₁ᵗ)`
    step: f64,
    /// `1 / √(1 - β₂ᵗ)`
    root: f64,
    eps: f64,
    /// `1 - lr · λ`
    decay: f64,
}

impl AdamWRule {
    /// Of update `updates`, by a gradient that is not scaled.
    pub(super) fn new(betas: [f64; 2], lr: f64, eps: f64, weight_decay: f64, updates: i32) -> Self {
        let [correction1, correction2] = betas.map(|beta| 1.0 - beta.powi(updates));
        Self {
            gradient_scale: 1.0,
            keep: betas,
            take: betas.map(|beta| 1.0 - beta),
            step: lr / correction1,
            root: 1.0 / correction2.sqrt(),
            eps,
            decay: 1.0 - lr * weight_decay,
        }
    }

    #[inline(always)]
    pub(super) fn numbers(self) -> Numbers {
        let [step, root, eps, decay] = [self.step, self.root, self.eps, self.decay].map(|x| x as f32);
        Numbers { keep: self.keep.map(|x| x as f32), take: self.take.map(|x| x as f32), step, root, eps, decay }
    }
}

/// Those of the rule in f32, but for the gradient's scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    keep: [f32; 2],
    take: [f32; 2],
    step: f32,
    root: f32,
    eps: f32,
    decay: f32,
}

impl Numbers {
    #[inline(always)]
    pub(super) fn apply(self, weight: &mut f32, gradient: f32, m: &mut f32, v: &mut f32) {
        let Self { keep, take, step, root, eps, decay } = self;
        *m = keep[0] * *m + take[0] * gradient;
        *v = keep[1] * *v + take[1] * gradient * gradient;
        *weight = *weight * decay - step * *m / (v.sqrt() * root + eps);
    }
}

impl Rule<2> for AdamWRule {
    const NAME: &'static str = "adamw";

    #[inline(always)]
    fn apply(self, weights: &mut [f32], gradient: &[f32], [m, v]: [&mut [f32]; 2]) {
        let (gradient_scale, numbers) = (self.gradient_scale as f32, self.numbers());
        for (((weight, &gradient), m), v) in weights.iter_mut().zip(gradient).zip(m).zip(v) {
            numbers.apply(weight, gradient * gradient_scale, m, v);
        }
    }

    fn composed(self, weights: &Tensor, gradient: &Tensor, [m, v]: [&Tensor; 2]) -> Result<(Tensor, [Tensor; 2])> {
        let Self { gradient_scale, keep, take, step, root, eps, decay } = self;
        let gradient = (gradient * gradient_scale)?;
        let m = ((m * keep[0])? + (&gradient * take[0])?)?;
        let v = ((v * keep[1])? + (gradient.sqr()? * take[1])?)?;
        let change = ((&m * step)? / v.sqrt()?.affine(root, eps)?)?;
        Ok((((weights * decay)? - change)?, [m, v]))
    }

    #[cfg(feature = "cuda")]
    fn apply_on_cuda(self, weights: &Tensor, gradient: &Tensor, [m, v]: [&Tensor; 2]) -> Result<bool> {
        use crate::ops::cuda;
        if !cuda::has_kernel(weights) || !weights.is_contiguous() {
            return Ok(false);
        }
        let Self { gradient_scale, keep: betas, step, root, eps, decay, .. } = self;
        cuda::adamw(weights, gradient, m, v, cuda::AdamWStep { gradient_scale, betas, step, root, eps, decay })?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn one(value: f64, dtype: DType, name: &str, config: AdamWConfig) -> (Var, AdamW) {
        let var = Var::from_tensor(&Tensor::new(&[[value]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap()).unwrap();
        (var.clone(), AdamW::new(vec![(name.to_string(), var)], config).unwrap())
    }

    fn value(var: &Var) -> f64 {
        var.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()[0]
    }

    #[test]
    fn two_steps_by_hand() {
        // loss = θ², g = 2θ, θ₀ = 1, lr 0.1, λ 0.5: after bias correction the first step is sign-like,
        // θ₁ = 1·(1 - 0.05) - 0.1·2/(2 + 1e-8) = 0.85 (to 5e-10).
        // g₂ = 1.7: m̂ = (0.9·0.2 + 0.1·1.7) / 0.19 = 0.35/0.19, v̂ = (0.999·0.004 + 0.001·2.89) / 0.001999,
        // θ₂ = 0.85·0.95 - 0.1 · m̂ / √v̂.
        let expected = 0.85 * 0.95 - 0.1 * (0.35 / 0.19) / (0.006886f64 / 0.001999).sqrt();
        for dtype in [DType::F32, DType::F64] {
            let (var, mut adamw) = one(1.0, dtype, "w", AdamWConfig { weight_decay: 0.5, ..AdamWConfig::with_lr(0.1) });
            for _ in 0..2 {
                let gradients = var.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                adamw.step(&gradients, 1.0, 1.0).unwrap();
            }
            assert!((value(&var) - expected).abs() < 1e-6, "{dtype:?}: {} {expected}", value(&var));
        }
    }

    #[test]
    fn biases_are_not_decayed() {
        let config = AdamWConfig { weight_decay: 0.5, ..AdamWConfig::with_lr(0.1) };
        for (name, expected) in [("w", 0.95), ("layer.bias", 1.0)] {
            let (var, mut adamw) = one(1.0, DType::F32, name, config);
            // (θ - 1)² at θ = 1: a gradient of 0 that is there; Candle leaves θ · 0 out of the graph.
            let gradients = (var.as_tensor() - 1.0).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
            adamw.step(&gradients, 1.0, 1.0).unwrap();
            assert!((value(&var) - expected).abs() < 1e-6, "{name}: {}", value(&var));
        }
    }

    #[test]
    fn the_update_of_f32_is_these_operations_in_this_order() {
        // A model trained again ends in the same bytes only as long as nothing here is reordered or contracted.
        let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::with_lr(0.01) };
        let (lr_factor, gradient_scale) = (0.7, 0.3f64);
        let values = |seed| crate::testing::random(seed, (9, 37)).unwrap().to_dtype(DType::F32).unwrap();
        let var = Var::from_tensor(&values(1)).unwrap();
        let mut adamw = AdamW::new(vec![("w".to_string(), var.clone())], config).unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut weights = flat(&var);
        let (mut m, mut v) = (vec![0f32; weights.len()], vec![0f32; weights.len()]);
        for step in 1..5 {
            let gradient = values(1 + step as u64);
            let lr = config.lr * lr_factor;
            let decay = (1.0 - lr * config.weight_decay) as f32;
            let step_size = (lr / (1.0 - config.beta1.powi(step))) as f32;
            let root = (1.0 / (1.0 - config.beta2.powi(step)).sqrt()) as f32;
            let keep = [config.beta1 as f32, config.beta2 as f32];
            let take = [(1.0 - config.beta1) as f32, (1.0 - config.beta2) as f32];
            for (idx, gradient) in flat(&gradient).into_iter().enumerate() {
                let gradient = gradient * gradient_scale as f32;
                m[idx] = keep[0] * m[idx] + take[0] * gradient;
                v[idx] = keep[1] * v[idx] + take[1] * gradient * gradient;
                weights[idx] = weights[idx] * decay - step_size * m[idx] / (v[idx].sqrt() * root + config.eps as f32);
            }
            let mut gradients = GradStore::default();
            gradients.insert(var.as_tensor(), gradient);
            adamw.step(&gradients, lr_factor, gradient_scale).unwrap();
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&flat(&var)), bits(&weights), "step {step}");
            assert_eq!(bits(&flat(&adamw.state().unwrap()["w.v"])), bits(&v), "step {step}");
        }
    }

    #[test]
    fn a_rate_that_is_no_number_is_refused() {
        let error = AdamW::new(vec![], AdamWConfig::with_lr(f64::NAN)).unwrap_err().to_string();
        assert_eq!(error, "lr: expected a finite rate of at least 0, found NaN");
    }
}
