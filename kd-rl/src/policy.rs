//! The policy: from a state per row to a probability per teacher.
//!
//! | form                 | a teacher's logit `z_k`                 | source             |
//! |----------------------|-----------------------------------------|--------------------|
//! | [`Form::Linear`]     | `w_k · s + b_k`                         | Yuan et al. 2021   |
//! | [`Form::Mlp`]        | `w_k · tanh(W s + c) + b_k`             |                    |
//!
//! | choice               | probabilities                                       |
//! |----------------------|-----------------------------------------------------|
//! | [`Choice::Subset`]   | `p_k = ε + (1 - 2ε) · σ(z_k)`, each teacher for itself |
//! | [`Choice::One`]      | `p_k = ε + (1 - Kε) · softmax(z)_k`, weights that sum to 1 |
//! | [`Choice::Weights`]  | the same, as the weights that those of a row are drawn around |
//!
//! The floor `ε` keeps every probability in `[ε, 1 - ε]`, since a saturated unit neither explores nor recovers; `ε = 0` is
//! the plain form. In [`Scope::Joint`] every teacher's unit sees the whole state, so a teacher can be judged by what the others
//! say; in [`Scope::PerTeacher`] it sees the shared features and the teacher's own.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use kd_core::nn::Linear;
use kd_core::ops;
use serde::{Deserialize, Serialize};

use crate::selection::Choice;
use crate::state::Layout;

/// What computes a logit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Linear in the state.
    #[default]
    Linear,
    /// With one hidden layer of this width.
    Mlp {
        /// Hidden units, ≥ 1; for each teacher where each sees its own.
        hidden: usize,
    },
}

/// What a teacher's unit sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The whole state.
    #[default]
    Joint,
    /// The shared features and the teacher's own.
    PerTeacher,
}

/// Settings of a [`SelectionPolicy`].
///
/// | field    | default  | range      | source of the default                                     |
/// |----------|----------|------------|-----------------------------------------------------------|
/// | `form`   | linear   |            | Yuan et al. 2021                                          |
/// | `scope`  | joint    |            | the larger of the two                                     |
/// | `choice` | subset   |            | Yuan et al. 2021                                          |
/// | `floor`  | 0.05     | [0, 0.5), below 1/K for one of K | so that one row in twenty explores      |
/// | `start`  | 0.5      | (floor, 1 - floor) | the most uncertain; 0.9 starts near all teachers alike |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// What computes a logit.
    pub form: Form,
    /// What a teacher's unit sees.
    pub scope: Scope,
    /// How many teachers a row gets.
    pub choice: Choice,
    /// `ε` above.
    pub floor: f64,
    /// Probability of every teacher in every state at the start. No effect but with [`Choice::Subset`]: else it is 1/K.
    pub start: f64,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { form: Form::Linear, scope: Scope::Joint, choice: Choice::Subset, floor: 0.05, start: 0.5 }
    }
}

/// Probabilities of choosing each teacher, given a state per row.
#[derive(Debug, Clone)]
pub struct SelectionPolicy {
    config: PolicyConfig,
    layout: Layout,
    /// One for all teachers, or one for each.
    units: Vec<Unit>,
}

impl SelectionPolicy {
    /// A policy over states of `layout`. It starts at the same probability for every state: output weights are 0.
    ///
    /// Variables: `weight` and `bias` of the output, with a hidden layer `hidden.weight` and `hidden.bias` too; where each
    /// teacher sees its own, those of teacher `k` are below `teacher_k`.
    ///
    /// # Errors
    /// If there are no features or no teachers, or a setting is out of its range.
    pub fn new(layout: Layout, config: PolicyConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let (features, teachers) = (layout.features(), layout.teachers);
        if features == 0 || teachers == 0 {
            bail!("a selection policy needs features and teachers, found {features} features and {teachers} teachers");
        }
        let is_subset = config.choice == Choice::Subset;
        let below = if is_subset { 0.5 } else { (1.0 / teachers as f64).min(0.5) };
        if !(0.0..below).contains(&config.floor) {
            bail!("`floor`: expected a number in [0, {below}), found {}", config.floor);
        }
        let start = (config.start - config.floor) / (1.0 - 2.0 * config.floor);
        if !(start > 0.0 && start < 1.0) {
            let range = [config.floor, 1.0 - config.floor];
            bail!("`start`: expected a number between {} and {}, found {}", range[0], range[1], config.start);
        }
        if config.form == (Form::Mlp { hidden: 0 }) {
            bail!("`hidden`: expected at least 1 unit, found 0");
        }
        if let Choice::Weights { deviation } = config.choice
            && !(deviation.is_finite() && deviation > 0.0)
        {
            bail!("`deviation`: expected a finite number above 0, found {deviation}");
        }
        let bias = if is_subset { (start / (1.0 - start)).ln() } else { 0.0 };
        let unit = |features, out, vb| Unit::new(features, out, bias, config.form, vb);
        let units = match config.scope {
            Scope::Joint => vec![unit(features, teachers, vb)?],
            Scope::PerTeacher => (0..teachers)
                .map(|idx| unit(layout.shared + layout.own, 1, vb.pp(format!("teacher_{idx}"))))
                .collect::<Result<_>>()?,
        };
        Ok(Self { config, layout, units })
    }

