//! `HighwayLinear`: linear layers that may be passed by.

use std::ops::RangeInclusive;

use candle_core::Result;
use candle_nn::VarBuilder;
use candle_nn::ops::sigmoid;
use kd_core::model::Mode;
use kd_core::nn::{Activation, ActivationKind, Linear};
use serde::Deserialize;

use super::linear::check_activation;
use super::{Block, BlockConfig, Shape, Site, Value};

/// Highway layers (Srivastava et al. 2015, Eq. 3), of any shape: `y = g · x + (1 - g) · activation(W x + b)`, `g = σ(V x + c)`.
///
/// | variable of layer `N` | shape | start |
/// |---|---|---|
/// | `layers.N.weight` | `(2 · width, width)`: W, then V | as `nn.Linear` of PyTorch |
/// | `layers.N.bias` | `(2 · width,)` | the same |
/// | `activation.weight` | `(1,)`, of `PReLU` only; one for all layers | 0.25 |
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HighwayLinearConfig {
    /// Layers, ≥ 1; 1 as in the format.
    pub num_layers: usize,
    /// Of what is not passed by; `PReLU` as in the format.
    pub activation: ActivationKind,
}

impl Default for HighwayLinearConfig {
    fn default() -> Self {
        Self { num_layers: 1, activation: ActivationKind::PReLU }
    }
}

impl BlockConfig for HighwayLinearConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        if self.num_layers == 0 {
            return Err("num_layers: expected at least 1, found 0".to_string());
        }
        check_activation(Some(self.activation), &inputs[0])?;
        inputs[0].width()?;
        Ok(inputs[0].clone())
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let width = inputs[0].width().map_err(candle_core::Error::msg)?;
        let layer = |idx: usize| Linear::new(width, 2 * width, vb.pp(format!("layers.{idx}")));
        Ok(Box::new(HighwayLinear {
            layers: (0..self.num_layers).map(layer).collect::<Result<_>>()?,
            activation: Activation::new(self.activation, vb.pp("activation"))?,
        }))
    }
}

#[derive(Debug)]
struct HighwayLinear {
    layers: Vec<Linear>,
    activation: Activation,
}

impl Block for HighwayLinear {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let mut xs = inputs[0].zeroed()?;
        for layer in &self.layers {
            let both = layer.forward(&xs)?;
            let (axis, width) = (xs.rank() - 1, xs.dim(xs.rank() - 1)?);
            let new = self.activation.forward(&both.narrow(axis, 0, width)?.contiguous()?)?;
            let gate = sigmoid(&both.narrow(axis, width, width)?.contiguous()?)?;
            xs = (&new + (gate * (xs - &new)?)?)?;
        }
        Ok(inputs[0].with_last(xs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{Given, LEN, check, refused, run_with};
    use candle_core::{Device, Tensor};

    #[test]
    fn shapes_padding_and_variables() {
        let two = HighwayLinearConfig { num_layers: 2, activation: ActivationKind::PReLU };
        check(&two, &[Given::text(LEN, 4, &[3, 1])]);
        check(&HighwayLinearConfig { activation: ActivationKind::Tanh, ..two.clone() }, &[Given::vector(3)]);
        assert_eq!(
            refused(&HighwayLinearConfig { num_layers: 0, ..two }, &[Shape::vector(3)]),
            "num_layers: expected at least 1, found 0"
        );
    }

    #[test]
    fn a_value_by_hand() {
        // x = 4, W = 1/2, b = -6: PReLU(2 - 6) = -1; V = 0, c = ln 3: g = 3/4. y = 3/4 · 4 + 1/4 · (-1) = 2.75.
        let of = |values: &[f64], shape: &[usize]| Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap();
        let weights = [
            ("layers.0.weight", of(&[0.5, 0.0], &[2, 1])),
            ("layers.0.bias", of(&[-6.0, 3f64.ln()], &[2])),
            ("activation.weight", of(&[0.25], &[1])),
        ];
        let config = HighwayLinearConfig::default();
        let y = run_with(&config, &[Value::new(of(&[4.0], &[1, 1]))], &weights).unwrap();
        let y = y.tensor.to_vec2::<f64>().unwrap()[0][0];
        assert!((y - 2.75).abs() < 1e-12, "{y}");
    }
}
