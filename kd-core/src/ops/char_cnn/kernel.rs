//! The op on slices.

use rayon::prelude::*;

use super::super::cpu::{CHUNK, Float, Matrix, MatrixMut, Threads, matmul, vectorized};
use super::words::Words;

/// Words, and in the backward pass filters, that one task works on.
const PIECE: usize = 32;

/// Filters that loops take together.
const LANES: usize = 16;

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
    /// The weight as `(width, kernel · lanes)` with zeros behind the filters of each offset.
    fn by_offset(&self, lanes: usize) -> Vec<T> {
        let columns = self.kernel * lanes;
        let mut out = vec![T::zero(); self.width * columns];
        for (filter, weight) in self.weight.chunks_exact((self.width * self.kernel).max(1)).enumerate() {
            for (idx, &w) in weight.iter().enumerate() {
                out[idx / self.kernel * columns + idx % self.kernel * lanes + filter] = w;
            }
        }
        out
    }
}

/// The rows of `table` that `symbols` name, `(symbols, width)`.
fn rows<T: Float>(table: &[T], symbols: &[usize], width: usize) -> Vec<T> {
    symbols.iter().flat_map(|&symbol| &table[symbol * width..][..width]).copied().collect()
}

/// What each character adds to each filter at each offset of the kernel, so that a convolution is a sum of `kernel` rows.
#[derive(Debug)]
pub(super) struct Shares<T> {
    /// `(symbols + 1, kernel, lanes)`: the bias is in the middle offset's rows, and the last symbol, no character, is 0.
    values: Vec<T>,
    symbols: usize,
    kernel: usize,
    pub(super) filters: usize,
    /// The filters, rounded up to whole [`LANES`].
    lanes: usize,
}

impl<T: Float> Shares<T> {
    /// Of characters with embeddings `(symbols, width)`.
    pub(super) fn new(embedded: &[T], symbols: usize, conv: Filters<'_, T>) -> Self {
        let Filters { filters, width, kernel, .. } = conv;
        let lanes = filters.next_multiple_of(LANES);
        let columns = kernel * lanes;
        let mut values = vec![T::zero(); (symbols + 1) * columns];
        matmul(
            MatrixMut::new(&mut values, symbols, columns, columns),
            T::one(),
            Matrix::new(embedded, symbols, width, width),
            Matrix::new(&conv.by_offset(lanes), width, columns, columns),
            Threads::All,
        );
        for symbol in values[..symbols * columns].chunks_exact_mut(columns.max(1)) {
            for (value, &bias) in symbol[kernel / 2 * lanes..].iter_mut().zip(conv.bias) {
                *value += bias;
            }
        }
        Self { values, symbols, kernel, filters, lanes }
    }

    /// Fills `starts` with where in `values` the characters of a word begin, between `kernel / 2` times no character.
    fn starts(&self, letters: &[usize], starts: &mut Vec<usize>) {
        let (columns, half) = (self.kernel * self.lanes, self.kernel / 2);
        starts.clear();
        starts.resize(half, self.symbols * columns);
        starts.extend(letters.iter().map(|letter| letter * columns));
        starts.resize(letters.len() + 2 * half, self.symbols * columns);
    }

    /// The maxima over a word for the filters from `first` on, before the ReLU, and where each one is first reached.
    #[inline(always)]
    fn maxima(&self, starts: &[usize], first: usize) -> ([T; LANES], [u32; LANES]) {
        let (mut best, mut peaks) = ([T::zero(); LANES], [0; LANES]);
        for (t, window) in starts.windows(self.kernel).enumerate() {
            let mut sums = [T::zero(); LANES];
            for (offset, start) in window.iter().enumerate() {
                for (sum, &share) in sums.iter_mut().zip(&self.values[start + offset * self.lanes + first..][..LANES]) {
                    *sum += share;
                }
            }
            for ((best, peak), sum) in best.iter_mut().zip(&mut peaks).zip(sums) {
                let higher = t == 0 || sum > *best; // written so that it vectorises
                *best = if higher { sum } else { *best };
                *peak = if higher { t as u32 } else { *peak };
            }
        }
        (best, peaks)
    }

    /// One row of `filters` values for each word from `first_word` on, into `out` and, if there are, `peaks`.
    #[inline(always)]
    fn piece(&self, words: &Words, first_word: usize, out: &mut [T], peaks: &mut [u32]) {
        let filters = self.filters;
        let mut starts = Vec::new();
        let mut peaks = peaks.chunks_exact_mut(filters);
        for (idx, out) in out.chunks_exact_mut(filters).enumerate() {
            let (letters, mut peaks) = (words.word(first_word + idx), peaks.next());
            if letters.is_empty() {
                out.fill(T::zero());
                continue;
            }
            self.starts(letters, &mut starts);
            for (piece, out) in out.chunks_mut(LANES).enumerate() {
                let (best, at) = self.maxima(&starts, piece * LANES);
                for (out, best) in out.iter_mut().zip(best) {
                    *out = if best < T::zero() { T::zero() } else { best };
                }
                if let Some(peaks) = &mut peaks {
                    peaks[piece * LANES..][..out.len()].copy_from_slice(&at[..out.len()]);
                }
            }
        }
    }