    /// Probability of choosing each teacher.
    ///
    /// # Shapes
    /// - `states`: `(rows, features)` float; it is detached, the policy does not train what made it
    /// - returns `(rows, teachers)`, differentiable in the policy's variables; rows sum to 1 but for [`Choice::Subset`] and may be
    ///   used as weights as they are
    ///
    /// # Errors
    /// If the number of features differs from the policy's.
    pub fn probabilities(&self, states: &Tensor) -> Result<Tensor> {
        let (_rows, features) = states.dims2()?;
        let Layout { shared, own, teachers } = self.layout;
        if features != self.layout.features() {
            bail!("the policy reads states of {} features, found {features}", self.layout.features());
        }
        let states = states.detach().contiguous()?;
        let logits = match self.config.scope {
            Scope::Joint => self.units[0].forward(&states)?,
            Scope::PerTeacher => {
                let of_teacher = |(idx, unit): (usize, &Unit)| {
                    let mut seen = Vec::with_capacity(2);
                    for (start, len) in [(0, shared), (shared + idx * own, own)] {
                        if len > 0 {
                            seen.push(states.narrow(1, start, len)?);
                        }
                    }
                    unit.forward(&Tensor::cat(&seen, 1)?)
                };
                Tensor::cat(&self.units.iter().enumerate().map(of_teacher).collect::<Result<Vec<_>>>()?, 1)?
            }
        };
        let floor = self.config.floor;
        match self.config.choice {
            // The hyperbolic tangent does not overflow where exp(-logit) would.
            Choice::Subset => (logits * 0.5)?.tanh()?.affine(0.5 - floor, 0.5),
            Choice::One | Choice::Weights { .. } => ops::softmax(&logits)?.affine(1.0 - teachers as f64 * floor, floor),
        }
    }

    /// The least and the largest probability that it can give: `[ε, 1 - ε]`, else `[ε, 1 - (K - 1) ε]` of K teachers.
    pub fn bounds(&self) -> [f64; 2] {
        let others = match self.config.choice {
            Choice::Subset => 1.0,
            Choice::One | Choice::Weights { .. } => self.layout.teachers as f64 - 1.0,
        };
        [self.config.floor, 1.0 - others * self.config.floor]
    }

    /// Its settings.
    pub fn config(&self) -> PolicyConfig {
        self.config
    }

    /// What its states look like.
    pub fn layout(&self) -> Layout {
        self.layout
    }
}

/// From features to logits.
#[derive(Debug, Clone)]
struct Unit {
    hidden: Option<Linear>,
    out: Linear,
}

