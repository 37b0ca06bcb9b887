//! `Pooling1D` and `Pooling2D`: the largest value, or the mean, of each window over one axis or two.
//!
//! Only tokens count to a maximum. A mean divides by the size of the window, zeros around and on padding included, as
//! PyTorch's `AvgPool2d` does.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::ops::cpu;
use serde::Deserialize;

use super::maps::{Tokens, pooling};
use super::pool::{PoolType, finite};
use super::value::replace_padding;
use super::windows::{PaddingType, Windows};
use super::{Block, BlockConfig, Dim, Shape, Site, Value};

/// Configuration of `Pooling1D`: `(batch, len, width)` → `(batch, outputs, width)`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pooling1dConfig {
    /// What is taken.
    pub pool_type: PoolType,
    /// Positions from one window to the next, ≥ 1.
    pub stride: usize,
    /// Positions ahead of the text and behind it, less than the window.
    pub padding: usize,
    /// Positions of a window, ≥ 1.
    pub window_size: usize,
}

impl Default for Pooling1dConfig {
    fn default() -> Self {
        Self { pool_type: PoolType::Max, stride: 1, padding: 0, window_size: 3 }
    }
}

/// One number for both axes, or one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a number, or two in a list")]
pub enum Sizes {
    /// Of both axes.
    Both(usize),
    /// Of axis 1 and of axis 2.
    Each([usize; 2]),
}

impl Sizes {
    /// Of axis 1 and of axis 2.
    pub(crate) fn each(self) -> [usize; 2] {
        match self {
            Sizes::Both(size) => [size; 2],
            Sizes::Each(sizes) => sizes,
        }
    }
}

/// Configuration of `Pooling2D`: `(batch, height, width, channels)` → the same with other height and width.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pooling2dConfig {
    /// What is taken.
    pub pool_type: PoolType,
    /// Positions from one window to the next on each axis, ≥ 1.
    pub stride: Sizes,
    /// Positions around the map on each axis, less than the window.
    pub padding: Sizes,
    /// Positions of a window on each axis, ≥ 1; none is the whole map, which then must be of one size in every batch.
    pub window_size: Option<Sizes>,
}

impl Default for Pooling2dConfig {
    fn default() -> Self {
        Self { pool_type: PoolType::Max, stride: Sizes::Both(1), padding: Sizes::Both(0), window_size: None }
    }
}

impl BlockConfig for Pooling1dConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([3])?;
        let len = self.windows().infer(inputs[0].0[0])?;
        Ok(Shape::sequence(len, inputs[0].width()?))
    }

    fn build(&self, _: &[Shape], site: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let windows = vec![self.windows()];
        Ok(Box::new(WindowPooling { windows, pool_type: self.pool_type, legacy_padding: site.legacy_padding }))
    }
}

impl Pooling1dConfig {
    fn windows(&self) -> Windows {
        let padding_type = PaddingType::Valid;
        Windows { size: self.window_size, stride: self.stride, padding: self.padding, padding_type }
    }
}

impl Pooling2dConfig {
    fn windows(&self, input: &Shape) -> std::result::Result<[Windows; 2], String> {
        let size = match (self.window_size, &input.0[..2]) {
            (Some(size), _) => size.each(),
            (None, &[Dim::Fixed(height), Dim::Fixed(width)]) => [height, width],
            (None, _) => {
                return Err(format!(
                    "window_size: expected one, since the map is not of one size in every batch, found {input}"
                ));
            }
        };
        let ([stride, padding], padding_type) = ([self.stride.each(), self.padding.each()], PaddingType::Valid);
        Ok([0, 1].map(|at| Windows { size: size[at], stride: stride[at], padding: padding[at], padding_type }))
    }
}

impl BlockConfig for Pooling2dConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([4])?;
        infer_map(&self.windows(&inputs[0])?, &inputs[0], inputs[0].width()?)
    }

    fn build(&self, inputs: &[Shape], site: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let windows = self.windows(&inputs[0]).map_err(candle_core::Error::msg)?.to_vec();
        Ok(Box::new(WindowPooling { windows, pool_type: self.pool_type, legacy_padding: site.legacy_padding }))
    }
}

