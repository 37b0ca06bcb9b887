//! Dropout whose mask is a function of seed and position.
//!
//! `y_i = x_i / (1 - p)` where `h(seed, i) >= p`, else 0 (Srivastava et al. 2014, scaled in training as in PyTorch).
//! `h` is a hash of the element's index, so no mask is stored, the backward recomputes it, and neither the number of
//! threads nor the device changes it. The hash is two rounds of the `lowbias32` finaliser (C. Wellons), with half of
//! the seed before and half between its multiplications: two seeds do not give permuted copies of one mask.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use kd_core::{model::Mode, ops::dropout};
//! let x = Tensor::ones(8, DType::F32, &Device::Cpu)?;
//! assert_eq!(dropout(&x, 0.5, Mode::Eval)?.to_vec1::<f32>()?, [1.0; 8]);
//! let y = dropout(&x, 0.5, Mode::Train { seed: 7 })?.to_vec1::<f32>()?;
//! assert!(y.iter().all(|&y| y == 0.0 || y == 2.0));
//! assert_eq!(y, dropout(&x, 0.5, Mode::Train { seed: 7 })?.to_vec1::<f32>()?);
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::backward::hand_over;
use super::cpu::{self, Float, for_float};
use crate::model::Mode;
use crate::variables::mix;

/// Sets each value to 0 with probability `p` and scales the others by `1 / (1 - p)`.
///
/// Returns `x` itself in [`Mode::Eval`] or when `p` is 0. Calls that should draw independent masks need seeds of
/// their own, see [`Mode::site`].
///
/// # Errors
/// If `p` is not in `[0, 1)`.
pub fn dropout(x: &Tensor, p: f64, mode: Mode) -> Result<Tensor> {
    let Some(mask) = Mask::new(p, mode)? else { return Ok(x.clone()) };
    #[cfg(feature = "cuda")]
    if super::cuda::has_kernel(x) {
        return super::cuda::dropout(x, mask);
    }
    if cpu::has_kernel(x) { x.contiguous()?.apply_op1(mask) } else { x * mask.tensor(x)? }
}

/// A mask of any length; elements have an index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask {
    seed: u64,
    /// Keys of the elements below 2³².
    keys: (u32, u32),
    /// An element whose hash is below this is dropped: `p · 2³²`.
    threshold: u32,
    /// `1 / (1 - p)`.
    scale: f64,
}

impl Mask {
    /// The mask of `mode`, if anything is dropped.
    pub(crate) fn new(p: f64, mode: Mode) -> Result<Option<Self>> {
        if !(0.0..1.0).contains(&p) {
            bail!("dropout: expected a probability in [0, 1), found {p}");
        }
        Ok(match mode {
            Mode::Train { seed } if p > 0.0 => {
                let threshold = (p * 4_294_967_296.0) as u32;
                Some(Self { seed, keys: keys(seed, 0), threshold, scale: 1.0 / (1.0 - p) })
            }
            _ => None,
        })
    }

    /// The bytes of the kernels' `Dropout`.
    #[cfg(feature = "cuda")]
    pub(crate) fn to_device(self) -> [u64; 4] {
        let keys = u64::from(self.keys.0) | u64::from(self.keys.1) << 32;
        [self.seed, keys, u64::from(self.threshold), self.scale.to_bits()]
    }

    /// Writes the masked `x` into `y`, whose first element has index `start`.
    #[inline(always)]
    pub(crate) fn map<T: Float>(&self, start: u64, x: &[T], y: &mut [T]) {
        self.pieces(start, y.len(), |first, range, keys| {
            let scale = T::from_f64(self.scale);
            for ((offset, y), &x) in (0u32..).zip(&mut y[range.clone()]).zip(&x[range]) {
                *y = if hash(first.wrapping_add(offset), keys) >= self.threshold { x * scale } else { T::zero() };
            }
        });
    }

    /// Masks `values`, whose first element has index `start`.
    #[inline(always)]
    pub(crate) fn apply<T: Float>(&self, start: u64, values: &mut [T]) {
        self.pieces(start, values.len(), |first, range, keys| {
            let scale = T::from_f64(self.scale);
            for (offset, x) in (0u32..).zip(&mut values[range]) {
                *x = if hash(first.wrapping_add(offset), keys) >= self.threshold { *x * scale } else { T::zero() };
            }
        });
    }

    /// The factors 0 and `1 / (1 - p)` of the elements from index `start` on.
    #[inline(always)]
    pub(crate) fn factors<T: Float>(&self, start: u64, factors: &mut [T]) {
        factors.fill(T::one());
        self.apply(start, factors);
    }

    /// The factors 0 and `1 / (1 - p)` of a tensor like `x`, made on the CPU.
    pub(crate) fn tensor(&self, x: &Tensor) -> Result<Tensor> {
        let ones = Self { scale: 1.0, ..*self };
        let mut kept = vec![1f32; x.elem_count()];
        cpu::par_elements(
            &mut kept,
            #[inline(always)]
            |start, kept| ones.apply(start as u64, kept),
        );
        cpu::tensor(kept, x.shape())?.to_device(x.device())?.to_dtype(x.dtype())? * self.scale
    }

