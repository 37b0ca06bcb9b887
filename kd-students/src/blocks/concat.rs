//! `Concat2D` and `Concat3D`: inputs one after another.
//!
//! Of vectors on their last axis; of texts on the last axis, where their words must be as many, or (`concat3D_axis` 1) word after
//! word: the second text follows the last word of the first, and all padding stands at the end. With `legacy_padding` padding stays
//! where it was, and only the words of the first text count as words, as published.

use std::ops::RangeInclusive;

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use serde::Deserialize;

use super::combination::listed;
use super::elementwise::{one_size, tensors};
use super::{Block, BlockConfig, Dim, Length, Shape, Site, Value, mask_or_ones};

/// Configuration of `Concat2D`: `(batch, width)` each → `(batch, sum of widths)`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Concat2dConfig {
    /// 1: an axis of 0 would be that of the batch.
    #[serde(rename = "concat2D_axis")]
    pub axis: usize,
}

impl Default for Concat2dConfig {
    fn default() -> Self {
        Self { axis: 1 }
    }
}

/// Configuration of `Concat3D`: `(batch, len, width)` each → `(batch, len, sum of widths)` or `(batch, sum of lengths, width)`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Concat3dConfig {
    /// 2, the width, or 1, the words.
    #[serde(rename = "concat3D_axis")]
    pub axis: usize,
}

impl Default for Concat3dConfig {
    fn default() -> Self {
        Self { axis: 2 }
    }
}

impl BlockConfig for Concat2dConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs.iter().try_for_each(|input| input.expect_rank([2]))?;
        if self.axis != 1 {
            return Err(format!("concat2D_axis: expected 1, found {}", self.axis));
        }
        Ok(Shape::vector(inputs.iter().map(Shape::width).sum::<std::result::Result<usize, _>>()?))
    }

    fn build(&self, _: &[Shape], site: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(Concat { axis: 1, legacy_padding: site.legacy_padding }))
    }
}

impl BlockConfig for Concat3dConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs.iter().try_for_each(|input| input.expect_rank([3]))?;
        let widths = inputs.iter().map(Shape::width).collect::<std::result::Result<Vec<_>, _>>()?;
        match self.axis {
            2 if inputs.iter().all(|input| input.0[0] == inputs[0].0[0]) => {
                Ok(inputs[0].with_width(widths.iter().sum()))
            }
            2 => Err(format!("expected texts of one length, found {}", listed(inputs))),
            1 if widths.iter().all(|&width| width == widths[0]) => {
                let add = |sum: Dim, len: Dim| match (sum, len) {
                    (Dim::Fixed(sum), Dim::Fixed(len)) => Dim::Fixed(sum + len),
                    (Dim::Varies(len), Dim::Fixed(more)) | (Dim::Fixed(more), Dim::Varies(len)) => {
                        Dim::Varies(len.and(more as isize))
                    }
                    _ => Dim::Varies(Length::made_of((sum, len))),
                };
                let len = inputs.iter().map(|input| input.0[0]).reduce(add).unwrap_or(Dim::Fixed(0));
                Ok(Shape::sequence(len, widths[0]))
            }
            1 => Err(format!("expected texts of one width, found {}", listed(inputs))),
            axis => Err(format!("concat3D_axis: expected 1 or 2, found {axis}")),
        }
    }

    fn build(&self, inputs: &[Shape], site: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let (words, legacy_padding) = (self.axis == 1 && inputs.len() > 1, site.legacy_padding);
        Ok(match words {
            true => Box::new(ConcatWords { legacy_padding }),
            false => Box::new(Concat { axis: 2, legacy_padding }),
        })
    }
}

/// On the last axis.
#[derive(Debug)]
struct Concat {
    axis: usize,
    legacy_padding: bool,
}

impl Block for Concat {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        for input in &inputs[1..] {
            let [first, other] = [&inputs[0], input].map(|value| value.tensor.narrow(self.axis, 0, 1));
            one_size(&first?, &other?)?;
        }
        Ok(inputs[0].with_last(Tensor::cat(&tensors(inputs, self.legacy_padding)?, self.axis)?))
    }
}

/// Word after word.
#[derive(Debug)]
struct ConcatWords {
    legacy_padding: bool,
}

impl Block for ConcatWords {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let mut all = inputs[0].clone();
        for input in &inputs[1..] {
            all = if self.legacy_padding { unmoved(&all, input)? } else { moved(&all, input)? };
        }
        Ok(all)
    }
}

/// Both texts as they stand, and a mask of the first.
fn unmoved(first: &Value, second: &Value) -> Result<Value> {
    let tensor = Tensor::cat(&[&first.tensor, &second.tensor], 1)?;
    let (batch, len, _) = first.tensor.dims3()?;
    let rest = Tensor::zeros((batch, second.tensor.dim(1)?), DType::U8, tensor.device())?;
    let mask = Tensor::cat(&[mask_or_ones(first.mask.as_ref(), batch, len, &tensor)?, rest], 1)?;
    Ok(Value::masked(tensor, Some(mask)))
}

