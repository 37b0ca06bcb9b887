//! How a product of packed weights is cut into blocks, and a block into tiles.
//!
//! ```text
//!               panels of 32 columns
//!             +----+----+----+----+
//!   rows of x | block, one task   |     a block is walked panel by panel, and within a panel tile by tile:
//!   (<= 96)   |    |    |    |    |     at most 12 rows x 32 columns, or 3 rows x 128 columns, whose sums
//!             +----+----+----+----+     stay in registers over the whole inner dimension
//! ```
//!
//! The cuts depend on sizes only, and a sum is never split.

use std::ops::Range;

use rayon::prelude::*;

use super::Activation;

/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// Columns of a line, the part of a panel that one 512-bit register holds.
pub(super) const LINE: usize = 16;

/// Sums of the largest tile.
pub(super) const TILE: usize = 12 * PANEL;

/// Rows of the largest tile.
const TILE_ROWS: usize = 12;

/// Rows of a block: with 3072 bytes each they stay in a second-level cache beside a panel.
const BLOCK_ROWS: usize = 96;

/// Multiplications worth a task of their own, about 20 µs of int8.
const TASK: usize = 4 << 20;

/// Tasks that a large product is cut into, so that any number of threads finds enough of them.
const TASKS: usize = 128;

/// Part of a product: some rows of the left side, some columns of the packed weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    /// The first row.
    pub(super) row: usize,
    /// How many rows, 1 to 12.
    pub(super) rows: usize,
    /// The first panel.
    pub(super) panel: usize,
    /// How many panels: 1, or 4 if there are at most 3 rows.
    pub(super) panels: usize,
}

/// Calls `work(rows, panels)` for the blocks of a product of `rows` rows and `panels` panels of depth `depth`, in
/// parallel if the product is large.
pub(super) fn for_each_block(
    rows: usize,
    panels: usize,
    depth: usize,
    work: impl Fn(Range<usize>, Range<usize>) + Sync + Send,
) {
    if rows == 0 || panels == 0 {
        return;
    }
    let total = rows * panels * PANEL * depth.max(1);
    if total <= TASK {
        let block_rows = even_part(rows, BLOCK_ROWS);
        return (0..rows).step_by(block_rows).for_each(|row| work(row..rows.min(row + block_rows), 0..panels));
    }
    let block_rows = even_part(rows, BLOCK_ROWS);
    let block_panels = TASK.max(total / TASKS).div_ceil(block_rows * PANEL * depth).min(panels);
    let (down, across) = (rows.div_ceil(block_rows), panels.div_ceil(block_panels));
    (0..down * across).into_par_iter().for_each(|task| {
        let (row, panel) = (task / across * block_rows, task % across * block_panels);
        work(row..rows.min(row + block_rows), panel..panels.min(panel + block_panels));
    });
}

/// Calls `work` for the tiles of a block.
#[inline(always)]
pub(super) fn for_each_tile(rows: Range<usize>, panels: Range<usize>, mut work: impl FnMut(Tile)) {
    let height = even_part(rows.len(), TILE_ROWS);
    let mut panel = panels.start;
    while panel < panels.end {
        // Few rows give few sums, and each would wait for the one before: more columns at once.
        let wide = if height <= 3 && panels.end - panel >= 4 { 4 } else { 1 };
        let mut row = rows.start;
        while row < rows.end {
            work(Tile { row, rows: height.min(rows.end - row), panel, panels: wide });
            row += height;
        }
        panel += wide;
    }
}

/// The size of as few parts of `len` as possible, none longer than `largest` and all about as long.
fn even_part(len: usize, largest: usize) -> usize {
    len.div_ceil(len.div_ceil(largest).max(1)).max(1)
}

