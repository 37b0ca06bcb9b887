//! RMSprop.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::groups::Group;
use super::slots::{Slots, bookkeeping};
use super::update::Rule;
use super::{Optimizer, ensure, is_at_least_zero};
use crate::ops::embedding::SparseGradient;

/// Settings of [`RmsProp`].
///
/// | field          | default | range  | source                                    |
/// |----------------|---------|--------|-------------------------------------------|
/// | `lr`           | –       | ≥ 0    | peak rate; a schedule scales it           |
/// | `alpha`        | 0.99    | [0, 1) | PyTorch's default; Hinton's lecture: 0.9  |
/// | `eps`          | 1e-8    | > 0    | PyTorch's default                         |
/// | `weight_decay` | 0       | ≥ 0    | PyTorch's default                         |
/// | `momentum`     | 0       | [0, 1) | PyTorch's default; 0 keeps no state of it |
/// | `centered`     | false   |        | PyTorch's default                         |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RmsPropConfig {
    /// Peak learning rate; PyTorch's default is 0.01.
    pub lr: f64,
    /// Decay of the mean of squared gradients, and of that of gradients.
    pub alpha: f64,
    /// Added to the root.
    pub eps: f64,
    /// Times the weight it is added to the gradient; not applied to biases and norms.
    pub weight_decay: f64,
    /// What is kept of the sum of changes at each step.
    pub momentum: f64,
    /// Whether the squared mean of gradients is taken from the mean of squares, which leaves their variance (Graves 2013, §4.2).
    pub centered: bool,
}

impl RmsPropConfig {
    /// The defaults of the table with a learning rate.
    pub fn with_lr(lr: f64) -> Self {
        Self { lr, alpha: 0.99, eps: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false }
    }

    fn check(&self) -> crate::Result<()> {
        let Self { lr, alpha, eps, weight_decay, momentum, .. } = *self;
        ensure(is_at_least_zero(lr), "lr", "a finite rate of at least 0", lr)?;
        ensure((0.0..1.0).contains(&alpha), "alpha", "a value in [0, 1)", alpha)?;
        ensure(eps.is_finite() && eps > 0.0, "eps", "a finite value above 0", eps)?;
        ensure(is_at_least_zero(weight_decay), "weight_decay", "a finite value of at least 0", weight_decay)?;
        ensure((0.0..1.0).contains(&momentum), "momentum", "a value in [0, 1)", momentum)
    }
}

/// Steps by the root of the mean of squared gradients (Tieleman & Hinton 2012, lecture 6.5 of "Neural networks for machine
/// learning"), as PyTorch's `RMSprop`.
///
/// `g ← g + λθ`, `v ← αv + (1-α)g²`, `c = g / (√v + ε)`, `θ ← θ - lr · c`. Centred, `a ← αa + (1-α)g` and `√(v - a²)` takes the place
/// of `√v`, with 0 for what rounding makes less. With momentum `b ← μb + c` and `θ ← θ - lr · b`. The weight decay is a part of the
/// gradient, but clipping does not see it. Its state is `NAME.v`, and where there are such `NAME.mean` and `NAME.momentum`.
///
/// Of a variable with a sparse gradient only the rows with a gradient move, and only their moments and weights decay.
#[derive(Debug)]
pub struct RmsProp {
    config: RmsPropConfig,
    slots: Slots,
}

impl RmsProp {
    /// An optimiser of `named` with fresh moments.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(named: Vec<(String, Var)>, config: RmsPropConfig) -> crate::Result<Self> {
        Self::with_groups(named, config, &[])
    }

    /// [`RmsProp::new`] where some variables have settings of their own.
    ///
    /// # Errors
    /// If a setting is outside its range, or a group has no variable.
    pub fn with_groups(named: Vec<(String, Var)>, config: RmsPropConfig, groups: &[Group]) -> crate::Result<Self> {
        config.check()?;
        let kinds: &[&str] = match (config.centered, config.momentum > 0.0) {
            (false, false) => &["v"],
            (false, true) => &["v", "momentum"],
            (true, false) => &["v", "mean"],
            (true, true) => &["v", "mean", "momentum"],
        };
        Ok(Self { config, slots: Slots::new("rmsprop", kinds, named, groups, config.weight_decay)? })
    }
}

impl Optimizer for RmsProp {
    fn step_sparse(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        lr_factor: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        let RmsPropConfig { lr, alpha, eps, momentum, centered, .. } = self.config;
        let rule = |step: super::slots::Step| RmsPropRule {
            gradient_scale,
            lr: lr * lr_factor * step.lr_factor,
            keep: alpha,
            take: 1.0 - alpha,
            eps,
            weight_decay: step.weight_decay,
            momentum,
            centered,
        };
        match (centered, momentum > 0.0) {
            (false, false) => self.slots.step::<1, _>(gradients, sparse, rule),
            (true, true) => self.slots.step::<3, _>(gradients, sparse, rule),
            _ => self.slots.step::<2, _>(gradients, sparse, rule),
        }
    }

