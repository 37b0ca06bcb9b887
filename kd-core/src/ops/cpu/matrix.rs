//! Products of strided matrices.
//!
//! `out = scale · lhs · rhs`, or `out += ...`, where transposes and column ranges are strides. `f32` on AVX-512 and AVX2
//! runs on this crate's tiles (`product`), `f64` and other machines on the `gemm` crate. A right-hand side that stays the
//! same, as a deployed model's weights do, can be [`Packed`] once.
//!
//! No sum is split between threads, and how a product is cut into pieces does not change the order of a sum, so the
//! bytes are the same for any number of threads (`kd-core/tests/gradients.rs` checks it).

use candle_core::DType;
use gemm::Parallelism;

use super::Float;
use super::product::{self, Panels, Product, Strided};

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

    fn strided(&self) -> Strided {
        Strided { values: self.values.as_ptr().cast(), row_stride: self.row_stride, col_stride: self.col_stride }
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
    product(out, scale, lhs, rhs, threads, Start::Zero);
}

/// `out += scale · lhs · rhs`.
///
/// # Panics
/// If the sizes do not match.
pub fn matmul_add<T: Float>(out: MatrixMut<'_, T>, scale: T, lhs: Matrix<'_, T>, rhs: Matrix<'_, T>, threads: Threads) {
    product(out, scale, lhs, rhs, threads, Start::Out);
}

/// `out = bias + lhs · rhs`, the bias for every row.
///
/// # Panics
/// If the sizes do not match.
pub fn matmul_bias<T: Float>(
    out: MatrixMut<'_, T>,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    bias: &[T],
    threads: Threads,
) {
    product(out, T::one(), lhs, rhs, threads, Start::Bias(bias));
}

/// What a product is added to.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a, T> {
    /// Nothing: `out` may be uninitialised.
    Zero,
    /// What `out` holds.
    Out,
    /// One row, for every row of `out`, which may be uninitialised.
    Bias(&'a [T]),
}

fn product<T: Float>(
    out: MatrixMut<'_, T>,
    scale: T,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    threads: Threads,
    start: Start<'_, T>,
) {
    check(&out, lhs, (rhs.rows, rhs.cols), start);
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    if T::DTYPE == DType::F32 && lhs.rows >= FEW_ROWS && lhs.cols * rhs.cols > 0 {
        let (tiled, parallel) = (tiled(&out, scale, lhs, start), threads == Threads::All);
        // SAFETY: `Matrix` and `MatrixMut` hold, or their makers promised, that all values they describe are inside
        // live allocations, and `out` is not shared. The sizes agree.
        if unsafe { product::multiply(tiled, rhs.strided(), parallel) } {
            return;
        }
    }
    if let Start::Bias(bias) = start {
        for row in 0..out.rows {
            // SAFETY: the row is inside `out`, which nobody else accesses.
            unsafe { out.values.add(row * out.row_stride).copy_from_nonoverlapping(bias.as_ptr(), out.cols) };
        }
    }
    let add = !matches!(start, Start::Zero);
    // SAFETY: as above. `Float` is f32 or f64, which gemm has.
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

/// With fewer rows than this, packing the right-hand side would cost more than the product; gemm reads it in place.
const FEW_ROWS: usize = 8;

/// A right-hand side `(inner, cols)` in the order in which products read it: made once for many products.
///
/// It holds a copy of the values, with at most 31 columns of zeros behind them.
pub struct Packed<T> {
    inner: usize,
    cols: usize,
    values: PackedValues<T>,
}

enum PackedValues<T> {
    Panels(Panels),
    /// Row by row, for the `gemm` crate.
    Rows(Vec<T>),
}

impl<T: Float> Packed<T> {
    /// A copy of `rhs`.
    pub fn new(rhs: Matrix<'_, T>) -> Self {
        let (inner, cols) = (rhs.rows, rhs.cols);
        if T::DTYPE == DType::F32 {
            // SAFETY: `Matrix` holds that all its values are inside its slice.
            if let Some(panels) = unsafe { Panels::new(rhs.strided(), inner, cols) } {
                return Self { inner, cols, values: PackedValues::Panels(panels) };
            }
        }
        let value = |idx: usize| rhs.values[idx / cols * rhs.row_stride + idx % cols * rhs.col_stride];
        Self { inner, cols, values: PackedValues::Rows((0..inner * cols).map(value).collect()) }
    }

    /// Terms of each sum, and columns.
    pub fn sizes(&self) -> (usize, usize) {
        (self.inner, self.cols)
    }

    /// Memory of the values.
    pub fn bytes(&self) -> usize {
        match &self.values {
            PackedValues::Panels(panels) => panels.bytes(),
            PackedValues::Rows(values) => size_of_val(values.as_slice()),
        }
    }
}

impl<T> std::fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({} x {})", self.inner, self.cols)
    }
}

