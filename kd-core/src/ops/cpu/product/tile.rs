//! The innermost loop: a tile of the product held in registers while `k` runs.

use super::simd::Simd;

/// Rows of the tallest tile: 14 rows of two vectors are 28 of AVX-512's 32 registers.
pub(super) const MOST_ROWS: usize = 14;

/// What a product is added to.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    Zero,
    /// The values of `out`.
    Out,
    /// The same row of as many values as `out` has columns, for every row.
    Bias(*const f32),
}

/// A tile of `out = start + scale · lhs · rhs`.
pub(super) struct Tile {
    /// Terms of each sum.
    pub(super) inner: usize,
    pub(super) lhs: *const f32,
    /// Values between the rows of `lhs`; 1 says that `lhs` is packed, with the tile's rows side by side.
    pub(super) lhs_row: usize,
    /// Values between the columns of `lhs`.
    pub(super) lhs_col: usize,
    /// A panel of `rhs`: for each term one row of `2 · LANES` values.
    pub(super) rhs: *const f32,
    /// Values between panels.
    pub(super) rhs_panel: usize,
    pub(super) out: *mut f32,
    /// Values between the rows of `out`.
    pub(super) out_row: usize,
    /// Columns to write, at most those of the tile's panels.
    pub(super) cols: usize,
    pub(super) scale: f32,
    pub(super) start: Start,
}

/// Runs a tile of `ROWS` rows and `PANELS` panels. Every sum runs over `k` in order in one accumulator, whatever the
/// tile, so how a product is cut into tiles changes no byte of it.
///
/// # Safety
/// The machine must have the instructions of `S`, and all values that `tile` describes must be inside live allocations,
/// those of `out` not shared.
#[inline(always)]
pub(super) unsafe fn run<S: Simd, const ROWS: usize, const PANELS: usize, const PACKED: bool>(tile: &Tile) {
    let width = 2 * S::LANES;
    // SAFETY: the caller's promises; offsets stay inside the tile.
    unsafe {
        let mut sums = [[[S::zero(); 2]; PANELS]; ROWS];
        let (mut lhs, mut rhs) = (tile.lhs, tile.rhs);
        let (lhs_row, lhs_col) = if PACKED { (1, ROWS) } else { (tile.lhs_row, tile.lhs_col) };
        for _ in 0..tile.inner {
            let mut row = [[S::zero(); 2]; PANELS];
            for (panel, row) in row.iter_mut().enumerate() {
                *row = [S::load(rhs.add(panel * tile.rhs_panel)), S::load(rhs.add(panel * tile.rhs_panel + S::LANES))];
            }
            for (idx, sums) in sums.iter_mut().enumerate() {
                let x = S::splat(*lhs.add(idx * lhs_row));
                for (sums, row) in sums.iter_mut().zip(row) {
                    sums[0] = S::add_product(sums[0], x, row[0]);
                    sums[1] = S::add_product(sums[1], x, row[1]);
                }
            }
            lhs = lhs.add(lhs_col);
            rhs = rhs.add(width);
        }
        let scale = S::splat(tile.scale);
        for (idx, sums) in sums.iter().enumerate() {
            for (panel, sums) in sums.iter().enumerate() {
                for (half, &sum) in sums.iter().enumerate() {
                    let col = panel * width + half * S::LANES;
                    let out = tile.out.add(idx * tile.out_row + col);
                    let cols = tile.cols.saturating_sub(col).min(S::LANES);
                    if cols == S::LANES {
                        let sum = match tile.start {
                            Start::Zero => S::mul(sum, scale),
                            Start::Out => S::add_product(S::load(out), sum, scale),
                            Start::Bias(bias) => S::add_product(S::load(bias.add(col)), sum, scale),
                        };
                        S::store(out, sum);
                    } else if cols > 0 {
                        let mut values = [0f32; 16];
                        S::store(values.as_mut_ptr(), S::mul(sum, scale));
                        for (idx, value) in values[..cols].iter().enumerate() {
                            *out.add(idx) = match tile.start {
                                Start::Zero => *value,
                                Start::Out => *out.add(idx) + value,
                                Start::Bias(bias) => *bias.add(col + idx) + value,
                            };
                        }
                    }
                }
            }
        }
    }
}