/// The second text moved up to the first.
fn moved(first: &Value, second: &Value) -> Result<Value> {
    let both = Tensor::cat(&[&first.vectors()?, &second.vectors()?], 1)?;
    if first.mask.is_none() && second.mask.is_none() {
        return Ok(Value::new(both));
    }
    let (batch, len, width) = both.dims3()?;
    let first_len = first.tensor.dim(1)?;
    let words =
        |value: &Value, len| mask_or_ones(value.mask.as_ref(), batch, len, &both)?.to_dtype(DType::U32)?.sum_keepdim(1);
    let of_first = words(first, first_len)?;
    let of_both = (&of_first + words(second, len - first_len)?)?;
    // Word p of the whole is word p of the first, or that which the first's padding stands before.
    let places = Tensor::arange(0u32, len as u32, both.device())?.reshape((1, len))?.broadcast_as((batch, len))?;
    let skipped = Tensor::full(first_len as u32, (batch, 1), both.device())?.sub(&of_first)?;
    let later = places.broadcast_add(&skipped)?.minimum((len - 1) as u32)?;
    let index = places.broadcast_lt(&of_first)?.where_cond(&places.contiguous()?, &later)?;
    let index = index.unsqueeze(2)?.broadcast_as((batch, len, width))?.contiguous()?;
    Ok(Value::masked(both.gather(&index, 1)?, Some(places.broadcast_lt(&of_both)?.contiguous()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{Given, LEN, check, refused, run_values};
    use kd_core::testing::{check_gradients, device, random};

    #[test]
    fn shapes_and_padding() {
        check(&Concat2dConfig::default(), &[Given::vector(3), Given::vector(1), Given::vector(2)]);
        let text = |len, width, tokens: &[usize]| Given::text(len, width, tokens);
        let tokens = [5, 0, 7];
        check(&Concat3dConfig::default(), &[text(LEN, 3, &tokens), text(LEN, 2, &tokens)]);
        for (first, second) in [(LEN, LEN), (Dim::Fixed(7), Dim::Fixed(4))] {
            let texts = [text(first, 3, &tokens), text(second, 3, &[2, 4, 0]), text(first, 3, &tokens)];
            check(&Concat3dConfig { axis: 1 }, &texts);
        }
    }

    #[test]
    fn the_second_text_follows_the_first() {
        let value = |words: &[f64], mask: &[u8]| {
            let tensor = Tensor::from_slice(words, (1, words.len(), 1), device()).unwrap();
            Value::masked(tensor, Some(Tensor::from_slice(mask, (1, mask.len()), device()).unwrap()))
        };
        let texts = [value(&[1., 2., -9.], &[1, 1, 0]), value(&[3., -9.], &[1, 0])];
        let of = |legacy_padding| {
            let site = Site { legacy_padding, ..Default::default() };
            let y = run_values(&Concat3dConfig { axis: 1 }, &texts, &site).unwrap();
            let mask = y.mask.clone().unwrap().to_vec2::<u8>().unwrap()[0].clone();
            (y.tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap(), mask)
        };
        let (words, mask) = of(false);
        assert_eq!((&words[..3], mask), (&[1., 2., 3.][..], vec![1, 1, 1, 0, 0]));
        assert_eq!(of(true), (vec![1., 2., -9., 3., -9.], vec![1, 1, 0, 0, 0]));
        let inputs = [random(1, (1, 3, 2)).unwrap(), random(2, (1, 2, 2)).unwrap()];
        let f = |x: &[Tensor]| {
            let texts: Vec<Value> =
                x.iter().zip(&texts).map(|(x, text)| Value::masked(x.clone(), text.mask.clone())).collect();
            run_values(&Concat3dConfig { axis: 1 }, &texts, &Site::default())?.zeroed()
        };
        check_gradients(f, &inputs, 1e-8).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let text = |len, width| Shape::sequence(len, width);
        let message = refused(&Concat3dConfig::default(), &[text(LEN, 3), text(Dim::Fixed(5), 3)]);
        assert_eq!(message, "expected texts of one length, found (batch, len, 3) and (batch, 5, 3)");
        let message = refused(&Concat3dConfig { axis: 1 }, &[text(LEN, 3), text(LEN, 4)]);
        assert_eq!(message, "expected texts of one width, found (batch, len, 3) and (batch, len, 4)");
        assert_eq!(refused(&Concat3dConfig { axis: 0 }, &[text(LEN, 3)]), "concat3D_axis: expected 1 or 2, found 0");
        assert_eq!(refused(&Concat2dConfig { axis: 0 }, &[Shape::vector(3)]), "concat2D_axis: expected 1, found 0");
        assert!(refused(&Concat2dConfig::default(), &[text(LEN, 3)]).contains("rank 2"));
    }
}
