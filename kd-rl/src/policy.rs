//! The policy: a logistic unit per teacher.
//!
//! `p_k(s) = ε + (1 - 2ε) · σ(w_k · s + b_k)`, the logistic policy of Yuan et al. 2021 with its probabilities kept
//! in `[ε, 1 - ε]`, since a saturated unit neither explores nor recovers. `ε = 0` is the plain form.
//! Every teacher's unit sees the whole state, so a teacher can be judged by what the others say.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};

/// Chooses teachers independently of one another, given a state per row.
#[derive(Debug, Clone)]
pub struct SelectionPolicy {
    weight: Tensor,
    bias: Tensor,
    exploration: f64,
}

impl SelectionPolicy {
    /// A policy over `teachers` teachers that reads states of `features` numbers. It starts at probability 0.5
    /// for every teacher and state: a logistic unit has no symmetry that a random start would have to break.
    ///
    /// `exploration` is `ε` above, in `[0, 0.5)`; 0.05 is a good value. Variables: `weight` `(teachers, features)`
    /// and `bias` `(teachers,)`.
    ///
    /// # Errors
    /// If `features` or `teachers` is 0, or `exploration` is out of its range.
    pub fn new(features: usize, teachers: usize, exploration: f64, vb: VarBuilder) -> Result<Self> {
        if features == 0 || teachers == 0 {
            bail!("a selection policy needs features and teachers, found {features} features and {teachers} teachers");
        }
        if !(0.0..0.5).contains(&exploration) {
            bail!("`exploration`: expected a number in [0, 0.5), found {exploration}");
        }
        let weight = vb.get_with_hints((teachers, features), "weight", Init::Const(0.0))?;
        let bias = vb.get_with_hints(teachers, "bias", Init::Const(0.0))?;
        Ok(Self { weight, bias, exploration })
    }

    /// Probability of choosing each teacher.
    ///
    /// # Shapes
    /// - `states`: `(rows, features)` float; it is detached, the policy does not train what made it
    /// - returns `(rows, teachers)` in `[ε, 1 - ε]`, differentiable in the policy's variables
    ///
    /// # Errors
    /// If the number of features differs from the policy's.
    pub fn probabilities(&self, states: &Tensor) -> Result<Tensor> {
        let (_rows, features) = states.dims2()?;
        let (_teachers, expected) = self.weight.dims2()?;
        if features != expected {
            bail!("the policy reads states of {expected} features, found {features}");
        }
        let logits = states.detach().contiguous()?.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?;
        // The hyperbolic tangent does not overflow where exp(-logit) would.
        let sigmoid = (logits * 0.5)?.tanh()?.affine(0.5, 0.5)?;
        sigmoid.affine(1.0 - 2.0 * self.exploration, self.exploration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use kd_core::variables::Variables;
    use std::collections::HashMap;

    fn policy(exploration: f64, weight: &[[f64; 2]; 2], bias: &[f64; 2]) -> SelectionPolicy {
        let variables = Variables::new(0, DType::F64, &Device::Cpu);
        let policy = SelectionPolicy::new(2, 2, exploration, variables.builder()).unwrap();
        let tensor = |name: &str, tensor| (name.to_string(), tensor);
        let tensors = HashMap::from([
            tensor("weight", Tensor::new(weight, &Device::Cpu).unwrap()),
            tensor("bias", Tensor::new(bias, &Device::Cpu).unwrap()),
        ]);
        variables.set(&tensors).unwrap();
        policy
    }

    #[test]
    fn probabilities_are_logistic_in_the_state() {
        // First unit: 2·0.5 - 1·1 + 0 = 0, so 1/2. Second: ln 3 · 1 + 0, and σ(ln 3) = 3/4.
        let states = Tensor::new(&[[0.5, 1.0]], &Device::Cpu).unwrap();
        let logistic = |exploration| {
            let policy = policy(exploration, &[[2.0, -1.0], [0.0, 3f64.ln()]], &[0.0, 0.0]);
            policy.probabilities(&states).unwrap().to_vec2::<f64>().unwrap()[0].clone()
        };
        for (exploration, expected) in [(0.0, [0.5, 0.75]), (0.1, [0.5, 0.1 + 0.8 * 0.75])] {
            for (found, expected) in logistic(exploration).iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{found} != {expected} at exploration {exploration}");
            }
        }
    }

    #[test]
    fn extreme_states_stay_finite_and_explore() {
        let policy = policy(0.05, &[[1e6, 0.0], [-1e6, 0.0]], &[0.0, 0.0]);
        let probs = policy.probabilities(&Tensor::new(&[[1.0, 0.0]], &Device::Cpu).unwrap()).unwrap();
        let probs = probs.to_vec2::<f64>().unwrap();
        assert!((probs[0][0] - 0.95).abs() < 1e-12 && (probs[0][1] - 0.05).abs() < 1e-12, "{probs:?}");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let make = |features, teachers, exploration| {
            let variables = Variables::new(0, DType::F32, &Device::Cpu);
            SelectionPolicy::new(features, teachers, exploration, variables.builder()).map(|_| ())
        };
        let message = |result: Result<()>| result.unwrap_err().to_string();
        assert!(message(make(4, 0, 0.0)).contains("found 4 features and 0 teachers"));
        assert!(message(make(4, 2, 0.5)).contains("expected a number in [0, 0.5), found 0.5"));
        assert!(message(make(4, 2, f64::NAN)).contains("found NaN"));
        let states = Tensor::zeros((1, 3), DType::F64, &Device::Cpu).unwrap();
        let probs = policy(0.0, &[[0.0; 2]; 2], &[0.0; 2]).probabilities(&states);
        assert!(probs.unwrap_err().to_string().contains("reads states of 2 features, found 3"));
    }
}
