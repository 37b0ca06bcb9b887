//! `BilinearAttention`: how well each token answers a question, a logit each (Chen et al. 2017, DrQA, §3.2).
//!
//! `y_i = x_i · (W q + b)`, without a softmax: two of them point at the start and the end of an answer. What stands on padding is
//! masked by what reads the logits.

use std::ops::RangeInclusive;

use candle_core::Result;
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::nn::Linear;
use serde::Deserialize;

use super::{Block, BlockConfig, Shape, Site, Value};

/// Configuration of `BilinearAttention`: `(batch, len, width)` and `(batch, width2)` → `(batch, len, 1)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BilinearAttentionConfig {}

impl BlockConfig for BilinearAttentionConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([3])?;
        inputs[1].expect_rank([2])?;
        inputs.iter().try_for_each(|input| input.width().map(drop))?;
        Ok(inputs[0].with_width(1))
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let [width, of_question] = [0, 1].map(|at| inputs[at].width().map_err(candle_core::Error::msg));
        Ok(Box::new(BilinearAttention { linear: Linear::new(of_question?, width?, vb)? }))
    }
}

#[derive(Debug)]
struct BilinearAttention {
    linear: Linear,
}

impl Block for BilinearAttention {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let question = self.linear.forward(&inputs[1].vectors()?)?.unsqueeze(2)?;
        Ok(inputs[0].with_last(inputs[0].vectors()?.contiguous()?.matmul(&question)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{Given, LEN, check, refused, run_with};
    use candle_core::Tensor;
    use kd_core::testing::device;

    #[test]
    fn shapes_padding_and_variables() {
        check(&BilinearAttentionConfig {}, &[Given::text(LEN, 4, &[5, 1, 7]), Given::vector(3)]);
    }

    #[test]
    fn two_tokens_by_hand() {
        // W q + b = (2, 0) · 3 + (1, 1) = (7, 1).
        let x = Value::new(Tensor::new(&[[[1f64, 0.], [2., -4.]]], device()).unwrap());
        let q = Value::new(Tensor::new(&[[3f64]], device()).unwrap());
        let weights = [
            ("weight", Tensor::new(&[[2f64], [0.]], device()).unwrap()),
            ("bias", Tensor::new(&[1f64, 1.], device()).unwrap()),
        ];
        let y = run_with(&BilinearAttentionConfig {}, &[x, q], &weights).unwrap().tensor;
        assert_eq!(y.to_vec3::<f64>().unwrap(), [[[7.], [10.]]]);
    }

    #[test]
    fn the_question_is_a_vector() {
        let texts = [3, 5].map(|width| Shape::sequence(LEN, width));
        assert!(
            refused(&BilinearAttentionConfig {}, &texts).contains("expected an input of rank 2, found (batch, len, 5)")
        );
    }
}
