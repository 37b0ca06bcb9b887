//! `f32` products on AVX-512 and AVX2, chosen at run time.
//!
//! ```text
//! out (rows, cols) = lhs (rows, inner) · rhs (inner, cols)
//!
//! rhs is cut into panels of 32 columns (16 on AVX2), each row of a panel side by side in memory; lhs into tiles of up
//! to 14 rows (6). A tile times a panel is held in registers: for each of the `inner` terms one row of the panel is loaded
//! and multiplied with each of the tile's values. Terms are taken in blocks of at most 1024, so that a panel stays in the
//! cache while all tiles pass over it.
//! ```
//!
//! (Goto & van de Geijn 2008; Van Zee & van de Geijn 2015.) The `gemm` crate, which does the work elsewhere and in `f64`,
//! has the same plan; it cannot keep a packed right-hand side, which is what small products of a deployed model need.

mod level;
mod pack;
mod simd;
mod tile;

use std::cell::RefCell;

use rayon::prelude::*;

use self::level::Level;
use self::pack::Aligned;
pub(crate) use self::pack::Strided;
pub(crate) use self::tile::Start;
use self::tile::Tile;

/// Terms of a block: a panel of 1024 by 32 values is an eighth of an L2 cache of 1 MiB.
const BLOCK_TERMS: usize = 1024;
/// Rows of `lhs` that pass over a panel before the next panel's turn: a block of them, with 1024 terms, is 688 kB.
const BLOCK_ROWS: usize = 168;
/// Multiplications below which a product stays on its thread: some ten microseconds.
const SERIAL: usize = 1 << 20;

thread_local! {
    /// Packed panels of the product that this thread runs; kept, because fresh pages cost as much as a small product.
    static PANELS: RefCell<Aligned> = RefCell::default();
    /// Packed rows.
    static ROWS: RefCell<Aligned> = RefCell::default();
}

/// Sizes and strides of a product, whose values are somebody else's.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) inner: usize,
    pub(super) scale: f32,
    pub(super) start: Start,
    pub(super) lhs: Strided,
    pub(super) out: *mut f32,
    pub(super) out_row: usize,
}

// SAFETY: tasks write disjoint parts of `out`.
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

impl Start {
    /// The same for the columns from `cols` on.
    ///
    /// # Safety
    /// There must be as many.
    unsafe fn skip(self, cols: usize) -> Self {
        match self {
            // SAFETY: the caller's promise.
            Self::Bias(bias) => Self::Bias(unsafe { bias.add(cols) }),
            start => start,
        }
    }
}

/// A right-hand side in the order that this machine's tiles read, made once and used for many products.
pub(super) struct Panels {
    level: &'static Level,
    values: Aligned,
    inner: usize,
    cols: usize,
}

impl Panels {
    /// None where this machine has no tiles.
    ///
    /// # Safety
    /// `rhs` must have `inner` rows and `cols` columns.
    pub(super) unsafe fn new(rhs: Strided, inner: usize, cols: usize) -> Option<Self> {
        // SAFETY: the caller's promise.
        Level::best().map(|level| unsafe { Self::for_level(level, rhs, inner, cols) })
    }

    /// # Safety
    /// As [`Panels::new`].
    unsafe fn for_level(level: &'static Level, rhs: Strided, inner: usize, cols: usize) -> Self {
        let mut values = Aligned::default();
        // SAFETY: the caller's promise.
        unsafe {
            pack_panels(
                level,
                values.grow(cols.div_ceil(level.width()) * level.width() * inner),
                rhs,
                inner,
                cols,
                false,
            )
        };
        Self { level, values, inner, cols }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.values.values())
    }

    /// # Safety
    /// `product` must describe memory that is alive, `out` not shared, and have this right-hand side's sizes.
    pub(super) unsafe fn multiply(&self, product: Product, parallel: bool) {
        debug_assert!(product.inner == self.inner && product.cols == self.cols);
        let width = self.level.width();
        // SAFETY: the caller's promises.
        unsafe {
            for (first, terms) in blocks(self.inner) {
                let panels = self.values.values()[first * width..].as_ptr();
                multiply_block(self.level, product.block(first, terms), panels, self.inner * width, parallel);
            }
        }
    }
}

