use super::*;
use crate::ops;
use crate::testing::{assert_close, random};
use candle_core::{Device, Var};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];
const ACTIVATIONS: [Activation; 5] =
    [Activation::Identity, Activation::Relu, Activation::Tanh, Activation::Gelu, Activation::GeluTanh];

fn f32s(seed: u64, shape: impl Into<candle_core::Shape>) -> Tensor {
    random(seed, shape).unwrap().to_dtype(DType::F32).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// What the module's table says an output may be off by, in the order of the outputs.
fn bounds(precision: Precision, x: &Tensor, weight: &Tensor) -> Vec<f64> {
    let (out, width) = weight.dims2().unwrap();
    let (x, weight) = (values(x), values(weight));
    let mut bounds = Vec::new();
    for x in x.chunks(width) {
        let step = (x.iter().fold(0f32, |a, &b| a.max(b)) - x.iter().fold(0f32, |a, &b| a.min(b))) / 255.0;
        for w in weight.chunks(width) {
            let scale = w.iter().fold(0f32, |a, b| a.max(b.abs())) / 127.0;
            let sum = |f: &dyn Fn(f64, f64) -> f64| {
                x.iter().zip(w).map(|(&x, &w)| f(f64::from(x).abs(), f64::from(w).abs())).sum::<f64>()
            };
            let (step, scale, products) = (f64::from(step), f64::from(scale), sum(&|x, w| x * w));
            let rounding = 1e-6 * (products + 1.0); // of f32, in both of what is compared
            bounds.push(
                rounding
                    + match precision {
                        Precision::F32 => 0.0,
                        Precision::Bf16 => products / 128.0,
                        Precision::Int8 => {
                            step * sum(&|_, w| w) + scale / 2.0 * sum(&|x, _| x) + width as f64 * step * scale / 2.0
                        }
                    },
            );
        }
    }
    assert_eq!(bounds.len() * width, x.len() * out);
    bounds
}

#[test]
fn outputs_agree_with_f32_within_the_stated_bounds() {
    for (rows, width, out) in [(1, 3, 2), (13, 64, 33), (40, 228, 400), (7, 768, 96)] {
        let (x, weight, bias) = (f32s(1, (rows, width)), f32s(2, (out, width)), f32s(3, out));
        for precision in PRECISIONS {
            let bounds = bounds(precision, &x, &weight);
            let layer = PackedLinear::new(&weight, Some(&bias), precision).unwrap();
            let exact = ops::linear(&x, &weight, Some(&bias)).unwrap();
            for activation in ACTIVATIONS {
                let found = values(&layer.clone().with_activation(activation).forward(&x).unwrap());
                let expected = values(&activate(&exact, activation));
                for (idx, (found, (expected, bound))) in found.iter().zip(expected.iter().zip(&bounds)).enumerate() {
                    // No activation is steeper than 1.13, the GELU's largest slope.
                    let error = f64::from((found - expected).abs());
                    assert!(error <= 1.13 * bound, "{layer:?}, {activation:?}, {idx}: {found} {expected} {bound}");
                }
            }
        }
    }
}

fn activate(y: &Tensor, activation: Activation) -> Tensor {
    match activation {
        Activation::Identity => y.clone(),
        Activation::Relu => y.relu().unwrap(),
        Activation::Tanh => y.tanh().unwrap(),
        Activation::Gelu => ops::gelu(y).unwrap(),
        Activation::GeluTanh => y.gelu().unwrap(),
    }
}

#[test]
fn errors_are_as_small_as_expected() {
    // Relative to the size of the output, over a layer of BERT: what RESULTS would call the precision's error.
    let (x, weight) = (f32s(1, (64, 768)), f32s(2, (256, 768)));
    let exact = values(&ops::linear(&x, &weight, None).unwrap());
    let size = exact.iter().map(|y| f64::from(y * y)).sum::<f64>().sqrt();
    for (precision, largest) in PRECISIONS.into_iter().zip([1e-6, 4e-3, 1.2e-2]) {
        let found = values(&PackedLinear::new(&weight, None, precision).unwrap().forward(&x).unwrap());
        let error = found.iter().zip(&exact).map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>().sqrt() / size;
        assert!(error < largest, "{precision:?}: {error}");
    }
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let pools = [1, 2, 4].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    for (rows, width, out) in [(1, 1000, 5000), (3, 700, 3000), (128, 300, 300), (500, 129, 65)] {
        let (x, weight) = (f32s(1, (rows, width)), f32s(2, (out, width)));
        for precision in PRECISIONS {
            let layer = PackedLinear::new(&weight, None, precision).unwrap().with_activation(Activation::Gelu);
            let [one, two, four] = pools.each_ref().map(|pool| pool.install(|| values(&layer.forward(&x).unwrap())));
            assert!(one == two && one == four, "{layer:?} on {rows} rows");
        }
    }
}

#[test]
fn a_row_does_not_depend_on_those_beside_it() {
    let (x, weight) = (f32s(1, (40, 100)), f32s(2, (200, 100)));
    for precision in [Precision::Bf16, Precision::Int8] {
        let layer = PackedLinear::new(&weight, None, precision).unwrap();
        let all = layer.forward(&x).unwrap();
        for rows in [1, 2, 3, 5, 13] {
            let part = layer.forward(&x.narrow(0, 7, rows).unwrap()).unwrap();
            assert_eq!(values(&part), values(&all.narrow(0, 7, rows).unwrap()), "{precision:?}, {rows} rows");
        }
    }
}

#[test]
fn shapes_strides_and_empty_inputs() {
    let weight = f32s(2, (5, 3));
    for precision in PRECISIONS {
        let layer =
            PackedLinear::new(&weight.t().unwrap().contiguous().unwrap().t().unwrap(), None, precision).unwrap();
        let x = f32s(1, (2, 4, 3));
        let y = layer.forward(&x).unwrap();
        assert_eq!(y.dims(), [2, 4, 5]);
        let swapped = layer.forward(&x.transpose(0, 1).unwrap()).unwrap();
        assert_eq!(values(&swapped), values(&y.transpose(0, 1).unwrap()));
        let one = layer.forward(&x.get(0).unwrap().get(1).unwrap()).unwrap();
        assert_eq!((one.dims(), values(&one)), (&[5][..], values(&y.get(0).unwrap().get(1).unwrap())));
        assert_eq!(layer.forward(&x.narrow(1, 0, 0).unwrap()).unwrap().dims(), [2, 0, 5]);
        let mut out = vec![f32::NAN; 8 * 5];
        layer.product(&mut out, &values(&x), 8);
        assert_eq!(out, values(&y));

        let none = PackedLinear::new(&weight.narrow(0, 0, 0).unwrap(), None, precision).unwrap();
        assert_eq!(none.forward(&x).unwrap().dims(), [2, 4, 0]);
        let bias = f32s(3, 5);
        let constant = PackedLinear::new(&weight.narrow(1, 0, 0).unwrap(), Some(&bias), precision).unwrap();
        let y = constant.forward(&x.narrow(2, 0, 0).unwrap()).unwrap();
        assert_eq!(values(&y), values(&bias).repeat(8));
    }
}

#[test]
fn several_layers_give_what_each_gives_alone() {
    let x = f32s(1, (6, 20));
    for precision in PRECISIONS {
        let [a, b] =
            [(2, 7), (3, 40)].map(|(seed, out)| PackedLinear::new(&f32s(seed, (out, 20)), None, precision).unwrap());
        let [ya, yb] = forward_all([&a, &b], &x).unwrap();
        assert_eq!(values(&ya), values(&a.forward(&x).unwrap()));
        assert_eq!(values(&yb), values(&b.forward(&x).unwrap()));
    }
}

#[test]
fn the_composition_agrees_where_the_input_is_exact() {
    // 0, 1 and multiples of 1/255: what both bf16 and int8 leave as it is, or almost.
    let (weight, bias) = (f32s(2, (9, 4)), f32s(3, 9));
    let x = Tensor::new(&[[0f32, 1., 0., 1.], [1., 0., 0., 0.]], &Device::Cpu).unwrap();
    for (precision, activation) in PRECISIONS.into_iter().zip(ACTIVATIONS) {
        let layer = PackedLinear::new(&weight, Some(&bias), precision).unwrap().with_activation(activation);
        let composed = layer.clone().composed(&weight, Some(&bias)).unwrap();
        assert_close(&composed.forward(&x).unwrap(), &layer.forward(&x).unwrap(), 1e-6, 1e-6).unwrap();
    }
}

#[test]
fn bytes_are_taken_as_they_are() {
    let weight = f32s(2, (6, 10));
    let (multiples, scales) = quantize_rows(&values(&weight), 10);
    let bias = f32s(3, 6);
    let given = PackedLinear::from_quantized(&multiples, &scales, Some(&values(&bias))).unwrap();
    let rounded = PackedLinear::new(&weight, Some(&bias), Precision::Int8).unwrap();
    let x = f32s(1, (5, 10));
    assert_eq!(values(&given.forward(&x).unwrap()), values(&rounded.forward(&x).unwrap()));
    assert!(PackedLinear::from_quantized(&multiples[1..], &scales, None).is_err());
    assert!(PackedLinear::from_quantized(&[-128], &[1.0], None).is_err());
    assert!(PackedLinear::from_quantized(&[1], &[f32::NAN], None).is_err());
    assert!(PackedLinear::from_quantized(&[1], &[1.0], Some(&[])).is_err());
    let bytes = |precision| PackedLinear::new(&f32s(2, (32, 1024)), None, precision).unwrap().bytes();
    assert_eq!(PRECISIONS.map(bytes), [32 * 4100, 32 * 2052, 32 * (1024 + 12)]); // a bias, a scale, a sum per output
}

#[test]
fn errors_say_what_was_expected() {
    let weight = f32s(2, (4, 5));
    let layer = PackedLinear::new(&weight, None, Precision::Int8).unwrap();
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let found = message(layer.forward(&f32s(1, (2, 3))));
    assert!(found.contains("(.., 5)") && found.contains("[2, 3]"), "{found}");
    assert!(message(layer.forward(&random(1, (2, 5)).unwrap())).contains("F64"));
    let tracked = Var::from_tensor(&f32s(1, (2, 5))).unwrap();
    assert!(message(layer.forward(tracked.as_tensor())).contains("no backward"));
    assert!(layer.forward(&tracked.as_detached_tensor()).is_ok());
    let other = PackedLinear::new(&weight, None, Precision::Bf16).unwrap();
    assert!(forward_all([&layer, &other], &f32s(1, (2, 5))).unwrap_err().to_string().contains("one precision"));
    let refused = |weight: &Tensor, bias: Option<&Tensor>| {
        PackedLinear::new(weight, bias, Precision::Int8).unwrap_err().to_string()
    };
    assert!(refused(&weight, Some(&f32s(3, 5))).contains("[4]"));
    assert!(refused(&random(1, (2, 2)).unwrap(), None).contains("F64"));
    assert!(refused(&Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap(), None).contains("NaN"));
    assert!(refused(&Tensor::zeros((1, 66_312), DType::F32, &Device::Cpu).unwrap(), None).contains("66311"));
}
