//! `Conv2D`: a convolution over a map, such as the similarities of two texts.
//!
//! `y = activation(norm(b + Σ_{i, j} W_{i, j} x_{s + i, t + j}))`. In the published code the normalisation was asked for and never
//! applied, and so its default here is no: with `batch_norm` true it is. Padding of either axis is 0 to it.
//!
//! On the CPU the windows of a batch are not kept for the backward, and padding is not computed.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kd_core::model::Mode;
use kd_core::nn::{Activation, ActivationKind, BatchNorm};
use kd_core::ops::{self, cpu};
use serde::Deserialize;

use super::maps::{Tokens, convolution};
use super::pooling_windows::{Sizes, infer_map, masks};
use super::windows::{PaddingType, Windows};
use super::{Block, BlockConfig, Shape, Site, Value, mask_or_ones};

/// Configuration of `Conv2D`: `(batch, height, width, channels)` → `(batch, height', width', output_channel_num)`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conv2dConfig {
    /// Positions from one window to the next on each axis, ≥ 1.
    pub stride: Sizes,
    /// Zeros around the map on each axis, less than the window.
    pub padding: Sizes,
    /// Positions of a window on each axis, ≥ 1.
    pub window_size: Sizes,
    /// Number of channels of the input, if the file says it.
    pub input_channel_num: Option<usize>,
    /// Number of channels of the output, ≥ 1.
    pub output_channel_num: usize,
    /// Whether each channel is normalised over batch and map, before the activation.
    pub batch_norm: bool,
    /// Function of each value.
    pub activation: Option<ActivationKind>,
    /// Whether the map becomes smaller.
    pub padding_type: PaddingType,
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self {
            stride: Sizes::Both(1),
            padding: Sizes::Both(0),
            window_size: Sizes::Both(3),
            input_channel_num: None,
            output_channel_num: 16,
            batch_norm: false,
            activation: Some(ActivationKind::ReLU),
            padding_type: PaddingType::Valid,
        }
    }
}

impl Conv2dConfig {
    fn windows(&self) -> [Windows; 2] {
        let [size, stride, padding] = [self.window_size, self.stride, self.padding].map(Sizes::each);
        let padding_type = self.padding_type;
        [0, 1].map(|at| Windows { size: size[at], stride: stride[at], padding: padding[at], padding_type })
    }
}

impl BlockConfig for Conv2dConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([4])?;
        let channels = inputs[0].width()?;
        if self.input_channel_num.is_some_and(|found| found != channels) {
            let found = self.input_channel_num.unwrap_or_default();
            return Err(format!("input_channel_num: expected the {channels} of the input, found {found}"));
        }
        if self.output_channel_num == 0 {
            return Err("output_channel_num: expected at least 1, found 0".to_string());
        }
        infer_map(&self.windows(), &inputs[0], self.output_channel_num)
    }

    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let channels = inputs[0].width().map_err(candle_core::Error::msg)?;
        let ([height, width], out) = (self.window_size.each(), self.output_channel_num);
        let fan_in = channels * height * width;
        let bound = 1.0 / (fan_in as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let weight = vb.get_with_hints((out, height, width, channels), "weight", init)?;
        Ok(Box::new(Conv2d {
            windows: self.windows(),
            weight: weight.reshape((out, fan_in))?,
            bias: vb.get_with_hints(out, "bias", init)?,
            norm: self.batch_norm.then(|| BatchNorm::new(out, vb.pp("batch_norm"))).transpose()?,
            activation: self.activation.map(|kind| Activation::new(kind, vb.pp("activation"))).transpose()?,
            legacy_padding: site.legacy_padding,
        }))
    }
}

/// | variable | shape | start |
/// |---|---|---|
/// | `weight` | `(channels out, height, width, channels in)` | uniform in `±1/√(height · width · channels in)` |
/// | `bias` | `(channels out,)` | the same |
#[derive(Debug)]
struct Conv2d {
    windows: [Windows; 2],
    weight: Tensor,
    bias: Tensor,
    norm: Option<BatchNorm>,
    activation: Option<Activation>,
    legacy_padding: bool,
}

