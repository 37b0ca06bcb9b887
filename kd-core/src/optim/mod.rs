//! Optimisers, and what stands between gradients and them.
//!
//! | type or function                      | does                                                      |
//! |---------------------------------------|-----------------------------------------------------------|
//! | [`AdamW`], [`Adam`], [`Adamax`], [`NAdam`], [`RAdam`], [`Adagrad`], [`Adadelta`], [`RmsProp`], [`Sgd`] | one update of named variables; all are an [`Optimizer`] |
//! | [`OptimizerConfig`]                   | which of them, and its settings                           |
//! | [`Group`], [`layer_wise_decay`]       | other rates, other decay, frozen variables, by name       |
//! | [`gradient_norm`], [`clip_scale`]     | clipping by the norm of all gradients together            |
//! | [`Accumulator`]                       | gradients of a large batch from those of small ones       |
//! | [`Ema`]                               | moving averages of the weights                            |
//!
//! Candle's own optimisers make a dozen temporaries per variable; here weight, gradient and moments are
//! read once and written once (f32 on the CPU), or updated by ordinary tensor operations elsewhere.
//! Of an embedding table only the rows with a gradient need be read: [`Optimizer::step_sparse`].
//!
//! Moments are f32 for f16, bf16 and f32 variables. The variables themselves keep their dtype, and in bf16 a change of
//! less than 1/512 of a weight is rounded away: train f32 variables and cast them in the forward pass.
//!
//! ```
//! use candle_core::{Device, Var};
//! use kd_core::optim::{Optimizer, OptimizerConfig, SgdConfig};
//! let weight = Var::new(&[[3f32]], &Device::Cpu)?;
//! let config = OptimizerConfig::Sgd(SgdConfig { weight_decay: 0.0, ..SgdConfig::with_lr(0.5) });
//! let mut optimizer = config.build(vec![("weight".to_string(), weight.clone())], &[])?;
//! optimizer.step(&weight.sqr()?.sum_all()?.backward()?, 1.0, 1.0)?; // 3 - 0.5 · 2 · 3
//! assert_eq!(weight.to_vec2::<f32>()?, [[0.]]);
//! # Ok::<(), kd_core::Error>(())
//! ```

mod accumulate;
mod adadelta;
mod adagrad;
mod adam;
mod adamax;
mod adamw;
mod ema;
mod groups;
mod nadam;
mod norm;
mod radam;
mod rms_prop;
mod sgd;
mod slots;
mod update;

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

pub use self::accumulate::{Accumulated, Accumulator};
pub use self::adadelta::{Adadelta, AdadeltaConfig};
pub use self::adagrad::{Adagrad, AdagradConfig};
pub use self::adam::{Adam, AdamConfig};
pub use self::adamax::{Adamax, AdamaxConfig};
pub use self::adamw::{AdamW, AdamWConfig};
pub use self::ema::{Ema, EmaConfig};
pub use self::groups::{Group, layer_wise_decay};
pub use self::nadam::{NAdam, NAdamConfig};
pub(crate) use self::norm::sum_of_squares;
pub use self::norm::{clip_scale, gradient_norm};
pub use self::radam::{RAdam, RAdamConfig};
pub use self::rms_prop::{RmsProp, RmsPropConfig};
pub use self::sgd::{Sgd, SgdConfig};
use crate::error::Error;
use crate::ops::embedding::SparseGradient;

/// Values per task; fixed, so that no result depends on the number of threads.
const CHUNK: usize = 1 << 14;

/// Changes named variables by their gradients.
pub trait Optimizer {
    /// The variables that it trains, and their names.
    fn named(&self) -> Box<dyn Iterator<Item = (&str, &Var)> + '_>;

    /// Names of the variables that a [`Group`] freezes: they are not among the trained and have no state.
    fn frozen(&self) -> &[String];

    /// One update with the gradients times `gradient_scale` (see [`clip_scale`]) at learning rate `lr · lr_factor`.
    ///
    /// A variable without a gradient keeps its value and moments; gradients of frozen variables are left alone.
    ///
    /// # Errors
    /// If a gradient has another shape than its variable; then nothing has changed.
    fn step(&mut self, gradients: &GradStore, lr_factor: f64, gradient_scale: f64) -> Result<()> {
        self.step_sparse(gradients, &[], lr_factor, gradient_scale)
    }

    /// As [`Optimizer::step`], with gradients of some rows for the variables that `sparse` names.
    ///
    /// The update of these variables is lazy: only rows with a gradient move, and only their moments and weights
    /// decay. So a row that is rarely read keeps its momentum until it is read again, where the dense update would
    /// have used it up. Where every row has a gradient the two are the same.
    ///
    /// # Errors
    /// If a name is unknown, the shapes differ, or the variable has an ordinary gradient too; then nothing has changed.
    fn step_sparse(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        lr_factor: f64,
        gradient_scale: f64,
    ) -> Result<()>;