/// What windows on both axes make of a map, with so many channels.
pub(crate) fn infer_map(windows: &[Windows; 2], map: &Shape, channels: usize) -> std::result::Result<Shape, String> {
    let [height, width] = [0, 1].map(|at| {
        let dim = windows[at].infer(map.0[at]);
        // What begins with a key is about that key.
        dim.map_err(|message| match message.split_once(": ") {
            Some((key, message)) => format!("{key}: axis {}: {message}", at + 1),
            None => format!("axis {}: {message}", at + 1),
        })
    });
    Ok(Shape(vec![height?, width?, Dim::Fixed(channels)]))
}

/// The masks of what windows on axis 1, and where there are two on axis 2, give.
pub(crate) fn masks(windows: &[Windows], input: &Value) -> Result<[Option<Tensor>; 2]> {
    let second = windows.get(1);
    let mask = input.mask.as_ref().map(|mask| windows[0].mask(mask)).transpose()?;
    let second_mask = match (&input.second_mask, second) {
        (Some(mask), Some(windows)) => Some(windows.mask(mask)?),
        (mask, _) => mask.clone(),
    };
    Ok([mask, second_mask])
}

/// Pooling by windows on axis 1, and where there are two on axis 2.
#[derive(Debug)]
struct WindowPooling {
    windows: Vec<Windows>,
    pool_type: PoolType,
    legacy_padding: bool,
}

impl WindowPooling {
    fn on_cpu(&self, input: &Value) -> Result<Tensor> {
        let one = Windows { size: 1, stride: 1, padding: 0, padding_type: PaddingType::Valid };
        let (windows, axis) = match self.windows[..] {
            [down, across] => ([down, across], None),
            // The last axis of a matrix of two texts has padding, that of others is channels.
            [down] => ([down, one], Some(if input.second_mask.is_some() { 3 } else { 2 })),
            _ => bail!("expected windows on one axis or two, found {}", self.windows.len()),
        };
        let map = match axis {
            Some(axis) => input.with(input.tensor.unsqueeze(axis)?),
            None => input.clone(),
        };
        let tokens = if self.legacy_padding { Tokens::all(&map.tensor)? } else { Tokens::of(&map)? };
        let y = pooling(&map.tensor, windows, self.pool_type, tokens)?;
        axis.map_or(Ok(y.clone()), |axis| y.squeeze(axis))
    }
}

