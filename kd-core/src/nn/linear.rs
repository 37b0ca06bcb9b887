//! A linear layer.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};

use crate::ops;

/// `y = x Wᵀ + b` with trainable `W` and `b`; [`ops::linear()`].
///
/// | variable | shape | start |
/// |---|---|---|
/// | `weight` | `(out, in)` | uniform in `±1/√in`, as PyTorch's `nn.Linear` |
/// | `bias` | `(out,)` | the same |
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A layer from `in_width` to `out_width`, started as PyTorch starts it.
    ///
    /// # Errors
    /// If `vb` has variables of other shapes.
    pub fn new(in_width: usize, out_width: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let init = default_init(in_width);
        Self::new_with(in_width, out_width, init, init, vb)
    }

    /// A layer with weight and bias started as told.
    ///
    /// # Errors
    /// If `vb` has variables of other shapes.
    pub fn new_with(
        in_width: usize,
        out_width: usize,
        weight_init: Init,
        bias_init: Init,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let weight = vb.get_with_hints((out_width, in_width), "weight", weight_init)?;
        let bias = vb.get_with_hints(out_width, "bias", bias_init)?;
        Ok(Self { weight, bias: Some(bias) })
    }

    /// A layer without a bias, started as PyTorch starts it.
    ///
    /// # Errors
    /// If `vb` has a variable of another shape.
    pub fn without_bias(in_width: usize, out_width: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let weight = vb.get_with_hints((out_width, in_width), "weight", default_init(in_width))?;
        Ok(Self { weight, bias: None })
    }

    /// A layer of given tensors, `weight` `(out, in)` and `bias` `(out,)`, for example with tied weights.
    pub fn from_tensors(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// `(.., in)` → `(.., out)`.
    ///
    /// # Errors
    /// If the last dimension is not `in`.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        ops::linear(xs, &self.weight, self.bias.as_ref())
    }

    /// The weight, `(out, in)`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, `(out,)`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for Linear {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Linear::forward(self, xs)
    }
}

/// Uniform in `±1/√in_width`: what PyTorch's `kaiming_uniform_(a=√5)` comes to, and its bias.
fn default_init(in_width: usize) -> Init {
    let bound = if in_width == 0 { 0.0 } else { 1.0 / (in_width as f64).sqrt() };
    Init::Uniform { lo: -bound, up: bound }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_all_variables_learn, assert_close};
    use crate::variables::Variables;
    use candle_core::{DType, Device};

    #[test]
    fn starts_inside_the_bound_and_learns() {
        let variables = Variables::new(3, DType::F32, &Device::Cpu);
        let layer = Linear::new(100, 50, variables.builder()).unwrap();
        let names: Vec<_> = variables.named().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["bias", "weight"]);
        for values in [layer.weight(), layer.bias().unwrap()] {
            let values: Vec<f32> = values.flatten_all().unwrap().to_vec1().unwrap();
            assert!(values.iter().all(|x| x.abs() <= 0.1));
            assert!(values.iter().any(|x| x.abs() > 0.09));
        }
        let x = Tensor::ones((2, 3, 100), DType::F32, &Device::Cpu).unwrap();
        let y = layer.forward(&x).unwrap();
        assert_eq!(y.dims(), [2, 3, 50]);
        assert_all_variables_learn(&variables, &y).unwrap();
    }

    #[test]
    fn no_bias_and_given_tensors() {
        let variables = Variables::new(3, DType::F64, &Device::Cpu);
        let layer = Linear::without_bias(4, 2, variables.builder()).unwrap();
        let tied = Linear::from_tensors(layer.weight().clone(), None);
        let x = crate::testing::random(1, (3, 4)).unwrap();
        assert_close(&tied.forward(&x).unwrap(), &layer.forward(&x).unwrap(), 0.0, 0.0).unwrap();
        assert_eq!(variables.parameter_count(), 8);
    }
}
