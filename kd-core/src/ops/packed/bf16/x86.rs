//! The sums of [`super`] with AVX512-BF16 and with AVX2.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::super::blocks::by_size;
use super::{DEPTH, LINE, Line, PANEL, Product, Sums, Tile};

const PER_PANEL: usize = PANEL / LINE;

#[target_feature(enable = "avx2")]
pub(super) fn round_rows_avx2(x: &[f32], width: usize, values: &mut [u16], stride: usize) {
    super::round_rows(x, width, values, stride);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn round_rows_avx512(x: &[f32], width: usize, values: &mut [u16], stride: usize) {
    super::round_rows(x, width, values, stride);
}

/// # Safety
/// As [`Product::block`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn block_avx512(product: &Product<'_>, rows: Range<usize>, panels: Range<usize>) {
    let sums = |tile: Tile, sums: &mut Sums| by_size!(tile, tile_avx512(product, tile, sums));
    // SAFETY: the caller's promise.
    unsafe { product.block(rows, panels, sums) }
}

/// `R` rows of `V` lines side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn tile_avx512<const R: usize, const V: usize>(product: &Product<'_>, tile: Tile, sums: &mut Sums) {
    /// The same bits, read as pairs of bf16.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn pairs(bits: __m512i) -> __m512bh {
        // SAFETY: both are 512 bits of anything.
        unsafe { std::mem::transmute(bits) }
    }
    let panels: [*const Line; V] =
        std::array::from_fn(|v| product.panel(tile.panel + v / PER_PANEL).as_ptr().wrapping_add(v % PER_PANEL));
    let rows: [*const u16; R] = std::array::from_fn(|r| product.row(tile.row + r).as_ptr());
    let mut lanes = [[_mm512_setzero_ps(); V]; R];
    for step in 0..product.steps {
        // SAFETY: a panel has `PER_PANEL` lines for each step, of which one starts at `v % PER_PANEL`.
        let weights: [__m512bh; V] =
            std::array::from_fn(|v| unsafe { pairs(_mm512_load_si512(panels[v].add(step * PER_PANEL).cast())) });
        for (lanes, row) in lanes.iter_mut().zip(rows) {
            // SAFETY: a row has `DEPTH` values for each step.
            let x = pairs(_mm512_set1_epi32(unsafe { row.add(step * DEPTH).cast::<i32>().read_unaligned() }));
            for (lanes, weights) in lanes.iter_mut().zip(weights) {
                *lanes = _mm512_dpbf16_ps(*lanes, x, weights);
            }
            // SAFETY: no instruction. Loads stay on their side of it; gathered at the top of the loop, they would
            // push the sums out of the registers.
            unsafe { asm!("", options(nostack, preserves_flags)) };
        }
    }
    for (sums, lanes) in sums.0.as_flattened_mut().as_chunks_mut::<LINE>().0.iter_mut().zip(lanes.as_flattened()) {
        // SAFETY: `sums` are 16 values.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *lanes) };
    }
}

/// # Safety
/// As [`Product::block`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn block_avx2(product: &Product<'_>, rows: Range<usize>, panels: Range<usize>) {
    let sums = |tile: Tile, sums: &mut Sums| {
        for line in 0..tile.panels * PER_PANEL {
            let mut row = 0;
            while row < tile.rows {
                match tile.rows - row {
                    1 => lines_avx2::<1>(product, tile, row, line, sums),
                    2 => lines_avx2::<2>(product, tile, row, line, sums),
                    3 => lines_avx2::<3>(product, tile, row, line, sums),
                    _ => lines_avx2::<4>(product, tile, row, line, sums),
                }
                row += 4;
            }
        }
    };
    // SAFETY: the caller's promise.
    unsafe { product.block(rows, panels, sums) }
}

/// `R` rows of one line, widened to f32: the first values of all pairs, then the second.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn lines_avx2<const R: usize>(product: &Product<'_>, tile: Tile, row: usize, line: usize, sums: &mut Sums) {
    /// The first and the second values of eight pairs.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn widen(pairs: __m256i) -> [__m256; 2] {
        let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32.cast_signed()));
        [_mm256_slli_epi32::<16>(pairs), second].map(|bits| _mm256_castsi256_ps(bits))
    }
    let lines = product.panel(tile.panel + line / PER_PANEL).iter().skip(line % PER_PANEL).step_by(PER_PANEL);
    let rows: [&[u16]; R] = std::array::from_fn(|r| product.row(tile.row + row + r));
    let mut lanes = [[_mm256_setzero_ps(); 2]; R];
    for (step, line) in lines.enumerate() {
        // SAFETY: a line has 64 bytes.
        let weights: [[__m256; 2]; 2] =
            std::array::from_fn(|half| unsafe { widen(_mm256_load_si256(line.0.as_ptr().add(half * LINE).cast())) });
        for (lanes, row) in lanes.iter_mut().zip(rows) {
            // SAFETY: a row has `DEPTH` values for each step.
            let x = widen(_mm256_set1_epi32(unsafe { row.as_ptr().add(step * DEPTH).cast::<i32>().read_unaligned() }));
            for (lanes, weights) in lanes.iter_mut().zip(weights) {
                *lanes = _mm256_fmadd_ps(x[1], weights[1], _mm256_fmadd_ps(x[0], weights[0], *lanes));
            }
        }
    }
    for (r, lanes) in lanes.iter().enumerate() {
        let row = (row + r) * tile.panels * PANEL + line * LINE;
        for (lanes, sums) in lanes.iter().zip(sums.0.as_flattened_mut()[row..].chunks_exact_mut(8)) {
            // SAFETY: `sums` are 8 values.
            unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), *lanes) };
        }
    }
}
