//! The kernels against the same of Candle's operations, finite differences, padding that is no number, and 1, 2 and 4 threads.

use candle_core::Device::Cpu;
use candle_core::{DType, Tensor, Var};
use kd_core::ops;
use kd_core::testing::{self, assert_close, check_gradients, device};

use super::super::pool::PoolType;
use super::super::value::replace_padding;
use super::super::windows::{PaddingType, Windows};
use super::*;

const TOKENS: [[usize; 2]; 4] = [[7, 6], [1, 5], [0, 3], [4, 1]];

fn random(seed: u64, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    testing::random(seed, shape)?.to_device(&Cpu)
}

fn tokens() -> Tokens {
    Tokens(TOKENS.to_vec())
}

fn windows() -> [[Windows; 2]; 3] {
    let of = |size, stride, padding, padding_type| Windows { size, stride, padding, padding_type };
    let (valid, same) = (PaddingType::Valid, PaddingType::Same);
    [
        [of(3, 1, 0, same), of(2, 1, 0, same)],
        [of(3, 2, 1, valid), of(2, 1, 0, valid)],
        [of(2, 2, 0, same), of(4, 3, 2, valid)],
    ]
}

/// `x` with `value` where there are no tokens, by Candle's operations.
fn replaced(x: &Tensor, tokens: &Tokens, value: f64) -> Tensor {
    let mask = |axis: usize| {
        let len = x.dim(axis).unwrap();
        let rows = tokens.0.iter().flat_map(|tokens| (0..len).map(|at| u8::from(at < tokens[axis - 1])));
        Tensor::from_vec(rows.collect::<Vec<_>>(), (tokens.0.len(), len), &Cpu).unwrap()
    };
    let x = replace_padding(x, &mask(1), 1, value).unwrap();
    replace_padding(&x, &mask(2), 2, value).unwrap()
}

/// The tokens of what windows give.
fn outputs(windows: [Windows; 2], tokens: &Tokens) -> Tokens {
    let of = |&[rows, columns]: &[usize; 2]| {
        let valid = [windows[0].valid(rows), windows[1].valid(columns)];
        if valid.contains(&0) { [0, 0] } else { valid }
    };
    Tokens(tokens.0.iter().map(of).collect())
}

/// `(7, 6)` places of 3 channels, four examples.
fn map(seed: u64) -> Tensor {
    random(seed, (4, 7, 6, 3)).unwrap()
}

fn weights(windows: [Windows; 2]) -> [Tensor; 2] {
    [random(2, (5, windows[0].size * windows[1].size * 3)).unwrap(), random(3, 5).unwrap()]
}

/// Values and gradients of both, with another weight on each value.
fn same(found: impl Fn(&[Var]) -> Tensor, expected: impl Fn(&[Var]) -> Tensor, inputs: &[Tensor], case: &str) {
    let variables: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let [found, expected] = [found(&variables), expected(&variables)];
    assert_close(&found, &expected, 1e-13, 1e-13).unwrap_or_else(|error| panic!("{case}: {error}"));
    let scale = random(9, found.shape()).unwrap();
    let gradients = |y: &Tensor| (y * &scale).unwrap().sum_all().unwrap().backward().unwrap();
    let (found, expected) = (gradients(&found), gradients(&expected));
    for (idx, variable) in variables.iter().enumerate() {
        assert_close(found.get(variable).unwrap(), expected.get(variable).unwrap(), 1e-13, 1e-13)
            .unwrap_or_else(|error| panic!("{case}, gradient {idx}: {error}"));
    }
}

#[test]
fn a_convolution_is_that_of_composed_operations() {
    for windows in windows() {
        for relu in [false, true] {
            let composed = |inputs: &[Var]| {
                let x = replaced(&inputs[0], &tokens(), 0.0);
                let columns = Tensor::cat(&windows[1].places(&x, 2, 0.0).unwrap(), 3).unwrap();
                let all = Tensor::cat(&windows[0].places(&columns, 1, 0.0).unwrap(), 3).unwrap();
                let y = ops::linear(&all, &inputs[1], Some(inputs[2].as_tensor())).unwrap();
                replaced(&if relu { y.relu().unwrap() } else { y }, &outputs(windows, &tokens()), 0.0)
            };
            let op = |inputs: &[Var]| convolution(&inputs[0], &inputs[1], &inputs[2], windows, relu, tokens()).unwrap();
            let [weight, bias] = weights(windows);
            same(op, composed, &[map(1), weight, bias], &format!("{windows:?}, relu {relu}"));
        }
    }
}

#[test]
fn pooling_is_that_of_composed_operations() {
    for windows in windows() {
        for pool_type in [PoolType::Max, PoolType::Mean] {
            let composed = |inputs: &[Var]| {
                let outside = if pool_type == PoolType::Max { -1e9 } else { 0.0 };
                let x = replaced(&inputs[0], &tokens(), outside);
                let pooled = [1, 2].into_iter().zip(&windows).fold(x, |x, (axis, windows)| {
                    let places = Tensor::stack(&windows.places(&x, axis, outside).unwrap(), 0).unwrap();
                    match pool_type {
                        PoolType::Max => places.max(0).unwrap(),
                        PoolType::Mean => places.mean(0).unwrap(),
                    }
                });
                replaced(&pooled, &outputs(windows, &tokens()), 0.0)
            };
            let op = |inputs: &[Var]| pooling(&inputs[0], windows, pool_type, tokens()).unwrap();
            same(op, composed, &[map(4)], &format!("{windows:?}, {pool_type:?}"));
        }
    }
    let op = |inputs: &[Var]| kept(&inputs[0], tokens()).unwrap();
    same(op, |inputs| replaced(&inputs[0], &tokens(), 0.0), &[map(5)], "kept");
}