/// Runs `product` with a right-hand side that is packed on the way; false where this machine has no tiles.
///
/// # Safety
/// `product` and `rhs` must describe memory that is alive, and `out` must not be shared.
pub(super) unsafe fn multiply(product: Product, rhs: Strided, parallel: bool) -> bool {
    let Some(level) = Level::best() else { return false };
    let width = level.width();
    let mut scratch = PANELS.take();
    for (first, terms) in blocks(product.inner) {
        let panels = scratch.grow(product.cols.div_ceil(width) * width * terms);
        // SAFETY: the block is inside the matrices.
        unsafe {
            pack_panels(level, panels, rhs.at(first, 0), terms, product.cols, parallel);
            multiply_block(level, product.block(first, terms), panels.as_ptr(), terms * width, parallel);
        }
    }
    PANELS.set(scratch);
    true
}

/// Start and length of blocks of nearly equal size.
fn blocks(inner: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = inner.div_ceil(BLOCK_TERMS).max(1);
    (0..count).map(move |idx| {
        let start = idx * inner / count;
        (start, (idx + 1) * inner / count - start)
    })
}

impl Product {
    /// The share of a block of terms; the blocks after the first add to it.
    ///
    /// # Safety
    /// The block must be inside the product.
    unsafe fn block(self, first: usize, terms: usize) -> Self {
        // SAFETY: the caller's promise.
        let lhs = unsafe { self.lhs.at(0, first) };
        Self { inner: terms, lhs, start: if first > 0 { Start::Out } else { self.start }, ..self }
    }

    fn parallel(&self, allowed: bool) -> bool {
        allowed && self.rows * self.cols * self.inner >= SERIAL && rayon::current_num_threads() > 1
    }
}

/// # Safety
/// `rhs` must have `inner` rows and `cols` columns, and `panels` room for them.
unsafe fn pack_panels(level: &Level, panels: &mut [f32], rhs: Strided, inner: usize, cols: usize, parallel: bool) {
    let width = level.width();
    let work = |(idx, panel): (usize, &mut [f32])| {
        // SAFETY: the panel's first column is inside.
        let (first, cols) = (unsafe { rhs.at(0, idx * width) }, (cols - idx * width).min(width));
        // SAFETY: the panel is inside.
        super::vectorized(
            #[inline(always)]
            || unsafe { pack::panel(panel, width, first, inner, cols) },
        );
    };
    if inner == 0 {
        return;
    }
    if parallel && inner * cols > super::CHUNK {
        panels.par_chunks_mut(inner * width).enumerate().for_each(work);
    } else {
        panels.chunks_mut(inner * width).enumerate().for_each(work);
    }
}

/// All tiles of a block of terms.
///
/// # Safety
/// As [`Panels::multiply`]; `panels` must hold the block's panels, `stride` values apart.
unsafe fn multiply_block(level: &Level, product: Product, panels: *const f32, stride: usize, parallel: bool) {
    struct Pointer(*const f32);
    // SAFETY: only read.
    unsafe impl Sync for Pointer {}
    let (panels, product) = (&Pointer(panels), &product);
    let (n_panels, width) = (product.cols.div_ceil(level.width()), level.width());
    let row_blocks = product.rows.div_ceil(BLOCK_ROWS);
    let task = |rows: std::ops::Range<usize>, from: usize, to: usize| {
        // SAFETY: rows and columns are inside the product, and no two tasks have the same.
        unsafe {
            let product = Product {
                rows: rows.len(),
                cols: product.cols.min(to * width) - from * width,
                lhs: product.lhs.at(rows.start, 0),
                out: product.out.add(rows.start * product.out_row + from * width),
                start: product.start.skip(from * width),
                ..*product
            };
            multiply_rows(level, product, panels.0.add(from * stride), stride);
        }
    };
    let block = |idx: usize| idx * product.rows / row_blocks..(idx + 1) * product.rows / row_blocks;
    if !product.parallel(parallel) {
        return (0..row_blocks).for_each(|idx| task(block(idx), 0, n_panels));
    }
    // Enough tasks that threads of unequal speed end together. How many does not matter to the result.
    let groups = (4 * rayon::current_num_threads()).div_ceil(row_blocks).min(n_panels);
    (0..row_blocks * groups).into_par_iter().with_max_len(1).for_each(|idx| {
        let (rows, group) = (idx / groups, idx % groups);
        task(block(rows), group * n_panels / groups, (group + 1) * n_panels / groups);
    });
}

