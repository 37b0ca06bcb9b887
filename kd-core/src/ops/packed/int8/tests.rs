use super::*;
use crate::ops::packed::quantize_rows as quantize_weights;

/// Integers from `-half` to `half`, and floats in `[-1, 1)`, the same on every call.
fn integers(len: usize, half: i64, seed: u64) -> Vec<i64> {
    let number = |idx| (crate::variables::mix(seed, idx) >> 40) as i64 % (2 * half + 1) - half;
    (0..len as u64).map(number).collect()
}

fn floats(len: usize, seed: u64) -> Vec<f32> {
    integers(len, 1 << 22, seed).into_iter().map(|x| x as f32 / (1 << 22) as f32).collect()
}

fn run(level: Level, x: &[f32], rows: usize, weights: &Weights, bias: &[f32], activation: Activation) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows * weights.out];
    product_at(level, &mut out, &Rows::at(level, x, rows, weights.width), weights, bias, activation);
    out
}

/// Sizes around the edges of tiles, blocks, panels and steps.
fn sizes() -> impl Iterator<Item = (usize, usize, usize)> {
    let small = (1..=40).flat_map(|rows| [(1, 1), (5, 33), (64, 32), (3, 128), (7, 161)].map(|(k, n)| (rows, k, n)));
    small.chain([(97, 67, 70), (200, 130, 40), (1, 3, 400), (2, 769, 257), (0, 8, 8), (3, 0, 5), (3, 8, 0)])
}

#[test]
fn sums_are_those_of_integers() {
    // A row that holds 127 and -128 has step 1 and zero 128, and a column that holds 127 has scale 1: every value is
    // itself, and the product is that of integers.
    for (rows, width, out) in sizes().filter(|&(_, width, _)| width >= 2) {
        let (mut x, mut w) = (integers(rows * width, 127, 1), integers(out * width, 127, 2));
        x.chunks_mut(width).for_each(|row| row[..2].copy_from_slice(&[127, -128]));
        w.chunks_mut(width).for_each(|row| row[width - 1] = -127);
        let product = |row: &[i64], column: &[i64]| row.iter().zip(column).map(|(x, w)| x * w).sum::<i64>();
        let expected: Vec<f32> = x
            .chunks(width)
            .flat_map(|row| {
                w.chunks(width).enumerate().map(move |(idx, column)| (product(row, column) + idx as i64) as f32)
            })
            .collect();
        let floats = |values: &[i64]| values.iter().map(|&x| x as f32).collect::<Vec<_>>();
        let (multiples, scales) = quantize_weights(&floats(&w), width);
        let weights = Weights::new(&multiples, &scales, width);
        let bias: Vec<f32> = (0..out.next_multiple_of(PANEL)).map(|idx| idx as f32).collect();
        for level in Level::available() {
            let found = run(level, &floats(&x), rows, &weights, &bias, Activation::Identity);
            assert!(found == expected, "{rows} x {width} x {out}, {level:?}");
        }
    }
}

#[test]
fn the_largest_sums_do_not_saturate() {
    // 255 · 127 + 255 · 127 leaves 16 bits; WIDEST of them just fit 32.
    for width in [8, WIDEST] {
        let weights = Weights::new(&vec![127; 33 * width], &[1.0; 33], width);
        let x = [vec![255.0; width], vec![-255.0; width]].concat();
        let largest = (255 * 127 * width) as f32;
        let expected: Vec<f32> = [largest, -largest].into_iter().flat_map(|y| [y; 33]).collect();
        for level in Level::available() {
            let found = run(level, &x, 2, &weights, &[0.0; 64], Activation::Identity);
            assert!(found == expected, "{width}, {level:?}: {} {}", found[0], found[33]);
        }
    }
}

#[test]
fn every_level_gives_the_same_bytes() {
    for (rows, width, out) in sizes() {
        let (x, w) = (floats(rows * width, 3), floats(out * width, 4));
        let (multiples, mut scales) = quantize_weights(&w, width);
        scales.resize(out, 0.0);
        let (weights, bias) = (Weights::new(&multiples, &scales, width), floats(out.next_multiple_of(PANEL), 5));
        for activation in
            [Activation::Identity, Activation::Relu, Activation::Tanh, Activation::Gelu, Activation::GeluTanh]
        {
            let expected = run(Level::Portable, &x, rows, &weights, &bias, activation);
            assert!(expected.iter().all(|y| y.is_finite()));
            for level in Level::available() {
                let found = run(level, &x, rows, &weights, &bias, activation);
                assert!(found == expected, "{rows} x {width} x {out}, {level:?}, {activation:?}");
            }
        }
    }
}

#[test]
fn inputs_are_rounded_to_the_nearest_step() {
    // From -1 to 4: steps of 5 / 255, -1 is byte 0 and zero is byte 51.
    let x = [-1.0, 4.0, 0.0, 1.0, 0.009, 0.0105, -0.49];
    for level in Level::available() {
        let rows = Rows::at(level, &x, 1, 7);
        assert_eq!((&*rows.values, rows.grids[0].1), (&[0, 255, 51, 102, 51, 52, 26, 0][..], 51), "{level:?}");
        assert!((rows.grids[0].0 - 5.0 / 255.0).abs() < 1e-9);
    }
}

#[test]
fn extreme_rows() {
    let rows = [
        [0.0, 0.0, 0.0, 0.0, -0.0],
        [1e30, 1.0, -1.0, 0.0, 2.0],
        [f32::MAX, f32::MIN, 0.0, 0.0, 0.0],
        [1e-40, 0.0, -1e-41, 0.0, 0.0],
        [f32::INFINITY, 0.0, 0.0, 0.0, 0.0],
        [0.0, f32::NEG_INFINITY, 0.0, 0.0, 0.0],
        [1.0, 2.0, f32::NAN, 0.0, 0.0],
        [1.0, 2.0, -f32::NAN, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 1.0],
    ];
    let weights = Weights::new(&[127; 5], &[1.0 / 127.0], 5);
    for level in Level::available() {
        let y = run(level, rows.as_flattened(), rows.len(), &weights, &[7.0; 32], Activation::Identity);
        assert_eq!(y[0], 7.0);
        assert!((y[1] / 1e30 - 1.0).abs() < 1e-2, "{}", y[1]);
        assert!(y[2].is_finite() && y[2].abs() < f32::MAX / 100.0, "{}", y[2]);
        assert_eq!(y[3], 7.0);
        assert!(y[4..8].iter().all(|y| y.is_nan()), "{y:?}");
        assert!((y[8] - 8.0).abs() < 1e-6, "{}", y[8]); // the rows beside are as ever
        for activation in [Activation::Relu, Activation::Tanh, Activation::Gelu, Activation::GeluTanh] {
            let y = run(level, rows.as_flattened(), rows.len(), &weights, &[7.0; 32], activation);
            assert!(y[4..8].iter().all(|y| y.is_nan()), "{activation:?}: {y:?}");
        }
    }
}

#[test]
fn packed_weights_can_be_read_back() {
    let multiples: Vec<i8> = integers(45 * 7, 127, 6).into_iter().map(|q| q as i8).collect();
    let values = Weights::new(&multiples, &[0.5; 45], 7).dequantized();
    assert_eq!(values, multiples.iter().map(|&q| 0.5 * f32::from(q)).collect::<Vec<_>>());
}