impl Unit {
    fn new(features: usize, out: usize, bias: f64, form: Form, vb: VarBuilder<'_>) -> Result<Self> {
        let (width, hidden) = match form {
            Form::Linear => (features, None),
            Form::Mlp { hidden } => (hidden, Some(Linear::new(features, hidden, vb.pp("hidden"))?)),
        };
        Ok(Self { hidden, out: Linear::new_with(width, out, Init::Const(0.0), Init::Const(bias), vb)? })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        match &self.hidden {
            Some(hidden) => self.out.forward(&hidden.forward(xs)?.tanh()?),
            None => self.out.forward(xs),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use kd_core::testing::{assert_all_variables_learn, random};
    use kd_core::variables::Variables;
    use std::collections::HashMap;

    use super::*;

    const LAYOUT: Layout = Layout { shared: 2, own: 0, teachers: 2 };

    fn policy(config: PolicyConfig, weight: &[[f64; 2]; 2], bias: &[f64; 2]) -> SelectionPolicy {
        let variables = Variables::new(0, DType::F64, &Device::Cpu);
        let policy = SelectionPolicy::new(LAYOUT, config, variables.builder()).unwrap();
        let tensor = |name: &str, tensor| (name.to_string(), tensor);
        let tensors = HashMap::from([
            tensor("weight", Tensor::new(weight, &Device::Cpu).unwrap()),
            tensor("bias", Tensor::new(bias, &Device::Cpu).unwrap()),
        ]);
        variables.set(&tensors).unwrap();
        policy
    }

    fn row(policy: &SelectionPolicy, state: [f64; 2]) -> Vec<f64> {
        let states = Tensor::new(&[state], &Device::Cpu).unwrap();
        policy.probabilities(&states).unwrap().to_vec2::<f64>().unwrap().remove(0)
    }

    #[test]
    fn probabilities_are_logistic_in_the_state() {
        // First unit: 2·0.5 - 1·1 + 0 = 0, so 1/2. Second: ln 3 · 1 + 0, and σ(ln 3) = 3/4; as softmax 1/4 and 3/4.
        for (choice, floor, expected) in [
            (Choice::Subset, 0.0, [0.5, 0.75]),
            (Choice::Subset, 0.1, [0.5, 0.1 + 0.8 * 0.75]),
            (Choice::One, 0.0, [0.25, 0.75]),
            (Choice::One, 0.1, [0.1 + 0.8 * 0.25, 0.1 + 0.8 * 0.75]),
        ] {
            let config = PolicyConfig { choice, floor, ..PolicyConfig::default() };
            let found = row(&policy(config, &[[2.0, -1.0], [0.0, 3f64.ln()]], &[0.0, 0.0]), [0.5, 1.0]);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{found} != {expected} of {choice:?} at floor {floor}");
            }
        }
    }

    #[test]
    fn extreme_states_stay_finite_and_explore() {
        let found = row(&policy(PolicyConfig::default(), &[[1e6, 0.0], [-1e6, 0.0]], &[0.0, 0.0]), [1.0, 0.0]);
        assert!((found[0] - 0.95).abs() < 1e-12 && (found[1] - 0.05).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn every_form_starts_where_it_is_told_and_learns() {
        let layout = Layout { shared: 1, own: 2, teachers: 3 };
        let states = random(1, (5, 7)).unwrap();
        for form in [Form::Linear, Form::Mlp { hidden: 4 }] {
            for scope in [Scope::Joint, Scope::PerTeacher] {
                for (choice, expected) in [(Choice::Subset, 0.9), (Choice::One, 1.0 / 3.0)] {
                    let config = PolicyConfig { form, scope, choice, start: 0.9, ..PolicyConfig::default() };
                    let variables = Variables::new(0, DType::F64, &Device::Cpu);
                    let policy = SelectionPolicy::new(layout, config, variables.builder()).unwrap();
                    let probs = policy.probabilities(&states).unwrap();
                    let values = probs.to_vec2::<f64>().unwrap().concat();
                    // Variables are drawn in f32.
                    assert!(values.iter().all(|prob| (prob - expected).abs() < 1e-7), "{config:?}: {values:?}");
                    // The hidden layer's gradient passes output weights, which start at 0.
                    for (name, var) in variables.named() {
                        if name.ends_with("weight") {
                            var.set(&random(7, var.shape().clone()).unwrap()).unwrap();
                        }
                    }
                    let coefficients = random(2, (5, 3)).unwrap();
                    let loss = (policy.probabilities(&states).unwrap() * coefficients).unwrap().sum_all().unwrap();
                    assert_all_variables_learn(&variables, &loss).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_teacher_of_its_own_scope_does_not_see_the_others() {
        let layout = Layout { shared: 1, own: 2, teachers: 2 };
        let variables = Variables::new(0, DType::F64, &Device::Cpu);
        let config = PolicyConfig { scope: Scope::PerTeacher, ..PolicyConfig::default() };
        let policy = SelectionPolicy::new(layout, config, variables.builder()).unwrap();
        for (idx, (_, var)) in variables.named().into_iter().enumerate() {
            var.set(&random(idx as u64, var.shape().clone()).unwrap()).unwrap();
        }
        let probs = |state: [f64; 5]| {
            let states = Tensor::new(&[state], &Device::Cpu).unwrap();
            policy.probabilities(&states).unwrap().to_vec2::<f64>().unwrap().remove(0)
        };
        let (base, other) = (probs([1., 2., 3., 4., 5.]), probs([1., 2., 3., -4., 5.]));
        assert_eq!(base[0], other[0]);
        assert_ne!(base[1], other[1]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let make = |layout, config| {
            let variables = Variables::new(0, DType::F32, &Device::Cpu);
            SelectionPolicy::new(layout, config, variables.builder()).unwrap_err().to_string()
        };
        let default = PolicyConfig::default();
        assert!(make(Layout { teachers: 0, ..LAYOUT }, default).contains("found 2 features and 0 teachers"));
        let floor = |floor| make(LAYOUT, PolicyConfig { floor, ..default });
        assert!(floor(0.5).contains("expected a number in [0, 0.5), found 0.5"));
        assert!(floor(f64::NAN).contains("found NaN"));
        let weights = PolicyConfig { choice: Choice::Weights { deviation: 0.0 }, ..default };
        assert!(make(LAYOUT, weights).contains("`deviation`: expected a finite number above 0, found 0"));
        let one = PolicyConfig { choice: Choice::One, floor: 0.3, ..default };
        assert!(make(Layout { teachers: 4, ..LAYOUT }, one).contains("expected a number in [0, 0.25), found 0.3"));
        assert!(make(LAYOUT, PolicyConfig { start: 0.05, ..default }).contains("`start`: expected a number between"));
        assert!(make(LAYOUT, PolicyConfig { form: Form::Mlp { hidden: 0 }, ..default }).contains("`hidden`"));
        let states = Tensor::zeros((1, 3), DType::F64, &Device::Cpu).unwrap();
        let probs = policy(default, &[[0.0; 2]; 2], &[0.0; 2]).probabilities(&states);
        assert!(probs.unwrap_err().to_string().contains("reads states of 2 features, found 3"));
    }
}
