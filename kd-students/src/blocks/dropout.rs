//! `Dropout`: values set to zero at random in training.

use std::ops::RangeInclusive;

use candle_core::Result;
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::ops;
use serde::Deserialize;

use super::{Block, BlockConfig, Shape, Site, Value};

/// `x / (1 - dropout)` or 0 in training, `x` otherwise; of any shape.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DropoutConfig {
    /// Probability of a zero, in `[0, 1)`; 0.5 as in the format.
    pub dropout: f64,
}

impl Default for DropoutConfig {
    fn default() -> Self {
        Self { dropout: 0.5 }
    }
}

/// Checks that a probability of dropping is in `[0, 1)`.
///
/// # Errors
/// If not; the message names `key`.
pub(crate) fn check_probability(key: &str, found: f64) -> std::result::Result<(), String> {
    if (0.0..1.0).contains(&found) {
        return Ok(());
    }
    Err(format!("{key}: expected a number in [0, 1), found {found}"))
}

impl BlockConfig for DropoutConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        check_probability("dropout", self.dropout)?;
        Ok(inputs[0].clone())
    }

    fn build(&self, _: &[Shape], _: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(self.clone()))
    }
}

impl Block for DropoutConfig {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        Ok(inputs[0].with(ops::dropout(&inputs[0].tensor, self.dropout, mode)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn training_scales_what_is_kept_and_evaluation_changes_nothing() {
        let ones = Value::new(Tensor::ones((4, 50), DType::F32, &Device::Cpu).unwrap());
        let block = DropoutConfig { dropout: 0.2 };
        let of = |mode| {
            let value = block.forward(std::slice::from_ref(&ones), mode).unwrap();
            value.tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(of(Mode::Eval), [1.0; 200]);
        let dropped = of(Mode::Train { seed: 3 });
        assert!(dropped.iter().all(|&x| x == 0.0 || x == 1.25), "{dropped:?}");
        let zeros = dropped.iter().filter(|&&x| x == 0.0).count();
        assert!((20..=60).contains(&zeros), "{zeros} of 200"); // 40 ± 3.5 standard deviations of 5.7
    }

    #[test]
    fn a_probability_outside_its_range_is_named() {
        for dropout in [-0.1, 1.0, f64::NAN] {
            let message = DropoutConfig { dropout }.infer(&[Shape::vector(3)], &Site::default()).unwrap_err();
            assert_eq!(message, format!("dropout: expected a number in [0, 1), found {dropout}"));
        }
    }
}
