//! Loops that write several outputs at once.

use rayon::prelude::*;

use super::cpu::{self, Float};

/// Calls `work` for each piece with its index, in parallel if there is more than one.
///
/// A piece is what one task writes: for example neighbouring rows of two outputs. As everywhere, pieces are cut by size,
/// not by the number of threads. `work` runs inside [`cpu::vectorized`].
pub(crate) fn for_each_piece<P: Send>(pieces: Vec<P>, work: impl Fn(usize, P) + Sync + Send) {
    let work = |(idx, piece): (usize, P)| {
        cpu::vectorized(
            #[inline(always)]
            || work(idx, piece),
        )
    };
    if pieces.len() <= 1 || cpu::single_thread() {
        pieces.into_iter().enumerate().for_each(work);
    } else {
        pieces.into_par_iter().enumerate().for_each(work);
    }
}

/// The sum of the pieces' shares of `width` values each, in their order.
pub(crate) fn sum_shares<T: Float>(shares: &[T], width: usize) -> Vec<T> {
    let mut sums = vec![T::zero(); width];
    for share in shares.chunks_exact(width.max(1)) {
        for (sum, &value) in sums.iter_mut().zip(share) {
            *sum += value;
        }
    }
    sums
}
