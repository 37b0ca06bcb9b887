//! The op on slices.

use rayon::prelude::*;

use super::super::cpu::{Float, Matrix, MatrixMut, Threads, matmul};
use super::words::Words;

/// Words, and in the backward pass filters, that one task works on.
const PIECE: usize = 32;

/// A convolution's weights: `(filters, width, kernel)` and `(filters,)`.
#[derive(Clone, Copy)]
pub(super) struct Filters<'a, T> {
    pub(super) weight: &'a [T],
    pub(super) bias: &'a [T],
    pub(super) filters: usize,
    pub(super) width: usize,
    pub(super) kernel: usize,
}

impl<T: Float> Filters<'_, T> {
    /// The weight as `(width, kernel · filters)`.
    fn by_offset(&self) -> Vec<T> {
        let mut out = vec![T::zero(); self.weight.len()];
        let columns = self.kernel * self.filters;
        for (filter, weight) in self.weight.chunks_exact(self.width * self.kernel).enumerate() {
            for (idx, &w) in weight.iter().enumerate() {
                out[idx / self.kernel * columns + idx % self.kernel * self.filters + filter] = w;
            }
        }
        out
    }
}

/// The embeddings of the characters that occur, `(symbols, width)`.
fn used<T: Float>(words: &Words, table: &[T], width: usize) -> Vec<T> {
    words.symbols.iter().flat_map(|&symbol| &table[symbol as usize * width..][..width]).copied().collect()
}

/// For the character at `t` of a word of `len`: the kernel's offsets that lie inside the word, with their characters.
fn window(kernel: usize, letters: &[usize], t: usize) -> impl Iterator<Item = (usize, usize)> {
    let half = kernel / 2;
    let first = half.saturating_sub(t);
    let last = kernel.min(letters.len() + half - t);
    (first..last).map(move |offset| (offset, letters[t + offset - half]))
}

/// `(padded words, filters)`; where the maxima are goes to `peaks`, `(words with characters, filters)`.
pub(super) fn forward<T: Float>(
    words: &Words,
    table: &[T],
    conv: Filters<'_, T>,
    peaks: Option<&mut Vec<u32>>,
) -> Vec<T> {
    let Filters { filters, width, kernel, .. } = conv;
    let columns = kernel * filters;
    let mut out = vec![T::zero(); words.padded * filters];
    if words.count() == 0 || filters == 0 {
        return out;
    }
    // What each character adds at each offset: (symbols, kernel, filters).
    let (embedded, weight) = (used(words, table, width), conv.by_offset());
    let mut shares = vec![T::zero(); words.symbols.len() * columns];
    matmul(
        MatrixMut::new(&mut shares, words.symbols.len(), columns, columns),
        T::one(),
        Matrix::new(&embedded, words.symbols.len(), width, width),
        Matrix::new(&weight, width, columns, columns),
        Threads::All,
    );
    let convolve = |letters: &[usize], t: usize, sums: &mut [T]| {
        sums.copy_from_slice(conv.bias);
        for (offset, letter) in window(kernel, letters, t) {
            let share = &shares[letter * columns + offset * filters..][..filters];
            sums.iter_mut().zip(share).for_each(|(sum, &share)| *sum += share);
        }
    };
    let mut best = vec![T::zero(); words.count() * filters];
    match peaks {
        Some(peaks) => {
            peaks.resize(words.count() * filters, 0);
            let pieces = best.par_chunks_mut(PIECE * filters).zip(peaks.par_chunks_mut(PIECE * filters));
            pieces.enumerate().for_each(|(piece, (best, peaks))| {
                let mut sums = vec![T::zero(); filters];
                let rows = best.chunks_exact_mut(filters).zip(peaks.chunks_exact_mut(filters));
                for (idx, (best, peaks)) in rows.enumerate() {
                    let letters = &words.letters[words.range(piece * PIECE + idx)];
                    convolve(letters, 0, best);
                    for t in 1..letters.len() {
                        convolve(letters, t, &mut sums);
                        for ((best, peak), &sum) in best.iter_mut().zip(peaks.iter_mut()).zip(&sums) {
                            let higher = sum > *best; // written so that it vectorises
                            *best = if higher { sum } else { *best };
                            *peak = if higher { t as u32 } else { *peak };
                        }
                    }
                }
            });
        }
        None => best.par_chunks_mut(PIECE * filters).enumerate().for_each(|(piece, best)| {
            let mut sums = vec![T::zero(); filters];
            for (idx, best) in best.chunks_exact_mut(filters).enumerate() {
                let letters = &words.letters[words.range(piece * PIECE + idx)];
                convolve(letters, 0, best);
                for t in 1..letters.len() {
                    convolve(letters, t, &mut sums);
                    best.iter_mut().zip(&sums).for_each(|(best, &sum)| *best = if sum > *best { sum } else { *best });
                }
            }
        }),
    }
    for (&place, best) in words.places.iter().zip(best.chunks_exact(filters)) {
        for (out, &best) in out[place * filters..][..filters].iter_mut().zip(best) {
            *out = if best < T::zero() { T::zero() } else { best };
        }
    }
    out
}

