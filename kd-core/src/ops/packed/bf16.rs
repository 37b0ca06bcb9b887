//! Products of bf16: weights and input rounded to the upper half of an f32, sums in f32.
//!
//! A value is off by at most 2⁻⁸ of itself (the nearest bf16, ties to even). With AVX512-BF16 two products are added at
//! a time; elsewhere the halves are widened to f32 first, which saves memory but no time. The sums are added in
//! another order there, so paths agree within rounding and not byte for byte.

use std::ops::Range;

use super::super::cpu;
use super::Activation;
use super::blocks::{LINE, Output, PANEL, TILE, Tile, for_each_block, for_each_tile};

#[cfg(target_arch = "x86_64")]
mod x86;

/// Values of a line's columns that lie side by side.
const DEPTH: usize = 2;

/// 16 columns of 2 values each, column after column: one operand of an AVX512-BF16 instruction.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([u16; LINE * DEPTH]);

/// Which instructions compute the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// Every level that this processor has, the best one last.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        [
            Some(Self::Portable),
            #[cfg(target_arch = "x86_64")]
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            (is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bf16"))
            .then_some(Self::Avx512),
        ]
        .into_iter()
        .flatten()
    }

    pub(super) fn best() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }
}

/// The nearest bf16, ties to even.
#[inline(always)]
pub(super) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    // Rounding could carry a NaN's bits into the sign.
    let bits = if x.is_nan() { bits | 0x0040_0000 } else { bits + 0x7fff + (bits >> 16 & 1) };
    (bits >> 16) as u16
}

#[inline(always)]
fn widen(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// The weights of a linear layer in panels of 32 columns.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    width: usize,
    out: usize,
    /// `[panel][step][2]`, padded with zeros to whole panels and steps of 2 values.
    lines: Vec<Line>,
}

impl Weights {
    /// Packs `out` rows of `width` values.
    pub(super) fn new(values: &[f32], out: usize, width: usize) -> Self {
        let steps = width.div_ceil(DEPTH);
        let mut lines = vec![Line([0; LINE * DEPTH]); out.next_multiple_of(PANEL) / LINE * steps];
        for (column, row) in values.chunks_exact(width.max(1)).enumerate() {
            for (idx, &value) in row.iter().enumerate() {
                lines[place(column, idx, steps)].0[slot(column, idx)] = round(value);
            }
        }
        Self { width, out, lines }
    }

    /// The weights as the product sees them, `(out, width)`.
    pub(super) fn widened(&self) -> Vec<f32> {
        let (steps, mut values) = (self.width.div_ceil(DEPTH), Vec::with_capacity(self.out * self.width));
        for column in 0..self.out {
            values.extend((0..self.width).map(|idx| widen(self.lines[place(column, idx, steps)].0[slot(column, idx)])));
        }
        values
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }
}

/// The line of a weight.
fn place(column: usize, idx: usize, steps: usize) -> usize {
    (column / PANEL * steps + idx / DEPTH) * (PANEL / LINE) + column % PANEL / LINE
}

/// Where in its line a weight is.
fn slot(column: usize, idx: usize) -> usize {
    column % LINE * DEPTH + idx % DEPTH
}

/// Rows of an input in bf16.
#[derive(Debug)]
pub(super) struct Rows {
    rows: usize,
    /// Values from row to row: the width in whole steps of 2.
    stride: usize,
    values: Vec<u16>,
}

impl Rows {
    pub(super) fn new(x: &[f32], rows: usize, width: usize) -> Self {
        Self::at(Level::best(), x, rows, width)
    }

    fn at(level: Level, x: &[f32], rows: usize, width: usize) -> Self {
        assert_eq!(x.len(), rows * width, "expected {rows} rows of {width} values");
        let stride = width.next_multiple_of(DEPTH);
        let mut values = vec![0; rows * stride];
        if width > 0 {
            cpu::par_rows(
                &mut values,
                stride,
                #[inline(always)]
                |first_row, values| {
                    let x = &x[first_row * width..][..values.len() / stride * width];
                    match level {
                        Level::Portable => round_rows(x, width, values, stride),
                        // SAFETY: the level was detected.
                        #[cfg(target_arch = "x86_64")]
                        Level::Avx2 => unsafe { x86::round_rows_avx2(x, width, values, stride) },
                        // SAFETY: the level was detected.
                        #[cfg(target_arch = "x86_64")]
                        Level::Avx512 => unsafe { x86::round_rows_avx512(x, width, values, stride) },
                    }
                },
            );
        }
        Self { rows, stride, values }
    }
}

