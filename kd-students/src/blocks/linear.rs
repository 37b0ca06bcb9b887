//! `Linear`: one or several linear layers.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::nn::{self, Activation, ActivationKind, BatchNorm};
use kd_core::ops;
use serde::{Deserialize, Deserializer};

use super::{Block, BlockConfig, Shape, Site, Value};

/// Linear layers with batch normalisation and activation, `(.., input)` → `(.., hidden_dim)`, of the last `hidden_dim`.
///
/// Each is `activation(norm(W x + b))`. Normalisation comes with an activation only, and only for vectors of examples (rank 2);
/// there is no `b` then, for normalisation takes it away and adds one of its own. Padding is read as zeros.
///
/// | variable of layer `N` | shape | start |
/// |---|---|---|
/// | `linear_N.weight` | `(out, in)` | as `nn.Linear` of PyTorch |
/// | `linear_N.bias` | `(out,)` | the same; not before a normalisation |
/// | `batch_norm_N.*` | those of a [`BatchNorm`] | |
/// | `activation_N.weight` | `(1,)`, of `PReLU` only | 0.25 |
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearConfig {
    /// Width of each layer's output: one or a list; -1 and `"#target#"` are the number of classes. 128 as in the format.
    pub hidden_dim: Widths,
    /// Whether vectors of examples are normalised before an activation; true as in the format.
    pub batch_norm: bool,
    /// After each layer; `PReLU` as in the format, or `null`.
    pub activation: Option<ActivationKind>,
    /// Whether the last layer has the activation too; true as in the format.
    pub last_hidden_activation: bool,
    /// Whether a softmax over the last axis follows the last layer; false as in the format.
    pub last_hidden_softmax: bool,
    /// Whether a last axis of size 1 stays; true as in the format.
    pub keep_dim: bool,
}

impl Default for LinearConfig {
    fn default() -> Self {
        Self {
            hidden_dim: Widths(vec![Width::Fixed(128)]),
            batch_norm: true,
            activation: Some(ActivationKind::PReLU),
            last_hidden_activation: true,
            last_hidden_softmax: false,
            keep_dim: true,
        }
    }
}

/// A width of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// So many values, ≥ 1.
    Fixed(usize),
    /// One for each class of the target: `-1` or `"#target#"`.
    Classes,
}

impl<'de> Deserialize<'de> for Width {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        match (json.as_i64(), json.as_str()) {
            (Some(-1), _) | (_, Some("#target#")) => Ok(Self::Classes),
            (Some(width @ 1..), _) => Ok(Self::Fixed(width as usize)),
            _ => Err(serde::de::Error::custom(format!("expected at least 1, -1 or \"#target#\", found {json}"))),
        }
    }
}

impl Width {
    /// Number of values.
    ///
    /// # Errors
    /// If it is that of the classes of a target, and there is none.
    pub fn resolve(self, site: &Site) -> std::result::Result<usize, String> {
        match (self, site.classes) {
            (Self::Fixed(width), _) => Ok(width),
            (Self::Classes, Some(classes)) if classes > 0 => Ok(classes),
            (Self::Classes, found) => Err(format!("expected a target with classes, found {found:?}")),
        }
    }
}

/// Widths of layers; in JSON one, or a list of at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Widths(pub Vec<Width>);

impl<'de> Deserialize<'de> for Widths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let json = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Array(list) => list,
            one => vec![one],
        };
        if json.is_empty() {
            return Err(serde::de::Error::custom("expected at least one width, found an empty list"));
        }
        let widths = json.into_iter().map(serde_json::from_value).collect::<serde_json::Result<_>>();
        widths.map(Self).map_err(serde::de::Error::custom)
    }
}

/// Checks that an activation of values with the axes of `input` is one of so many.
pub(crate) fn check_activation(activation: Option<ActivationKind>, input: &Shape) -> std::result::Result<(), String> {
    match activation {
        Some(ActivationKind::Softmax2d) if input.rank() != 4 => {
            Err(format!("activation: expected Softmax2d of rank 4 only, found {input}"))
        }
        _ => Ok(()),
    }
}

impl LinearConfig {
    fn widths(&self, site: &Site) -> std::result::Result<Vec<usize>, String> {
        let widths = self.hidden_dim.0.iter().map(|width| width.resolve(site));
        widths.collect::<std::result::Result<_, _>>().map_err(|message| format!("hidden_dim: {message}"))
    }
}

