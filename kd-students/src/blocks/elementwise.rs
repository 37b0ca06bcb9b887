//! `Add2D`, `Add3D`, `Minus2D`, `Minus3D`, `ElementWisedMultiply2D`, `ElementWisedMultiply3D`: inputs of one shape, value by value.
//!
//! 2D is of vectors, `(batch, width)`; 3D of texts, `(batch, len, width)`, whose words must be as many. Sums and products take
//! any number of inputs from two on, `Minus` takes two, and with `abs_flag` the absolute value of their difference.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use serde::Deserialize;

use super::{Block, BlockConfig, Kind, Shape, Site, Value, parse_conf};

/// What is made of the values of two inputs; of three, of the first two and then of the third.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Add,
    Minus,
    AbsoluteMinus,
    Multiply,
}

/// Configuration of one of these blocks: inputs of one shape → the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementwiseConfig {
    /// What is made of the values.
    pub operation: Operation,
    /// Number of axes with that of the batch: 2 or 3.
    pub rank: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Minus {
    abs_flag: bool,
}

impl ElementwiseConfig {
    /// The block that the format calls `layer`, if it is one of these.
    pub(crate) fn kind(layer: &str) -> Option<Kind> {
        let (name, rank) = match layer.split_at_checked(layer.len().checked_sub(2)?)? {
            (name, "2D") => (name, 2),
            (name, "3D") => (name, 3),
            _ => return None,
        };
        let of = move |operation| Ok(Box::new(Self { operation, rank }) as Box<dyn BlockConfig>);
        Some(match name {
            "Add" => Kind::new(layer, move |conf| parse_conf::<Nothing>(conf).and_then(|_| of(Operation::Add))),
            "ElementWisedMultiply" => {
                Kind::new(layer, move |conf| parse_conf::<Nothing>(conf).and_then(|_| of(Operation::Multiply)))
            }
            "Minus" => Kind::new(layer, move |conf| {
                let Minus { abs_flag } = parse_conf(conf)?;
                of(if abs_flag { Operation::AbsoluteMinus } else { Operation::Minus })
            }),
            _ => return None,
        })
    }
}

/// Checks that all inputs have the first's shape.
pub(crate) fn one_shape(inputs: &[Shape]) -> std::result::Result<(), String> {
    match inputs.iter().find(|input| **input != inputs[0]) {
        Some(other) => Err(format!("expected inputs of one shape, found {} and {other}", inputs[0])),
        None => Ok(()),
    }
}

/// Checks that two tensors have one shape: two texts whose lengths vary may have other ones.
pub(crate) fn one_size(first: &Tensor, other: &Tensor) -> Result<()> {
    if first.dims() != other.dims() {
        bail!("expected texts of as many words, found inputs of {:?} and {:?}", first.dims(), other.dims());
    }
    Ok(())
}

/// The tensors with zeros on padding, for another text may go on there; with `legacy_padding` as they are.
pub(crate) fn tensors(inputs: &[Value], legacy_padding: bool) -> Result<Vec<Tensor>> {
    inputs.iter().map(|input| if legacy_padding { Ok(input.tensor.clone()) } else { input.zeroed() }).collect()
}

/// `|x - z|`, with slope 0 where they are equal.
pub(crate) fn absolute_difference(x: &Tensor, z: &Tensor) -> Result<Tensor> {
    let difference = (x - z)?;
    let constant = difference.detach();
    let positive = constant.gt(0f64)?.to_dtype(x.dtype())?;
    difference * (positive - constant.lt(0f64)?.to_dtype(x.dtype())?)?
}

impl BlockConfig for ElementwiseConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        match self.operation {
            Operation::Add | Operation::Multiply => 2..=usize::MAX,
            Operation::Minus | Operation::AbsoluteMinus => 2..=2,
        }
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([self.rank])?;
        one_shape(inputs)?;
        Ok(inputs[0].clone())
    }

    fn build(&self, _: &[Shape], site: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(Elementwise { operation: self.operation, legacy_padding: site.legacy_padding }))
    }
}

