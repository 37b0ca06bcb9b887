//! A convolution over maps.

use std::ops::Range;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use kd_core::ops::cpu::{self, Float, Matrix, MatrixMut, Threads};
use rayon::prelude::*;

use super::super::windows::Windows;
use super::{Tokens, for_float};

/// Windows that are there at a time.
const WINDOWS: usize = 256;

/// `y = b + Σ W x` over windows on axes 1 and 2, and where `relu` is set `max(0, y)`, with slope 0 at 0.
///
/// # Shapes
/// - `x`: `(batch, height, width, channels)`, `weight`: `(out, window height · window width · channels)`, `bias`: `(out,)`
/// - returns `(batch, outputs, outputs, out)`, differentiable in all three; 0 where a window has no token
///
/// # Errors
/// If shapes or dtypes do not fit, or `x` is not on the CPU in f32 or f64.
pub(in super::super) fn convolution(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    windows: [Windows; 2],
    relu: bool,
    tokens: Tokens,
) -> Result<Tensor> {
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Convolution { windows, relu, tokens })
}

struct Convolution {
    windows: [Windows; 2],
    relu: bool,
    tokens: Tokens,
}

/// Sizes of a call.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    /// Of the output.
    rows: usize,
    columns: usize,
    out: usize,
    /// Values under a window.
    inside: usize,
}

impl Sizes {
    fn example(&self) -> usize {
        self.height * self.width * self.channels
    }

    fn output(&self) -> usize {
        self.rows * self.columns * self.out
    }
}

impl Convolution {
    fn sizes(&self, x: &Shape, weight: &Shape, bias: &Shape) -> Result<Sizes> {
        let ((batch, height, width, channels), (out, inside)) = (x.dims4()?, weight.dims2()?);
        let [down, across] = self.windows;
        if inside != down.size * across.size * channels || bias.dims() != [out] {
            bail!(
                "convolution: x {x:?} and bias {bias:?} do not fit the weight {weight:?} of windows {down:?}, {across:?}"
            );
        }
        let (rows, columns) = (down.outputs(height), across.outputs(width));
        Ok(Sizes { batch, height, width, channels, rows, columns, out, inside })
    }

    /// Outputs of an example that are in its texts, rows and columns.
    fn valid(&self, example: usize) -> [usize; 2] {
        let [rows, columns] = self.tokens.0[example];
        let [rows, columns] = [self.windows[0].valid(rows), self.windows[1].valid(columns)];
        if rows * columns == 0 { [0, 0] } else { [rows, columns] }
    }

    /// Rows of the output that are computed at a time, where so many columns are valid.
    fn strip(columns: usize) -> usize {
        (WINDOWS / columns.max(1)).max(1)
    }

    /// Calls `visit(start in the windows' values, start in the example, number of values)` for the parts of windows that are
    /// in the text, of `columns` outputs in each of `rows`.
    fn each_part(
        &self,
        sizes: Sizes,
        tokens: [usize; 2],
        rows: Range<usize>,
        columns: usize,
        mut visit: impl FnMut(usize, usize, usize),
    ) {
        let ([down, across], channels) = (self.windows, sizes.channels);
        let mut window = 0;
        for row in rows {
            let down_at = down.inside(row, tokens[0]);
            for column in 0..columns {
                let across_at = across.inside(column, tokens[1]);
                let place = across_at.start + across.before() - column * across.stride;
                for at in down_at.clone() {
                    let part = window + ((at + down.before() - row * down.stride) * across.size + place) * channels;
                    visit(part, (at * sizes.width + across_at.start) * channels, across_at.len() * channels);
                }
                window += sizes.inside;
            }
        }
    }

    fn forward<T: Float>(&self, x: &[T], weight: &[T], bias: &[T], sizes: Sizes) -> Vec<T> {
        let Sizes { columns, out, inside, .. } = sizes;
        let mut y = vec![T::zero(); sizes.batch * sizes.output()];
        if y.is_empty() {
            return y;
        }
        y.par_chunks_mut(sizes.output()).enumerate().for_each(|(example, y)| {
            let x = &x[example * sizes.example()..(example + 1) * sizes.example()];
            let (tokens, [valid_rows, valid_columns]) = (self.tokens.0[example], self.valid(example));
            let strip = Self::strip(valid_columns);
            let strips = y[..valid_rows * columns * out].par_chunks_mut(strip * columns * out).enumerate();
            strips.for_each(|(idx, y)| {
                let rows = idx * strip..(idx * strip + y.len() / (columns * out));
                let count = rows.len() * valid_columns;
                let (mut windows, mut product) = (vec![T::zero(); count * inside], vec![T::zero(); count * out]);
                self.each_part(sizes, tokens, rows, valid_columns, |part, at, len| {
                    windows[part..part + len].copy_from_slice(&x[at..at + len]);
                });
                cpu::matmul_bias(
                    MatrixMut::new(&mut product, count, out, out),
                    Matrix::new(&windows, count, inside, inside),
                    Matrix::new(weight, out, inside, inside).t(),
                    bias,
                    Threads::One,
                );
                for (y, product) in y.chunks_exact_mut(columns * out).zip(product.chunks_exact(valid_columns * out)) {
                    for (y, &value) in y.iter_mut().zip(product) {
                        *y = if self.relu && value <= T::zero() { T::zero() } else { value };
                    }
                }
            });
        });
        y
    }