/// Gradients of table, weight and bias.
pub(super) fn backward<T: Float>(
    words: &Words,
    table: &[T],
    conv: Filters<'_, T>,
    peaks: &[u32],
    out: &[T],
    d_out: &[T],
) -> [Vec<T>; 3] {
    let Filters { filters, width, kernel, .. } = conv;
    let (columns, symbols) = (kernel * filters, words.symbols.len());
    let (mut d_table, mut d_weight) = (vec![T::zero(); table.len()], vec![T::zero(); conv.weight.len()]);
    let mut d_bias = vec![T::zero(); filters];
    if words.count() == 0 || filters == 0 {
        return [d_table, d_weight, d_bias];
    }
    // Every task takes all words for some filters, in the words' order: (symbols, kernel, filters of the task).
    let pieces: Vec<Vec<T>> = d_bias
        .par_chunks_mut(PIECE)
        .enumerate()
        .map(|(piece, d_bias)| {
            let (first, count) = (piece * PIECE, d_bias.len());
            let mut d_shares = vec![T::zero(); symbols * kernel * count];
            for (word_idx, &place) in words.places.iter().enumerate() {
                let letters = &words.letters[words.range(word_idx)];
                let row = place * filters + first;
                let peaks = &peaks[word_idx * filters + first..][..count];
                let values = out[row..row + count].iter().zip(&d_out[row..row + count]);
                for (filter, ((&out, &d), &peak)) in values.zip(peaks).enumerate() {
                    if out > T::zero() {
                        d_bias[filter] += d;
                        for (offset, letter) in window(kernel, letters, peak as usize) {
                            d_shares[(letter * kernel + offset) * count + filter] += d;
                        }
                    }
                }
            }
            d_shares
        })
        .collect();
    let mut d_shares = vec![T::zero(); symbols * columns];
    for (piece, part) in pieces.iter().enumerate() {
        let count = PIECE.min(filters - piece * PIECE);
        for (row, part) in part.chunks_exact(count).enumerate() {
            d_shares[row * filters + piece * PIECE..][..count].copy_from_slice(part);
        }
    }
    let (embedded, weight) = (used(words, table, width), conv.by_offset());
    let d_shares = Matrix::new(&d_shares, symbols, columns, columns);
    let mut d_used = vec![T::zero(); symbols * width];
    let weight = Matrix::new(&weight, width, columns, columns);
    matmul(MatrixMut::new(&mut d_used, symbols, width, width), T::one(), d_shares, weight.t(), Threads::All);
    for (&symbol, d_used) in words.symbols.iter().zip(d_used.chunks_exact(width.max(1))) {
        d_table[symbol as usize * width..][..width].copy_from_slice(d_used);
    }
    let mut d_by_offset = vec![T::zero(); width * columns];
    let embedded = Matrix::new(&embedded, symbols, width, width);
    matmul(MatrixMut::new(&mut d_by_offset, width, columns, columns), T::one(), embedded.t(), d_shares, Threads::All);
    for (filter, d_weight) in d_weight.chunks_exact_mut((width * kernel).max(1)).enumerate() {
        for (idx, d) in d_weight.iter_mut().enumerate() {
            *d = d_by_offset[idx / kernel * columns + idx % kernel * filters + filter];
        }
    }
    [d_table, d_weight, d_bias]
}
