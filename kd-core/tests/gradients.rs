//! Gradients of the operations against central differences, on contiguous and other inputs, and their bytes on one,
//! two and four threads.

mod encoder_layers;

use candle_core::{DType, Result, Tensor, Var};
use kd_core::model::Mode;
use kd_core::ops;
use kd_core::testing::{check_gradient, check_gradients, device, random};

use encoder_layers::encoder_layer_of;

const TOLERANCE: f64 = 1e-7;

fn mask(rows: &[&[u8]]) -> Tensor {
    Tensor::from_vec(rows.concat(), (rows.len(), rows[0].len()), device()).unwrap()
}

/// Checks `f` on `x`, on `x` made of a transposed tensor, and on a part of a larger one; the output is transposed
/// too, so that the gradient arrives with strides.
fn check_all_layouts(f: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor) {
    let last = x.rank() - 1;
    check_gradient(&f, x, TOLERANCE).unwrap();
    let swapped = x.transpose(0, last).unwrap().contiguous().unwrap();
    check_gradient(|x| f(&x.transpose(0, last)?), &swapped, TOLERANCE).unwrap();
    let wide = Tensor::cat(&[x, x], last).unwrap();
    let width = x.dim(last).unwrap();
    check_gradient(|x| f(&x.narrow(last, 1, width)?), &wide, TOLERANCE).unwrap();
    check_gradient(|x| f(x)?.transpose(0, 1)?.exp(), x, TOLERANCE).unwrap();
}

#[test]
fn linear() {
    let (weight, bias) = (random(2, (4, 3)).unwrap(), random(3, 4).unwrap());
    for bias in [None, Some(&bias)] {
        check_all_layouts(|x| ops::linear(x, &weight, bias), &random(1, (2, 5, 3)).unwrap());
        check_all_layouts(|x| ops::linear(x, &weight, bias), &random(1, (5, 3)).unwrap());
    }
    let inputs = [random(1, (2, 5, 3)).unwrap(), weight, bias];
    check_gradients(|x| ops::linear(&x[0], &x[1], Some(&x[2])), &inputs, TOLERANCE).unwrap();
    // A transposed weight, and one tensor as both.
    check_gradient(|x| ops::linear(x, &x.t()?.contiguous()?.t()?, None), &random(4, (3, 3)).unwrap(), TOLERANCE)
        .unwrap();
}

#[test]
fn layer_norm() {
    let inputs = [random(1, (2, 3, 6)).unwrap(), random(2, 6).unwrap(), random(3, 6).unwrap()];
    check_all_layouts(|x| ops::layer_norm(x, &inputs[1], &inputs[2], 1e-3), &inputs[0]);
    check_gradients(|x| ops::layer_norm(&x[0], &x[1], &x[2], 1e-3), &inputs, TOLERANCE).unwrap();
    check_gradient(
        |x| ops::layer_norm(&inputs[0], &x.narrow(0, 1, 6)?, &inputs[2], 1e-3),
        &random(4, 8).unwrap(),
        TOLERANCE,
    )
    .unwrap();
}

#[test]
fn softmax_and_log_softmax() {
    for shape in [vec![3, 2], vec![2, 3, 20]] {
        let x = (random(1, shape).unwrap() * 3.0).unwrap();
        check_all_layouts(ops::softmax, &x);
        check_all_layouts(ops::log_softmax, &x);
    }
}

#[test]
fn layer_norm_residual() {
    let inputs =
        [random(1, (2, 3, 6)).unwrap(), random(2, (2, 3, 6)).unwrap(), random(3, 6).unwrap(), random(4, 6).unwrap()];
    for p in [0.0, 0.4] {
        let run = |x: &Tensor, residual: &Tensor| {
            ops::layer_norm_residual(x, residual, &inputs[2], &inputs[3], 1e-3, p, Mode::Train { seed: 2 })
        };
        check_all_layouts(|x| run(x, &inputs[1]), &inputs[0]);
        check_all_layouts(|residual| run(&inputs[0], residual), &inputs[1]);
        // One tensor as both.
        check_all_layouts(|x| run(x, x), &inputs[0]);
    }
}

#[test]
fn linear_activation() {
    let (weight, bias) = (random(2, (4, 3)).unwrap(), random(3, 4).unwrap());
    for activation in [ops::Activation::Gelu, ops::Activation::Tanh, ops::Activation::Relu] {
        check_all_layouts(|x| ops::linear_activation(x, &weight, &bias, activation), &random(1, (2, 5, 3)).unwrap());
    }
}

#[test]
fn masked_softmax() {
    let mask = mask(&[&[1, 1, 1, 1], &[1, 1, 0, 0], &[0, 1, 0, 1]]);
    let x = (random(1, (3, 5, 4)).unwrap() * 3.0).unwrap();
    for p in [0.0, 0.3] {
        check_all_layouts(|x| ops::masked_softmax(x, 0.7, &mask, p, Mode::Train { seed: 8 }), &x);
    }
}

