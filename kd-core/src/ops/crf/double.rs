//! `exp` and `ln` of f64 without branches, so that loops over them vectorise.
//!
//! The approximations and their constants are those of FreeBSD's msun, `e_exp.c` and `e_log.c` (Sun Microsystems 1993);
//! the selection of special values is left out, so each function says what it takes.

/// The first bits of `ln 2`, few enough that an exponent times it is exact, and the rest.
const LN2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];

/// `e^x` for `x` up to 700 or NaN, relative error below 3e-16; 0 below -708, where the true value is below 3e-308.
#[inline(always)]
pub(super) fn exp(x: f64) -> f64 {
    const LOWEST: f64 = -708.0;
    /// 1.5 · 2⁵²: adding it leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // A comparison instead of `max`, which would turn NaN into a number.
    let clamped = if x < LOWEST { LOWEST } else { x };
    // e^x = 2^n · e^r with |r| <= ln 2 / 2, and r = hi - lo.
    let shifted = clamped * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let (hi, lo) = (clamped - n * LN2[0], n * LN2[1]);
    let r = hi - lo;
    let r2 = r * r;
    let p = r2 * 4.138_136_797_057_238_5e-8 - 1.653_390_220_546_525_2e-6;
    let p = r2 * p + 6.613_756_321_437_934e-5;
    let p = r2 * p - 2.777_777_777_701_559_3e-3;
    let p = r2 * p + 1.666_666_666_666_660_2e-1;
    let c = r - r2 * p;
    let e_r = 1.0 - ((lo - (r * c) / (2.0 - c)) - hi);
    let y = e_r * f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    if x < LOWEST { 0.0 } else { y }
}

/// The natural logarithm of a finite `x` of at least 2.3e-308, error below one unit in the last place; of anything
/// else some number.
#[inline(always)]
pub(super) fn ln(x: f64) -> f64 {
    /// The bits of √½: x = 2^n · m with m in [√½, √2).
    const ROOT: u64 = 0x3fe6_a09e_667f_3bcd;
    const MANTISSA: u64 = (1 << 52) - 1;
    /// The bits of 2⁵², which with an integer in the mantissa is 2⁵² plus that integer.
    const MAGIC: u64 = 0x4330_0000_0000_0000;
    let bits = x.to_bits().wrapping_add(0x3ff0_0000_0000_0000 - ROOT);
    let n = f64::from_bits((bits >> 52) | MAGIC) - (4_503_599_627_370_496.0 + 1023.0);
    let f = f64::from_bits((bits & MANTISSA) + ROOT) - 1.0;
    let s = f / (2.0 + f);
    let (z, half) = (s * s, 0.5 * f * f);
    let w = z * z;
    let even = w * (3.999_999_999_940_942e-1 + w * (2.222_219_843_214_978_4e-1 + w * 1.531_383_769_920_937_3e-1));
    let odd = w * (1.818_357_216_161_805e-1 + w * 1.479_819_860_511_658_6e-1);
    let odd = z * (6.666_666_666_666_735e-1 + w * (2.857_142_874_366_239e-1 + odd));
    s * (half + (even + odd)) + n * LN2[1] - half + f + n * LN2[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_agree_with_the_standard_library() {
        let grid = |lo: f64, hi: f64| (0..=200_000).map(move |i| lo + (hi - lo) * f64::from(i) / 200_000.0);
        for x in grid(-707.9, 1.0).chain(grid(-1.0, 1e-6)) {
            let (found, expected) = (exp(x), x.exp());
            assert!((found - expected).abs() <= 4e-16 * expected, "exp({x}) = {expected}, found {found}");
        }
        for x in grid(0.1, 4.0).chain(grid(-700.0, 700.0).map(f64::exp)) {
            let (found, expected) = (ln(x), x.ln());
            assert!((found - expected).abs() <= 4e-16 * expected.abs(), "ln({x}) = {expected}, found {found}");
        }
    }

    #[test]
    fn the_edges_are_exact() {
        assert_eq!([f64::NEG_INFINITY, -1e300, -709.0, 0.0].map(exp), [0.0, 0.0, 0.0, 1.0]);
        assert!(exp(f64::NAN).is_nan());
        assert_eq!(ln(1.0), 0.0);
    }
}