/// `out = start + lhs · rhs`: [`matmul`], [`matmul_add`] and [`matmul_bias`] without the packing.
///
/// # Panics
/// If the sizes do not match.
pub fn matmul_packed<T: Float>(
    out: MatrixMut<'_, T>,
    lhs: Matrix<'_, T>,
    rhs: &Packed<T>,
    start: Start<'_, T>,
    threads: Threads,
) {
    match &rhs.values {
        PackedValues::Rows(values) => {
            let rhs = Matrix::new(values, rhs.inner, rhs.cols, rhs.cols);
            product(out, T::one(), lhs, rhs, threads, start);
        }
        PackedValues::Panels(panels) => {
            check(&out, lhs, (rhs.inner, rhs.cols), start);
            if out.rows * out.cols > 0 {
                // SAFETY: as in `product`.
                unsafe { panels.multiply(tiled(&out, T::one(), lhs, start), threads == Threads::All) }
            }
        }
    }
}

/// A product of `f32` values as the tiles take it. `T` is `f32`.
fn tiled<T: Float>(out: &MatrixMut<'_, T>, scale: T, lhs: Matrix<'_, T>, start: Start<'_, T>) -> Product {
    Product {
        rows: out.rows,
        cols: out.cols,
        inner: lhs.cols,
        scale: scale.to_f64() as f32,
        start: match start {
            Start::Zero => product::Start::Zero,
            Start::Out => product::Start::Out,
            Start::Bias(bias) => product::Start::Bias(bias.as_ptr().cast()),
        },
        lhs: lhs.strided(),
        out: out.values.cast(),
        out_row: out.row_stride,
    }
}

fn check<T>(out: &MatrixMut<'_, T>, lhs: Matrix<'_, T>, (inner, cols): (usize, usize), start: Start<'_, T>) {
    if let Start::Bias(bias) = start {
        assert!(bias.len() == cols, "expected a bias of {cols} values, found {}", bias.len());
    }
    assert!(
        out.rows == lhs.rows && out.cols == cols && lhs.cols == inner,
        "expected ({} x n) · (n x {}), found ({} x {}) · ({inner} x {cols})",
        out.rows,
        out.cols,
        lhs.rows,
        lhs.cols,
    );
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
    fn tiles_agree_with_gemm_around_their_edges() {
        for rows in (1..=30).chain([167, 169]) {
            for (inner, cols) in
                [(1, 1), (3, 15), (7, 16), (8, 17), (33, 31), (5, 32), (64, 33), (9, 64), (17, 129), (1025, 40)]
            {
                let (a, b) = (values(rows * inner, 1), values(inner * cols, 2));
                for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
                    let lhs =
                        if a_t { Matrix::new(&a, inner, rows, rows).t() } else { Matrix::new(&a, rows, inner, inner) };
                    let rhs =
                        if b_t { Matrix::new(&b, cols, inner, inner).t() } else { Matrix::new(&b, inner, cols, cols) };
                    let at = |row: usize, col: usize| -> f64 {
                        let term = |k: usize| {
                            f64::from(a[row * lhs.row_stride + k * lhs.col_stride])
                                * f64::from(b[k * rhs.row_stride + col * rhs.col_stride])
                        };
                        (0..inner).map(term).sum()
                    };
                    let close = |out: &[f32], factor: f64, offset: f64| {
                        for (idx, &found) in out.iter().enumerate() {
                            let (row, col) = (idx / (cols + 3), idx % (cols + 3));
                            if col >= cols {
                                assert_eq!(found, 0.5, "between the rows, {rows} x {inner} x {cols}");
                                continue;
                            }
                            let expected = factor * at(row, col) + offset;
                            assert!(
                                (f64::from(found) - expected).abs() < 1e-4,
                                "{rows} x {inner} x {cols} {a_t} {b_t}: {found}, expected {expected}"
                            );
                        }
                    };
                    let mut out = vec![0.5; rows * (cols + 3)];
                    let stride = cols + 3;
                    matmul_add(MatrixMut::new(&mut out, rows, cols, stride), 2.0, lhs, rhs, Threads::One);
                    close(&out, 2.0, 0.5);
                    let packed = Packed::new(rhs);
                    assert_eq!(packed.sizes(), (inner, cols));
                    for row in out.chunks_mut(stride) {
                        row[..cols].fill(f32::NAN);
                    }
                    matmul_packed(
                        MatrixMut::new(&mut out, rows, cols, stride),
                        lhs,
                        &packed,
                        Start::Zero,
                        Threads::One,
                    );
                    close(&out, 1.0, 0.0);
                    matmul_packed(MatrixMut::new(&mut out, rows, cols, stride), lhs, &packed, Start::Out, Threads::One);
                    close(&out, 2.0, 0.0);
                    let bias = vec![3.0; cols];
                    matmul_bias(MatrixMut::new(&mut out, rows, cols, stride), lhs, rhs, &bias, Threads::One);
                    close(&out, 1.0, 3.0);
                }
            }
        }
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
