//! Panels: the right-hand side of a product in the order in which tiles read it.

/// Sixteen values on one cache line, so that a vector load never crosses two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Values that start on a cache line.
#[derive(Clone, Default)]
pub(super) struct Aligned(Vec<Line>);

impl Aligned {
    /// `len` values, which are anything: they have to be written before they are read.
    pub(super) fn grow(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(16);
        if self.0.len() < lines {
            self.0 = Vec::with_capacity(lines);
            // SAFETY: the capacity is there, and packing writes every value before a product reads it: clearing them
            // first would cost as much.
            #[allow(clippy::uninit_vec)]
            unsafe {
                self.0.set_len(lines);
            }
        }
        // SAFETY: a `Line` is 16 values without padding.
        let values = unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast::<f32>(), self.0.len() * 16) };
        &mut values[..len]
    }

    pub(super) fn values(&self) -> &[f32] {
        // SAFETY: a `Line` is 16 values without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<f32>(), self.0.len() * 16) }
    }
}

/// A strided matrix without a lifetime: `values[row · row_stride + col · col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Strided {
    pub(crate) values: *const f32,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

// SAFETY: only read, and its makers keep the values alive during the product.
unsafe impl Send for Strided {}
// SAFETY: as above.
unsafe impl Sync for Strided {}

impl Strided {
    /// # Safety
    /// The offset must be inside the matrix.
    pub(super) unsafe fn at(self, row: usize, col: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { values: unsafe { self.values.add(row * self.row_stride + col * self.col_stride) }, ..self }
    }
}

/// Writes `rows` rows of `cols` columns of `from` as a panel of `width` columns, zeros behind the last.
///
/// # Safety
/// `from` must have as many rows and columns.
#[inline(always)]
pub(super) unsafe fn panel(panel: &mut [f32], width: usize, from: Strided, rows: usize, cols: usize) {
    let Strided { values, row_stride, col_stride } = from;
    if cols < width {
        panel.fill(0.0);
    }
    // SAFETY: the caller's promise; the blocks end inside the matrix.
    unsafe {
        if col_stride == 1 {
            for (row, out) in panel.chunks_exact_mut(width).enumerate() {
                let row = std::slice::from_raw_parts(values.add(row * row_stride), cols);
                out[..cols].copy_from_slice(row);
            }
            return;
        }
        let (whole_rows, whole_cols) = if row_stride == 1 { (rows / 8 * 8, cols / 8 * 8) } else { (0, 0) };
        for row in (0..whole_rows).step_by(8) {
            for col in (0..whole_cols).step_by(8) {
                transpose(values.add(row + col * col_stride), col_stride, &mut panel[row * width + col..], width);
            }
        }
        for row in 0..rows {
            let first = if row < whole_rows { whole_cols } else { 0 };
            for col in first..cols {
                panel[row * width + col] = *values.add(row * row_stride + col * col_stride);
            }
        }
    }
}

/// Values that [`columns`] may write behind its last.
pub(super) const SLACK: usize = 16;

/// Writes `inner` columns of neighbouring values, cut into tiles that begin at `starts`, the last of which is the number of
/// rows: for each tile its part of every column, one after another.
///
/// Column by column, because in a wide matrix each of them is on a page of its own.
///
/// # Safety
/// `from` must have as many columns and rows, with a row stride of 1.
pub(super) unsafe fn columns(out: &mut [f32], from: Strided, starts: &[usize], inner: usize) {
    let rows = starts[starts.len() - 1];
    assert!(out.len() >= rows * inner + SLACK);
    let out = out.as_mut_ptr();
    // SAFETY: the caller's promise and the assertion; a tile has at most 16 rows.
    unsafe {
        for col in 0..inner {
            let from = from.at(0, col).values;
            // The last columns of a tile must not reach into the next tile, whose first ones are there already.
            for tile in starts.windows(2) {
                let (start, height) = (tile[0], tile[1] - tile[0]);
                let (to, from) = (out.add(start * inner + col * height), from.add(start));
                let inside = tile[1] == rows || (inner - col) * height >= 16;
                if start + 16 <= rows && inside {
                    // More than needed, in one move; the next column overwrites the rest.
                    to.cast::<[f32; 16]>().write_unaligned(from.cast::<[f32; 16]>().read_unaligned());
                } else {
                    for row in 0..height {
                        *to.add(row) = *from.add(row);
                    }
                }
            }
        }
    }
}

/// Writes 8 columns of 8 values as 8 rows, in three rounds of interleaving.
///
/// # Safety
/// `from` must have 8 columns, `stride` values apart, of 8 values each. AVX must be there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose(from: *const f32, stride: usize, to: &mut [f32], width: usize) {
    use std::arch::x86_64::*;
    assert!(to.len() >= 7 * width + 8);
    let to = to.as_mut_ptr();
    // SAFETY: the caller's promises and the assertion.
    unsafe {
        let line = |idx: usize| _mm256_loadu_ps(from.add(idx * stride));
        // Pairs of rows: values 0 1 4 5 of both, and 2 3 6 7.
        let pair = |idx: usize| {
            let (a, b) = (line(idx), line(idx + 1));
            (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
        };
        // Fours of rows: values 0 and 4, 1 and 5, 2 and 6, 3 and 7.
        let four = |idx: usize| {
            let ((a, b), (c, d)) = (pair(idx), pair(idx + 2));
            [
                _mm256_shuffle_ps::<0x44>(a, c),
                _mm256_shuffle_ps::<0xee>(a, c),
                _mm256_shuffle_ps::<0x44>(b, d),
                _mm256_shuffle_ps::<0xee>(b, d),
            ]
        };
        let (upper, lower) = (four(0), four(4));
        for (idx, (upper, lower)) in upper.into_iter().zip(lower).enumerate() {
            _mm256_storeu_ps(to.add(idx * width), _mm256_permute2f128_ps::<0x20>(upper, lower));
            _mm256_storeu_ps(to.add((idx + 4) * width), _mm256_permute2f128_ps::<0x31>(upper, lower));
        }
    }
}

/// Writes 8 columns of 8 values as 8 rows.
///
/// # Safety
/// `from` must have 8 columns, `stride` values apart, of 8 values each.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn transpose(from: *const f32, stride: usize, to: &mut [f32], width: usize) {
    for (row, to) in to.chunks_mut(width).take(8).enumerate() {
        for (col, to) in to[..8].iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *to = unsafe { *from.add(row + col * stride) };
        }
    }
}