impl BlockConfig for LinearConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], site: &Site) -> std::result::Result<Shape, String> {
        inputs[0].width()?;
        check_activation(self.activation, &inputs[0])?;
        let width = self.widths(site)?.last().copied().unwrap_or_default();
        let shape = inputs[0].with_width(width);
        match (self.keep_dim, width, shape.rank()) {
            (true, ..) => Ok(shape),
            (false, 1, 3..) => Ok(Shape(shape.0[..shape.0.len() - 1].to_vec())),
            (false, 1, _) => Err("keep_dim: expected true for vectors of examples, found false".to_string()),
            (false, width, _) => Err(format!("keep_dim: expected true for a last width of {width}, found false")),
        }
    }

    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let mut input = inputs[0].width().map_err(candle_core::Error::msg)?;
        let widths = self.widths(site).map_err(candle_core::Error::msg)?;
        let mut layers = Vec::with_capacity(widths.len());
        for (idx, &width) in widths.iter().enumerate() {
            let is_last = idx + 1 == widths.len();
            let activation = self.activation.filter(|_| self.last_hidden_activation || !is_last);
            let is_normalised = self.batch_norm && activation.is_some() && inputs[0].rank() == 2;
            let linear = vb.pp(format!("linear_{idx}"));
            layers.push(Layer {
                linear: if is_normalised {
                    nn::Linear::without_bias(input, width, linear)?
                } else {
                    nn::Linear::new(input, width, linear)?
                },
                norm: is_normalised.then(|| BatchNorm::new(width, vb.pp(format!("batch_norm_{idx}")))).transpose()?,
                activation: activation
                    .map(|kind| Activation::new(kind, vb.pp(format!("activation_{idx}"))))
                    .transpose()?,
            });
            input = width;
        }
        Ok(Box::new(Linear { layers, softmax: self.last_hidden_softmax, keep_dim: self.keep_dim }))
    }
}

#[derive(Debug)]
struct Layer {
    linear: nn::Linear,
    norm: Option<BatchNorm>,
    activation: Option<Activation>,
}

#[derive(Debug)]
struct Linear {
    layers: Vec<Layer>,
    softmax: bool,
    keep_dim: bool,
}

