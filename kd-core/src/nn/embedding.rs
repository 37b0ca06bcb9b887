//! An embedding layer.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};

use crate::ops;

/// A trainable row for each id; [`ops::embedding()`]. Its variable is `weight`, `(rows, width)`.
#[derive(Debug, Clone)]
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// A table of `rows` rows of `width` values, started as told.
    ///
    /// # Errors
    /// If `vb` has a variable of another shape.
    pub fn new(rows: usize, width: usize, init: Init, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self { weight: vb.get_with_hints((rows, width), "weight", init)? })
    }

    /// A table of a given tensor, `(rows, width)`, for example pretrained word vectors that are not trained.
    pub fn from_tensor(weight: Tensor) -> Self {
        Self { weight }
    }

    /// ids of any shape, u32 → that shape with `width` added.
    ///
    /// # Errors
    /// If an id is not below the number of rows.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        ops::embedding(&self.weight, ids)
    }

    /// The table, `(rows, width)`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}

impl Module for Embedding {
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        Embedding::forward(self, ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_all_variables_learn;
    use crate::variables::Variables;
    use candle_core::{DType, Device};

    #[test]
    fn looks_up_and_learns() {
        let variables = Variables::new(3, DType::F32, &Device::Cpu);
        let layer = Embedding::new(5, 4, Init::Randn { mean: 0.0, stdev: 0.02 }, variables.builder()).unwrap();
        let y = layer.forward(&Tensor::new(&[[1u32, 4, 1]], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(y.dims(), [1, 3, 4]);
        let rows = layer.weight().to_vec2::<f32>().unwrap();
        assert_eq!(y.to_vec3::<f32>().unwrap()[0], [rows[1].clone(), rows[4].clone(), rows[1].clone()]);
        assert_all_variables_learn(&variables, &y).unwrap();
    }
}
