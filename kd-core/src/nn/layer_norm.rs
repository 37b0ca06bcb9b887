//! A layer normalisation layer.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};

use crate::ops;

/// Normalises the last dimension, then scales and shifts it; [`ops::layer_norm()`].
///
/// | variable | shape | start |
/// |---|---|---|
/// | `weight` (γ) | `(width,)` | 1 |
/// | `bias` (β) | `(width,)` | 0 |
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// A layer over `width` values; `eps` is added to the variance.
    ///
    /// # Errors
    /// If `vb` has variables of other shapes.
    pub fn new(width: usize, eps: f64, vb: VarBuilder<'_>) -> Result<Self> {
        let weight = vb.get_with_hints(width, "weight", Init::Const(1.0))?;
        let bias = vb.get_with_hints(width, "bias", Init::Const(0.0))?;
        Ok(Self { weight, bias, eps })
    }

    /// A layer of given tensors, `weight` and `bias` `(width,)`.
    pub fn from_tensors(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    /// γ, `(width,)`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// β, `(width,)`.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// `(.., width)` → `(.., width)`.
    ///
    /// # Errors
    /// If the last dimension is not `width`.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        ops::layer_norm(xs, &self.weight, &self.bias, self.eps)
    }
}

impl Module for LayerNorm {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        LayerNorm::forward(self, xs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_all_variables_learn, assert_close, random};
    use crate::variables::Variables;
    use candle_core::{D, DType, Device};

    #[test]
    fn starts_as_plain_normalisation_and_learns() {
        let variables = Variables::new(3, DType::F64, &Device::Cpu);
        let layer = LayerNorm::new(8, 0.0, variables.builder()).unwrap();
        let y = layer.forward(&random(1, (2, 3, 8)).unwrap()).unwrap();
        let zero = Tensor::zeros((2, 3), DType::F64, &Device::Cpu).unwrap();
        assert_close(&y.mean(D::Minus1).unwrap(), &zero, 1e-14, 0.0).unwrap();
        assert_close(&y.sqr().unwrap().mean(D::Minus1).unwrap(), &(zero + 1.0).unwrap(), 1e-14, 0.0).unwrap();
        assert_all_variables_learn(&variables, &y.sqr().unwrap()).unwrap();
    }
}
