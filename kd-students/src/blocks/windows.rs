//! Windows that slide over the padded axis of a text.
//!
//! A window of `size` positions starts `before` positions ahead of the text and moves by `stride`:
//!
//! ```text
//! outputs(n) = (n + before + after - size) / stride + 1        VALID, of a text of n tokens, at least 1
//! outputs(n) = ceil(n / stride)                                SAME, with before = (size - 1) / 2
//! ```
//!
//! What an example's outputs are does not depend on the batch: a text shorter than the window is padded up to it, and a text of
//! no tokens has no outputs.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};
use serde::Deserialize;

use super::{Dim, Length};

/// Whether windows stay within the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
pub enum PaddingType {
    /// They do, but for `padding` positions on each side.
    #[default]
    #[serde(rename = "VALID", alias = "valid")]
    Valid,
    /// One starts around every `stride`-th token, whatever the window's size.
    #[serde(rename = "SAME", alias = "same")]
    Same,
}

/// Windows along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Windows {
    pub(crate) size: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) padding_type: PaddingType,
}

impl Windows {
    /// Checks sizes, and gives the axis of outputs for an axis of inputs.
    pub(crate) fn infer(&self, dim: Dim) -> std::result::Result<Dim, String> {
        let Self { size, stride, padding, padding_type } = *self;
        if stride == 0 {
            return Err("stride: expected at least 1, found 0".to_string());
        }
        if size == 0 {
            return Err("window_size: expected at least 1, found 0".to_string());
        }
        if padding_type == PaddingType::Same && padding != 0 {
            return Err(format!("padding: expected 0 where padding_type is SAME, found {padding}"));
        }
        if padding >= size && padding > 0 {
            return Err(format!("padding: expected less than the window of {size}, found {padding}"));
        }
        match dim {
            Dim::Varies(len) => Ok(Dim::Varies(self.length(len))),
            Dim::Fixed(len) if padding_type == PaddingType::Valid && len + 2 * padding < size => {
                Err(format!("the window of {size} is longer than an axis of {len} with a padding of {padding}"))
            }
            Dim::Fixed(len) => Ok(Dim::Fixed(self.outputs(len))),
        }
    }

    /// Outputs of an axis of a length that varies.
    fn length(&self, len: Length) -> Length {
        match (self.padding_type, self.stride) {
            (PaddingType::Same, 1) => len,
            (PaddingType::Valid, 1) => len.and((2 * self.padding + 1) as isize - self.size as isize),
            _ => Length::made_of((len, self)),
        }
    }

    /// Outputs of an axis of `len` positions.
    pub(crate) fn outputs(&self, len: usize) -> usize {
        match self.padding_type {
            PaddingType::Same => len.div_ceil(self.stride),
            PaddingType::Valid => (len + 2 * self.padding).saturating_sub(self.size) / self.stride + 1,
        }
    }

    /// Outputs of a text of so many tokens, which a longer batch does not change.
    pub(crate) fn valid(&self, tokens: usize) -> usize {
        if tokens == 0 { 0 } else { self.outputs(tokens) }
    }

    /// Positions ahead of the text where the first window starts.
    pub(crate) fn before(&self) -> usize {
        match self.padding_type {
            PaddingType::Same => (self.size - 1) / 2,
            PaddingType::Valid => self.padding,
        }
    }

    /// The positions of a text of so many tokens that are under the window of `output`.
    pub(crate) fn inside(&self, output: usize, tokens: usize) -> Range<usize> {
        let start = output * self.stride;
        let end = (start + self.size).saturating_sub(self.before()).min(tokens);
        start.saturating_sub(self.before()).min(end)..end
    }

    /// `(batch, outputs)` u8 from the mask of the inputs, `(batch, len)` u8; stays on its device.
    pub(crate) fn mask(&self, mask: &Tensor) -> Result<Tensor> {
        let outputs = self.outputs(mask.dim(1)?);
        let tokens = mask.to_dtype(DType::U32)?.sum_keepdim(1)?;
        // The first window where it would stand if it were valid, and the shortest text that it is valid in.
        let starts = Tensor::arange_step(0u32, (outputs * self.stride) as u32, self.stride as u32, mask.device())?;
        let starts = starts.reshape((1, outputs))?;
        let valid = match self.padding_type {
            PaddingType::Same => starts.broadcast_lt(&tokens)?,
            PaddingType::Valid => {
                let last = Tensor::new((2 * self.padding) as u32, mask.device())?;
                let ends = starts.broadcast_add(&Tensor::new(self.size as u32, mask.device())?)?;
                let within = ends.broadcast_le(&tokens.broadcast_add(&last)?)?;
                let first = starts.eq(0u32)?.broadcast_as(within.shape())?.contiguous()?;
                let some = tokens.gt(0u32)?.broadcast_as(within.shape())?.contiguous()?;
                (within + first)?.gt(0u8)?.mul(&some)?
            }
        };
        valid.contiguous()
    }

    /// The positions under each window: `x` with `axis` → for each place in the window, in order, `x` with the outputs on
    /// `axis`. Positions outside of `x` are `outside`.
    pub(crate) fn places(&self, x: &Tensor, axis: usize, outside: f64) -> Result<Vec<Tensor>> {
        let len = x.dim(axis)?;
        let outputs = self.outputs(len);
        let before = self.before();
        // So many positions that a cut of outputs · stride from every place fits.
        let needed = self.size - 1 + outputs * self.stride;
        let after = needed.saturating_sub(before + len);
        let x = padded(x, axis, before, after, outside)?;
        (0..self.size).map(|place| strided(&x, axis, place, outputs, self.stride)).collect()
    }
}