    /// Splits elements where the upper half of their index changes, which almost never happens.
    #[inline(always)]
    fn pieces(&self, start: u64, len: usize, mut work: impl FnMut(u32, std::ops::Range<usize>, (u32, u32))) {
        let mut done = 0;
        while done < len {
            let index = start + done as u64;
            let (high, low) = ((index >> 32) as u32, index as u32);
            let left = (1u64 << 32) - u64::from(low);
            let count = left.min((len - done) as u64) as usize;
            let keys = if high == 0 { self.keys } else { keys(self.seed, high) };
            work(low, done..done + count, keys);
            done += count;
        }
    }
}

fn keys(seed: u64, high: u32) -> (u32, u32) {
    let key = mix(seed, u64::from(high));
    ((key >> 32) as u32, key as u32)
}

#[inline(always)]
fn hash(index: u32, keys: (u32, u32)) -> u32 {
    let h = index ^ keys.0;
    let h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d).wrapping_add(keys.1);
    let h = (h ^ (h >> 15)).wrapping_mul(0x846c_a68b);
    h ^ (h >> 16)
}

impl Mask {
    fn run<T: Float>(&self, x: &[T]) -> Vec<T> {
        // SAFETY: `map` writes every value.
        let mut y = unsafe { cpu::uninit::<T>(x.len()) };
        cpu::par_elements(
            &mut y,
            #[inline(always)]
            |start, y| self.map(start as u64, &x[start..][..y.len()], y),
        );
        y
    }
}

impl CustomOp1 for Mask {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_float!(storage.dtype(), T => {
            Ok((cpu::storage(self.run(cpu::slice::<T>(storage, layout)?)), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        for_float!(x.dtype(), T => Ok(hand_over(x, cpu::tensor(self.run::<T>(&cpu::values(&grad)?), x.shape())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn kept(seed: u64, p: f64, len: usize) -> Vec<bool> {
        let x = Tensor::ones(len, DType::F32, &Device::Cpu).unwrap();
        let y: Vec<f32> = dropout(&x, p, Mode::Train { seed }).unwrap().to_vec1().unwrap();
        let scale = (1.0 / (1.0 - p)) as f32;
        assert!(y.iter().all(|&y| y == 0.0 || y == scale));
        y.iter().map(|&y| y != 0.0).collect()
    }

    fn share(n: usize, pairs: impl Iterator<Item = bool>) -> f64 {
        pairs.filter(|&x| x).count() as f64 / n as f64
    }

    #[test]
    fn the_share_of_kept_values_is_one_minus_p() {
        let n = 1 << 18;
        for p in [0.01, 0.1, 0.5, 0.9] {
            let kept = share(n, kept(3, p, n).into_iter());
            let four_errors = 4.0 * (p * (1.0 - p) / n as f64).sqrt();
            assert!((kept - (1.0 - p)).abs() < four_errors, "p {p}: kept {kept}");
        }
    }

    #[test]
    fn neighbours_and_seeds_are_independent() {
        // Two independent fair coins agree half of the time; four standard errors are 4 · 0.5 / √n.
        let n = 1 << 16;
        let mask = kept(1, 0.5, n + 1000);
        let close = |agreement: f64, what: &str| {
            assert!((agreement - 0.5).abs() < 2.0 / (n as f64).sqrt(), "{what}: {agreement}");
        };
        for step in [1, 2, 64, 384, 768] {
            close(share(n, (0..n).map(|i| mask[i] == mask[i + step])), &format!("step {step}"));
        }
        for seed in [2, 3, 1 << 32, u64::MAX] {
            let other = kept(seed, 0.5, n);
            close(share(n, (0..n).map(|i| mask[i] == other[i])), &format!("seed {seed}"));
            // Masks that differ only by a key xor-ed to the index agree in some such permutation.
            let key = keys(1, 0).0 ^ keys(seed, 0).0;
            close(share(n, (0..n).map(|i| mask[i] == other[(i as u32 ^ key) as usize % n])), &format!("key {seed}"));
        }
    }

    #[test]
    fn the_composition_uses_the_same_mask() {
        let x = Tensor::ones((3, 7), DType::BF16, &Device::Cpu).unwrap();
        let y = dropout(&x, 0.5, Mode::Train { seed: 5 }).unwrap().to_dtype(DType::F32).unwrap();
        let kept_too: Vec<bool> =
            y.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|&y| y == 2.0).collect();
        assert_eq!(kept_too, kept(5, 0.5, 21));
    }

    #[test]
    fn a_mask_continues_over_the_index_of_32_bits() {
        let mask = Mask::new(0.5, Mode::Train { seed: 9 }).unwrap().unwrap();
        let start = (1u64 << 32) - 5;
        let mut whole = vec![1f32; 10];
        mask.apply(start, &mut whole);
        for (offset, expected) in whole.iter().enumerate() {
            let mut single = [1f32];
            mask.apply(start + offset as u64, &mut single);
            assert_eq!(single[0], *expected);
        }
    }

    #[test]
    fn probabilities_outside_the_range_are_refused() {
        let x = Tensor::ones(2, DType::F32, &Device::Cpu).unwrap();
        for p in [-0.1, 1.0, f64::NAN] {
            assert!(dropout(&x, p, Mode::Eval).unwrap_err().to_string().contains("[0, 1)"));
        }
    }
}
