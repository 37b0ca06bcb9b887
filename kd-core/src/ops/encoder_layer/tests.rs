use super::*;
use crate::testing::{assert_close, check_gradients, random};
use candle_core::{DType, Device, Var};

const TRAIN: Mode = Mode::Train { seed: 3 };

/// Hidden 6, intermediate 10, two heads; `x` and the 16 weights.
fn inputs(batch: usize, len: usize) -> Vec<Tensor> {
    let shapes: [&[usize]; 17] = [
        &[batch, len, 6],
        &[6, 6],
        &[6],
        &[6, 6],
        &[6],
        &[6, 6],
        &[6],
        &[6, 6],
        &[6],
        &[6],
        &[6],
        &[10, 6],
        &[10],
        &[6, 10],
        &[6],
        &[6],
        &[6],
    ];
    (1..).zip(shapes).map(|(seed, shape)| random(seed, shape).unwrap()).collect()
}

fn layer(inputs: &[Tensor], p: f64) -> EncoderLayer {
    let affine = |idx: usize| Affine { weight: inputs[idx].clone(), bias: inputs[idx + 1].clone() };
    EncoderLayer {
        query: affine(1),
        key: affine(3),
        value: affine(5),
        output: affine(7),
        attention_norm: affine(9),
        inner: affine(11),
        activation: Activation::Gelu,
        outer: affine(13),
        norm: affine(15),
        heads: 2,
        eps: 1e-3,
        attention_dropout: p,
        output_dropout: p,
        hidden_dropout: p,
    }
}

fn mask() -> Tensor {
    Tensor::new(&[[1u8, 1, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]], &Device::Cpu).unwrap()
}

fn run(inputs: &[Tensor], p: f64, mode: Mode) -> Result<Tensor> {
    encoder_layer(&inputs[0], &mask(), &layer(inputs, p), mode)
}

/// The output and the gradient of each input, if it has one.
fn all(inputs: &[Tensor], y: &Tensor) -> Vec<Option<Tensor>> {
    let gradients = (y * random(99, y.shape()).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
    let of_inputs = inputs.iter().map(|input| gradients.get(input).cloned());
    std::iter::once(Some(y.detach())).chain(of_inputs).collect()
}

fn assert_same(found: &[Option<Tensor>], expected: &[Option<Tensor>], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (idx, pair) in found.iter().zip(expected).enumerate() {
        match pair {
            (Some(found), Some(expected)) => {
                assert_close(found, expected, tolerance, 0.0).unwrap_or_else(|error| panic!("{idx}: {error}"));
            }
            (None, None) => {}
            _ => panic!("{idx}: found {}, expected {}", pair.0.is_some(), pair.1.is_some()),
        }
    }
}

/// The inputs as tensors of which those that `trained` names are variables.
fn variables(inputs: &[Tensor], trained: impl Fn(usize) -> bool) -> Vec<Tensor> {
    let variable = |(idx, input): (usize, &Tensor)| {
        if trained(idx) { Var::from_tensor(input).unwrap().into_inner() } else { input.clone() }
    };
    inputs.iter().enumerate().map(variable).collect()
}

#[test]
fn it_agrees_with_the_single_ops() {
    for (p, mode) in [(0.0, TRAIN), (0.3, TRAIN), (0.3, Mode::Eval)] {
        let inputs = variables(&inputs(3, 4), |_| true);
        let fused = run(&inputs, p, mode).unwrap();
        let plain = composed(&inputs[0], &mask(), &layer(&inputs, p), mode).unwrap();
        let expected = all(&inputs, &plain);
        assert!(expected.iter().all(Option::is_some));
        assert_same(&all(&inputs, &fused), &expected, 1e-12);
        // Without variables nothing is kept, and buffers are used twice.
        let detached: Vec<Tensor> = inputs.iter().map(Tensor::detach).collect();
        assert_close(&run(&detached, p, mode).unwrap(), &fused, 0.0, 0.0).unwrap();
    }
}

#[test]
fn every_activation_agrees_with_the_single_ops() {
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Tanh, Activation::Relu] {
        let inputs = variables(&inputs(3, 4), |_| true);
        let layer = EncoderLayer { activation, ..layer(&inputs, 0.3) };
        let fused = encoder_layer(&inputs[0], &mask(), &layer, TRAIN).unwrap();
        let plain = composed(&inputs[0], &mask(), &layer, TRAIN).unwrap();
        assert_same(&all(&inputs, &fused), &all(&inputs, &plain), 1e-12);
    }
}

#[test]
fn the_probabilities_belong_to_their_places() {
    let inputs = inputs(3, 4);
    for place in 0..3 {
        let mut layer = layer(&inputs, 0.0);
        match place {
            0 => layer.attention_dropout = 0.5,
            1 => layer.output_dropout = 0.5,
            _ => layer.hidden_dropout = 0.5,
        }
        let fused = encoder_layer(&inputs[0], &mask(), &layer, TRAIN).unwrap();
        assert_close(&fused, &composed(&inputs[0], &mask(), &layer, TRAIN).unwrap(), 1e-13, 0.0).unwrap();
    }
}