/// Calls `$kernel::<rows, lines>` for the size of a tile, so that its sums are as many registers.
#[cfg(target_arch = "x86_64")]
macro_rules! by_size {
    ($tile:expr, $kernel:ident($($argument:expr),*)) => {
        match ($tile.panels, $tile.rows) {
            (4, 1) => $kernel::<1, 8>($($argument),*),
            (4, 2) => $kernel::<2, 8>($($argument),*),
            (4, 3) => $kernel::<3, 8>($($argument),*),
            (1, 1) => $kernel::<1, 2>($($argument),*),
            (1, 2) => $kernel::<2, 2>($($argument),*),
            (1, 3) => $kernel::<3, 2>($($argument),*),
            (1, 4) => $kernel::<4, 2>($($argument),*),
            (1, 5) => $kernel::<5, 2>($($argument),*),
            (1, 6) => $kernel::<6, 2>($($argument),*),
            (1, 7) => $kernel::<7, 2>($($argument),*),
            (1, 8) => $kernel::<8, 2>($($argument),*),
            (1, 9) => $kernel::<9, 2>($($argument),*),
            (1, 10) => $kernel::<10, 2>($($argument),*),
            (1, 11) => $kernel::<11, 2>($($argument),*),
            (1, 12) => $kernel::<12, 2>($($argument),*),
            _ => unreachable!("{:?}", $tile),
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use by_size;

/// Where a product goes, and what is done to it on the way: `activation(product + bias)`. Every task writes another part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output<'a> {
    values: *mut f32,
    rows: usize,
    width: usize,
    bias: &'a [[f32; PANEL]],
    activation: Activation,
}

// SAFETY: tasks write disjoint blocks, which `write` asks its caller for.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    /// Rows of `width` values, where `bias` is of whole panels; panics if `values` is not `rows` of them.
    pub(super) fn new(
        values: &'a mut [f32],
        rows: usize,
        width: usize,
        bias: &'a [f32],
        activation: Activation,
    ) -> Self {
        assert_eq!(values.len(), rows * width, "expected an output of {rows} x {width} values");
        assert_eq!(bias.len(), width.next_multiple_of(PANEL), "expected a bias of whole panels");
        Self { values: values.as_mut_ptr(), rows, width, bias: bias.as_chunks().0, activation }
    }

    /// Writes the tile whose products are `values`, row by row; at the right edge only the columns that are there.
    ///
    /// # Safety
    /// Nothing else may access this part of the output meanwhile.
    #[inline(always)]
    pub(super) unsafe fn write(&self, tile: Tile, values: &mut [[f32; PANEL]]) {
        for (idx, values) in values.iter_mut().enumerate() {
            let bias = &self.bias[tile.panel + idx % tile.panels];
            for column in 0..PANEL {
                values[column] += bias[column];
            }
        }
        self.activation.apply(values.as_flattened_mut());
        for (idx, values) in values.iter().enumerate() {
            let (row, column) = (tile.row + idx / tile.panels, (tile.panel + idx % tile.panels) * PANEL);
            assert!(row < self.rows && column < self.width, "{tile:?} lies outside the output");
            // SAFETY: the row and its first column are inside the values, and so are as many as the row still has.
            unsafe {
                let start = self.values.add(row * self.width + column);
                if self.width - column >= PANEL {
                    start.cast::<[f32; PANEL]>().write_unaligned(*values);
                } else {
                    start.copy_from_nonoverlapping(values.as_ptr(), self.width - column);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn tiles_cover_every_cell_once() {
        for (rows, panels, depth) in [(0, 3, 8), (1, 1, 1), (1, 9, 768), (5, 7, 8), (40, 13, 228), (1000, 96, 768)] {
            let seen = Mutex::new(vec![0; rows * panels]);
            for_each_block(rows, panels, depth, |block_rows, block_panels| {
                for_each_tile(block_rows, block_panels, |tile| {
                    assert!(tile.rows <= 12 && tile.rows * tile.panels * PANEL <= TILE, "{tile:?}");
                    for row in tile.row..tile.row + tile.rows {
                        for panel in tile.panel..tile.panel + tile.panels {
                            seen.lock().unwrap()[row * panels + panel] += 1;
                        }
                    }
                });
            });
            assert!(seen.lock().unwrap().iter().all(|&count| count == 1), "{rows} x {panels}");
        }
    }

    #[test]
    fn parts_are_even() {
        assert_eq!([0, 1, 12, 13, 40, 128].map(|len| even_part(len, 12)), [1, 1, 12, 7, 10, 12]);
    }
}