impl Block for WindowPooling {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let input = &inputs[0];
        let [mask, second_mask] = masks(&self.windows, input)?;
        if cpu::has_kernel(&input.tensor) {
            let x = self.on_cpu(input)?;
            return Ok(Value { second_mask, ..Value::masked(x, mask) });
        }
        let outside = match self.pool_type {
            PoolType::Max => f64::NEG_INFINITY,
            PoolType::Mean => 0.0,
        };
        let mut x = input.tensor.clone();
        if !self.legacy_padding {
            for (axis, mask) in [(1, &input.mask), (2, &input.second_mask)] {
                if let Some(mask) = mask {
                    x = replace_padding(&x, mask, axis, outside)?;
                }
            }
        }
        for (axis, windows) in (1..).zip(&self.windows) {
            let places = windows.places(&x, axis, outside)?;
            let Some((first, others)) = places.split_first() else { bail!("expected a window of at least 1") };
            x = others.iter().try_fold(first.clone(), |so_far, place| match self.pool_type {
                // Of equal values the first gets the gradient.
                PoolType::Max => so_far.ge(place)?.where_cond(&so_far, place),
                PoolType::Mean => so_far + place,
            })?;
            if self.pool_type == PoolType::Mean {
                x = (x / windows.size as f64)?;
            }
        }
        // Without masks every window has a value, for padding is less than a window.
        let has_padding = input.mask.is_some() || input.second_mask.is_some();
        let x = if self.pool_type == PoolType::Max && has_padding { finite(&x)? } else { x };
        Ok(Value { second_mask, ..Value::masked(x, mask) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{Given, LEN, check, refused, run};
    use crate::blocks::reference::{case, tensor};
    use kd_core::testing::{assert_close, check_gradient, device, random};

    #[test]
    fn shapes_and_padding() {
        for pool_type in [PoolType::Max, PoolType::Mean] {
            for (window_size, stride, padding) in [(3, 1, 0), (2, 2, 1), (1, 3, 0)] {
                let config = Pooling1dConfig { pool_type, stride, padding, window_size };
                check(&config, &[Given::text(LEN, 3, &[5, 1, 7, 2])]);
                check(&config, &[Given::text(Dim::Fixed(7), 3, &[5, 0, 7])]);
                let config = Pooling2dConfig {
                    pool_type,
                    stride: Sizes::Each([stride, 1]),
                    padding: Sizes::Each([padding, 0]),
                    window_size: Some(Sizes::Each([window_size, 2])),
                };
                let varies = [LEN, LEN, Dim::Fixed(3)];
                check(&config, &[Given::matrix(&varies, &[5, 1, 4], &[2, 6, 3])]);
                check(
                    &config,
                    &[Given::matrix(&[Dim::Fixed(5), Dim::Fixed(6), Dim::Fixed(2)], &[5, 1, 4], &[2, 6, 3])],
                );
            }
        }
        // Without a window the whole map is one.
        check(
            &Pooling2dConfig::default(),
            &[Given::matrix(&[Dim::Fixed(5), Dim::Fixed(6), Dim::Fixed(2)], &[5, 1, 4], &[2, 6, 3])],
        );
    }

    #[test]
    fn windows_by_hand() {
        let x = Tensor::new(&[[[1f64], [5.], [-2.], [-4.]]], device()).unwrap();
        let of = |pool_type| {
            let config = Pooling1dConfig { pool_type, window_size: 2, stride: 2, padding: 0 };
            run(&config, std::slice::from_ref(&x)).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        assert_eq!(of(PoolType::Max), [5., -2.]);
        assert_eq!(of(PoolType::Mean), [3., -3.]);
    }

    #[test]
    fn values_are_those_of_pytorch() {
        for (name, pool_type) in [("max_pool2d", PoolType::Max), ("avg_pool2d", PoolType::Mean)] {
            let case = case(name);
            let sizes = |name| Some(Sizes::Each(case.parameter(name)));
            let (stride, padding) = (sizes("stride").unwrap(), sizes("padding").unwrap());
            let config = Pooling2dConfig { pool_type, stride, padding, window_size: sizes("window") };
            let y = run(&config, &[tensor(&case.inputs["x"])]).unwrap();
            assert_close(&y, &tensor(&case.outputs["y"]), 1e-12, 1e-12)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for pool_type in [PoolType::Max, PoolType::Mean] {
            let config = Pooling2dConfig {
                pool_type,
                stride: Sizes::Each([1, 2]),
                padding: Sizes::Both(1),
                window_size: Some(Sizes::Each([2, 3])),
            };
            check_gradient(|x| run(&config, std::slice::from_ref(x)), &random(1, (2, 3, 5, 2)).unwrap(), 1e-7).unwrap();
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let map = |height| Shape(vec![height, Dim::Fixed(4), Dim::Fixed(2)]);
        let message = refused(&Pooling2dConfig::default(), &[map(LEN)]);
        assert!(message.starts_with("window_size: expected one, since the map is not of one size"), "{message}");
        let config = Pooling2dConfig { window_size: Some(Sizes::Each([1, 5])), ..Default::default() };
        assert!(
            refused(&config, &[map(Dim::Fixed(3))]).starts_with("axis 2: the window of 5 is longer than an axis of 4")
        );
        assert!(refused(&Pooling1dConfig::default(), &[map(LEN)]).contains("rank 3"));
        let error = serde_json::from_str::<Pooling2dConfig>(r#"{"stride": [1, 2, 3]}"#).unwrap_err().to_string();
        assert!(error.contains("a number, or two in a list"), "{error}");
    }
}
