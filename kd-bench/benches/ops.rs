//! Times of single operations for development: `cargo bench -p kd-bench -- NAME`. The table against PyTorch is another
//! program, `kd-bench table`.

use candle_core::{DType, Device, Result, Tensor, Var};
use divan::{Bencher, black_box};
use kd_core::losses;
use kd_core::model::Mode;
use kd_core::ops;
use kd_core::ops::lstm::{LstmWeights, bidirectional};
use kd_core::testing::random;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn tensor(seed: u64, shape: &[usize]) -> Tensor {
    random(seed, shape).and_then(|values| values.to_dtype(DType::F32)).expect("a tensor of a fixed shape")
}

fn variable(seed: u64, shape: &[usize]) -> Tensor {
    Var::from_tensor(&tensor(seed, shape)).expect("a variable of a tensor").as_tensor().clone()
}

fn ids(count: usize, below: u32) -> Tensor {
    let ids: Vec<u32> = (0..count as u32).map(|place| place.wrapping_mul(2_654_435_761) % below).collect();
    Tensor::new(ids, &Device::Cpu).expect("a tensor of ids")
}

/// Times `run` on tensors that `make` draws: plain ones and, with the backward pass of the output's sum, variables.
fn bench(
    bencher: Bencher<'_, '_>,
    backward: bool,
    shapes: &[&[usize]],
    run: impl Fn(&[Tensor]) -> Result<Tensor> + Sync,
) {
    let make = if backward { variable } else { tensor };
    let tensors: Vec<Tensor> = (1..).zip(shapes).map(|(seed, shape)| make(seed, shape)).collect();
    bencher.bench(|| {
        let y = run(black_box(&tensors)).expect("shapes that fit");
        if backward {
            black_box(y.sum_all().and_then(|sum| sum.backward()).expect("a backward pass"));
        }
        y
    });
}

/// Without and with the backward pass.
const PASSES: [bool; 2] = [false, true];

#[divan::bench(args = PASSES)]
fn layer_norm_32x128x768(bencher: Bencher<'_, '_>, backward: bool) {
    bench(bencher, backward, &[&[32, 128, 768], &[768], &[768]], |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-12));
}

#[divan::bench(args = PASSES)]
fn softmax_32x12x128x128(bencher: Bencher<'_, '_>, backward: bool) {
    bench(bencher, backward, &[&[32, 12, 128, 128]], |t| ops::softmax(&t[0]));
}

#[divan::bench(args = PASSES)]
fn gelu_32x128x3072(bencher: Bencher<'_, '_>, backward: bool) {
    bench(bencher, backward, &[&[32, 128, 3072]], |t| ops::gelu(&t[0]));
}

#[divan::bench(args = PASSES)]
fn dropout_32x128x3072(bencher: Bencher<'_, '_>, backward: bool) {
    bench(bencher, backward, &[&[32, 128, 3072]], |t| ops::dropout(&t[0], 0.1, Mode::Train { seed: 7 }));
}

#[divan::bench(args = PASSES)]
fn linear_4096x768x3072(bencher: Bencher<'_, '_>, backward: bool) {
    bench(bencher, backward, &[&[4096, 768], &[3072, 768], &[3072]], |t| ops::linear(&t[0], &t[1], Some(&t[2])));
}

#[divan::bench(args = PASSES)]
fn attention_32x12x128x64(bencher: Bencher<'_, '_>, backward: bool) {
    let mask = Tensor::ones((32, 128), DType::U8, &Device::Cpu).expect("a mask");
    let shape: &[usize] = &[32, 128, 768];
    bench(bencher, backward, &[shape; 3], |t| ops::attention(&t[0], &t[1], &t[2], 12, &mask, 0.0, Mode::Eval));
}

#[divan::bench(args = PASSES)]
fn embedding_20000x128_1280_ids(bencher: Bencher<'_, '_>, backward: bool) {
    let ids = ids(1280, 20_000);
    bench(bencher, backward, &[&[20_000, 128]], |t| ops::embedding(&t[0], &ids));
}

#[divan::bench(args = PASSES)]
fn cross_entropy_4096x9(bencher: Bencher<'_, '_>, backward: bool) {
    let labels = ids(4096, 9);
    bench(bencher, backward, &[&[4096, 9]], |t| losses::cross_entropy(&t[0], &labels));
}

#[divan::bench(args = PASSES)]
fn kl_divergence_4096x9(bencher: Bencher<'_, '_>, backward: bool) {
    bench(bencher, backward, &[&[4096, 9], &[4096, 9]], |t| losses::kl_divergence(&t[0], &t[1], 2.0));
}

#[divan::bench(args = PASSES)]
fn char_cnn_1280x16x30_50_filters(bencher: Bencher<'_, '_>, backward: bool) {
    let chars = ids(1280 * 16, 99).reshape((32, 40, 16)).and_then(|ids| ids + 1.0).expect("characters");
    bench(bencher, backward, &[&[100, 30], &[50, 30, 3], &[50]], |t| {
        ops::char_cnn::char_cnn(&chars, &t[0], &t[1], &t[2])
    });
}

#[divan::bench(args = PASSES)]
fn bilstm_i100_h100_32x40(bencher: Bencher<'_, '_>, backward: bool) {
    let direction: [&[usize]; 4] = [&[400, 100], &[400, 100], &[400], &[400]];
    let shapes: Vec<&[usize]> = std::iter::once(&[32, 40, 100][..]).chain(direction).chain(direction).collect();
    bench(bencher, backward, &shapes, |t| {
        let weights = |at: usize| LstmWeights {
            weight_ih: t[at].clone(),
            weight_hh: t[at + 1].clone(),
            bias_ih: t[at + 2].clone(),
            bias_hh: t[at + 3].clone(),
        };
        bidirectional(&t[0], &[40; 32], &weights(1), &weights(5))
    });
}

#[divan::bench(args = PASSES)]
fn crf_32x40_9_tags(bencher: Bencher<'_, '_>, backward: bool) {
    bench(bencher, backward, &[&[32 * 40, 9], &[11, 9]], |t| ops::crf::log_partition(&t[0], &t[1], &[40; 32]));
}