#[test]
fn only_what_is_trained_gets_gradients() {
    let inputs = inputs(3, 4);
    // Each input alone, and some mixtures.
    let mut cases: Vec<Vec<usize>> = (0..17).map(|idx| vec![idx]).collect();
    cases.extend([vec![0, 9], vec![2, 16], vec![13, 14], vec![1, 5, 12], (1..17).collect(), vec![]]);
    for trained in cases {
        let inputs = variables(&inputs, |idx| trained.contains(&idx));
        let fused = run(&inputs, 0.3, TRAIN).unwrap();
        assert_eq!(fused.track_op(), !trained.is_empty());
        let plain = composed(&inputs[0], &mask(), &layer(&inputs, 0.3), TRAIN).unwrap();
        let found = all(&inputs, &fused);
        assert!((0..17).all(|idx| found[idx + 1].is_some() == trained.contains(&idx)), "{trained:?}");
        assert_same(&found, &all(&inputs, &plain), 1e-12);
    }
}

#[test]
fn gradients_are_central_differences() {
    for p in [0.0, 0.3] {
        check_gradients(|inputs| run(inputs, p, TRAIN), &inputs(3, 4), 1e-6).unwrap();
    }
}

#[test]
fn strides_are_read_and_gradients_reach_what_is_behind_them() {
    let inputs = inputs(3, 4);
    let swap = |x: &Tensor| x.t().unwrap().contiguous().unwrap();
    let swapped: Vec<Tensor> = inputs.iter().map(|x| if x.rank() > 1 { swap(x) } else { x.clone() }).collect();
    let run = |swapped: &[Tensor]| {
        let inputs = swapped.iter().map(|x| if x.rank() > 1 { x.t() } else { Ok(x.clone()) });
        run(&inputs.collect::<Result<Vec<_>>>()?, 0.3, TRAIN)?.transpose(0, 1)?.exp()
    };
    check_gradients(run, &swapped, 1e-6).unwrap();
}

#[test]
fn two_layers_share_weights_and_a_second_backward_gives_the_same() {
    let inputs = variables(&inputs(3, 4), |_| true);
    let layer = layer(&inputs, 0.3);
    let (fused, plain) = [encoder_layer, composed]
        .map(|f| f(&f(&inputs[0], &mask(), &layer, TRAIN.site(1)).unwrap(), &mask(), &layer, TRAIN.site(2)).unwrap())
        .into();
    let first = all(&inputs, &fused);
    assert_same(&first, &all(&inputs, &plain), 1e-11);
    assert_same(&all(&inputs, &fused), &first, 0.0);
}

#[test]
fn padding_changes_nothing() {
    let inputs = inputs(3, 4);
    let y = run(&inputs, 0.0, Mode::Eval).unwrap();
    let nan = Tensor::full(f64::NAN, (1, 2, 6), &Device::Cpu).unwrap();
    let spoilt = inputs[0].slice_assign(&[1..2, 2..4, 0..6], &nan).unwrap();
    let z = encoder_layer(&spoilt, &mask(), &layer(&inputs, 0.0), Mode::Eval).unwrap();
    let real = |y: &Tensor| y.get(1).unwrap().narrow(0, 0, 2).unwrap();
    assert_close(&real(&z), &real(&y), 0.0, 0.0).unwrap();
}

#[test]
fn empty_batches_and_lengths() {
    for (batch, len) in [(0, 3), (2, 0)] {
        let inputs = variables(&inputs(batch, len), |_| true);
        let mask = Tensor::zeros((batch, len), DType::U8, &Device::Cpu).unwrap();
        let y = encoder_layer(&inputs[0], &mask, &layer(&inputs, 0.1), TRAIN).unwrap();
        let found = all(&inputs, &y);
        for (found, input) in found.iter().skip(1).zip(&inputs) {
            assert_close(found.as_ref().unwrap(), &input.zeros_like().unwrap(), 0.0, 0.0).unwrap();
        }
    }
}

#[test]
fn half_precision_is_composed() {
    let half: Vec<Tensor> = inputs(3, 4).iter().map(|x| x.to_dtype(DType::BF16).unwrap()).collect();
    let y = run(&half, 0.3, TRAIN).unwrap();
    assert_eq!(y.dtype(), DType::BF16);
    let expected = run(&inputs(3, 4), 0.3, TRAIN).unwrap();
    let valid = |y: &Tensor| y.get(0).unwrap();
    assert_close(&valid(&y), &valid(&expected), 0.2, 0.0).unwrap();
}

#[test]
fn errors_name_what_was_found() {
    let good = inputs(3, 4);
    let message = |change: &dyn Fn(&mut EncoderLayer)| {
        let mut layer = layer(&good, 0.1);
        change(&mut layer);
        encoder_layer(&good[0], &mask(), &layer, TRAIN).unwrap_err().to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut EncoderLayer);
    let cases: [(Change<'_>, &str); 5] = [
        (&|layer| layer.heads = 4, "hidden size 6, found 4"),
        (&|layer| layer.eps = f64::NAN, "found NaN"),
        (&|layer| layer.hidden_dropout = 1.0, "[0, 1), found 1"),
        (&|layer| layer.outer.bias = layer.inner.bias.clone(), "bias of `outer` as F64 [6], found F64 [10]"),
        (
            &|layer| layer.key.weight = layer.key.weight.to_dtype(DType::F32).unwrap(),
            "weight of `key` as F64 [6, 6], found F32 [6, 6]",
        ),
    ];
    for (change, part) in cases {
        let message = message(change);
        assert!(message.contains(part), "{message}");
    }
}
