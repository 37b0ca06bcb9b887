//! Products of bytes: weights rounded once, the rows of the input on every call.
//!
//! ```text
//! w[o][i] ≈ s[o] · q[o][i]            q in -127 ..= 127, s[o] = max_i |w[o][i]| / 127
//! x[r][i] ≈ t[r] · (u[r][i] - z[r])   u in 0 ..= 255, t[r] = (max - min) / 255 over the row and 0, z[r] = -min / t[r]
//! y[r][o] ≈ t[r] · s[o] · (Σ_i u[r][i] q[o][i] - z[r] · Σ_i q[o][i])
//! ```
//!
//! The sums are exact in i32, so they are the same on every path: VNNI of AVX-512 and of AVX, AVX2, and plain Rust. Scaling them is
//! one expression of f32 without fused operations, so whole outputs are equal too, byte for byte. AVX2's
//! `maddubs` would saturate; the AVX2 path widens to 16 bits instead.
//!
//! A row with a value that is not finite gets the scale NaN, and with it only NaN as output.

use std::ops::Range;

use rayon::prelude::*;

use super::super::cpu;
use super::Activation;
use super::blocks::{LINE, Output, PANEL, TILE, Tile, for_each_block, for_each_tile};

#[cfg(target_arch = "x86_64")]
mod x86;

/// The widest input for which no sum can leave i32: each of its terms is at most 255 · 127.
pub(super) const WIDEST: usize = i32::MAX as usize / (255 * 127);

/// Values of a line's columns that lie side by side.
const DEPTH: usize = 4;

/// 16 columns of 4 values each, column after column: one operand of a VNNI instruction.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([i8; LINE * DEPTH]);

/// Which instructions compute the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Level {
    /// Every level that this processor has, the best one last.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        [
            Some(Self::Portable),
            #[cfg(target_arch = "x86_64")]
            is_x86_feature_detected!("avx2").then_some(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni")).then_some(Self::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            (is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni"))
            .then_some(Self::Vnni),
        ]
        .into_iter()
        .flatten()
    }

    pub(super) fn best() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }
}

/// The weights of a linear layer as bytes, in panels of 32 columns.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    width: usize,
    out: usize,
    /// `[panel][step][2]`, padded with zeros to whole panels and steps of 4 values.
    lines: Vec<Line>,
    /// `Σ_i q[o][i]`, of whole panels.
    totals: Vec<i32>,
    /// `s[o]`, of whole panels.
    scales: Vec<f32>,
}

impl Weights {
    /// Packs `out` rows of `width` multiples and their scales.
    pub(super) fn new(multiples: &[i8], scales: &[f32], width: usize) -> Self {
        let out = scales.len();
        let (steps, columns) = (width.div_ceil(DEPTH), out.next_multiple_of(PANEL));
        let mut lines = vec![Line([0; LINE * DEPTH]); columns / LINE * steps];
        for (column, row) in multiples.chunks_exact(width.max(1)).enumerate() {
            for (idx, &multiple) in row.iter().enumerate() {
                lines[place(column, idx, steps)].0[slot(column, idx)] = multiple;
            }
        }
        let mut totals = vec![0; columns];
        for (total, row) in totals.iter_mut().zip(multiples.chunks_exact(width.max(1))) {
            *total = row.iter().map(|&q| i32::from(q)).sum();
        }
        let mut padded = scales.to_vec();
        padded.resize(columns, 0.0);
        Self { width, out, lines, totals, scales: padded }
    }

    /// The weights as the product sees them, `(out, width)`.
    pub(super) fn dequantized(&self) -> Vec<f32> {
        let steps = self.width.div_ceil(DEPTH);
        let mut values = Vec::with_capacity(self.out * self.width);
        for column in 0..self.out {
            values.extend((0..self.width).map(|idx| {
                self.scales[column] * f32::from(self.lines[place(column, idx, steps)].0[slot(column, idx)])
            }));
        }
        values
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.totals) + size_of_val(&*self.scales)
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

/// Rows of an input as bytes.
#[derive(Debug, PartialEq)]
pub(super) struct Rows {
    /// Bytes from row to row: the width in whole steps of 4.
    stride: usize,
    values: Vec<u8>,
    /// `t[r]` and `z[r]`.
    grids: Vec<(f32, i32)>,
}

impl Rows {
    pub(super) fn new(x: &[f32], rows: usize, width: usize) -> Self {
        Self::at(Level::best(), x, rows, width)
    }