impl Block for Conv2d {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        let mut activation = self.activation.as_ref();
        let mut y = if cpu::has_kernel(&inputs[0].tensor) {
            let x = &inputs[0].tensor;
            let tokens = if self.legacy_padding { Tokens::all(x)? } else { Tokens::of(&inputs[0])? };
            // Nothing stands between the product and the activation.
            let relu = activation.take_if(|it| self.norm.is_none() && it.kind() == ActivationKind::ReLU).is_some();
            convolution(x, &self.weight, &self.bias, self.windows, relu, tokens)?
        } else {
            let x = if self.legacy_padding { inputs[0].tensor.clone() } else { inputs[0].zeroed()? };
            // Windows of axis 2 first, so that the last axis has them row by row.
            let columns = Tensor::cat(&self.windows[1].places(&x, 2, 0.0)?, 3)?;
            let windows = Tensor::cat(&self.windows[0].places(&columns, 1, 0.0)?, 3)?;
            ops::linear(&windows, &self.weight, Some(&self.bias))?
        };
        let [mask, second_mask] = masks(&self.windows, &inputs[0])?;
        if let Some(norm) = &self.norm {
            let (batch, height, width, _) = y.dims4()?;
            let of_map = match (&mask, &second_mask) {
                _ if self.legacy_padding => None,
                (None, None) => None,
                (first, second) => {
                    let first = mask_or_ones(first.as_ref(), batch, height, &y)?.unsqueeze(2)?;
                    Some(first.broadcast_mul(&mask_or_ones(second.as_ref(), batch, width, &y)?.unsqueeze(1)?)?)
                }
            };
            y = norm.forward(&y, of_map.as_ref(), mode)?;
        }
        if let Some(activation) = activation {
            // Channels stand last here, where a softmax over channels is over axis 1.
            y = match activation.kind() {
                ActivationKind::Softmax2d => ops::softmax(&y)?,
                _ => activation.forward(&y)?,
            };
        }
        Ok(Value { second_mask, ..Value::masked(y, mask) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Dim;
    use crate::blocks::checks::{Given, LEN, check, refused, run_with};
    use crate::blocks::reference::{case, tensor};
    use kd_core::testing::assert_close;

    fn config() -> Conv2dConfig {
        Conv2dConfig { output_channel_num: 3, ..Default::default() }
    }

    #[test]
    fn shapes_padding_and_variables() {
        for (stride, padding, padding_type) in
            [([1, 2], [1, 0], PaddingType::Valid), ([2, 1], [0, 0], PaddingType::Same)]
        {
            for batch_norm in [false, true] {
                let config = Conv2dConfig {
                    stride: Sizes::Each(stride),
                    padding: Sizes::Each(padding),
                    window_size: Sizes::Each([3, 2]),
                    padding_type,
                    batch_norm,
                    activation: Some(ActivationKind::PReLU),
                    ..config()
                };
                let varies = [LEN, LEN, Dim::Fixed(2)];
                check(&config, &[Given::matrix(&varies, &[5, 1, 4], &[2, 6, 3])]);
                let fixed = [Dim::Fixed(5), Dim::Fixed(6), Dim::Fixed(2)];
                check(&config, &[Given::matrix(&fixed, &[5, 0, 4], &[2, 6, 3])]);
            }
        }
    }

    #[test]
    fn values_are_those_of_pytorch() {
        for name in ["conv2d", "conv2d_batch_norm"] {
            let case = case(name);
            let config = Conv2dConfig {
                stride: Sizes::Each(case.parameter("stride")),
                padding: Sizes::Each(case.parameter("padding")),
                window_size: Sizes::Each(case.parameter("window")),
                batch_norm: name.ends_with("norm"),
                ..config()
            };
            let mut weights = vec![("weight", tensor(&case.inputs["weight"])), ("bias", tensor(&case.inputs["bias"]))];
            for name in ["weight", "bias", "running_mean", "running_var"] {
                if let Some(array) = case.inputs.get(&format!("batch_norm.{name}")) {
                    weights.push((Box::leak(format!("batch_norm.{name}").into_boxed_str()), tensor(array)));
                }
            }
            let y = run_with(&config, &[Value::new(tensor(&case.inputs["x"]))], &weights).unwrap().tensor;
            assert_close(&y, &tensor(&case.outputs["y"]), 1e-12, 1e-12)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let map = Shape(vec![Dim::Fixed(4), Dim::Fixed(2), Dim::Fixed(5)]);
        assert!(
            refused(&config(), std::slice::from_ref(&map))
                .starts_with("axis 2: the window of 3 is longer than an axis of 2")
        );
        let channels = Conv2dConfig { input_channel_num: Some(1), ..config() };
        assert_eq!(refused(&channels, &[map]), "input_channel_num: expected the 5 of the input, found 1");
    }
}
