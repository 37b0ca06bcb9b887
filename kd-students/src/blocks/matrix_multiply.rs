//! `MatrixMultiply`: the product of two matrices of each example.
//!
//! | operation | product | shapes |
//! |---|---|---|
//! | `dim_based` | `x zᵀ`, all pairs of words | `(len, width)`, `(len2, width)` → `(len, len2)` |
//! | `common` | `x z` | `(len, n)`, `(n, width)` → `(len, width)` |
//! | `seq_based` | `xᵀ z`, a sum over words | `(len, width)`, `(len, width2)` → `(width, width2)` |
//!
//! Sums over words leave padding out, unless `legacy_padding` adds what stands there.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use serde::Deserialize;

use super::attention::{dots, two_texts};
use super::{Block, BlockConfig, Shape, Site, Value};

/// Which product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the table of the module says what each is
pub enum Product {
    #[default]
    DimBased,
    Common,
    SeqBased,
}

/// Configuration of `MatrixMultiply`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatrixMultiplyConfig {
    /// Which product.
    pub operation: Product,
}

impl BlockConfig for MatrixMultiplyConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs.iter().try_for_each(|input| input.expect_rank([3]))?;
        let [x, z] = [&inputs[0].0, &inputs[1].0];
        match self.operation {
            Product::DimBased => two_texts(inputs).map(|_| Shape(vec![x[0], z[0]])),
            Product::Common if x[1] == z[0] => Ok(Shape(vec![x[0], z[1]])),
            Product::Common => Err(format!(
                "expected as many columns of the first as rows of the second, found {} and {}",
                inputs[0], inputs[1]
            )),
            Product::SeqBased if x[0] == z[0] => {
                inputs.iter().try_for_each(|input| input.width().map(drop))?;
                Ok(Shape(vec![x[1], z[1]]))
            }
            Product::SeqBased => Err(format!("expected texts of one length, found {} and {}", inputs[0], inputs[1])),
        }
    }

    fn build(&self, _: &[Shape], site: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(MatrixMultiply { operation: self.operation, legacy_padding: site.legacy_padding }))
    }
}

#[derive(Debug)]
struct MatrixMultiply {
    operation: Product,
    legacy_padding: bool,
}

impl Block for MatrixMultiply {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let seen = |value: &Value| if self.legacy_padding { Ok(value.tensor.clone()) } else { value.zeroed() };
        let [x, z] = [&inputs[0], &inputs[1]];
        let (x_tensor, z_tensor) = (seen(x)?.contiguous()?, seen(z)?.contiguous()?);
        Ok(match self.operation {
            Product::DimBased => {
                let tensor = dots(&x_tensor, &z_tensor)?;
                Value { second_mask: z.mask.clone(), ..Value::masked(tensor, x.mask.clone()) }
            }
            Product::Common => {
                let tensor = product(&x_tensor, &z_tensor)?;
                Value { second_mask: z.second_mask.clone(), ..Value::masked(tensor, x.mask.clone()) }
            }
            Product::SeqBased => Value::new(product(&x_tensor.transpose(1, 2)?.contiguous()?, &z_tensor)?),
        })
    }
}

fn product(x: &Tensor, z: &Tensor) -> Result<Tensor> {
    if x.dim(2)? != z.dim(1)? {
        bail!("expected a matrix product over as many values, found {:?} and {:?}", x.dims(), z.dims());
    }
    x.matmul(z)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Dim;
    use crate::blocks::checks::{Given, LEN, check, refused, run};
    use kd_core::testing::device;

    fn of(operation: Product) -> MatrixMultiplyConfig {
        MatrixMultiplyConfig { operation }
    }

    #[test]
    fn shapes_and_padding() {
        let (first, second) = ([5, 1, 0], [3, 6, 0]);
        let text = |width, tokens: &[usize]| Given::text(LEN, width, tokens);
        check(&of(Product::DimBased), &[text(4, &first), text(4, &second)]);
        check(&of(Product::SeqBased), &[text(4, &first), text(3, &first)]);
        check(&of(Product::Common), &[Given::matrix(&[LEN, LEN], &first, &second), text(3, &second)]);
    }

    #[test]
    fn products_by_hand() {
        let x = Tensor::new(&[[[1f64, 2.], [3., 4.]]], device()).unwrap();
        let z = Tensor::new(&[[[5f64, 6.], [7., 8.]]], device()).unwrap();
        let y = |operation| run(&of(operation), &[x.clone(), z.clone()]).unwrap().to_vec3::<f64>().unwrap();
        assert_eq!(y(Product::DimBased), [[[17., 23.], [39., 53.]]]);
        assert_eq!(y(Product::Common), [[[19., 22.], [43., 50.]]]);
        assert_eq!(y(Product::SeqBased), [[[26., 30.], [38., 44.]]]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let [x, z] = [(4, 2), (5, 3)].map(|(len, width)| Shape::sequence(Dim::Fixed(len), width));
        let message = |operation| refused(&of(operation), &[x.clone(), z.clone()]);
        assert_eq!(message(Product::DimBased), "expected two texts of one width, found 2 and 3");
        assert_eq!(
            message(Product::Common),
            "expected as many columns of the first as rows of the second, found (batch, 4, 2) and (batch, 5, 3)"
        );
        assert_eq!(message(Product::SeqBased), "expected texts of one length, found (batch, 4, 2) and (batch, 5, 3)");
    }
}
