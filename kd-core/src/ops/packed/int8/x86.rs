//! The sums of [`super`] with AVX-512 VNNI and with AVX2.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::super::blocks::by_size;
use super::{DEPTH, LINE, Line, PANEL, Product, Sums, Tile};

#[target_feature(enable = "avx2")]
pub(super) fn quantize_rows_avx2(x: &[f32], width: usize, values: &mut [u8], stride: usize, grids: &mut [(f32, i32)]) {
    super::quantize_rows(x, width, values, stride, grids);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn quantize_rows_vnni(x: &[f32], width: usize, values: &mut [u8], stride: usize, grids: &mut [(f32, i32)]) {
    super::quantize_rows(x, width, values, stride, grids);
}

/// # Safety
/// As [`Product::block`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn block_vnni(product: &Product<'_>, rows: Range<usize>, panels: Range<usize>) {
    let sums = |tile: Tile, sums: &mut Sums| by_size!(tile, tile_vnni(product, tile, sums));
    // SAFETY: the caller's promise.
    unsafe { product.block(rows, panels, sums) }
}

/// `R` rows of `V` lines side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile_vnni<const R: usize, const V: usize>(product: &Product<'_>, tile: Tile, sums: &mut Sums) {
    const PER_PANEL: usize = PANEL / LINE;
    let panels: [*const Line; V] =
        std::array::from_fn(|v| product.panel(tile.panel + v / PER_PANEL).as_ptr().wrapping_add(v % PER_PANEL));
    let rows: [*const u8; R] = std::array::from_fn(|r| product.row(tile.row + r).as_ptr());
    let mut lanes = [[_mm512_setzero_si512(); V]; R];
    for step in 0..product.steps {
        // SAFETY: a panel has `PER_PANEL` lines for each step, of which one starts at `v % PER_PANEL`.
        let weights: [__m512i; V] =
            std::array::from_fn(|v| unsafe { _mm512_load_si512(panels[v].add(step * PER_PANEL).cast()) });
        for (lanes, row) in lanes.iter_mut().zip(rows) {
            // SAFETY: a row has `DEPTH` bytes for each step.
            let x = _mm512_set1_epi32(unsafe { row.add(step * DEPTH).cast::<i32>().read_unaligned() });
            for (lanes, weights) in lanes.iter_mut().zip(weights) {
                *lanes = _mm512_dpbusd_epi32(*lanes, x, weights);
            }
            // SAFETY: no instruction. Loads stay on their side of it; gathered at the top of the loop, they would
            // push the sums out of the registers.
            unsafe { asm!("", options(nostack, preserves_flags)) };
        }
    }
    for (sums, lanes) in sums.0.as_chunks_mut::<LINE>().0.iter_mut().zip(lanes.as_flattened()) {
        // SAFETY: `sums` are 16 values.
        unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), *lanes) };
    }
}

/// # Safety
/// As [`Product::block`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn block_avx2(product: &Product<'_>, rows: Range<usize>, panels: Range<usize>) {
    let sums = |tile: Tile, sums: &mut Sums| {
        let width = tile.panels * PANEL;
        for line in 0..tile.panels * (PANEL / LINE) {
            let mut row = 0;
            while row < tile.rows {
                let sums = &mut sums.0[row * width + line * LINE..];
                match tile.rows - row {
                    1 => lines_avx2::<1>(product, tile, row, line, sums, width),
                    2 => lines_avx2::<2>(product, tile, row, line, sums, width),
                    _ => lines_avx2::<3>(product, tile, row, line, sums, width),
                }
                row += 3;
            }
        }
    };
    // SAFETY: the caller's promise.
    unsafe { product.block(rows, panels, sums) }
}

/// `R` rows of one line: four columns to a register, two sums of two products for each.
#[inline]
#[target_feature(enable = "avx2")]
fn lines_avx2<const R: usize>(
    product: &Product<'_>,
    tile: Tile,
    row: usize,
    line: usize,
    sums: &mut [i32],
    width: usize,
) {
    const PER_PANEL: usize = PANEL / LINE;
    let lines = product.panel(tile.panel + line / PER_PANEL).iter().skip(line % PER_PANEL).step_by(PER_PANEL);
    let rows: [&[u8]; R] = std::array::from_fn(|r| product.row(tile.row + row + r));
    let mut lanes = [[_mm256_setzero_si256(); 4]; R];
    for (step, line) in lines.enumerate() {
        // SAFETY: a line has 64 bytes.
        let weights: [__m256i; 4] = std::array::from_fn(|quarter| unsafe {
            _mm256_cvtepi8_epi16(_mm_load_si128(line.0.as_ptr().add(quarter * 16).cast()))
        });
        for (lanes, row) in lanes.iter_mut().zip(rows) {
            // SAFETY: a row has `DEPTH` bytes for each step.
            let x = unsafe { row.as_ptr().add(step * DEPTH).cast::<i32>().read_unaligned() };
            let x = _mm256_cvtepu8_epi16(_mm_set1_epi32(x));
            for (lanes, weights) in lanes.iter_mut().zip(weights) {
                *lanes = _mm256_add_epi32(*lanes, _mm256_madd_epi16(x, weights));
            }
        }
    }
    for (r, lanes) in lanes.iter().enumerate() {
        for (lanes, sums) in lanes.chunks_exact(2).zip(sums[r * width..][..LINE].chunks_exact_mut(8)) {
            // Columns 0 1 4 5 | 2 3 6 7 after the pairs are added.
            let eight = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(lanes[0], lanes[1]));
            // SAFETY: `sums` are 8 values.
            unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), eight) };
        }
    }
}