#[test]
fn of_equal_values_the_first_gets_the_gradient() {
    let windows = [Windows { size: 2, stride: 2, padding: 0, padding_type: PaddingType::Valid }; 2];
    let x = Var::new(&[[[[1f64], [3.]], [[3.], [2.]]]], &Cpu).unwrap();
    let all = Tokens::all(&x).unwrap();
    let y = pooling(&x, windows, PoolType::Max, all).unwrap();
    let gradient = y.backward().unwrap().get(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    // Column by column, as where axis 1 is pooled before axis 2.
    assert_eq!(gradient, [0., 0., 1., 0.]);
    let broken = Tensor::new(&[[[[1f64], [f64::NAN]], [[3.], [2.]]]], &Cpu).unwrap();
    let y = pooling(&broken, windows, PoolType::Max, Tokens::all(&broken).unwrap()).unwrap();
    assert!(y.flatten_all().unwrap().to_vec1::<f64>().unwrap()[0].is_nan());
}

#[test]
fn gradients_agree_with_finite_differences() {
    if !device().is_cpu() {
        return; // the check is made where the tests of other kernels run, and these are the CPU's
    }
    for windows in windows() {
        let [weight, bias] = weights(windows);
        let inputs = [map(1), weight, bias];
        let convolution =
            |inputs: &[Tensor]| convolution(&inputs[0], &inputs[1], &inputs[2], windows, false, tokens())?.sqr();
        check_gradients(convolution, &inputs, 1e-6).unwrap();
        for pool_type in [PoolType::Max, PoolType::Mean] {
            let pooling = |inputs: &[Tensor]| pooling(&inputs[0], windows, pool_type, tokens());
            check_gradients(pooling, &[map(4)], 1e-6).unwrap();
        }
    }
}

#[test]
fn what_stands_on_padding_is_not_read() {
    let x = replaced(&map(1), &tokens(), f64::NAN);
    for windows in windows() {
        let ([weight, bias], zeros) = (weights(windows), replaced(&x, &tokens(), 0.0));
        let of = |x: &Tensor| {
            let x = Var::from_tensor(x).unwrap();
            let y = convolution(&x, &weight, &bias, windows, true, tokens()).unwrap();
            let y = pooling(&y, windows, PoolType::Max, outputs(windows, &tokens())).unwrap();
            let gradient = y.sum_all().unwrap().backward().unwrap().remove(&x).unwrap();
            [y, gradient, kept(&x, tokens()).unwrap()]
        };
        for (found, expected) in of(&x).iter().zip(of(&zeros)) {
            assert_close(found, &expected, 0.0, 0.0).unwrap();
        }
    }
}

#[test]
fn tokens_are_those_of_the_masks() {
    let mask = Tensor::new(&[[1u8, 1, 0], [1, 0, 0]], &Cpu).unwrap();
    let value = Value::masked(random(1, (2, 3, 4)).unwrap(), Some(mask.clone()));
    assert_eq!(Tokens::of(&value).unwrap().0, [[2, 4], [1, 4]]);
    assert_eq!(Tokens::of(&Value::new(random(1, (2, 3)).unwrap())).unwrap().0, [[3, 1], [3, 1]]);
    let wrong = Value { second_mask: Some(mask), ..Value::new(random(1, (2, 3, 4)).unwrap()) };
    let message = Tokens::of(&wrong).unwrap_err().to_string();
    assert!(message.contains("expected a mask of axes 0 and 2 of [2, 3, 4], found [2, 3]"), "{message}");
    let holes = Tensor::new(&[[1u8, 0, 1], [1, 1, 0]], &Cpu).unwrap();
    let holes = Value { mask: Some(holes), ..Value::new(random(1, (2, 3, 4)).unwrap()) };
    let message = Tokens::of(&holes).unwrap_err().to_string();
    assert!(message.contains("axis 1 with padding behind the tokens only, found [1, 0, 1]"), "{message}");
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let (x, windows) = (random(1, (5, 40, 30, 3)).unwrap().to_dtype(DType::F32).unwrap(), windows()[0]);
    let parameters = weights(windows).map(|tensor| tensor.to_dtype(DType::F32).unwrap());
    let of = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let [x, weight, bias] =
                [&x, &parameters[0], &parameters[1]].map(|tensor| Var::from_tensor(tensor).unwrap());
            let tokens = Tokens(vec![[40, 30], [3, 30], [40, 1], [0, 0], [17, 19]]);
            let y = convolution(&x, &weight, &bias, windows, true, tokens.clone()).unwrap();
            let pooled = pooling(&y, windows, PoolType::Max, tokens).unwrap();
            let gradients = pooled.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let mut all = vec![pooled.clone()];
            all.extend([&x, &weight, &bias].map(|variable| gradients.get(variable).unwrap().clone()));
            let bits = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            all.iter().flat_map(bits).map(f32::to_bits).collect::<Vec<_>>()
        })
    };
    let expected = of(1);
    assert!(of(2) == expected && of(4) == expected);
}
