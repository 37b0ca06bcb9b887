//! What every block is tested for: its shape, that padding does not leak, and that its variables learn.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::testing::{assert_all_variables_learn, assert_close, device, random};
use kd_core::variables::Variables;

use super::{Block, BlockConfig, Dim, Length, Shape, Site, Value};

/// The length of a text, and that of another.
pub(crate) const LEN: Dim = Dim::Varies(Length::of_branch(0));
pub(crate) const LEN2: Dim = Dim::Varies(Length::of_branch(1));

/// An input: its shape, and the number of tokens of each example on axis 1 and on axis 2 where those have padding.
pub(crate) struct Given {
    pub(crate) shape: Shape,
    pub(crate) first: Option<Vec<usize>>,
    pub(crate) second: Option<Vec<usize>>,
}

impl Given {
    /// `(batch, width)`.
    pub(crate) fn vector(width: usize) -> Self {
        Self { shape: Shape::vector(width), first: None, second: None }
    }

    /// `(batch, len, width)` with so many tokens.
    pub(crate) fn text(len: Dim, width: usize, tokens: &[usize]) -> Self {
        Self { shape: Shape::sequence(len, width), first: Some(tokens.to_vec()), second: None }
    }

    /// `(batch, len, len2, ..)` with so many tokens of each text.
    pub(crate) fn matrix(dims: &[Dim], first: &[usize], second: &[usize]) -> Self {
        Self { shape: Shape(dims.to_vec()), first: Some(first.to_vec()), second: Some(second.to_vec()) }
    }

    fn tokens(&self, axis: usize) -> Option<&Vec<usize>> {
        match axis {
            1 => self.first.as_ref(),
            2 => self.second.as_ref(),
            _ => None,
        }
    }

    /// Sizes without the batch axis, of a batch whose longest example has `longest` tokens on an axis.
    fn sizes(&self, longest: impl Fn(&[usize]) -> usize) -> Vec<usize> {
        let size = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(size) => *size,
            Dim::Varies(_) => longest(self.tokens(axis + 1).expect("an axis that varies has tokens")),
        };
        self.shape.0.iter().enumerate().map(size).collect()
    }

    /// A batch of all examples, its values on padding made of `garbage`.
    fn batch(&self, seed: u64, examples: usize, garbage: u64) -> Value {
        let sizes = self.sizes(|tokens| *tokens.iter().max().unwrap());
        let mut shape = vec![examples];
        shape.extend(&sizes);
        let values = random(seed, shape.clone()).unwrap();
        let mut value = Value::new(values.clone());
        for axis in [1, 2] {
            let Some(tokens) = self.tokens(axis) else { continue };
            let len = sizes[axis - 1];
            let mask: Vec<u8> = tokens.iter().flat_map(|&n| (0..len).map(move |at| u8::from(at < n))).collect();
            let mask = Tensor::from_vec(mask, (examples, len), values.device()).unwrap();
            *if axis == 1 { &mut value.mask } else { &mut value.second_mask } = Some(mask);
        }
        // Tokens keep their values, padding gets others.
        let noise = (random(garbage, shape).unwrap() * 9.0).unwrap();
        let ones = value.with(values.ones_like().unwrap()).zeroed().unwrap();
        value.tensor = ((values * &ones).unwrap() + (noise * ones.affine(-1.0, 1.0).unwrap()).unwrap()).unwrap();
        value
    }

    /// A batch with two more positions of padding, made of `garbage`, on each axis that varies.
    fn longer(&self, batch: &Value, garbage: u64) -> Value {
        let mut value = batch.clone();
        for axis in [1, 2] {
            let (Some(_), Some(Dim::Varies(_))) = (self.tokens(axis), self.shape.0.get(axis - 1)) else { continue };
            let mut dims = value.tensor.dims().to_vec();
            dims[axis] = 2;
            let more = random(garbage, dims).unwrap();
            value.tensor = Tensor::cat(&[&value.tensor, &more], axis).unwrap();
            let mask = if axis == 1 { &mut value.mask } else { &mut value.second_mask };
            *mask = mask.as_ref().map(|mask| mask.pad_with_zeros(1, 0, 2).unwrap());
        }
        value
    }

    /// Example `idx` of a batch, without padding where the axis may vary.
    fn alone(&self, batch: &Value, idx: usize) -> Value {
        let cut = |tensor: &Tensor, axes: &[usize]| {
            let mut tensor = tensor.narrow(0, idx, 1).unwrap();
            for (at, &axis) in axes.iter().enumerate() {
                if let (Some(tokens), Dim::Varies(_)) = (self.tokens(axis), self.shape.0[axis - 1]) {
                    tensor = tensor.narrow(at + 1, 0, tokens[idx]).unwrap();
                }
            }
            tensor.contiguous().unwrap()
        };
        let axes: Vec<usize> = (1..self.shape.rank()).collect();
        Value {
            mask: batch.mask.as_ref().map(|mask| cut(mask, &[1])),
            second_mask: batch.second_mask.as_ref().map(|mask| cut(mask, &[2])),
            ..Value::new(cut(&batch.tensor, &axes))
        }
    }
}

