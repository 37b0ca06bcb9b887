use super::*;

fn floats(len: usize, seed: u64) -> Vec<f32> {
    (0..len as u64).map(|idx| (crate::variables::mix(seed, idx) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

#[test]
fn rounding_is_to_nearest_even() {
    let cases = [
        (1.0, 0x3f80),
        (-2.0, 0xc000),
        (f32::from_bits(0x3f80_8000), 0x3f80), // half a step above 1: to the even neighbour
        (f32::from_bits(0x3f81_8000), 0x3f82),
        (f32::from_bits(0x3f80_8001), 0x3f81),
        (f32::MAX, 0x7f80), // the nearest bf16 is infinite, as in PyTorch
        (f32::INFINITY, 0x7f80),
        (f32::from_bits(0x7f80_0001), 0x7fc0), // a NaN stays one
        (f32::from_bits(0xffff_ffff), 0xffff),
    ];
    for (x, expected) in cases {
        assert_eq!(round(x), expected, "{x}");
    }
}

#[test]
fn every_level_agrees_with_a_sum_in_f64() {
    let sizes = (1..=40).flat_map(|rows| [(1, 1), (5, 33), (64, 32), (3, 128), (7, 161)].map(|(k, n)| (rows, k, n)));
    let more = [(97, 67, 70), (200, 130, 40), (2, 769, 257), (0, 8, 8), (3, 0, 5), (3, 8, 0)];
    for (rows, width, out) in sizes.chain(more) {
        let (x, w, bias) = (floats(rows * width, 1), floats(out * width, 2), floats(out.next_multiple_of(PANEL), 3));
        let weights = Weights::new(&w, out, width);
        for level in Level::available() {
            let mut found = vec![f32::NAN; rows * out];
            product_at(level, &mut found, &Rows::at(level, &x, rows, width), &weights, &bias, Activation::Identity);
            for (idx, &y) in found.iter().enumerate() {
                let (x, w) = (&x[idx / out * width..][..width], &w[idx % out * width..][..width]);
                let terms = || x.iter().zip(w).map(|(&x, &w)| f64::from(widen(round(x))) * f64::from(widen(round(w))));
                let (sum, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                let expected = sum + f64::from(bias[idx % out]);
                // Each of the additions rounds a partial sum that is at most `size + 1`.
                let bound = (width + 2) as f64 * 6e-8 * (size + 1.0);
                assert!(
                    (f64::from(y) - expected).abs() <= bound,
                    "{rows} x {width} x {out}, {level:?}, {idx}: {y} {expected}"
                );
            }
        }
    }
}

#[test]
fn only_rows_that_are_not_finite_become_so() {
    let weights = Weights::new(&[1.0, 1.0, 1.0], 1, 3);
    let x = [f32::NAN, 1.0, 1.0, f32::INFINITY, 1.0, 1.0, 1.0, 2.0, 4.0];
    for level in Level::available() {
        let mut y = [0.0; 3];
        product_at(level, &mut y, &Rows::at(level, &x, 3, 3), &weights, &[0.0; 32], Activation::Identity);
        assert!(y[0].is_nan() && y[1] == f32::INFINITY && y[2] == 7.0, "{level:?}: {y:?}");
    }
}

#[test]
fn packed_weights_can_be_read_back() {
    let values = floats(45 * 7, 4);
    let rounded: Vec<f32> = values.iter().map(|&x| widen(round(x))).collect();
    assert_eq!(Weights::new(&values, 45, 7).widened(), rounded);
}