    bookkeeping!();
}

/// The first moment is `v`; the mean is the second where there is one, and the momentum the last.
#[derive(Debug, Clone, Copy)]
struct RmsPropRule {
    gradient_scale: f64,
    lr: f64,
    /// `α`
    keep: f64,
    /// `1 - α`
    take: f64,
    eps: f64,
    weight_decay: f64,
    momentum: f64,
    centered: bool,
}

impl<const N: usize> Rule<N> for RmsPropRule {
    const NAME: &'static str = "rmsprop";

    #[inline(always)]
    fn apply(self, weights: &mut [f32], gradient: &[f32], moments: [&mut [f32]; N]) {
        let [gradient_scale, lr, keep, take, eps, weight_decay, momentum] =
            [self.gradient_scale, self.lr, self.keep, self.take, self.eps, self.weight_decay, self.momentum]
                .map(|x| x as f32);
        let len = weights.len();
        let (gradient, moments) = (&gradient[..len], moments.map(|moment| &mut moment[..len]));
        for idx in 0..len {
            let gradient = gradient[idx] * gradient_scale + weight_decay * weights[idx];
            let mut square = keep * moments[0][idx] + take * gradient * gradient;
            moments[0][idx] = square;
            if self.centered {
                let mean = keep * moments[1][idx] + take * gradient;
                moments[1][idx] = mean;
                square -= mean * mean;
                square = if square < 0.0 { 0.0 } else { square };
            }
            let mut change = gradient / (square.sqrt() + eps);
            if momentum > 0.0 {
                change += momentum * moments[N - 1][idx];
                moments[N - 1][idx] = change;
            }
            weights[idx] -= lr * change;
        }
    }

    fn composed(self, weights: &Tensor, gradient: &Tensor, moments: [&Tensor; N]) -> Result<(Tensor, [Tensor; N])> {
        let mut moments = moments.map(Tensor::clone);
        let gradient = ((gradient * self.gradient_scale)? + (weights * self.weight_decay)?)?;
        moments[0] = ((&moments[0] * self.keep)? + (gradient.sqr()? * self.take)?)?;
        let mut square = moments[0].clone();
        if self.centered {
            moments[1] = ((&moments[1] * self.keep)? + (&gradient * self.take)?)?;
            square = (square - moments[1].sqr()?)?;
            square = square.lt(0f64)?.where_cond(&square.zeros_like()?, &square)?;
        }
        let mut change = (gradient / (square.sqrt()? + self.eps)?)?;
        if self.momentum > 0.0 {
            change = (change + (&moments[N - 1] * self.momentum)?)?;
            moments[N - 1] = change.clone();
        }
        Ok(((weights - (change * self.lr)?)?, moments))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::after;
    use super::*;

    #[test]
    fn steps_by_hand() {
        // θ₀ = 1, α 0.75, lr 0.25 (ε is lost). g = 2: v = 1, c = 2, θ = 0.5. g = 4: v = 4.75, c = 4/√4.75.
        let config = RmsPropConfig { alpha: 0.75, ..RmsPropConfig::with_lr(0.25) };
        let close = |config, gradients: &[f64], expected: f64| {
            let found = after(config, gradients);
            assert!(found.iter().all(|found| (found - expected).abs() < 1e-6), "{config:?}: {found:?} {expected}");
        };
        close(config, &[2.0], 0.5);
        let second = 4.0 / 4.75f64.sqrt();
        close(config, &[2.0, 4.0], 0.5 - 0.25 * second);
        // With momentum 0.5: b = 2, then 1 + c.
        close(RmsPropConfig { momentum: 0.5, ..config }, &[2.0, 4.0], 0.5 - 0.25 * (1.0 + second));
        // Centred: a = 0.5, v - a² = 0.75.
        close(RmsPropConfig { centered: true, ..config }, &[2.0], 1.0 - 0.5 / 0.75f64.sqrt());
        // λ 1: g = 1 + 1.
        close(RmsPropConfig { weight_decay: 1.0, ..config }, &[1.0], 0.5);
    }

    #[test]
    fn gradients_that_do_not_vary_are_no_error() {
        // Their variance is 0 but for rounding, which must not become the root of a number below 0.
        let config = RmsPropConfig { alpha: 0.5, eps: 1.0, centered: true, ..RmsPropConfig::with_lr(0.1) };
        assert!(after(config, &[0.3; 80]).iter().all(|found| found.is_finite()));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = |config| RmsProp::new(vec![], config).unwrap_err().to_string();
        let config = RmsPropConfig::with_lr(0.1);
        assert_eq!(message(RmsPropConfig { alpha: 1.0, ..config }), "alpha: expected a value in [0, 1), found 1");
        assert_eq!(
            message(RmsPropConfig { momentum: -1.0, ..config }),
            "momentum: expected a value in [0, 1), found -1"
        );
    }
}