#[inline(always)]
fn round_rows(x: &[f32], width: usize, values: &mut [u16], stride: usize) {
    for (x, values) in x.chunks_exact(width).zip(values.chunks_exact_mut(stride)) {
        for (value, &x) in values.iter_mut().zip(x) {
            *value = round(x);
        }
    }
}

/// `out = activation(x Wᵀ + bias)`; `bias` is of whole panels.
pub(super) fn product(out: &mut [f32], x: &Rows, weights: &Weights, bias: &[f32], activation: Activation) {
    product_at(Level::best(), out, x, weights, bias, activation);
}

fn product_at(level: Level, out: &mut [f32], x: &Rows, weights: &Weights, bias: &[f32], activation: Activation) {
    let steps = weights.width.div_ceil(DEPTH);
    assert_eq!(x.stride, steps * DEPTH, "expected an input of width {}", weights.width);
    let out = Output::new(out, x.rows, weights.out, bias, activation);
    let product = Product { x, weights, out, steps };
    // A multiplication takes twice as long as one of bytes.
    for_each_block(x.rows, bias.len() / PANEL, 2 * weights.width, |rows, panels| match level {
        // SAFETY: blocks are disjoint.
        Level::Portable => unsafe { product.block(rows, panels, |tile, sums| product.sums(tile, sums)) },
        // SAFETY: the level was detected; blocks are disjoint.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::block_avx2(&product, rows, panels) },
        // SAFETY: the level was detected; blocks are disjoint.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::block_avx512(&product, rows, panels) },
    });
}

/// Everything that a block of a product needs.
struct Product<'a> {
    x: &'a Rows,
    weights: &'a Weights,
    out: Output<'a>,
    steps: usize,
}

/// Sums of a tile, row by row.
#[repr(align(64))]
struct Sums([[f32; PANEL]; TILE / PANEL]);

impl Product<'_> {
    /// Computes a block, where `sums` computes those of a tile.
    ///
    /// # Safety
    /// Nothing else may access this block of the output.
    #[inline(always)]
    unsafe fn block(&self, rows: Range<usize>, panels: Range<usize>, sums: impl Fn(Tile, &mut Sums)) {
        let mut buffer = Sums([[0.0; PANEL]; TILE / PANEL]);
        // Inlined into the caller, so that the instructions are its own.
        for_each_tile(
            rows,
            panels,
            #[inline(always)]
            |tile| {
                sums(tile, &mut buffer);
                // SAFETY: the caller's promise, and tiles of a block are disjoint.
                unsafe { self.out.write(tile, &mut buffer.0[..tile.rows * tile.panels]) };
            },
        );
    }

    /// The lines of a panel.
    #[inline(always)]
    fn panel(&self, panel: usize) -> &[Line] {
        let len = self.steps * (PANEL / LINE);
        &self.weights.lines[panel * len..(panel + 1) * len]
    }

    /// The values of a row.
    #[inline(always)]
    fn row(&self, row: usize) -> &[u16] {
        &self.x.values[row * self.x.stride..(row + 1) * self.x.stride]
    }

    /// The sums of a tile in plain Rust.
    fn sums(&self, tile: Tile, sums: &mut Sums) {
        for (idx, sums) in sums.0[..tile.rows * tile.panels].iter_mut().enumerate() {
            let (row, panel) = (self.row(tile.row + idx / tile.panels), self.panel(tile.panel + idx % tile.panels));
            *sums = [0.0; PANEL];
            for (x, lines) in row.as_chunks::<DEPTH>().0.iter().zip(panel.chunks_exact(PANEL / LINE)) {
                for (sums, line) in sums.as_chunks_mut::<LINE>().0.iter_mut().zip(lines) {
                    for (sum, w) in sums.iter_mut().zip(line.0.as_chunks::<DEPTH>().0) {
                        *sum = *sum + widen(x[0]) * widen(w[0]) + widen(x[1]) * widen(w[1]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