#[test]
fn gelu() {
    check_all_layouts(ops::gelu, &(random(1, (4, 9)).unwrap() * 4.0).unwrap());
}

#[test]
fn dropout() {
    check_all_layouts(|x| ops::dropout(x, 0.4, Mode::Train { seed: 3 }), &random(1, (4, 9)).unwrap());
}

#[test]
fn embedding() {
    let ids = Tensor::new(&[[2u32, 0, 2], [1, 2, 0]], device()).unwrap();
    check_all_layouts(|table| ops::embedding(table, &ids), &random(1, (4, 3)).unwrap());
    check_gradient(|table| ops::embedding(table, &ids.t()?), &random(1, (4, 3)).unwrap(), TOLERANCE).unwrap();
}

#[test]
fn distillation() {
    for (rows, classes) in [(5, 4), (3, 20)] {
        let [student, teacher] = [1, 2].map(|seed| (random(seed, (rows, classes)).unwrap() * 4.0).unwrap());
        let labels = Tensor::from_vec((0..rows as u32).collect::<Vec<_>>(), rows, device()).unwrap();
        let labels = labels.minimum(&Tensor::full(3u32, rows, device()).unwrap()).unwrap();
        for temperature in [1.0, 2.5] {
            let parts = |s: &Tensor| {
                let (hard, soft) = ops::distillation::distillation_rows(s, &teacher, &labels, temperature)?;
                Tensor::stack(&[hard, soft], 1)
            };
            check_all_layouts(parts, &student);
            let soft = |s: &Tensor| ops::distillation::kl_divergence_rows(s, &teacher, temperature)?.unsqueeze(1);
            check_all_layouts(soft, &student);
        }
        check_all_layouts(|s| ops::distillation::cross_entropy_rows(s, &labels)?.unsqueeze(1), &student);
        let strided = teacher.t().unwrap().contiguous().unwrap();
        let soft = |s: &Tensor| ops::distillation::kl_divergence_rows(s, &strided.t()?, 2.0);
        check_gradient(soft, &student, TOLERANCE).unwrap();
    }
}

#[test]
fn attention() {
    let mask = mask(&[&[1, 1, 1, 1], &[1, 1, 0, 0], &[0, 1, 0, 1]]);
    let inputs = [1, 2, 3].map(|seed| (random(seed, (3, 4, 6)).unwrap() * 2.0).unwrap());
    for (heads, p) in [(1, 0.0), (3, 0.0), (2, 0.3)] {
        let mode = Mode::Train { seed: 8 };
        let run = |q: &Tensor, k: &Tensor, v: &Tensor| ops::attention(q, k, v, heads, &mask, p, mode);
        check_gradients(|x| run(&x[0], &x[1], &x[2]), &inputs, TOLERANCE).unwrap();
        check_all_layouts(|q| run(q, &inputs[1], &inputs[2]), &inputs[0]);
        // Self-attention of one tensor three times, as a layer without projections would do.
        check_all_layouts(|x| run(x, x, x), &inputs[1]);
    }
}

const DROPOUT: [f64; 3] = [0.1, 0.2, 0.3];

/// The weights of an encoder layer in the order of its fields.
fn encoder_weights(hidden: usize, inner: usize) -> Vec<Tensor> {
    let maps = [(hidden, hidden), (hidden, hidden), (hidden, hidden), (hidden, hidden), (0, hidden), (inner, hidden)];
    let maps = maps.into_iter().chain([(hidden, inner), (0, hidden)]);
    let mut weights = Vec::new();
    for (seed, (out, width)) in (20..).step_by(2).zip(maps) {
        // A norm has vectors of the width.
        let shapes = if out == 0 { [vec![width], vec![width]] } else { [vec![out, width], vec![out]] };
        weights.extend([0, 1].map(|idx| (random(seed + idx, &shapes[idx as usize][..]).unwrap() * 0.5).unwrap()));
    }
    weights
}

#[test]
fn encoder_layer() {
    let mask = mask(&[&[1, 1, 1, 1], &[1, 1, 0, 0], &[0, 1, 0, 1]]);
    let layer = encoder_layer_of(&encoder_weights(6, 10), 2, DROPOUT);
    for mode in [Mode::Eval, Mode::Train { seed: 8 }] {
        check_all_layouts(|x| ops::encoder_layer(x, &mask, &layer, mode), &random(1, (3, 4, 6)).unwrap());
    }
}