    /// Euclidean norm of all gradients that [`Optimizer::step_sparse`] would use, together.
    fn gradient_norm(&self, gradients: &GradStore, sparse: &[(&str, &SparseGradient)]) -> Result<f64> {
        let rows = |wanted: &str| sparse.iter().find(|(name, _)| *name == wanted).map(|(_, rows)| rows.values());
        norm::norm(self.named().flat_map(|(name, var)| gradients.get(var.as_tensor()).into_iter().chain(rows(name))))
    }

    /// Updates made so far.
    fn updates(&self) -> usize;

    /// Copies of the moments of every trained variable, as `NAME.MOMENT` in the variable's shape, f32 or for f64
    /// variables f64. Which there are is said by each optimiser.
    fn state(&self) -> Result<BTreeMap<String, Tensor>>;

    /// Takes back what [`Optimizer::state`] gave, after `updates` updates.
    ///
    /// # Errors
    /// If a moment is missing, has another shape than its variable, or belongs to none; then nothing has changed.
    fn restore(&mut self, state: &BTreeMap<String, Tensor>, updates: usize) -> Result<()>;
}

/// An optimiser's name and settings, as `{"name": "adamw", "lr": 5e-5, …}`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay.
    AdamW(AdamWConfig),
    /// Gradient descent, with momentum or without.
    Sgd(SgdConfig),
    /// Adam under the maximum norm.
    Adamax(AdamaxConfig),
    /// Adam whose weight decay is a part of the gradient.
    Adam(AdamConfig),
    /// Adam with Nesterov's momentum.
    NAdam(NAdamConfig),
    /// Adam whose first steps do without the second moment.
    RAdam(RAdamConfig),
    /// Steps by the root of the sum of squared gradients.
    Adagrad(AdagradConfig),
    /// Steps of the size of the last ones.
    Adadelta(AdadeltaConfig),
    /// Steps by the root of the mean of squared gradients.
    RmsProp(RmsPropConfig),
}

/// What is the same for every optimiser that there is.
macro_rules! optimizers {
    ($($name:ident $config:ident),*) => {
        impl OptimizerConfig {
            /// The optimiser of `named` with fresh moments.
            ///
            /// # Errors
            /// If a setting is outside its range, or a group has no variable.
            pub fn build(&self, named: Vec<(String, Var)>, groups: &[Group]) -> crate::Result<Box<dyn Optimizer>> {
                Ok(match *self {
                    $(Self::$name(config) => Box::new($name::with_groups(named, config, groups)?),)*
                })
            }

            /// The peak learning rate.
            pub fn lr(&self) -> f64 {
                match self {
                    $(Self::$name(config) => config.lr,)*
                }
            }

            /// The same optimiser with another peak learning rate.
            #[must_use]
            pub fn with_lr(self, lr: f64) -> Self {
                match self {
                    $(Self::$name(config) => Self::$name($config { lr, ..config }),)*
                }
            }
        }

        $(impl From<$config> for OptimizerConfig {
            fn from(config: $config) -> Self {
                Self::$name(config)
            }
        })*
    };
}
optimizers!(
    AdamW AdamWConfig, Sgd SgdConfig, Adamax AdamaxConfig, Adam AdamConfig, NAdam NAdamConfig, RAdam RAdamConfig,
    Adagrad AdagradConfig, Adadelta AdadeltaConfig, RmsProp RmsPropConfig
);

/// Refuses a setting outside its range.
fn ensure(holds: bool, field: &'static str, expected: &'static str, found: f64) -> crate::Result<()> {
    if holds { Ok(()) } else { Err(Error::Config { field, expected, found: found.to_string() }) }
}

fn is_at_least_zero(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    /// A weight of 1 after steps with these gradients, in f32 and f64.
    pub(super) fn after(config: impl Into<OptimizerConfig>, gradients: &[f64]) -> [f64; 2] {
        let config = config.into();
        [DType::F32, DType::F64].map(|dtype| {
            let var = Var::ones((1, 1), dtype, &Device::Cpu).unwrap();
            let mut optimizer = config.build(vec![("w".to_string(), var.clone())], &[]).unwrap();
            for &gradient in gradients {
                let loss = (var.as_tensor() * gradient).unwrap().sum_all().unwrap();
                optimizer.step(&loss.backward().unwrap(), 1.0, 1.0).unwrap();
            }
            var.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap()[0][0]
        })
    }
}
