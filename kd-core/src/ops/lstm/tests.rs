use candle_core::{DType, Device, Tensor, Var};

use super::{LstmWeights, bidirectional, composed};
use crate::testing::{assert_close, random};

/// Output, then the gradients of `xs` and all weights.
fn run(xs: &Tensor, tensors: &[Tensor], f: impl Fn(&Tensor, [&LstmWeights; 2]) -> Tensor) -> Vec<Tensor> {
    let xs = Var::from_tensor(xs).unwrap();
    let vars: Vec<_> = tensors.iter().map(|tensor| Var::from_tensor(tensor).unwrap()).collect();
    let weights = |first: usize| {
        let [weight_ih, weight_hh, bias_ih, bias_hh] = [0, 1, 2, 3].map(|idx| vars[first + idx].as_tensor().clone());
        LstmWeights { weight_ih, weight_hh, bias_ih, bias_hh }
    };
    let out = f(&xs, [&weights(0), &weights(4)]);
    let gradients = (&out * random(99, out.shape()).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients = [&xs].into_iter().chain(&vars).map(|variable| gradients.get(variable).unwrap().clone());
    [out.clone()].into_iter().chain(gradients).collect()
}

#[test]
fn the_composed_layer_agrees_with_the_fused_one() {
    let (batch, len, input, hidden) = (4, 5, 3, 2);
    let lengths = [3, 5, 0, 1];
    let xs = random(1, (batch, len, input)).unwrap();
    let shapes: [&[usize]; 4] = [&[4 * hidden, input], &[4 * hidden, hidden], &[4 * hidden], &[4 * hidden]];
    let tensors: Vec<_> = (0..8).map(|idx| random(idx as u64 + 2, shapes[idx % 4]).unwrap()).collect();
    let fused = run(&xs, &tensors, |xs, [a, b]| bidirectional(xs, &lengths, a, b).unwrap());
    let composed = run(&xs, &tensors, |xs, weights| composed::bidirectional(xs, &lengths, weights).unwrap());
    for (fused, composed) in fused.iter().zip(&composed) {
        assert_close(composed, fused, 1e-13, 1e-13).unwrap();
    }
}

#[test]
fn the_composed_layer_reads_no_padding() {
    let mut values = vec![f64::NAN; 2 * 3];
    values[0] = 0.5;
    values[3] = -0.5;
    values[4] = 0.25;
    let xs = Tensor::from_vec(values, (2, 3, 1), &Device::Cpu).unwrap();
    let shapes: [&[usize]; 4] = [&[4, 1], &[4, 1], &[4], &[4]];
    let tensors = (0..8).map(|idx| random(idx as u64, shapes[idx % 4]).unwrap());
    let tensors: Vec<_> = tensors.collect();
    for value in run(&xs, &tensors, |xs, weights| composed::bidirectional(xs, &[1, 2], weights).unwrap()) {
        assert!(value.flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().all(|x| x.is_finite()));
    }
}

#[test]
fn other_dtypes_take_the_composed_way() {
    let half = |seed, shape: &[usize]| random(seed, shape).unwrap().to_dtype(DType::BF16).unwrap();
    let weights = |seed| LstmWeights {
        weight_ih: half(seed, &[8, 3]),
        weight_hh: half(seed + 1, &[8, 2]),
        bias_ih: half(seed + 2, &[8]),
        bias_hh: half(seed + 3, &[8]),
    };
    let single = |weights: &LstmWeights| LstmWeights {
        weight_ih: weights.weight_ih.to_dtype(DType::F32).unwrap(),
        weight_hh: weights.weight_hh.to_dtype(DType::F32).unwrap(),
        bias_ih: weights.bias_ih.to_dtype(DType::F32).unwrap(),
        bias_hh: weights.bias_hh.to_dtype(DType::F32).unwrap(),
    };
    let (xs, a, b) = (half(1, &[2, 4, 3]), weights(2), weights(6));
    let found = bidirectional(&xs, &[4, 2], &a, &b).unwrap();
    assert_eq!(found.dtype(), DType::BF16);
    let expected = bidirectional(&xs.to_dtype(DType::F32).unwrap(), &[4, 2], &single(&a), &single(&b)).unwrap();
    assert_close(&found, &expected, 0.03, 0.0).unwrap(); // bf16 has 8 bits
}