impl Block for Linear {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        let mut xs: Tensor = inputs[0].zeroed()?;
        for Layer { linear, norm, activation } in &self.layers {
            xs = linear.forward(&xs)?;
            if let Some(norm) = norm {
                xs = norm.forward(&xs, None, mode)?;
            }
            if let Some(activation) = activation {
                xs = activation.forward(&xs)?;
            }
        }
        if self.softmax {
            xs = ops::softmax(&xs)?;
        }
        if !self.keep_dim {
            xs = xs.squeeze(xs.rank() - 1)?;
        }
        Ok(inputs[0].with_last(xs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Dim;
    use crate::blocks::checks::{Given, LEN, check, refused, run_with};
    use crate::blocks::parse_conf;
    use candle_core::{DType, Device};
    use kd_core::testing::{assert_all_variables_learn, random};
    use kd_core::variables::Variables;
    use serde_json::json;

    fn config(conf: serde_json::Value) -> LinearConfig {
        parse_conf(conf).unwrap()
    }

    #[test]
    fn shapes_padding_and_variables() {
        let text = [Given::text(LEN, 5, &[4, 1, 2])];
        check(&config(json!({"hidden_dim": [4, 3]})), &text);
        check(&config(json!({"hidden_dim": 3, "activation": null, "last_hidden_softmax": true})), &text);
        check(&config(json!({"hidden_dim": [4, 1], "activation": "Tanh", "keep_dim": false})), &text);
        let dims = [LEN, Dim::Fixed(3), Dim::Fixed(4)];
        check(&config(json!({"hidden_dim": 2, "activation": "Softsign"})), &[Given::matrix(&dims, &[2, 4], &[3, 1])]);
        check(&config(json!({"hidden_dim": [4, 3], "last_hidden_activation": false})), &[Given::vector(5)]);
    }

    #[test]
    fn two_layers_by_hand() {
        // x = (1, 2): W x + b = (1 - 2, 3) + (0, 1) = (-1, 4), PReLU (-0.25, 4), then 2 · (-0.25) + 4 - 1 = 2.5.
        let tensor =
            |rows: &[&[f64]]| Tensor::new(rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>(), &Device::Cpu);
        let vector = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap();
        let weights = [
            ("linear_0.weight", tensor(&[&[1., -1.], &[1., 1.]]).unwrap()),
            ("linear_0.bias", vector(&[0., 1.])),
            ("activation_0.weight", vector(&[0.25])),
            ("linear_1.weight", tensor(&[&[2., 1.]]).unwrap()),
            ("linear_1.bias", vector(&[-1.])),
        ];
        let config = config(json!({"hidden_dim": [2, 1], "batch_norm": false, "last_hidden_activation": false}));
        let y = run_with(&config, &[Value::new(tensor(&[&[1., 2.]]).unwrap())], &weights).unwrap();
        assert_eq!(y.tensor.to_vec2::<f64>().unwrap(), [[2.5]]);
    }

    #[test]
    fn vectors_are_normalised_and_texts_are_not() {
        let names = |shape: Shape| {
            let variables = Variables::new(1, DType::F64, &Device::Cpu);
            config(json!({"hidden_dim": [3, 2]})).build(&[shape], &Site::default(), variables.builder()).unwrap();
            variables.tensors().into_keys().collect::<Vec<_>>()
        };
        let of_vectors = names(Shape::vector(4));
        assert!(of_vectors.contains(&"batch_norm_1.running_var".to_string()), "{of_vectors:?}");
        assert!(!of_vectors.contains(&"linear_0.bias".to_string()), "{of_vectors:?}");
        let of_texts = names(Shape::sequence(LEN, 4));
        let expected = ["activation_0.weight", "activation_1.weight", "linear_0.bias", "linear_0.weight"];
        assert_eq!(of_texts[..4], expected);
        // In training the batch's values have mean 0 and variance 1 before the activation.
        let variables = Variables::new(1, DType::F64, &Device::Cpu);
        let config = config(json!({"hidden_dim": 3, "activation": "Softsign"}));
        let block = config.build(&[Shape::vector(4)], &Site::default(), variables.builder()).unwrap();
        let x = Value::new(random(1, (6, 4)).unwrap());
        let y = block.forward(&[x], Mode::Train { seed: 1 }).unwrap().tensor;
        // The inverse of y = x / (1 + |x|) is y / (1 - |y|).
        let normal = (&y / (1.0 - y.abs().unwrap()).unwrap()).unwrap();
        for mean in normal.mean(0).unwrap().to_vec1::<f64>().unwrap() {
            assert!(mean.abs() < 1e-12, "{mean}");
        }
        assert_all_variables_learn(&variables, &(y * random(2, (6, 3)).unwrap()).unwrap()).unwrap();
    }

    #[test]
    fn classes_of_the_target_are_a_width() {
        let site = Site { classes: Some(7), ..Site::default() };
        for hidden in [json!(-1), json!("#target#"), json!([3, -1]), json!([2, "#target#"])] {
            let config = config(json!({"hidden_dim": hidden}));
            assert_eq!(config.infer(&[Shape::vector(4)], &site), Ok(Shape::vector(7)));
            let message = refused(&config, &[Shape::vector(4)]);
            assert_eq!(message, "hidden_dim: expected a target with classes, found None");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (conf, expected) in [
            (json!({"hidden_dim": 0}), "hidden_dim: expected at least 1, -1 or \"#target#\", found 0"),
            (json!({"hidden_dim": []}), "hidden_dim: expected at least one width, found an empty list"),
            (json!({"hidden_dim": "many"}), "hidden_dim: expected at least 1, -1 or \"#target#\", found \"many\""),
            (json!({"activation": "relu"}), "activation: unknown variant `relu`"),
            (json!({"batch_norm": "no"}), "batch_norm: invalid type: string \"no\", expected a boolean"),
        ] {
            let message = parse_conf::<LinearConfig>(conf).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
        let without = |width| config(json!({"hidden_dim": width, "keep_dim": false}));
        assert!(refused(&without(2), &[Shape::sequence(LEN, 3)]).starts_with("keep_dim: expected true"));
        assert!(refused(&without(1), &[Shape::vector(3)]).starts_with("keep_dim: expected true for vectors"));
        assert!(refused(&without(2), &[Shape(vec![LEN])]).starts_with("expected a last axis of one size"));
    }
}
