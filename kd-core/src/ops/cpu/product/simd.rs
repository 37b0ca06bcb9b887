//! Vectors of `f32` on the instruction sets that have tiles.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A vector of `LANES` values. The functions may be called only where the instruction set is there, and are always
/// inlined, so that they become single instructions in a caller that is compiled for it.
pub(super) trait Simd {
    type Vector: Copy;
    const LANES: usize;
    /// # Safety
    /// The machine must have the instruction set.
    unsafe fn zero() -> Self::Vector;
    /// # Safety
    /// As `zero`.
    unsafe fn splat(x: f32) -> Self::Vector;
    /// # Safety
    /// As `zero`, and `LANES` values must be readable.
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// # Safety
    /// As `zero`, and `LANES` values must be writable.
    unsafe fn store(to: *mut f32, x: Self::Vector);
    /// `x · y`.
    ///
    /// # Safety
    /// As `zero`.
    unsafe fn mul(x: Self::Vector, y: Self::Vector) -> Self::Vector;
    /// `sum + x · y`, rounded once.
    ///
    /// # Safety
    /// As `zero`.
    unsafe fn add_product(sum: Self::Vector, x: Self::Vector, y: Self::Vector) -> Self::Vector;
}

macro_rules! simd {
    ($name:ident, $vector:ty, $lanes:literal, $zero:ident, $splat:ident, $load:ident, $store:ident, $mul:ident, $fma:ident) => {
        #[cfg(target_arch = "x86_64")]
        pub(super) struct $name;

        // SAFETY (of every function below): the caller's promise that the machine has the instructions.
        #[cfg(target_arch = "x86_64")]
        #[allow(clippy::undocumented_unsafe_blocks)]
        impl Simd for $name {
            type Vector = $vector;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn zero() -> Self::Vector {
                unsafe { $zero() }
            }

            #[inline(always)]
            unsafe fn splat(x: f32) -> Self::Vector {
                unsafe { $splat(x) }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self::Vector {
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn store(to: *mut f32, x: Self::Vector) {
                unsafe { $store(to, x) }
            }

            #[inline(always)]
            unsafe fn mul(x: Self::Vector, y: Self::Vector) -> Self::Vector {
                unsafe { $mul(x, y) }
            }

            #[inline(always)]
            unsafe fn add_product(sum: Self::Vector, x: Self::Vector, y: Self::Vector) -> Self::Vector {
                unsafe { $fma(x, y, sum) }
            }
        }
    };
}

simd!(
    Avx512,
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps
);
simd!(
    Avx2,
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps
);
