//! `Interaction`, `Match` and `Expand_plus`: a matrix of two texts, a cell for each pair of their words.
//!
//! | block | cell of words `x_i` and `z_j` | channels | source |
//! |---|---|---|---|
//! | `Interaction`, `general` | `W x_i · z_j` | 1 | Luong et al. 2015, §3.1 |
//! | `dot` | `x_i · z_j` | 1 | Pang et al. 2016, MatchPyramid, §3.1 |
//! | `mul`, `plus`, `minus` | `x_i ∘ z_j`, `x_i + z_j`, `x_i - z_j` | width | |
//! | `concat` | `[x_i; z_j]` | both widths | |
//! | `Match` | `f(W x_i + b) · f(W z_j + b)` | none | |
//! | `Expand_plus` | `x_i + z_j` | width | Hu et al. 2014, ARC-II, §3.2 |
//!
//! The published code asks for fixed lengths; here only what needs them asks (`Flatten`). The masks of both texts go with the
//! matrix.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::nn::{ActivationKind, Linear};
use serde::Deserialize;

use super::attention::{Projection, dots, two_texts};
use super::linear::check_activation;
use super::{Block, BlockConfig, Dim, Shape, Site, Value};

/// What `Interaction` makes of two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the table of the module says what each is
pub enum MatchingType {
    #[default]
    General,
    Dot,
    Mul,
    #[serde(alias = "add")]
    Plus,
    Minus,
    Concat,
}

/// Configuration of `Interaction`: `(batch, len, width)` and `(batch, len2, width2)` → `(batch, len, len2, channels)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InteractionConfig {
    /// What is made of two words.
    pub matching_type: MatchingType,
}

/// Configuration of `Match`: `(batch, len, width)` and `(batch, len2, width)` → `(batch, len, len2)`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatchConfig {
    /// Function of the projections.
    pub activation: Option<ActivationKind>,
}

impl Default for MatchConfig {
    fn default() -> Self {
        Self { activation: Some(ActivationKind::PReLU) }
    }
}

/// Configuration of `Expand_plus`: `(batch, len, width)` and `(batch, len2, width)` → `(batch, len, len2, width)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpandPlusConfig {
    /// The only operation there is.
    pub operation: Expansion,
}

/// What `Expand_plus` makes of two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Expansion {
    /// Their sum.
    #[default]
    Plus,
}

impl BlockConfig for InteractionConfig {
    fn ignored() -> &'static [&'static str] {
        &["hidden_dim", "dropout"]
    }

    fn arity(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        let channels = match self.matching_type {
            MatchingType::Dot => two_texts(inputs).map(|_| 1)?,
            MatchingType::Mul | MatchingType::Plus | MatchingType::Minus => two_texts(inputs)?,
            MatchingType::General | MatchingType::Concat => {
                inputs.iter().try_for_each(|input| input.expect_rank([3]))?;
                let widths = [inputs[0].width()?, inputs[1].width()?];
                if self.matching_type == MatchingType::General { 1 } else { widths[0] + widths[1] }
            }
        };
        Ok(matrix(inputs, Some(channels)))
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let [first, second] = [0, 1].map(|at| inputs[at].width().map_err(candle_core::Error::msg));
        let linear = match self.matching_type {
            MatchingType::General => Some(Linear::without_bias(first?, second?, vb)?),
            _ => None,
        };
        Ok(Box::new(Pairwise { cells: Cells::Interaction(self.matching_type, linear) }))
    }
}

impl BlockConfig for MatchConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        two_texts(inputs)?;
        check_activation(self.activation, &inputs[0])?;
        Ok(matrix(inputs, None))
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let width = inputs[0].width().map_err(candle_core::Error::msg)?;
        Ok(Box::new(Pairwise { cells: Cells::Match(Projection::new(width, width, self.activation, vb)?) }))
    }
}

impl BlockConfig for ExpandPlusConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        Ok(matrix(inputs, Some(two_texts(inputs)?)))
    }

    fn build(&self, _: &[Shape], _: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(Pairwise { cells: Cells::Interaction(MatchingType::Plus, None) }))
    }
}

/// The lengths of both texts, and the channels where a cell is more than a number.
fn matrix(inputs: &[Shape], channels: Option<usize>) -> Shape {
    let mut dims = vec![inputs[0].0[0], inputs[1].0[0]];
    dims.extend(channels.map(Dim::Fixed));
    Shape(dims)
}

#[derive(Debug)]
enum Cells {
    Interaction(MatchingType, Option<Linear>),
    Match(Projection),
}

#[derive(Debug)]
struct Pairwise {
    cells: Cells,
}

