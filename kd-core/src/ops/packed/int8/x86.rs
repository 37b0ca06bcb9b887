//! The sums of [`super`] with AVX-512 VNNI and with AVX2.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::super::blocks::by_size;
use super::{DEPTH, LINE, Line, PANEL, Product, Sums, Tile};

const PER_PANEL: usize = PANEL / LINE;

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

/// Part of a tile for 256-bit registers: one line of a few rows.
#[derive(Clone, Copy)]
struct Piece {
    tile: Tile,
    line: usize,
    row: usize,
}

impl Piece {
    /// Calls `work(piece, rows)` for pieces of at most `most` rows.
    #[inline(always)]
    fn for_each(tile: Tile, most: usize, mut work: impl FnMut(Self, usize)) {
        for line in 0..tile.panels * PER_PANEL {
            for row in (0..tile.rows).step_by(most) {
                work(Self { tile, line, row }, most.min(tile.rows - row));
            }
        }
    }

    #[inline(always)]
    fn lines<'a>(self, product: &Product<'a>) -> impl Iterator<Item = &'a Line> + use<'a> {
        let panel = product.panel(self.tile.panel + self.line / PER_PANEL);
        panel.iter().skip(self.line % PER_PANEL).step_by(PER_PANEL)
    }

    #[inline(always)]
    fn rows<'a, const R: usize>(self, product: &Product<'a>) -> [&'a [u8]; R] {
        std::array::from_fn(|r| product.row(self.tile.row + self.row + r))
    }

    /// The halves of the sums of row `r`.
    #[inline(always)]
    fn sums(self, sums: &mut Sums, r: usize) -> &mut [[i32; LINE / 2]] {
        let start = (self.row + r) * self.tile.panels * PANEL + self.line * LINE;
        sums.0[start..start + LINE].as_chunks_mut().0
    }
}

/// # Safety
/// As [`Product::block`].
#[target_feature(enable = "avx2,avxvnni")]
pub(super) unsafe fn block_avx_vnni(product: &Product<'_>, rows: Range<usize>, panels: Range<usize>) {
    let sums = |tile: Tile, sums: &mut Sums| {
        Piece::for_each(tile, 6, |piece, rows| match rows {
            1 => piece_avx_vnni::<1>(product, piece, sums),
            2 => piece_avx_vnni::<2>(product, piece, sums),
            3 => piece_avx_vnni::<3>(product, piece, sums),
            4 => piece_avx_vnni::<4>(product, piece, sums),
            5 => piece_avx_vnni::<5>(product, piece, sums),
            _ => piece_avx_vnni::<6>(product, piece, sums),
        });
    };
    // SAFETY: the caller's promise.
    unsafe { product.block(rows, panels, sums) }
}

/// `R` rows of one line, eight columns to a register.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn piece_avx_vnni<const R: usize>(product: &Product<'_>, piece: Piece, sums: &mut Sums) {
    let rows: [&[u8]; R] = piece.rows(product);
    let mut lanes = [[_mm256_setzero_si256(); 2]; R];
    for (step, line) in piece.lines(product).enumerate() {
        // SAFETY: a line has 64 bytes.
        let weights: [__m256i; 2] =
            std::array::from_fn(|half| unsafe { _mm256_load_si256(line.0.as_ptr().add(half * 32).cast()) });
        for (lanes, row) in lanes.iter_mut().zip(rows) {
            // SAFETY: a row has `DEPTH` bytes for each step.
            let x = _mm256_set1_epi32(unsafe { row.as_ptr().add(step * DEPTH).cast::<i32>().read_unaligned() });
            for (lanes, weights) in lanes.iter_mut().zip(weights) {
                *lanes = _mm256_dpbusd_avx_epi32(*lanes, x, weights);
            }
            // SAFETY: no instruction, as above.
            unsafe { asm!("", options(nostack, preserves_flags)) };
        }
    }
    for (r, lanes) in lanes.iter().enumerate() {
        for (sums, lanes) in piece.sums(sums, r).iter_mut().zip(lanes) {
            // SAFETY: `sums` are 8 values.
            unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), *lanes) };
        }
    }
}

/// # Safety
/// As [`Product::block`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn block_avx2(product: &Product<'_>, rows: Range<usize>, panels: Range<usize>) {
    let sums = |tile: Tile, sums: &mut Sums| {
        // 8 sums, 4 weights and an input: a third row would be more than the 16 registers.
        Piece::for_each(tile, 2, |piece, rows| match rows {
            1 => piece_avx2::<1>(product, piece, sums),
            _ => piece_avx2::<2>(product, piece, sums),
        });
    };
    // SAFETY: the caller's promise.
    unsafe { product.block(rows, panels, sums) }
}

/// `R` rows of one line: four columns to a register, two sums of two products for each.
#[inline]
#[target_feature(enable = "avx2")]
fn piece_avx2<const R: usize>(product: &Product<'_>, piece: Piece, sums: &mut Sums) {
    let rows: [&[u8]; R] = piece.rows(product);
    let mut lanes = [[_mm256_setzero_si256(); 4]; R];
    for (step, line) in piece.lines(product).enumerate() {
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
        for (sums, lanes) in piece.sums(sums, r).iter_mut().zip(lanes.chunks_exact(2)) {
            // Columns 0 1 4 5 | 2 3 6 7 after the pairs are added.
            let eight = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(lanes[0], lanes[1]));
            // SAFETY: `sums` are 8 values.
            unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), eight) };
        }
    }
}
