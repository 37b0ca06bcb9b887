//! `ConvPooling`: convolutions of several windows, each pooled over the text (Kim 2014).
//!
//! For each window `pool_t(activation(norm(Σ_k W_k x_{t + k})))`, one after another. Only windows within the text count, one in
//! a text that is shorter than the window; with `legacy_padding` all of the batch's do.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::nn::{Activation, ActivationKind, BatchNorm};
use serde::Deserialize;

use super::conv::{Filters, check_channels};
use super::linear::check_activation;
use super::pool::{PoolType, legacy_mean, pool};
use super::windows::{PaddingType, Windows};
use super::{Block, BlockConfig, Shape, Site, Value};

/// Configuration of `ConvPooling`: `(batch, len, width)` → `(batch, output_channel_num · windows)`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConvPoolingConfig {
    /// Positions from one window to the next, ≥ 1.
    pub stride: usize,
    /// Zeros ahead of the text and behind it, less than the smallest window.
    pub padding: usize,
    /// Positions of each window, ≥ 1.
    pub window_sizes: Vec<usize>,
    /// 1, which is what the format knows.
    pub input_channel_num: usize,
    /// Width of each window's output, ≥ 1.
    pub output_channel_num: usize,
    /// Whether each channel is normalised over batch and positions, before the activation.
    pub batch_norm: bool,
    /// Function of each value; a learned slope is one for all windows.
    pub activation: Option<ActivationKind>,
    /// What is taken of the positions.
    pub pool_type: PoolType,
    /// 1, the axis of positions.
    pub pool_axis: usize,
}

impl Default for ConvPoolingConfig {
    fn default() -> Self {
        Self {
            stride: 1,
            padding: 0,
            window_sizes: vec![1, 2, 3],
            input_channel_num: 1,
            output_channel_num: 16,
            batch_norm: true,
            activation: Some(ActivationKind::ReLU),
            pool_type: PoolType::Max,
            pool_axis: 1,
        }
    }
}

impl ConvPoolingConfig {
    fn windows(&self) -> impl Iterator<Item = Windows> {
        let (stride, padding, padding_type) = (self.stride, self.padding, PaddingType::Valid);
        self.window_sizes.iter().map(move |&size| Windows { size, stride, padding, padding_type })
    }
}

impl BlockConfig for ConvPoolingConfig {
    fn ignored() -> &'static [&'static str] {
        &["window_size"]
    }

    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([3])?;
        inputs[0].width()?;
        check_activation(self.activation, &inputs[0])?;
        check_channels(self.input_channel_num, self.output_channel_num)?;
        if self.window_sizes.is_empty() {
            return Err("window_sizes: expected at least one window, found none".to_string());
        }
        if self.pool_axis != 1 {
            return Err(format!("pool_axis: expected 1, found {}", self.pool_axis));
        }
        for (idx, windows) in self.windows().enumerate() {
            windows.infer(inputs[0].0[0]).map_err(|message| match message.strip_prefix("window_size: ") {
                Some(message) => format!("window_sizes[{idx}]: {message}"),
                None => message,
            })?;
        }
        Ok(Shape::vector(self.output_channel_num * self.window_sizes.len()))
    }

    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let width = inputs[0].width().map_err(candle_core::Error::msg)?;
        let mut convolutions = Vec::with_capacity(self.window_sizes.len());
        for (idx, windows) in self.windows().enumerate() {
            let vb = vb.pp(idx);
            let norm = self.batch_norm.then(|| BatchNorm::new(self.output_channel_num, vb.pp("batch_norm")));
            convolutions.push((Filters::new(windows, width, self.output_channel_num, vb)?, norm.transpose()?));
        }
        Ok(Box::new(ConvPooling {
            convolutions,
            activation: self.activation.map(|kind| Activation::new(kind, vb.pp("activation"))).transpose()?,
            pool_type: self.pool_type,
            legacy_padding: site.legacy_padding,
        }))
    }
}

#[derive(Debug)]
struct ConvPooling {
    convolutions: Vec<(Filters, Option<BatchNorm>)>,
    activation: Option<Activation>,
    pool_type: PoolType,
    legacy_padding: bool,
}

impl Block for ConvPooling {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        let x = inputs[0].zeroed()?;
        let mut pooled = Vec::with_capacity(self.convolutions.len());
        for (filters, norm) in &self.convolutions {
            let mask = inputs[0].mask.as_ref().map(|mask| filters.windows.mask(mask)).transpose()?;
            let seen = mask.as_ref().filter(|_| !self.legacy_padding);
            let mut y = filters.forward(&x)?;
            if let Some(norm) = norm {
                y = norm.forward(&y, seen, mode)?;
            }
            if let Some(activation) = &self.activation {
                y = activation.forward(&y)?;
            }
            pooled.push(match (self.pool_type, &mask) {
                (PoolType::Mean, Some(mask)) if self.legacy_padding => legacy_mean(&y, 1, mask)?,
                _ => pool(&y, 1, seen, self.pool_type)?,
            });
        }
        Ok(Value::new(Tensor::cat(&pooled, 1)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Dim;
    use crate::blocks::checks::{Given, LEN, check, refused, run_with};
    use kd_core::testing::device;

    fn config() -> ConvPoolingConfig {
        ConvPoolingConfig { output_channel_num: 4, ..Default::default() }
    }

    #[test]
    fn shapes_padding_and_variables() {
        for pool_type in [PoolType::Max, PoolType::Mean] {
            for batch_norm in [false, true] {
                for (stride, padding, window_sizes) in [(1, 0, vec![1, 2, 3]), (2, 1, vec![4])] {
                    let config = ConvPoolingConfig {
                        pool_type,
                        batch_norm,
                        stride,
                        padding,
                        window_sizes,
                        activation: Some(ActivationKind::PReLU),
                        ..config()
                    };
                    check(&config, &[Given::text(LEN, 3, &[5, 1, 7, 0, 2])]);
                    check(&config, &[Given::text(Dim::Fixed(7), 3, &[5, 1, 7, 0, 2])]);
                }
            }
        }
    }

    #[test]
    fn maxima_of_windows_by_hand() {
        // Of a window of 1: max(1, -5) = 1. Of 2, weights 1 and 10: 1 - 50, below 0. The padding would give 9 and 85.
        let x = Tensor::new(&[[[1f64], [-5.], [9.]]], device()).unwrap();
        let mask = Tensor::new(&[[1u8, 1, 0]], device()).unwrap();
        let weight = |values: &[f64]| Tensor::from_slice(values, (1, values.len(), 1), device()).unwrap();
        let config = ConvPoolingConfig {
            window_sizes: vec![1, 2],
            output_channel_num: 1,
            batch_norm: false,
            activation: None,
            ..config()
        };
        let weights = [("0.weight", weight(&[1.])), ("1.weight", weight(&[1., 10.]))];
        let y = run_with(&config, &[Value::masked(x, Some(mask))], &weights).unwrap();
        assert_eq!(y.tensor.to_vec2::<f64>().unwrap(), [[1., -49.]]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let text = Shape::sequence(Dim::Fixed(2), 3);
        assert!(
            refused(&config(), std::slice::from_ref(&text)).contains("the window of 3 is longer than an axis of 2")
        );
        let none = ConvPoolingConfig { window_sizes: vec![], ..config() };
        assert_eq!(
            refused(&none, std::slice::from_ref(&text)),
            "window_sizes: expected at least one window, found none"
        );
        let axis = ConvPoolingConfig { pool_axis: 2, window_sizes: vec![1], ..config() };
        assert_eq!(refused(&axis, &[text]), "pool_axis: expected 1, found 2");
    }
}