/// `x` between so many positions of `value`.
fn padded(x: &Tensor, axis: usize, before: usize, after: usize, value: f64) -> Result<Tensor> {
    let filled = |count: usize| {
        let mut dims = x.dims().to_vec();
        dims[axis] = count;
        Tensor::full(value as f32, dims, x.device())?.to_dtype(x.dtype())
    };
    match (before, after) {
        (0, 0) => Ok(x.clone()),
        (0, after) => Tensor::cat(&[x, &filled(after)?], axis),
        (before, 0) => Tensor::cat(&[&filled(before)?, x], axis),
        (before, after) => Tensor::cat(&[&filled(before)?, x, &filled(after)?], axis),
    }
}

/// Positions `start`, `start + stride`, .. of `axis`, `count` of them.
fn strided(x: &Tensor, axis: usize, start: usize, count: usize, stride: usize) -> Result<Tensor> {
    let cut = x.narrow(axis, start, count * stride)?;
    if stride == 1 {
        return Ok(cut);
    }
    let mut dims = cut.dims().to_vec();
    dims[axis] = count;
    dims.insert(axis + 1, stride);
    cut.contiguous()?.reshape(dims)?.narrow(axis + 1, 0, 1)?.squeeze(axis + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{LEN, LEN2};
    use kd_core::testing::{check_gradient, device, random};

    fn windows(size: usize, stride: usize, padding: usize, padding_type: PaddingType) -> Windows {
        Windows { size, stride, padding, padding_type }
    }

    #[test]
    fn places_are_those_under_each_window() {
        let x = Tensor::arange(1f64, 7., device()).unwrap().reshape((1, 6)).unwrap();
        let of = |windows: Windows| -> Vec<Vec<f64>> {
            let places = windows.places(&x, 1, -1.0).unwrap();
            places.iter().map(|place| place.flatten_all().unwrap().to_vec1().unwrap()).collect()
        };
        assert_eq!(of(windows(3, 1, 0, PaddingType::Valid)), [[1., 2., 3., 4.], [2., 3., 4., 5.], [3., 4., 5., 6.]]);
        assert_eq!(of(windows(2, 3, 1, PaddingType::Valid)), [[-1., 3., 6.], [1., 4., -1.]]);
        // Of two the first is the token's own, of four the second.
        assert_eq!(of(windows(2, 2, 0, PaddingType::Same)), [[1., 3., 5.], [2., 4., 6.]]);
        assert_eq!(of(windows(4, 3, 0, PaddingType::Same)), [[-1., 3.], [1., 4.], [2., 5.], [3., 6.]]);
        for windows in [windows(3, 2, 1, PaddingType::Valid), windows(3, 2, 0, PaddingType::Same)] {
            let f = |x: &Tensor| Tensor::stack(&windows.places(x, 1, 0.0)?, 0);
            check_gradient(f, &random(1, (2, 7, 3)).unwrap(), 1e-8).unwrap();
        }
    }

    #[test]
    fn an_output_is_valid_where_it_is_in_the_text_alone() {
        for stride in 1..4 {
            for size in 1..5 {
                for padding in 0..size {
                    for padding_type in [PaddingType::Valid, PaddingType::Same] {
                        let windows = windows(size, stride, padding, padding_type);
                        for tokens in 0..=7 {
                            let mask: Vec<u8> = (0..7).map(|at| u8::from(at < tokens)).collect();
                            let mask = Tensor::from_vec(mask, (1, 7), device()).unwrap();
                            let mask: Vec<Vec<u8>> = windows.mask(&mask).unwrap().to_vec2().unwrap();
                            assert_eq!(mask[0].len(), windows.outputs(7));
                            let valid = if tokens == 0 { 0 } else { windows.outputs(tokens) };
                            let expected: Vec<u8> = (0..mask[0].len()).map(|at| u8::from(at < valid)).collect();
                            assert_eq!(mask[0], expected, "{windows:?} of {tokens} tokens");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let of = |windows: Windows, dim| windows.infer(dim).unwrap_err();
        let valid = |size, stride, padding| windows(size, stride, padding, PaddingType::Valid);
        assert_eq!(of(valid(3, 0, 0), LEN), "stride: expected at least 1, found 0");
        assert_eq!(of(valid(0, 1, 0), LEN), "window_size: expected at least 1, found 0");
        assert_eq!(
            of(valid(5, 1, 0), Dim::Fixed(3)),
            "the window of 5 is longer than an axis of 3 with a padding of 0"
        );
        assert_eq!(of(valid(2, 1, 2), LEN), "padding: expected less than the window of 2, found 2");
        let same = windows(3, 1, 1, PaddingType::Same);
        assert_eq!(of(same, LEN), "padding: expected 0 where padding_type is SAME, found 1");
        assert_eq!(valid(3, 2, 1).infer(Dim::Fixed(6)), Ok(Dim::Fixed(3)));
        // The length of a text is that of all windows of which each token has one; of two windows of 2 as of one of 3.
        let length = |windows: Windows, dim| windows.infer(dim).unwrap();
        assert_eq!(length(valid(3, 1, 1), LEN), LEN);
        assert_eq!(length(windows(4, 1, 0, PaddingType::Same), LEN), LEN);
        assert_eq!(length(valid(3, 1, 0), LEN).to_string(), "len-2");
        assert_eq!(length(valid(3, 1, 0), LEN), length(valid(2, 1, 0), length(valid(2, 1, 0), LEN)));
        assert_eq!(length(valid(3, 2, 1), LEN), length(valid(3, 2, 1), LEN));
        assert_ne!(length(valid(3, 2, 1), LEN), length(valid(2, 2, 1), LEN));
        assert_ne!(length(valid(3, 2, 1), LEN), length(valid(3, 2, 1), LEN2));
    }
}
