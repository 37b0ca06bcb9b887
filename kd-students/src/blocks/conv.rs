//! `Conv`: a convolution over the positions of a text.
//!
//! `y_t = norm(dropout(activation(Σ_k W_k x_{t + k})))`, the windows of [`PaddingType`], without a bias. What stands on padding
//! is 0 to it, as if the text ended there, and statistics of the normalisation are those of tokens. With `legacy_padding` a `Conv`
//! reads what another one left on padding, and statistics are those of padding too.
//!
//! In the published code `stride` was not read; here it is. A text shorter than the window has one output, where the code that
//! was published depended on the batch's longest text.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kd_core::model::Mode;
use kd_core::nn::{Activation, ActivationKind, BatchNorm};
use kd_core::ops;
use serde::Deserialize;

use super::dropout::check_probability;
use super::linear::check_activation;
use super::windows::{PaddingType, Windows};
use super::{Block, BlockConfig, Shape, Site, Value};

/// Configuration of `Conv`: `(batch, len, width)` → `(batch, outputs, output_channel_num)`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConvConfig {
    /// Positions from one window to the next, ≥ 1.
    pub stride: usize,
    /// Zeros ahead of the text and behind it, less than the window.
    pub padding: usize,
    /// Positions of a window, ≥ 1.
    pub window_size: usize,
    /// 1, which is what the format knows.
    pub input_channel_num: usize,
    /// Width of the output, ≥ 1.
    pub output_channel_num: usize,
    /// Whether each channel is normalised over batch and positions, last of all.
    pub batch_norm: bool,
    /// Function of each value.
    pub activation: Option<ActivationKind>,
    /// Whether the output is shorter than the input.
    pub padding_type: PaddingType,
    /// Probability of dropping a value, in `[0, 1)`.
    pub dropout: f64,
    /// With `legacy_padding` and false, what follows is not told where the padding is.
    pub remind_lengths: bool,
}

impl Default for ConvConfig {
    fn default() -> Self {
        Self {
            stride: 1,
            padding: 0,
            window_size: 3,
            input_channel_num: 1,
            output_channel_num: 16,
            batch_norm: true,
            activation: Some(ActivationKind::ReLU),
            padding_type: PaddingType::Valid,
            dropout: 0.0,
            remind_lengths: true,
        }
    }
}

impl ConvConfig {
    fn windows(&self) -> Windows {
        Windows { size: self.window_size, stride: self.stride, padding: self.padding, padding_type: self.padding_type }
    }
}

impl BlockConfig for ConvConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([3])?;
        inputs[0].width()?;
        check_probability("dropout", self.dropout)?;
        check_activation(self.activation, &inputs[0])?;
        check_channels(self.input_channel_num, self.output_channel_num)?;
        Ok(Shape::sequence(self.windows().infer(inputs[0].0[0])?, self.output_channel_num))
    }

    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let width = inputs[0].width().map_err(candle_core::Error::msg)?;
        let norm = self.batch_norm.then(|| BatchNorm::new(self.output_channel_num, vb.pp("batch_norm")));
        Ok(Box::new(Conv {
            filters: Filters::new(self.windows(), width, self.output_channel_num, vb.clone())?,
            activation: self.activation.map(|kind| Activation::new(kind, vb.pp("activation"))).transpose()?,
            norm: norm.transpose()?,
            config: self.clone(),
            legacy_padding: site.legacy_padding,
            after_conv: site.after_conv,
        }))
    }
}

/// Checks numbers of channels.
pub(crate) fn check_channels(input: usize, output: usize) -> std::result::Result<(), String> {
    match (input, output) {
        (1, 1..) => Ok(()),
        (1, _) => Err("output_channel_num: expected at least 1, found 0".to_string()),
        _ => Err(format!("input_channel_num: expected 1, found {input}")),
    }
}

/// The products of windows over axis 1 with filters, without a bias.
///
/// | variable | shape | start |
/// |---|---|---|
/// | `weight` | `(channels, window, width)` | normal, standard deviation 1, as published |
#[derive(Debug)]
pub(crate) struct Filters {
    pub(crate) windows: Windows,
    weight: Tensor,
}

impl Filters {
    pub(crate) fn new(windows: Windows, width: usize, channels: usize, vb: VarBuilder<'_>) -> crate::Result<Self> {
        let init = Init::Randn { mean: 0.0, stdev: 1.0 };
        let weight = vb.get_with_hints((channels, windows.size, width), "weight", init)?;
        Ok(Self { windows, weight: weight.reshape((channels, windows.size * width))? })
    }

    /// `(batch, len, width)` → `(batch, outputs, channels)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(&Tensor::cat(&self.windows.places(x, 1, 0.0)?, 2)?, &self.weight, None)
    }
}

#[derive(Debug)]
struct Conv {
    config: ConvConfig,
    filters: Filters,
    activation: Option<Activation>,
    norm: Option<BatchNorm>,
    legacy_padding: bool,
    after_conv: bool,
}

