//! Products of a linear map on slices: what the ops and a whole encoder layer share.

use crate::ops::cpu::{self, Float, Matrix, MatrixMut, Threads};

/// A map of `rows` rows from `width` to `out` values; its weight is `(out, width)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) out: usize,
}

impl Sizes {
    /// `x Wᵀ`, plus the bias if there is one.
    pub(crate) fn product<T: Float>(self, x: &[T], weight: &[T], bias: Option<&[T]>) -> Vec<T> {
        let Self { rows, width, out } = self;
        // SAFETY: the product writes every value.
        let mut y = unsafe { cpu::uninit::<T>(rows * out) };
        let target = MatrixMut::new(&mut y, rows, out, out);
        let (x, weight) = (Matrix::new(x, rows, width, width), Matrix::new(weight, out, width, width).t());
        match bias {
            Some(bias) => cpu::matmul_bias(target, x, weight, bias, Threads::All),
            None => cpu::matmul(target, T::one(), x, weight, Threads::All),
        }
        y
    }

    /// `dy W`, the gradient of `x`.
    pub(crate) fn input_gradient<T: Float>(self, dy: &[T], weight: &[T]) -> Vec<T> {
        // SAFETY: `write_input_gradient` writes every value.
        let mut dx = unsafe { cpu::uninit::<T>(self.rows * self.width) };
        self.write_input_gradient(&mut dx, dy, weight);
        dx
    }

    /// `dx = dy W`.
    pub(crate) fn write_input_gradient<T: Float>(self, dx: &mut [T], dy: &[T], weight: &[T]) {
        let Self { rows, width, out } = self;
        let (dy, weight) = (Matrix::new(dy, rows, out, out), Matrix::new(weight, out, width, width));
        cpu::matmul(MatrixMut::new(dx, rows, width, width), T::one(), dy, weight, Threads::All);
    }

    /// `dx += dy W`.
    pub(crate) fn add_input_gradient<T: Float>(self, dx: &mut [T], dy: &[T], weight: &[T]) {
        let Self { rows, width, out } = self;
        let (dy, weight) = (Matrix::new(dy, rows, out, out), Matrix::new(weight, out, width, width));
        cpu::matmul_add(MatrixMut::new(dx, rows, width, width), T::one(), dy, weight, Threads::All);
    }

    /// `dyᵀ x`, the gradient of the weight.
    pub(crate) fn weight_gradient<T: Float>(self, dy: &[T], x: &[T]) -> Vec<T> {
        let Self { rows, width, out } = self;
        // SAFETY: `matmul` writes every value.
        let mut dw = unsafe { cpu::uninit::<T>(out * width) };
        let (dy, x) = (Matrix::new(dy, rows, out, out).t(), Matrix::new(x, rows, width, width));
        cpu::matmul(MatrixMut::new(&mut dw, out, width, width), T::one(), dy, x, Threads::All);
        dw
    }
}