/// A block with variables in f64 drawn from a seed.
pub(crate) fn built(config: &dyn BlockConfig, shapes: &[Shape], site: &Site) -> (Box<dyn Block>, Variables) {
    let variables = Variables::new(5, DType::F64, device());
    let block = config.build(shapes, site, variables.builder()).unwrap();
    (block, variables)
}

/// Runs `config` on inputs without padding.
pub(crate) fn run(config: &dyn BlockConfig, inputs: &[Tensor]) -> Result<Tensor> {
    let values: Vec<Value> = inputs.iter().cloned().map(Value::new).collect();
    run_values(config, &values, &Site::default()).map(|value| value.tensor)
}

/// Runs `config` on values of fixed sizes.
pub(crate) fn run_values(config: &dyn BlockConfig, values: &[Value], site: &Site) -> Result<Value> {
    let shapes: Vec<Shape> = values.iter().map(|value| fixed(value.tensor.dims())).collect();
    config.infer(&shapes, site).map_err(candle_core::Error::msg)?;
    built(config, &shapes, site).0.forward(values, Mode::Eval)
}

/// Runs `config` with variables of these values.
pub(crate) fn run_with(config: &dyn BlockConfig, inputs: &[Value], weights: &[(&str, Tensor)]) -> Result<Value> {
    let shapes: Vec<Shape> = inputs.iter().map(|value| fixed(value.tensor.dims())).collect();
    config.infer(&shapes, &Site::default()).map_err(candle_core::Error::msg)?;
    let weights = weights.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
    let vb = VarBuilder::from_tensors(weights, DType::F64, device());
    config.build(&shapes, &Site::default(), vb).unwrap().forward(inputs, Mode::Eval)
}

fn fixed(dims: &[usize]) -> Shape {
    Shape(dims[1..].iter().map(|&size| Dim::Fixed(size)).collect())
}