impl Pairwise {
    fn cells(&self, x: &Tensor, z: &Tensor) -> Result<Tensor> {
        let (kind, linear) = match &self.cells {
            Cells::Match(projection) => return dots(&projection.forward(x)?, &projection.forward(z)?),
            Cells::Interaction(kind, linear) => (kind, linear),
        };
        let (rows, columns) = (x.unsqueeze(2)?, z.unsqueeze(1)?);
        match kind {
            MatchingType::General | MatchingType::Dot => {
                let x = linear.as_ref().map_or(Ok(x.clone()), |linear| linear.forward(x))?;
                dots(&x, z)?.unsqueeze(3)
            }
            MatchingType::Mul => rows.broadcast_mul(&columns),
            MatchingType::Plus => rows.broadcast_add(&columns),
            MatchingType::Minus => rows.broadcast_sub(&columns),
            MatchingType::Concat => {
                let (batch, len, width) = x.dims3()?;
                let (_, len2, width2) = z.dims3()?;
                let rows = rows.broadcast_as((batch, len, len2, width))?;
                Tensor::cat(&[rows, columns.broadcast_as((batch, len, len2, width2))?], 3)
            }
        }
    }
}

impl Block for Pairwise {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let cells = self.cells(&inputs[0].vectors()?, &inputs[1].vectors()?)?;
        Ok(Value { second_mask: inputs[1].mask.clone(), ..Value::masked(cells, inputs[0].mask.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{Given, LEN, check, refused, run, run_with};
    use kd_core::testing::device;

    const TYPES: [MatchingType; 6] = [
        MatchingType::General,
        MatchingType::Dot,
        MatchingType::Mul,
        MatchingType::Plus,
        MatchingType::Minus,
        MatchingType::Concat,
    ];

    fn texts(first: Dim, second: Dim, width: usize) -> [Given; 2] {
        [Given::text(first, 4, &[5, 1, 6, 0]), Given::text(second, width, &[3, 7, 0, 2])]
    }

    #[test]
    fn shapes_padding_and_variables() {
        for (first, second) in [(LEN, LEN), (Dim::Fixed(6), Dim::Fixed(7))] {
            for matching_type in TYPES {
                check(&InteractionConfig { matching_type }, &texts(first, second, 4));
            }
            for matching_type in [MatchingType::General, MatchingType::Concat] {
                check(&InteractionConfig { matching_type }, &texts(first, second, 3));
            }
            check(&MatchConfig::default(), &texts(first, second, 4));
            check(&MatchConfig { activation: None }, &texts(first, second, 4));
            check(&ExpandPlusConfig::default(), &texts(first, second, 4));
        }
    }

    #[test]
    fn cells_by_hand() {
        let x = Tensor::new(&[[[1f64, 2.], [3., 4.]]], device()).unwrap();
        let z = Tensor::new(&[[[10f64, 1.]]], device()).unwrap();
        let cells = |config: &dyn BlockConfig| {
            run(config, &[x.clone(), z.clone()]).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        let of = |matching_type| cells(&InteractionConfig { matching_type });
        assert_eq!(of(MatchingType::Dot), [12., 34.]);
        assert_eq!(of(MatchingType::Mul), [10., 2., 30., 4.]);
        assert_eq!(of(MatchingType::Plus), [11., 3., 13., 5.]);
        assert_eq!(of(MatchingType::Minus), [-9., 1., -7., 3.]);
        assert_eq!(of(MatchingType::Concat), [1., 2., 10., 1., 3., 4., 10., 1.]);
        assert_eq!(cells(&ExpandPlusConfig::default()), [11., 3., 13., 5.]);
        let values = [x.clone(), z.clone()].map(Value::new);
        let weight = || ("weight", Tensor::new(&[[0f64, 1.], [1., 0.]], device()).unwrap());
        // W turns (1, 2) into (2, 1) and (3, 4) into (4, 3).
        let y = run_with(&InteractionConfig::default(), &values, &[weight()]).unwrap().tensor;
        assert_eq!(y.flatten_all().unwrap().to_vec1::<f64>().unwrap(), [21., 43.]);
        // The same of both sides, with a bias of 1: (3, 2) and (5, 4) against (2, 11).
        let bias = ("bias", Tensor::new(&[1f64, 1.], device()).unwrap());
        let y = run_with(&MatchConfig { activation: None }, &values, &[weight(), bias]).unwrap().tensor;
        assert_eq!(y.to_vec3::<f64>().unwrap(), [[[28.], [54.]]]);
    }

    #[test]
    fn widths_and_names_are_checked() {
        let texts = [3, 5].map(|width| Shape::sequence(LEN, width));
        let of = |matching_type| InteractionConfig { matching_type };
        assert_eq!(refused(&of(MatchingType::Mul), &texts), "expected two texts of one width, found 3 and 5");
        assert_eq!(refused(&MatchConfig::default(), &texts), "expected two texts of one width, found 3 and 5");
        let error = serde_json::from_str::<InteractionConfig>(r#"{"matching_type": "cos"}"#).unwrap_err().to_string();
        assert!(error.contains("unknown variant `cos`, expected one of `general`, `dot`"), "{error}");
    }
}