    fn at(level: Level, x: &[f32], rows: usize, width: usize) -> Self {
        assert_eq!(x.len(), rows * width, "expected {rows} rows of {width} values");
        let stride = width.next_multiple_of(DEPTH);
        let mut values = vec![0; rows * stride];
        let mut grids = vec![(0.0, 0); rows];
        if width == 0 {
            return Self { stride, values, grids };
        }
        let per_task = cpu::rows_per_task(width);
        let tasks =
            values.chunks_mut(per_task * stride).zip(grids.chunks_mut(per_task)).zip(x.chunks(per_task * width));
        let quantize = |values: &mut [u8], grids: &mut [(f32, i32)], x: &[f32]| match level {
            Level::Portable => quantize_rows(x, width, values, stride, grids),
            // SAFETY: the level was detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => unsafe { x86::quantize_rows_avx2(x, width, values, stride, grids) },
            // SAFETY: the level was detected.
            #[cfg(target_arch = "x86_64")]
            Level::Vnni => unsafe { x86::quantize_rows_vnni(x, width, values, stride, grids) },
        };
        if rows <= per_task {
            tasks.for_each(|((values, grids), x)| quantize(values, grids, x));
        } else {
            let tasks: Vec<_> = tasks.collect();
            tasks.into_par_iter().for_each(|((values, grids), x)| quantize(values, grids, x));
        }
        Self { stride, values, grids }
    }
}

#[inline(always)]
fn quantize_rows(x: &[f32], width: usize, values: &mut [u8], stride: usize, grids: &mut [(f32, i32)]) {
    for ((x, values), grid) in x.chunks_exact(width).zip(values.chunks_exact_mut(stride)).zip(grids) {
        *grid = quantize_row(x, values);
    }
}

/// Rounds a row to bytes; returns the step `t` and the byte `z` of zero.
#[inline(always)]
fn quantize_row(x: &[f32], values: &mut [u8]) -> (f32, i32) {
    /// 1.5 · 2²³: adding it leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    /// Bits of a float, negative ones with all but the sign flipped: they compare as the floats do, and a NaN lies
    /// beyond an infinity. Unlike the minimum of floats, that of integers is one instruction in any order.
    /// Its own inverse.
    #[inline(always)]
    fn ordered(bits: i32) -> i32 {
        bits ^ ((bits >> 31) & 0x7fff_ffff)
    }
    let (mut lowest, mut highest) = (0, 0); // the row and 0, which must be a byte too
    for x in x {
        let x = ordered(x.to_bits().cast_signed());
        lowest = lowest.min(x);
        highest = highest.max(x);
    }
    let [lowest, highest] = [lowest, highest].map(|bits| f32::from_bits(ordered(bits).cast_unsigned()));
    // Divided before they are subtracted, because the difference of the largest floats is infinite.
    let step = highest / 255.0 - lowest / 255.0;
    let inverse = 1.0 / step;
    if !(lowest.is_finite() && highest.is_finite()) {
        values.fill(0);
        return (f32::NAN, 0);
    }
    if !inverse.is_finite() {
        values.fill(0); // all zero, or below 1e-36
        return (0.0, 0);
    }
    let nearest = |x: f32| (x * inverse + ROUND).to_bits().cast_signed() - ROUND.to_bits().cast_signed();
    let zero = nearest(-lowest).clamp(0, 255);
    for (value, &x) in values.iter_mut().zip(x) {
        *value = (nearest(x) + zero).clamp(0, 255) as u8;
    }
    (step, zero)
}

/// `out = activation(x Wᵀ + bias)`; `bias` is of whole panels.
pub(super) fn product(out: &mut [f32], x: &Rows, weights: &Weights, bias: &[f32], activation: Activation) {
    product_at(Level::best(), out, x, weights, bias, activation);
}

fn product_at(level: Level, out: &mut [f32], x: &Rows, weights: &Weights, bias: &[f32], activation: Activation) {
    let (rows, steps) = (x.grids.len(), weights.width.div_ceil(DEPTH));
    assert_eq!(x.stride, steps * DEPTH, "expected an input of width {}", weights.width);
    let out = Output::new(out, rows, weights.out, bias, activation);
    let product = Product { x, weights, out, steps };
    for_each_block(rows, weights.scales.len() / PANEL, weights.width, |rows, panels| match level {
        // SAFETY: blocks are disjoint.
        Level::Portable => unsafe { product.block(rows, panels, |tile, sums| product.sums(tile, sums)) },
        // SAFETY: the level was detected; blocks are disjoint.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::block_avx2(&product, rows, panels) },
        // SAFETY: the level was detected; blocks are disjoint.
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => unsafe { x86::block_avx_vnni(&product, rows, panels) },
        // SAFETY: the level was detected; blocks are disjoint.
        #[cfg(target_arch = "x86_64")]
        Level::Vnni => unsafe { x86::block_vnni(&product, rows, panels) },
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
struct Sums([i32; TILE]);

impl<'a> Product<'a> {
    /// Computes a block, where `sums` computes those of a tile.
    ///
    /// # Safety
    /// Nothing else may access this block of the output.
    #[inline(always)]
    unsafe fn block(&self, rows: Range<usize>, panels: Range<usize>, sums: impl Fn(Tile, &mut Sums)) {
        let (mut buffer, mut values) = (Sums([0; TILE]), [[0f32; PANEL]; TILE / PANEL]);
        // Inlined into the caller, so that the instructions are its own.
        for_each_tile(
            rows,
            panels,
            #[inline(always)]
            |tile| {
                sums(tile, &mut buffer);
                let values = &mut values[..tile.rows * tile.panels];
                for (idx, (values, sums)) in values.iter_mut().zip(buffer.0.as_chunks::<PANEL>().0).enumerate() {
                    let (step, zero) = self.x.grids[tile.row + idx / tile.panels];
                    let (totals, scales) = self.columns(tile.panel + idx % tile.panels);
                    for column in 0..PANEL {
                        let sum = sums[column].wrapping_sub(zero.wrapping_mul(totals[column])); // see `WIDEST`
                        values[column] = sum as f32 * scales[column] * step;
                    }
                }
                // SAFETY: the caller's promise, and tiles of a block are disjoint.
                unsafe { self.out.write(tile, values) };
            },
        );
    }

    /// Totals and scales of a panel.
    #[inline(always)]
    fn columns(&self, panel: usize) -> (&[i32; PANEL], &[f32; PANEL]) {
        (&self.weights.totals.as_chunks().0[panel], &self.weights.scales.as_chunks().0[panel])
    }

    /// The lines of a panel.
    #[inline(always)]
    fn panel(&self, panel: usize) -> &'a [Line] {
        let len = self.steps * (PANEL / LINE);
        &self.weights.lines[panel * len..(panel + 1) * len]
    }

    /// The bytes of a row.
    #[inline(always)]
    fn row(&self, row: usize) -> &'a [u8] {
        &self.x.values[row * self.x.stride..(row + 1) * self.x.stride]
    }

    /// The sums of a tile in plain Rust.
    fn sums(&self, tile: Tile, sums: &mut Sums) {
        for (row, sums) in (tile.row..tile.row + tile.rows).zip(sums.0.chunks_exact_mut(tile.panels * PANEL)) {
            for (panel, sums) in (tile.panel..tile.panel + tile.panels).zip(sums.chunks_exact_mut(PANEL)) {
                sums.fill(0);
                for (x, lines) in self.row(row).chunks_exact(DEPTH).zip(self.panel(panel).chunks_exact(PANEL / LINE)) {
                    for (sums, line) in sums.chunks_exact_mut(LINE).zip(lines) {
                        for (idx, &x) in x.iter().enumerate() {
                            for (sum, q) in sums.iter_mut().zip(line.0.as_chunks::<DEPTH>().0) {
                                *sum += i32::from(i16::from(x) * i16::from(q[idx])); // at most 255 · 127
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
