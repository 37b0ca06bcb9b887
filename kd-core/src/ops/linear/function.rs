//! The functions behind a linear map, and loops over rows that apply them.

use super::Activation;
use crate::ops::cpu::{self, Float};
use crate::ops::gelu;
use crate::ops::pieces::for_each_piece;

/// A function of one value, chosen before a loop so that the loop vectorises.
trait Function: Sync {
    fn value<T: Float>(x: T) -> T;
    /// With the slope.
    fn value_and_slope<T: Float>(x: T) -> (T, T);
}

struct Gelu;
struct GeluTanh;
struct Tanh;
struct Relu;

impl Function for Gelu {
    #[inline(always)]
    fn value<T: Float>(x: T) -> T {
        x * x.normal().0
    }

    #[inline(always)]
    fn value_and_slope<T: Float>(x: T) -> (T, T) {
        gelu::value_and_slope(x)
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    fn value<T: Float>(x: T) -> T {
        x * gelu::logistic(x).0
    }

    #[inline(always)]
    fn value_and_slope<T: Float>(x: T) -> (T, T) {
        gelu::tanh_value_and_slope(x)
    }
}

impl Function for Tanh {
    #[inline(always)]
    fn value<T: Float>(x: T) -> T {
        x.tanh()
    }

    #[inline(always)]
    fn value_and_slope<T: Float>(x: T) -> (T, T) {
        let y = x.tanh();
        (y, T::one() - y * y)
    }
}

impl Function for Relu {
    // NaN stays NaN.
    #[inline(always)]
    fn value<T: Float>(x: T) -> T {
        if x < T::zero() { T::zero() } else { x }
    }

    #[inline(always)]
    fn value_and_slope<T: Float>(x: T) -> (T, T) {
        (Self::value(x), if x > T::zero() { T::one() } else { T::zero() })
    }
}

/// Runs `$body` with `$F` as the type of the activation's function.
macro_rules! for_function {
    ($activation:expr, $F:ident => $body:expr) => {
        match $activation {
            Activation::Gelu => {
                type $F = Gelu;
                $body
            }
            Activation::GeluTanh => {
                type $F = GeluTanh;
                $body
            }
            Activation::Tanh => {
                type $F = Tanh;
                $body
            }
            Activation::Relu => {
                type $F = Relu;
                $body
            }
        }
    };
}

impl Activation {
    /// `f(u + bias)` for rows `u`, in place.
    pub(crate) fn apply<T: Float>(self, u: &mut [T], bias: &[T]) {
        fn run<T: Float, F: Function>(u: &mut [T], bias: &[T]) {
            cpu::par_rows(
                u,
                bias.len(),
                #[inline(always)]
                |_, rows| {
                    for row in rows.chunks_exact_mut(bias.len()) {
                        for (u, &bias) in row.iter_mut().zip(bias) {
                            *u = F::value(*u + bias);
                        }
                    }
                },
            );
        }
        for_function!(self, F => run::<T, F>(u, bias));
    }

    /// `f(u + bias)` for rows `u`.
    pub(crate) fn of_sum<T: Float>(self, u: &[T], bias: &[T]) -> Vec<T> {
        fn run<T: Float, F: Function>(u: &[T], bias: &[T]) -> Vec<T> {
            // SAFETY: the loop writes every value.
            let mut y = unsafe { cpu::uninit::<T>(u.len()) };
            cpu::par_rows(
                &mut y,
                bias.len(),
                #[inline(always)]
                |first_row, rows| {
                    let u = &u[first_row * bias.len()..][..rows.len()];
                    for (row, u) in rows.chunks_exact_mut(bias.len()).zip(u.chunks_exact(bias.len())) {
                        for ((y, &u), &bias) in row.iter_mut().zip(u).zip(bias) {
                            *y = F::value(u + bias);
                        }
                    }
                },
            );
            y
        }
        for_function!(self, F => run::<T, F>(u, bias))
    }

    /// `f(u + bias)` for rows `u`, which become the slopes.
    pub(crate) fn of_sum_and_slopes<T: Float>(self, u: &mut [T], bias: &[T]) -> Vec<T> {
        fn run<T: Float, F: Function>(u: &mut [T], bias: &[T]) -> Vec<T> {
            let width = bias.len();
            let piece = (cpu::rows_per_task(width) * width).max(1);
            // SAFETY: the loop writes every value.
            let mut y = unsafe { cpu::uninit::<T>(u.len()) };
            for_each_piece(
                y.chunks_mut(piece).zip(u.chunks_mut(piece)).collect(),
                #[inline(always)]
                |_, (y, u)| {
                    for (y, u) in y.chunks_exact_mut(width).zip(u.chunks_exact_mut(width)) {
                        for ((y, u), &bias) in y.iter_mut().zip(u).zip(bias) {
                            (*y, *u) = F::value_and_slope(*u + bias);
                        }
                    }
                },
            );
            y
        }
        for_function!(self, F => run::<T, F>(u, bias))
    }

    /// `dy f'(u + bias)` for rows `u`, which become that.
    pub(crate) fn slope_of_sum<T: Float>(self, u: &mut [T], bias: &[T], dy: &[T]) {
        fn run<T: Float, F: Function>(u: &mut [T], bias: &[T], dy: &[T]) {
            cpu::par_rows(
                u,
                bias.len(),
                #[inline(always)]
                |first_row, rows| {
                    let dy = &dy[first_row * bias.len()..][..rows.len()];
                    for (row, dy) in rows.chunks_exact_mut(bias.len()).zip(dy.chunks_exact(bias.len())) {
                        for ((u, &dy), &bias) in row.iter_mut().zip(dy).zip(bias) {
                            *u = dy * F::value_and_slope(*u + bias).1;
                        }
                    }
                },
            );
        }
        for_function!(self, F => run::<T, F>(u, bias, dy));
    }
}