/// # Safety
/// As [`multiply_block`].
unsafe fn multiply_rows(level: &Level, product: Product, panels: *const f32, stride: usize) {
    let Product { rows, cols, inner, lhs, .. } = product;
    let (n_panels, width) = (cols.div_ceil(level.width()), level.width());
    let tiles = rows.div_ceil(level.most_rows);
    let tile_start = |idx: usize| idx * rows / tiles;
    let mut scratch = None;
    // Columns that lie side by side are packed tile by tile; rows a multiple of 2 kB apart, which would fight for the same
    // places of the cache, are copied closer together.
    let (lhs, packed) = if lhs.row_stride == 1 && lhs.col_stride > 1 {
        let mut values = ROWS.take();
        let buffer = values.grow(rows * inner + pack::SLACK);
        let starts: Vec<usize> = (0..=tiles).map(tile_start).collect();
        // SAFETY: the columns are inside the matrix.
        unsafe { pack::columns(buffer, lhs, &starts, inner) };
        let packed = Strided { values: buffer.as_ptr(), row_stride: inner, col_stride: 1 };
        scratch = Some(values);
        (packed, true)
    } else if lhs.row_stride % 512 == 0 && lhs.col_stride == 1 && rows > 4 {
        let mut values = ROWS.take();
        let row_stride = inner.next_multiple_of(16) + 16;
        let buffer = values.grow(rows * row_stride);
        for (row, out) in buffer.chunks_exact_mut(row_stride).enumerate() {
            // SAFETY: the row is inside the matrix.
            out[..inner].copy_from_slice(unsafe { std::slice::from_raw_parts(lhs.at(row, 0).values, inner) });
        }
        let packed = Strided { values: buffer.as_ptr(), row_stride, col_stride: 1 };
        scratch = Some(values);
        (packed, false)
    } else {
        (lhs, false)
    };
    let mut panel = 0;
    while panel < n_panels {
        // Low tiles take several panels at once, as many as all tiles of the block can.
        let (_, together) = level.kernel(tile_start(tiles) - tile_start(tiles - 1), n_panels - panel, packed);
        for idx in 0..tiles {
            let (start, end) = (tile_start(idx), tile_start(idx + 1));
            let (kernel, _) = level.kernel(end - start, together, packed);
            // SAFETY: the tile is inside the product, and its instructions are there.
            unsafe {
                kernel(&Tile {
                    inner,
                    lhs: lhs.at(start, 0).values,
                    lhs_row: lhs.row_stride,
                    lhs_col: lhs.col_stride,
                    rhs: panels.add(panel * stride),
                    rhs_panel: stride,
                    out: product.out.add(start * product.out_row + panel * width),
                    out_row: product.out_row,
                    cols: (cols - panel * width).min(together * width),
                    scale: product.scale,
                    start: product.start.skip(panel * width),
                });
            }
        }
        panel += together;
    }
    if let Some(values) = scratch {
        ROWS.set(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_same_sums() {
        let levels = Level::all();
        assert!(!cfg!(target_feature = "avx2") || !levels.is_empty());
        for level in levels {
            for (rows, inner, cols) in
                [(1, 5, 70), (2, 300, 33), (7, 1030, 100), (22, 9, 40), (40, 64, 31), (200, 3, 16)]
            {
                let value = |row: usize, k: usize| ((row * inner + k) % 7) as f32 - 3.0;
                let lhs: Vec<f32> = (0..rows * inner).map(|idx| value(idx / inner, idx % inner)).collect();
                let transposed: Vec<f32> = (0..rows * inner).map(|idx| value(idx % rows, idx / rows)).collect();
                let rhs: Vec<f32> = (0..inner * cols).map(|idx| (idx % 5) as f32 - 2.0).collect();
                let strided = |values: &[f32], row_stride, col_stride| Strided {
                    values: values.as_ptr(),
                    row_stride,
                    col_stride,
                };
                for lhs in [strided(&lhs, inner, 1), strided(&transposed, 1, rows)] {
                    let mut out = vec![f32::NAN; rows * cols];
                    let (start, target) = (Start::Zero, out.as_mut_ptr());
                    let product = Product { rows, cols, inner, scale: 0.5, start, lhs, out: target, out_row: cols };
                    // SAFETY: the sizes are those of the vectors, and `all` names what the machine has.
                    unsafe { Panels::for_level(level, strided(&rhs, cols, 1), inner, cols).multiply(product, true) };
                    for (idx, &found) in out.iter().enumerate() {
                        let sum: f32 = (0..inner).map(|k| value(idx / cols, k) * rhs[k * cols + idx % cols]).sum();
                        assert_eq!(found, 0.5 * sum, "{} lanes, {rows} x {inner} x {cols} at {idx}", level.lanes);
                    }
                }
            }
        }
    }
}