/// All bytes that a function makes of variables: its output and the gradients.
fn bytes(f: &dyn Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> Vec<u32> {
    let variables: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let y = f(&tensors).unwrap();
    let weights = random(99, y.shape()).unwrap().to_dtype(DType::F32).unwrap();
    let gradients = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let mut bytes = Vec::new();
    for tensor in std::iter::once(&y).chain(variables.iter().map(|variable| gradients.get(variable).unwrap())) {
        bytes.extend(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits));
    }
    bytes
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    type Function = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;
    let f32s = |seed, shape: &[usize]| random(seed, shape).unwrap().to_dtype(DType::F32).unwrap();
    let mode = Mode::Train { seed: 5 };
    let mask = {
        let values: Vec<u8> = (0..7 * 45).map(|idx| u8::from(idx % 45 < 45 - 6 * (idx / 45))).collect();
        Tensor::from_vec(values, (7, 45), device()).unwrap()
    };
    let ids = Tensor::from_vec((0..900u32).map(|i| i * i % 997).collect(), 900, device()).unwrap();
    let labels = (Tensor::arange(0u32, 3000, device()).unwrap().to_dtype(DType::F64).unwrap() / 91.0).unwrap();
    let (labels, teacher) = (labels.to_dtype(DType::U32).unwrap(), f32s(2, &[3000, 33]));
    let cases: Vec<(&str, Vec<Tensor>, Function)> = vec![
        (
            "linear",
            vec![f32s(1, &[7, 45, 130]), f32s(2, &[300, 130]), f32s(3, &[300])],
            Box::new(|x| ops::linear(&x[0], &x[1], Some(&x[2]))),
        ),
        (
            "layer_norm",
            vec![f32s(1, &[700, 130]), f32s(2, &[130]), f32s(3, &[130])],
            Box::new(|x| ops::layer_norm(&x[0], &x[1], &x[2], 1e-5)),
        ),
        (
            "layer_norm_residual",
            vec![f32s(1, &[700, 130]), f32s(4, &[700, 130]), f32s(2, &[130]), f32s(3, &[130])],
            Box::new(move |x| ops::layer_norm_residual(&x[0], &x[1], &x[2], &x[3], 1e-5, 0.1, mode)),
        ),
        (
            "linear_activation",
            vec![f32s(1, &[7, 45, 130]), f32s(2, &[300, 130]), f32s(3, &[300])],
            Box::new(|x| ops::linear_activation(&x[0], &x[1], &x[2], ops::Activation::Gelu)),
        ),
        (
            "linear_activation, approximate gelu",
            vec![f32s(1, &[7, 45, 130]), f32s(2, &[300, 130]), f32s(3, &[300])],
            Box::new(|x| ops::linear_activation(&x[0], &x[1], &x[2], ops::Activation::GeluTanh)),
        ),
        (
            "masked_softmax",
            vec![f32s(1, &[7, 300, 45])],
            Box::new({
                let mask = mask.clone();
                move |x| ops::masked_softmax(&x[0], 0.3, &mask, 0.1, mode)
            }),
        ),
        (
            "encoder_layer",
            std::iter::once(f32s(1, &[7, 45, 96]))
                .chain(encoder_weights(96, 200).iter().map(|x| x.to_dtype(DType::F32).unwrap()))
                .collect(),
            Box::new({
                let mask = mask.clone();
                move |x| ops::encoder_layer(&x[0], &mask, &encoder_layer_of(&x[1..], 4, DROPOUT), mode)
            }),
        ),
        ("softmax", vec![f32s(1, &[3000, 33])], Box::new(|x| ops::softmax(&x[0]))),
        ("log_softmax", vec![f32s(1, &[3000, 33])], Box::new(|x| ops::log_softmax(&x[0]))),
        ("gelu", vec![f32s(1, &[301, 333])], Box::new(|x| ops::gelu(&x[0]))),
        ("dropout", vec![f32s(1, &[301, 333])], Box::new(move |x| ops::dropout(&x[0], 0.1, mode))),
        ("embedding", vec![f32s(1, &[1000, 65])], Box::new(move |x| ops::embedding(&x[0], &ids))),
        (
            "distillation",
            vec![f32s(1, &[3000, 33])],
            Box::new(move |x| {
                let (hard, soft) = ops::distillation::distillation_rows(&x[0], &teacher, &labels, 2.0)?;
                hard + soft
            }),
        ),
        (
            "attention",
            [1, 2, 3].map(|seed| f32s(seed, &[7, 45, 96])).to_vec(),
            Box::new(move |x| ops::attention(&x[0], &x[1], &x[2], 4, &mask, 0.1, mode)),
        ),
    ];
    let pools = [1, 2, 4].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    for (name, inputs, f) in &cases {
        let [one, two, four] = pools.each_ref().map(|pool| pool.install(|| bytes(f, inputs)));
        assert!(one == two && one == four, "{name}");
        assert!(one.iter().any(|&bits| bits != 0), "{name}");
    }
}
