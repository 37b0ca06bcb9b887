//! `Combination`: inputs beside one another, with what they have in common.
//!
//! `[x; z; |x - z|; x ∘ z]` on the last axis, or some of it: `origin` is all inputs, `difference` of two, `dot_multiply` the product
//! of all; in this order, however they are listed.

use std::ops::RangeInclusive;

use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use serde::Deserialize;

use super::elementwise::{absolute_difference, one_shape, one_size, tensors};
use super::{Block, BlockConfig, Shape, Site, Value};

/// A part of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The inputs as they are.
    Origin,
    /// `|x - z|` of two inputs.
    Difference,
    /// The product of all inputs.
    DotMultiply,
}

/// Configuration of `Combination`: inputs of one shape but for, where there is only `origin`, their last axis.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CombinationConfig {
    /// At least one.
    pub operations: Vec<Part>,
}

impl Default for CombinationConfig {
    fn default() -> Self {
        Self { operations: vec![Part::Origin, Part::Difference, Part::DotMultiply] }
    }
}

impl CombinationConfig {
    fn has(&self, part: Part) -> bool {
        self.operations.contains(&part)
    }
}

impl BlockConfig for CombinationConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        if self.has(Part::Difference) { 2..=2 } else { 1..=usize::MAX }
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        if self.operations.is_empty() {
            return Err("operations: expected at least one, found none".to_string());
        }
        let widths = inputs.iter().map(Shape::width).collect::<std::result::Result<Vec<_>, _>>()?;
        let (difference, product) = (self.has(Part::Difference), self.has(Part::DotMultiply));
        match difference || product {
            true => one_shape(inputs)?,
            false => one_shape(&inputs.iter().map(|input| input.with_width(0)).collect::<Vec<_>>())
                .map_err(|_| format!("expected inputs alike but for the last axis, found {}", listed(inputs)))?,
        }
        let origin = if self.has(Part::Origin) { widths.iter().sum() } else { 0 };
        Ok(inputs[0].with_width(origin + widths[0] * (usize::from(difference) + usize::from(product))))
    }

    fn build(&self, _: &[Shape], site: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(Combination { config: self.clone(), legacy_padding: site.legacy_padding }))
    }
}

/// Shapes as a list.
pub(crate) fn listed(shapes: &[Shape]) -> String {
    shapes.iter().map(Shape::to_string).collect::<Vec<_>>().join(" and ")
}

#[derive(Debug)]
struct Combination {
    config: CombinationConfig,
    legacy_padding: bool,
}

impl Block for Combination {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let last = inputs[0].tensor.rank() - 1;
        for input in &inputs[1..] {
            let [first, other] = [&inputs[0], input].map(|value| value.tensor.narrow(D::Minus1, 0, 1));
            one_size(&first?, &other?)?;
        }
        let tensors = tensors(inputs, self.legacy_padding)?;
        let mut parts = Vec::new();
        if self.config.has(Part::Difference) {
            parts.push(absolute_difference(&tensors[0], &tensors[1])?);
        }
        if self.config.has(Part::DotMultiply) {
            let product = |product: Tensor, tensor: &Tensor| product * tensor;
            parts.push(tensors[1..].iter().try_fold(tensors[0].clone(), product)?);
        }
        if self.config.has(Part::Origin) {
            parts.splice(..0, tensors);
        }
        Ok(inputs[0].with_last(Tensor::cat(&parts, last)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{Given, LEN, check, refused, run};
    use kd_core::testing::device;

    fn of(operations: &[Part]) -> CombinationConfig {
        CombinationConfig { operations: operations.to_vec() }
    }

    #[test]
    fn shapes_and_padding() {
        check(&CombinationConfig::default(), &[Given::vector(3), Given::vector(3)]);
        check(&of(&[Part::Origin]), &[Given::vector(3), Given::vector(1), Given::vector(2)]);
        check(&of(&[Part::DotMultiply]), &[Given::vector(3), Given::vector(3), Given::vector(3)]);
        let text = |width| Given::text(LEN, width, &[5, 1, 7]);
        check(&of(&[Part::Origin]), &[text(3), text(2)]);
        check(&CombinationConfig::default(), &[text(3), text(3)]);
    }

    #[test]
    fn parts_by_hand() {
        let inputs = [[1f64, 5.], [4., 2.]].map(|row| Tensor::new(&[row], device()).unwrap());
        let y = run(&CombinationConfig::default(), &inputs).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(y, [[1., 5., 4., 2., 3., 3., 4., 10.]]);
        let y = run(&of(&[Part::DotMultiply, Part::Difference]), &inputs).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(y, [[3., 3., 4., 10.]]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let vectors = [Shape::vector(3), Shape::vector(4)];
        assert_eq!(
            refused(&CombinationConfig::default(), &vectors),
            "expected inputs of one shape, found (batch, 3) and (batch, 4)"
        );
        let mixed = [Shape::vector(3), Shape::sequence(LEN, 3)];
        assert_eq!(
            refused(&of(&[Part::Origin]), &mixed),
            "expected inputs alike but for the last axis, found (batch, 3) and (batch, len, 3)"
        );
        assert_eq!(refused(&of(&[]), &vectors), "operations: expected at least one, found none");
        assert_eq!(CombinationConfig::default().arity(), 2..=2);
        let error = serde_json::from_str::<CombinationConfig>(r#"{"operations": ["sum"]}"#).unwrap_err().to_string();
        assert!(
            error.contains("unknown variant `sum`, expected one of `origin`, `difference`, `dot_multiply`"),
            "{error}"
        );
    }
}