    fn vectorized_piece(&self, words: &Words, first_word: usize, out: &mut [T], peaks: &mut [u32]) {
        vectorized(
            #[inline(always)]
            || self.piece(words, first_word, out, peaks),
        );
    }

    /// `(words, filters)`, and if `peaks` is not empty, at which character each value is.
    pub(super) fn words(&self, words: &Words, out: &mut [T], peaks: &mut [u32]) {
        let piece = PIECE * self.filters;
        if out.len() <= CHUNK {
            if !out.is_empty() {
                self.vectorized_piece(words, 0, out, peaks);
            }
        } else if peaks.is_empty() {
            let pieces = out.par_chunks_mut(piece).enumerate();
            pieces.for_each(|(idx, out)| self.vectorized_piece(words, idx * PIECE, out, &mut []));
        } else {
            let pieces = out.par_chunks_mut(piece).zip(peaks.par_chunks_mut(piece)).enumerate();
            pieces.for_each(|(idx, (out, peaks))| self.vectorized_piece(words, idx * PIECE, out, peaks));
        }
    }
}

/// `(words, filters)` of words whose letters stand for `symbols` of the table, and at which character each value is.
pub(super) fn forward<T: Float>(
    words: &Words,
    symbols: &[usize],
    table: &[T],
    conv: Filters<'_, T>,
) -> (Vec<T>, Vec<u32>) {
    let shares = Shares::new(&rows(table, symbols, conv.width), symbols.len(), conv);
    let len = words.count() * conv.filters;
    let (mut out, mut peaks) = (vec![T::zero(); len], vec![0; len]);
    shares.words(words, &mut out, &mut peaks);
    (out, peaks)
}

/// For the character at `t` of a word: the kernel's offsets that lie inside the word, with their characters.
#[inline(always)]
fn window(kernel: usize, letters: &[usize], t: usize) -> impl Iterator<Item = (usize, usize)> {
    let half = kernel / 2;
    let first = half.saturating_sub(t);
    let last = kernel.min(letters.len() + half - t);
    (first..last).map(move |offset| (offset, letters[t + offset - half]))
}

/// Gradients of table, weight and bias.
pub(super) fn backward<T: Float>(
    (words, symbols): (&Words, &[usize]),
    table: &[T],
    conv: Filters<'_, T>,
    peaks: &[u32],
    out: &[T],
    d_out: &[T],
) -> [Vec<T>; 3] {
    let Filters { filters, width, kernel, .. } = conv;
    let columns = kernel * filters;
    let (mut d_table, mut d_weight) = (vec![T::zero(); table.len()], vec![T::zero(); conv.weight.len()]);
    let mut d_bias = vec![T::zero(); filters];
    if symbols.is_empty() || filters == 0 {
        return [d_table, d_weight, d_bias];
    }
    // Every task takes all words for some filters, in the words' order: (symbols, kernel, filters of the task).
    let pieces: Vec<Vec<T>> = d_bias
        .par_chunks_mut(PIECE)
        .enumerate()
        .map(|(piece, d_bias)| {
            let (first, count) = (piece * PIECE, d_bias.len());
            let mut d_shares = vec![T::zero(); symbols.len() * kernel * count];
            for word in 0..words.count() {
                let letters = words.word(word);
                let row = word * filters + first..word * filters + first + count;
                let values = out[row.clone()].iter().zip(&d_out[row.clone()]).zip(&peaks[row]);
                for (filter, ((&out, &d), &peak)) in values.enumerate() {
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
    let mut d_shares = vec![T::zero(); symbols.len() * columns];
    for (piece, part) in pieces.iter().enumerate() {
        let count = PIECE.min(filters - piece * PIECE);
        for (row, part) in part.chunks_exact(count).enumerate() {
            d_shares[row * filters + piece * PIECE..][..count].copy_from_slice(part);
        }
    }
    let (embedded, weight) = (rows(table, symbols, width), conv.by_offset(filters));
    let d_shares = Matrix::new(&d_shares, symbols.len(), columns, columns);
    let mut d_used = vec![T::zero(); symbols.len() * width];
    let weight = Matrix::new(&weight, width, columns, columns);
    let d_rows = MatrixMut::new(&mut d_used, symbols.len(), width, width);
    matmul(d_rows, T::one(), d_shares, weight.t(), Threads::All);
    for (symbol, d_used) in symbols.iter().zip(d_used.chunks_exact(width.max(1))) {
        d_table[symbol * width..][..width].copy_from_slice(d_used);
    }
    let mut d_by_offset = vec![T::zero(); width * columns];
    let embedded = Matrix::new(&embedded, symbols.len(), width, width);
    matmul(MatrixMut::new(&mut d_by_offset, width, columns, columns), T::one(), embedded.t(), d_shares, Threads::All);
    for (filter, d_weight) in d_weight.chunks_exact_mut((width * kernel).max(1)).enumerate() {
        for (idx, d) in d_weight.iter_mut().enumerate() {
            *d = d_by_offset[idx / kernel * columns + idx % kernel * filters + filter];
        }
    }
    [d_table, d_weight, d_bias]
}
