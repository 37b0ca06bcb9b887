//! Code compiled for several instruction sets, of which the machine's best runs.

/// Runs `work` compiled for AVX-512, AVX2 with FMA, or what the program was built for: the best that this machine has.
///
/// A program built without `target-cpu=native` uses SSE2 otherwise, a quarter of the width. `work` has to be inlined to be
/// compiled here: mark the closure, and what its loops call, `#[inline(always)]`. The results are the same bytes on all
/// three, because the compiler neither reorders floating-point operations nor contracts them.
///
/// ```
/// let mut xs = vec![1f32; 1000];
/// kd_core::ops::cpu::vectorized(#[inline(always)] || xs.iter_mut().for_each(|x| *x *= 2.0));
/// assert_eq!(xs, [2.0; 1000]);
/// ```
#[inline(always)]
pub fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the instructions are there.
            return unsafe { avx512(work) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the instructions are there.
            return unsafe { avx2(work) };
        }
    }
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}