    /// Gradients of `x` if it is wanted, and of weight and bias.
    fn backward<T: Float>(
        &self,
        [x, weight, y, dy]: [&[T]; 4],
        sizes: Sizes,
        wants_dx: bool,
    ) -> (Option<Vec<T>>, Vec<T>, Vec<T>) {
        let Sizes { batch, out, inside, .. } = sizes;
        let mut dx = vec![T::zero(); if wants_dx { x.len() } else { 0 }];
        let (mut dw, mut db) = (vec![T::zero(); out * inside], vec![T::zero(); out]);
        let of_example = |example: usize, dx: Option<&mut [T]>| {
            let x = &x[example * sizes.example()..(example + 1) * sizes.example()];
            let at = example * sizes.output()..(example + 1) * sizes.output();
            self.backward_of(example, [x, weight, &y[at.clone()], &dy[at]], sizes, dx)
        };
        let parts: Vec<_> = if wants_dx && !dx.is_empty() {
            let examples = dx.par_chunks_mut(sizes.example()).enumerate();
            examples.map(|(example, dx)| of_example(example, Some(dx))).collect()
        } else {
            (0..batch).into_par_iter().map(|example| of_example(example, None)).collect()
        };
        for (of_weight, of_bias) in parts {
            dw.iter_mut().zip(of_weight).for_each(|(sum, part)| *sum += part);
            db.iter_mut().zip(of_bias).for_each(|(sum, part)| *sum += part);
        }
        (wants_dx.then_some(dx), dw, db)
    }

    /// What one example adds to the gradients of weight and bias; that of the example is written to `dx`.
    fn backward_of<T: Float>(
        &self,
        example: usize,
        [x, weight, y, dy]: [&[T]; 4],
        sizes: Sizes,
        mut dx: Option<&mut [T]>,
    ) -> (Vec<T>, Vec<T>) {
        let Sizes { columns, out, inside, .. } = sizes;
        let (mut dw, mut db) = (vec![T::zero(); out * inside], vec![T::zero(); out]);
        let (tokens, [valid_rows, valid_columns]) = (self.tokens.0[example], self.valid(example));
        let strip = Self::strip(valid_columns);
        let longest = strip.min(valid_rows) * valid_columns;
        let [mut windows, mut d_windows] = [0, 1].map(|_| vec![T::zero(); longest * inside]);
        let mut d_product = vec![T::zero(); longest * out];
        for first in (0..valid_rows).step_by(strip) {
            let rows = first..(first + strip).min(valid_rows);
            let count = rows.len() * valid_columns;
            for (row, d_product) in rows.clone().zip(d_product.chunks_exact_mut(valid_columns * out)) {
                let at = row * columns * out..row * columns * out + valid_columns * out;
                for ((d_product, &y), &dy) in d_product.iter_mut().zip(&y[at.clone()]).zip(&dy[at]) {
                    *d_product = if self.relu && y == T::zero() { T::zero() } else { dy };
                }
            }
            for d_product in d_product[..count * out].chunks_exact(out) {
                db.iter_mut().zip(d_product).for_each(|(sum, &d)| *sum += d);
            }
            windows[..count * inside].fill(T::zero());
            self.each_part(sizes, tokens, rows.clone(), valid_columns, |part, at, len| {
                windows[part..part + len].copy_from_slice(&x[at..at + len]);
            });
            let d_product = Matrix::new(&d_product, count, out, out);
            let of_windows = Matrix::new(&windows, count, inside, inside);
            cpu::matmul_add(
                MatrixMut::new(&mut dw, out, inside, inside),
                T::one(),
                d_product.t(),
                of_windows,
                Threads::One,
            );
            let Some(dx) = &mut dx else { continue };
            cpu::matmul(
                MatrixMut::new(&mut d_windows, count, inside, inside),
                T::one(),
                d_product,
                Matrix::new(weight, out, inside, inside),
                Threads::One,
            );
            self.each_part(sizes, tokens, rows, valid_columns, |part, at, len| {
                dx[at..at + len].iter_mut().zip(&d_windows[part..part + len]).for_each(|(dx, &d)| *dx += d);
            });
        }
        (dw, db)
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = self.sizes(l1.shape(), l2.shape(), l3.shape())?;
        for_float!(s1.dtype(), T => {
            let y = self.forward(cpu::slice::<T>(s1, l1)?, cpu::slice(s2, l2)?, cpu::slice(s3, l3)?, sizes);
            Ok((cpu::storage(y), (sizes.batch, sizes.rows, sizes.columns, sizes.out).into()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = self.sizes(x.shape(), weight.shape(), bias.shape())?;
        for_float!(x.dtype(), T => {
            let grad = grad.contiguous()?;
            let values = (cpu::values::<T>(x)?, cpu::values(weight)?, cpu::values(y)?, cpu::values(&grad)?);
            let (dx, dw, db) =
                self.backward([&values.0, &values.1, &values.2, &values.3], sizes, x.track_op());
            let dx = dx.map(|dx| cpu::tensor(dx, x.shape())).transpose()?;
            let weights = [(weight, dw), (bias, db)].map(|(tensor, gradient)| {
                tensor.track_op().then(|| cpu::tensor(gradient, tensor.shape())).transpose()
            });
            let [dw, db] = weights;
            Ok((dx, dw?, db?))
        })
    }
}