/// Checks `config` on these inputs: the shape of the output is the inferred one; an example alone, and with other values on
/// its padding or more of it, in training too, gives what it gives in the batch; every variable learns.
pub(crate) fn check(config: &dyn BlockConfig, given: &[Given]) {
    let site = Site::default();
    let shapes: Vec<Shape> = given.iter().map(|given| given.shape.clone()).collect();
    assert!(config.arity().contains(&shapes.len()), "{config:?} takes {:?} inputs", config.arity());
    let inferred = config.infer(&shapes, &site).unwrap();
    let (block, variables) = built(config, &shapes, &site);
    let examples = given.iter().find_map(|given| given.first.as_ref()).map_or(3, Vec::len);
    let batch = |garbage: u64| -> Vec<Value> {
        given.iter().zip(1u64..).map(|(given, seed)| given.batch(seed, examples, garbage + seed)).collect()
    };
    let inputs = batch(100);
    let output = block.forward(&inputs, Mode::Eval).unwrap();
    fits(&output, &inferred, examples);
    let expected = output.zeroed().unwrap();
    let other = block.forward(&batch(200), Mode::Eval).unwrap().zeroed().unwrap();
    assert_close(&other, &expected, 1e-12, 1e-12).unwrap_or_else(|error| panic!("{config:?}, padding: {error}"));
    // In training a normalisation sees the batch. Each time is that of a new block, for what it observes is kept.
    let trained = |inputs: &[Value], seed: u64| {
        let output = built(config, &shapes, &site).0.forward(inputs, Mode::Train { seed });
        output.and_then(|output| output.zeroed()).unwrap()
    };
    let of_batch = trained(&inputs, 3);
    assert_close(&trained(&batch(200), 3), &of_batch, 1e-12, 1e-12)
        .unwrap_or_else(|error| panic!("{config:?}, padding in training: {error}"));
    // What is dropped depends on the shape; without dropout a batch may be longer.
    if assert_close(&trained(&inputs, 4), &of_batch, 0.0, 0.0).is_ok() {
        let longer: Vec<Value> = given.iter().zip(&inputs).map(|(given, input)| given.longer(input, 300)).collect();
        let longer = cut_to(&trained(&longer, 3), of_batch.dims());
        assert_close(&longer, &of_batch, 1e-12, 1e-12)
            .unwrap_or_else(|error| panic!("{config:?}, more padding in training: {error}"));
    }
    for idx in 0..examples {
        let alone: Vec<Value> = given.iter().zip(&inputs).map(|(given, input)| given.alone(input, idx)).collect();
        let alone = block.forward(&alone, Mode::Eval).unwrap();
        fits(&alone, &inferred, 1);
        let of_batch = cut_to(&expected.narrow(0, idx, 1).unwrap(), alone.tensor.dims());
        assert_close(&alone.zeroed().unwrap(), &of_batch, 1e-12, 1e-12)
            .unwrap_or_else(|error| panic!("{config:?}, example {idx} alone: {error}"));
    }
    let weights = random(77, expected.shape()).unwrap();
    // Twice: once alone and once through a curve, so that a sum that is constant (of probabilities) has a slope too.
    let loss = ((&expected * &weights).unwrap() + expected.sqr().unwrap()).unwrap();
    assert_all_variables_learn(&variables, &loss).unwrap_or_else(|error| panic!("{config:?}: {error}"));
}

/// The first positions of `tensor` on every axis.
fn cut_to(tensor: &Tensor, dims: &[usize]) -> Tensor {
    dims.iter().enumerate().fold(tensor.clone(), |tensor, (axis, &size)| tensor.narrow(axis, 0, size).unwrap())
}

/// Checks that `value` has the inferred shape, and masks that fit it.
fn fits(value: &Value, inferred: &Shape, examples: usize) {
    let dims = value.tensor.dims();
    assert_eq!(dims.len(), inferred.rank(), "inferred {inferred}, found {dims:?}");
    assert_eq!(dims[0], examples, "inferred {inferred}, found {dims:?}");
    for (dim, &size) in inferred.0.iter().zip(&dims[1..]) {
        if let Dim::Fixed(expected) = dim {
            assert_eq!(*expected, size, "inferred {inferred}, found {dims:?}");
        }
    }
    for (mask, axis) in [(&value.mask, 1), (&value.second_mask, 2)] {
        if let Some(mask) = mask {
            assert_eq!(mask.dims(), [examples, dims[axis]], "the mask of axis {axis} of {dims:?}");
        }
    }
}

/// What `infer` says of shapes that do not fit.
pub(crate) fn refused(config: &dyn BlockConfig, shapes: &[Shape]) -> String {
    config.infer(shapes, &Site::default()).unwrap_err()
}