impl Block for Conv {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        let x = if self.legacy_padding && self.after_conv { inputs[0].tensor.clone() } else { inputs[0].zeroed()? };
        let mut y = self.filters.forward(&x)?;
        if let Some(activation) = &self.activation {
            y = activation.forward(&y)?;
        }
        y = ops::dropout(&y, self.config.dropout, mode)?;
        let mask = inputs[0].mask.as_ref().map(|mask| self.filters.windows.mask(mask)).transpose()?;
        if let Some(norm) = &self.norm {
            y = norm.forward(&y, mask.as_ref().filter(|_| !self.legacy_padding), mode)?;
        }
        let told = self.config.remind_lengths || !self.legacy_padding;
        Ok(Value::masked(y, mask.filter(|_| told)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Dim;
    use crate::blocks::checks::{Given, LEN, check, refused, run_with};
    use crate::blocks::reference::{case, tensor};
    use kd_core::testing::{assert_close, device};

    fn config(window_size: usize) -> ConvConfig {
        ConvConfig { window_size, output_channel_num: 4, batch_norm: false, ..Default::default() }
    }

    #[test]
    fn shapes_padding_and_variables() {
        for (window, stride, padding, padding_type) in
            [(3, 1, 0, PaddingType::Valid), (2, 2, 1, PaddingType::Valid), (4, 1, 0, PaddingType::Same)]
        {
            for batch_norm in [false, true] {
                let config = ConvConfig {
                    stride,
                    padding,
                    padding_type,
                    batch_norm,
                    activation: Some(ActivationKind::PReLU),
                    ..config(window)
                };
                check(&config, &[Given::text(LEN, 3, &[5, 1, 7, 0, 2])]);
                check(&config, &[Given::text(Dim::Fixed(7), 3, &[5, 1, 7, 0, 2])]);
            }
        }
    }

    #[test]
    fn two_windows_by_hand() {
        // Filter (1, 0), (10, 0) on x = 1, 2, 3 and its double: windows 1 + 20 and 2 + 30.
        let x = Value::new(Tensor::new(&[[[1f64, 2.], [2., 4.], [3., 6.]]], device()).unwrap());
        let weight = Tensor::new(&[[[1f64, 0.], [10., 0.]]], device()).unwrap();
        let config = ConvConfig { window_size: 2, output_channel_num: 1, batch_norm: false, ..Default::default() };
        let y = run_with(&config, &[x], &[("weight", weight)]).unwrap();
        assert_eq!(y.tensor.to_vec3::<f64>().unwrap(), [[[21.], [32.]]]);
    }

    #[test]
    fn a_conv_reads_what_another_left_on_padding_only_as_published() {
        // One word, 3, and padding, 5: the filter (1, 10) gives 3 + 50, or where padding is 0 the word alone.
        let x = Tensor::new(&[[[3f64], [5.]]], device()).unwrap();
        let x = Value::masked(x, Some(Tensor::new(&[[1u8, 0]], device()).unwrap()));
        let of = |legacy_padding, after_conv| {
            let site = Site { legacy_padding, after_conv, ..Default::default() };
            let weights = [("weight".to_string(), Tensor::new(&[[[1f64], [10.]]], device()).unwrap())];
            let vb = VarBuilder::from_tensors(weights.into(), candle_core::DType::F64, device());
            let config = ConvConfig { output_channel_num: 1, ..config(2) };
            let block = config.build(&[Shape::sequence(Dim::Fixed(2), 1)], &site, vb).unwrap();
            block.forward(std::slice::from_ref(&x), Mode::Eval).unwrap().tensor.to_vec3::<f64>().unwrap()[0][0][0]
        };
        assert_eq!([of(true, true), of(true, false), of(false, true), of(false, false)], [53., 3., 3., 3.]);
    }

    #[test]
    fn values_are_those_of_pytorch() {
        for name in ["conv1d", "conv1d_stride_2_padding_1", "conv1d_same"] {
            let case = case(name);
            let config = ConvConfig {
                stride: case.parameter("stride"),
                padding: case.parameter("padding"),
                padding_type: if name.ends_with("same") { PaddingType::Same } else { PaddingType::Valid },
                activation: None,
                ..config(case.parameter("window"))
            };
            let inputs = [Value::new(tensor(&case.inputs["x"]))];
            let weights = [("weight", tensor(&case.inputs["weight"]))];
            let y = run_with(&config, &inputs, &weights).unwrap().tensor;
            assert_close(&y, &tensor(&case.outputs["y"]), 1e-12, 1e-12)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let text = Shape::sequence(Dim::Fixed(2), 3);
        assert!(
            refused(&config(3), std::slice::from_ref(&text)).contains("the window of 3 is longer than an axis of 2")
        );
        assert!(refused(&config(1), &[Shape::vector(3)]).contains("expected an input of rank 3, found (batch, 3)"));
        let two = ConvConfig { input_channel_num: 2, ..config(1) };
        assert_eq!(refused(&two, std::slice::from_ref(&text)), "input_channel_num: expected 1, found 2");
        let none = ConvConfig { output_channel_num: 0, ..config(1) };
        assert_eq!(refused(&none, std::slice::from_ref(&text)), "output_channel_num: expected at least 1, found 0");
        let dropped = ConvConfig { dropout: 1.0, ..config(1) };
        assert_eq!(refused(&dropped, &[text]), "dropout: expected a number in [0, 1), found 1");
    }
}
