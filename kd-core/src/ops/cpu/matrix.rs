//! Products of strided matrices with the `gemm` crate.
//!
//! `out = scale · lhs · rhs`, or `out += ...`, where transposes and column ranges are strides and nothing is copied.
//! How gemm cuts a product into pieces depends on its sizes, not on the number of threads, and no sum is split
//! between threads, so the bytes are the same for any number of threads (`kd-core/tests/gradients.rs` checks it).

use gemm::Parallelism;

use super::Float;

/// A matrix inside a slice.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    values: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// `rows` rows of `cols` neighbouring values each; rows start `row_stride` values apart.
    ///
    /// # Panics
    /// If `values` is too short.
    pub fn new(values: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(fits(values.len(), rows, cols, row_stride), "a {rows} x {cols} matrix ends behind its values");
        Self { values, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, of the same values.
    #[must_use]
    pub fn t(self) -> Self {
        let Self { values, rows, cols, row_stride, col_stride } = self;
        Self { values, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// Where a product is written.
#[derive(Debug)]
pub struct MatrixMut<'a, T> {
    values: *mut T,
    rows: usize,
    cols: usize,
    row_stride: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

impl<'a, T> MatrixMut<'a, T> {
    /// `rows` rows of `cols` neighbouring values each; rows start `row_stride` values apart.
    ///
    /// # Panics
    /// If `values` is too short.
    pub fn new(values: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(fits(values.len(), rows, cols, row_stride), "a {rows} x {cols} matrix ends behind its values");
        Self { values: values.as_mut_ptr(), rows, cols, row_stride, lifetime: std::marker::PhantomData }
    }

    /// As [`MatrixMut::new`], for matrices that lie interleaved in one buffer, as the heads of an attention output do.
    ///
    /// # Safety
    /// For `'a`, the values of the matrix must be valid for writes, and nothing else may access them.
    pub unsafe fn from_raw(values: *mut T, rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { values, rows, cols, row_stride, lifetime: std::marker::PhantomData }
    }
}

fn fits(len: usize, rows: usize, cols: usize, row_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + cols <= len && (rows == 1 || cols <= row_stride)
}

/// Which threads a product may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread: for products inside a parallel loop.
    One,
    /// The current Rayon pool, when the product is large enough.
    All,
}

/// `out = scale · lhs · rhs`; `out` may be uninitialised.
///
/// # Panics
/// If the sizes do not match.
pub fn matmul<T: Float>(out: MatrixMut<'_, T>, scale: T, lhs: Matrix<'_, T>, rhs: Matrix<'_, T>, threads: Threads) {
    product(out, scale, lhs, rhs, threads, false);
}

/// `out += scale · lhs · rhs`.
///
/// # Panics
/// If the sizes do not match.
pub fn matmul_add<T: Float>(out: MatrixMut<'_, T>, scale: T, lhs: Matrix<'_, T>, rhs: Matrix<'_, T>, threads: Threads) {
    product(out, scale, lhs, rhs, threads, true);
}

fn product<T: Float>(
    out: MatrixMut<'_, T>,
    scale: T,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    threads: Threads,
    add: bool,
) {
    assert!(
        out.rows == lhs.rows && out.cols == rhs.cols && lhs.cols == rhs.rows,
        "expected ({} x n) · (n x {}), found ({} x {}) · ({} x {})",
        out.rows,
        out.cols,
        lhs.rows,
        lhs.cols,
        rhs.rows,
        rhs.cols
    );
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: `Matrix` and `MatrixMut` hold, or their makers promised, that all values they describe are inside
    // live allocations, and `out` is not shared. The sizes agree. `Float` is f32 or f64, which gemm has.
    unsafe {
        gemm::gemm(
            out.rows,
            out.cols,
            lhs.cols,
            out.values,
            1,
            out.row_stride as isize,
            add,
            lhs.values.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.values.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            T::one(),
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize, seed: u64) -> Vec<f32> {
        (0..len as u64).map(|idx| (crate::variables::mix(seed, idx) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    #[test]
    fn transposes_and_strides_are_read_as_such() {
        // [1 2; 3 4] inside rows of 3, times the transpose of [1 0; 1 1]: [1 2; 3 4] · [1 1; 0 1] = [1 3; 3 7].
        let lhs = Matrix::new(&[1f32, 2., 9., 3., 4., 9.], 2, 2, 3);
        let rhs = Matrix::new(&[1f32, 0., 1., 1.], 2, 2, 2).t();
        let mut out = vec![f32::NAN; 5];
        out[2] = 7.0; // between the rows
        matmul(MatrixMut::new(&mut out, 2, 2, 3), 1.0, lhs, rhs, Threads::All);
        assert_eq!(out, [1., 3., 7., 3., 7.]);
        matmul_add(MatrixMut::new(&mut out, 2, 2, 3), 10.0, lhs, rhs, Threads::One);
        assert_eq!(out, [11., 33., 7., 33., 77.]);
    }

    #[test]
    fn an_empty_sum_is_zero() {
        let mut out = vec![f32::NAN; 4];
        let empty = Matrix::new(&[], 2, 0, 0);
        matmul(MatrixMut::new(&mut out, 2, 2, 2), 1.0, empty, empty.t(), Threads::All);
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "ends behind its values")]
    fn a_matrix_must_lie_inside_its_values() {
        let _ = Matrix::new(&[0f32; 5], 2, 3, 3);
    }

    #[test]
    fn the_number_of_threads_changes_no_byte() {
        let pools: Vec<_> =
            [1, 2, 3, 4, 7].iter().map(|&n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()).collect();
        for (m, n, k) in [
            (1, 999, 700),
            (999, 1, 700),
            (224, 384, 384),
            (97, 333, 1201),
            (300, 17, 4000),
            (2000, 129, 65),
            (5, 5, 99_999),
        ] {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            for (a_t, b_t) in [(false, false), (false, true), (true, false)] {
                let lhs = if a_t { Matrix::new(&a, k, m, m).t() } else { Matrix::new(&a, m, k, k) };
                let rhs = if b_t { Matrix::new(&b, n, k, k).t() } else { Matrix::new(&b, k, n, n) };
                let run = |pool: &rayon::ThreadPool| {
                    let mut out = vec![0f32; m * n];
                    pool.install(|| matmul(MatrixMut::new(&mut out, m, n, n), 1.0, lhs, rhs, Threads::All));
                    out
                };
                let expected = run(&pools[0]);
                for pool in &pools[1..] {
                    assert!(run(pool) == expected, "{m} x {n} x {k}, {a_t} {b_t}, {}", pool.current_num_threads());
                }
            }
        }
    }
}