#[derive(Debug)]
struct Elementwise {
    operation: Operation,
    legacy_padding: bool,
}

impl Block for Elementwise {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let tensors = tensors(inputs, self.legacy_padding)?;
        let mut y = tensors[0].clone();
        for z in &tensors[1..] {
            one_size(&y, z)?;
            y = match self.operation {
                Operation::Add => y + z,
                Operation::Minus => y - z,
                Operation::AbsoluteMinus => absolute_difference(&y, z),
                Operation::Multiply => y * z,
            }?;
        }
        Ok(inputs[0].with(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{Given, LEN, LEN2, built, check, refused, run};
    use kd_core::testing::{check_gradients, device, random};
    use serde_json::json;

    const OPERATIONS: [Operation; 4] =
        [Operation::Add, Operation::Minus, Operation::AbsoluteMinus, Operation::Multiply];

    #[test]
    fn shapes_padding_and_gradients() {
        for operation in OPERATIONS {
            check(&ElementwiseConfig { operation, rank: 2 }, &[Given::vector(3), Given::vector(3)]);
            let text = || Given::text(LEN, 3, &[5, 1, 7]);
            check(&ElementwiseConfig { operation, rank: 3 }, &[text(), text()]);
            let inputs = [random(1, (2, 3)).unwrap(), random(2, (2, 3)).unwrap()];
            check_gradients(|x| run(&ElementwiseConfig { operation, rank: 2 }, x), &inputs, 1e-7).unwrap();
        }
    }

    #[test]
    fn values_by_hand_under_their_names() {
        let inputs = [[1f64, 5.], [4., 2.], [10., 10.]].map(|row| Tensor::new(&[row], device()).unwrap());
        let of = |layer, conf, count: usize| {
            let config = ElementwiseConfig::kind(layer).unwrap().parse(conf).unwrap();
            assert!(config.arity().contains(&count));
            run(&*config, &inputs[..count]).unwrap().to_vec2::<f64>().unwrap()[0].clone()
        };
        assert_eq!(of("Add2D", json!({}), 3), [15., 17.]);
        assert_eq!(of("Minus2D", json!({}), 2), [-3., 3.]);
        assert_eq!(of("Minus2D", json!({"abs_flag": true}), 2), [3., 3.]);
        assert_eq!(of("ElementWisedMultiply2D", json!({}), 3), [40., 100.]);
        for other in ["Add4D", "Minus", "2D", "", "Concat2D", "é2"] {
            assert!(ElementwiseConfig::kind(other).is_none(), "{other}");
        }
        let error = ElementwiseConfig::kind("Add3D").unwrap().parse(json!({"abs_flag": true})).unwrap_err();
        assert!(error.contains("unknown field `abs_flag`"), "{error}");
    }

    #[test]
    fn shapes_that_differ_are_named() {
        let config = ElementwiseConfig { operation: Operation::Add, rank: 2 };
        let message = refused(&config, &[Shape::vector(3), Shape::vector(4)]);
        assert_eq!(message, "expected inputs of one shape, found (batch, 3) and (batch, 4)");
        assert!(refused(&config, &vec![Shape::sequence(LEN, 3); 2]).contains("rank 2"));
        // Texts of other lengths are refused before; what windows make of short ones may still differ.
        let shapes = vec![Shape::sequence(LEN, 2); 2];
        let block = built(&ElementwiseConfig { rank: 3, ..config }, &shapes, &Site::default()).0;
        let other = [LEN, LEN2].map(|len| Shape::sequence(len, 2));
        let message = refused(&ElementwiseConfig { rank: 3, ..config }, &other);
        assert_eq!(message, "expected inputs of one shape, found (batch, len, 2) and (batch, len2, 2)");
        let [x, z] = [3, 4].map(|len| Value::new(random(1, (2, len, 2)).unwrap()));
        let error = block.forward(&[x, z], Mode::Eval).unwrap_err().to_string();
        assert!(
            error.starts_with("expected texts of as many words, found inputs of [2, 3, 2] and [2, 4, 2]"),
            "{error}"
        );
    }
}
