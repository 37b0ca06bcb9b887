//! Linear layers for inference: weights packed once, in f32, bf16 or int8, and a product that only reads them.
//!
//! `y = activation(x Wᵀ + b)` without a gradient, for teachers that are only asked and students that are shipped.
//!
//! | precision | bytes per weight | an output is off by at most | fast where the processor has |
//! |---|---|---|---|
//! | [`Precision::F32`] | 4 | rounding of f32 | |
//! | [`Precision::Bf16`] | 2 | `2⁻⁷ Σ_i \|x_i w_i\|`, typically `2⁻⁷ / √in` of that | AVX512-BF16 |
//! | [`Precision::Int8`] | 1 | `t Σ_i \|w_i\| + s/2 Σ_i \|x_i\| + in · t s/2` | VNNI, or AVX2 |
//!
//! with `s = max_i |w_i| / 127` of the output's row of weights and `t = (max(x, 0) - min(x, 0)) / 255` of the row of
//! the input, which is rounded on every call. That is PyTorch's dynamic quantisation
//! (`torch.ao.quantization.quantize_dynamic`) with a scale for each row and each channel in place of one for the whole tensor,
//! and eight bits of the input where PyTorch's default on x86 keeps seven.
//!
//! Which instructions are used is decided at run time; without those of the table, bf16 and int8 save memory and cost
//! time. In int8 all of them give the same bytes, in bf16 they agree within rounding. The bytes never depend on the number
//! of threads. A row of the input with a value that is not finite becomes NaN in int8; in f32 and bf16 it follows the
//! rules of floats.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use kd_core::ops::packed::{Activation, PackedLinear, Precision};
//! let weight = Tensor::new(&[[1f32, 2.], [-1., 0.]], &Device::Cpu)?;
//! let bias = Tensor::new(&[0.5f32, 0.], &Device::Cpu)?;
//! let layer = PackedLinear::new(&weight, Some(&bias), Precision::Int8)?.with_activation(Activation::Relu);
//! let y = layer.forward(&Tensor::new(&[[3f32, 1.], [-1., 0.]], &Device::Cpu)?)?.to_vec2::<f32>()?;
//! // 3 + 2 + 0.5 and max(-3, 0); max(-1 + 0.5, 0) and 1. The steps are 2/127 and 1/127, 3/255 and 1/255.
//! assert!((y[0][0] - 5.5).abs() < 0.05 && y[0][1] == 0.0 && y[1][0] == 0.0 && (y[1][1] - 1.0).abs() < 0.02);
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::fmt;
use std::sync::Arc;

use candle_core::{D, DType, Result, Tensor, bail};

use super::cpu::{self, Float, Matrix, MatrixMut, Packed, Start, Threads};
use super::gelu::logistic;

mod bf16;
mod blocks;
mod int8;

/// How a packed weight is stored, and what the product is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As it is.
    F32,
    /// The nearest bf16, and so is the input; sums are in f32. Without AVX512-BF16 it saves memory but no time.
    Bf16,
    /// Whole multiples of a scale per output ([`quantize_rows`]), the input of a scale and a zero per row; sums are exact.
    Int8,
}

/// What is done to each output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// `max(y, 0)`.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// [`gelu`](super::gelu()), the exact one.
    Gelu,
    /// Its approximation, [`super::Activation::GeluTanh`].
    GeluTanh,
}

impl From<super::Activation> for Activation {
    fn from(activation: super::Activation) -> Self {
        match activation {
            super::Activation::Gelu => Self::Gelu,
            super::Activation::GeluTanh => Self::GeluTanh,
            super::Activation::Tanh => Self::Tanh,
            super::Activation::Relu => Self::Relu,
        }
    }
}

impl Activation {
    /// On every value, in plain loops: an iterator's `for_each` may be compiled for any processor and then not inlined.
    #[inline(always)]
    fn apply(self, values: &mut [f32]) {
        match self {
            Activation::Identity => {}
            Activation::Relu => {
                for y in values {
                    *y = if *y < 0.0 { 0.0 } else { *y }; // NaN stays
                }
            }
            Activation::Tanh => {
                for y in values {
                    *y = Float::tanh(*y);
                }
            }
            Activation::Gelu => {
                for y in values {
                    *y *= y.normal().0;
                }
            }
            Activation::GeluTanh => {
                for y in values {
                    *y *= logistic(*y).0;
                }
            }
        }
    }
}

/// A linear layer whose weight was packed; it has no variables and no backward.
#[derive(Clone)]
pub struct PackedLinear {
    width: usize,
    out: usize,
    precision: Precision,
    weights: Weights,
    /// Of whole panels; zeros if there is none.
    bias: Vec<f32>,
    activation: Activation,
}

#[derive(Clone)]
enum Weights {
    F32(Arc<Packed<f32>>),
    Bf16(bf16::Weights),
    Int8(int8::Weights),
    /// Not on the CPU: the rounded weight, `(out, in)`, and the bias, `(out,)`, of [`super::linear()`].
    Composed(Tensor, Option<Tensor>),
}

/// An input as a precision wants it.
enum Rows<'a> {
    F32(&'a [f32]),
    Bf16(bf16::Rows),
    Int8(int8::Rows),
}

impl PackedLinear {
    /// Packs `weight` `(out, in)` and `bias` `(out,)`, both f32; the tensors are copied and not kept.
    ///
    /// On another device than the CPU the layer is composed of Candle's operations in f32: the weight is rounded to
    /// `precision` there too, the input is not.
    ///
    /// # Errors
    /// If shapes or dtypes do not fit; in int8 also if a weight is not finite, or `in` is above 66311, from where a
    /// sum could leave 32 bits.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, precision: Precision) -> Result<Self> {
        let (out, width) = weight.dims2()?;
        if let Some(bias) = bias.filter(|bias| bias.dims() != [out]) {
            bail!("packed: expected bias of shape [{out}] for weight {:?}, found {:?}", weight.dims(), bias.dims());
        }
        if let Some(other) = [Some(weight), bias].into_iter().flatten().find(|tensor| tensor.dtype() != DType::F32) {
            bail!("packed: expected weight and bias in f32, found {:?}", other.dtype());
        }
        if precision == Precision::Int8 && width > int8::WIDEST {
            bail!("packed: expected at most {} inputs for int8, found {width}", int8::WIDEST);
        }
        let values = weight.flatten_all()?.to_vec1::<f32>()?;
        if let Some(value) = values.iter().find(|x| precision == Precision::Int8 && !x.is_finite()) {
            bail!("packed: expected finite weights for int8, found {value}");
        }
        let packed = match precision {
            Precision::F32 => Weights::F32(Arc::new(Packed::new(Matrix::new(&values, out, width, width).t()))),
            Precision::Bf16 => Weights::Bf16(bf16::Weights::new(&values, out, width)),
            Precision::Int8 => {
                let (multiples, mut scales) = quantize_rows(&values, width);
                scales.resize(out, 0.0); // of rows without values
                Weights::Int8(int8::Weights::new(&multiples, &scales, width))
            }
        };
        let layer = Self::from_parts(width, out, precision, packed, bias)?;
        if weight.device().is_cpu() { Ok(layer) } else { layer.composed(weight, bias) }
    }

    /// A layer of weights that are bytes already: `multiples` `(out, in)` row by row and a scale for each row, as
    /// [`quantize_rows`] gives them.
    ///
    /// # Errors
    /// If the sizes do not fit, a multiple is -128, a scale is not finite, or `in` is above 66311.
    pub fn from_quantized(multiples: &[i8], scales: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        let out = scales.len();
        let width = multiples.len() / out.max(1);
        if multiples.len() != out * width || bias.is_some_and(|bias| bias.len() != out) {
            let bias = bias.map(<[f32]>::len);
            bail!("packed: {} multiples and a bias of {bias:?} do not fit {out} scales", multiples.len());
        }
        if width > int8::WIDEST || multiples.contains(&i8::MIN) || !scales.iter().all(|scale| scale.is_finite()) {
            bail!("packed: expected at most {} inputs, multiples from -127 and finite scales", int8::WIDEST);
        }
        let bias = bias.map(|bias| cpu::tensor(bias.to_vec(), out)).transpose()?;
        let weights = Weights::Int8(int8::Weights::new(multiples, scales, width));
        Self::from_parts(width, out, Precision::Int8, weights, bias.as_ref())
    }

    fn from_parts(
        width: usize,
        out: usize,
        precision: Precision,
        weights: Weights,
        bias: Option<&Tensor>,
    ) -> Result<Self> {
        let mut padded = match bias {
            Some(bias) => bias.to_vec1::<f32>()?,
            None => vec![0.0; out],
        };
        padded.resize(out.next_multiple_of(blocks::PANEL), 0.0);
        Ok(Self { width, out, precision, weights, bias: padded, activation: Activation::Identity })
    }

    /// The same layer on the device of `weight`.
    fn composed(self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let rounded = match &self.weights {
            Weights::Bf16(weights) => Tensor::from_vec(weights.widened(), weight.shape(), weight.device())?,
            Weights::Int8(weights) => Tensor::from_vec(weights.dequantized(), weight.shape(), weight.device())?,
            Weights::F32(_) | Weights::Composed(..) => weight.detach(),
        };
        Ok(Self { weights: Weights::Composed(rounded, bias.map(Tensor::detach)), ..self })
    }

    /// The same layer with something done to its outputs.
    #[must_use]
    pub fn with_activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// `(.., in)` → `(.., out)`, both f32.
    ///
    /// # Errors
    /// If the last dimension is not `in` or the dtype not f32; and if `x` has a graph behind it, which would end here
    /// unnoticed: detach it first.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [y] = forward_all([self], x)?;
        Ok(y)
    }

    /// `out = activation(x Wᵀ + b)` for `rows` rows in slices, `x` `(rows, in)` and `out` `(rows, out)`.
    ///
    /// # Panics
    /// If the slices have other lengths, or the layer is not on the CPU.
    pub fn product(&self, out: &mut [f32], x: &[f32], rows: usize) {
        self.multiply(out, &self.rows(x, rows), rows);
    }

    fn rows<'a>(&self, x: &'a [f32], rows: usize) -> Rows<'a> {
        assert_eq!(x.len(), rows * self.width, "expected {rows} rows of {} values", self.width);
        match self.precision {
            Precision::F32 => Rows::F32(x),
            Precision::Bf16 => Rows::Bf16(bf16::Rows::new(x, rows, self.width)),
            Precision::Int8 => Rows::Int8(int8::Rows::new(x, rows, self.width)),
        }
    }

    fn multiply(&self, out: &mut [f32], x: &Rows<'_>, rows: usize) {
        match (&self.weights, x) {
            (Weights::F32(weights), Rows::F32(x)) => {
                let (width, columns) = (self.width, self.out);
                let (target, x) = (MatrixMut::new(out, rows, columns, columns), Matrix::new(x, rows, width, width));
                cpu::matmul_packed(target, x, weights, Start::Bias(&self.bias[..columns]), Threads::All);
                if self.activation != Activation::Identity {
                    cpu::par_elements(
                        out,
                        #[inline(always)]
                        |_, out| self.activation.apply(out),
                    );
                }
            }
            (Weights::Bf16(weights), Rows::Bf16(x)) => bf16::product(out, x, weights, &self.bias, self.activation),
            (Weights::Int8(weights), Rows::Int8(x)) => int8::product(out, x, weights, &self.bias, self.activation),
            _ => panic!("expected a layer on the cpu and an input of its precision, {:?}", self.precision),
        }
    }

    /// `in`.
    pub fn in_width(&self) -> usize {
        self.width
    }

    /// `out`.
    pub fn out_width(&self) -> usize {
        self.out
    }

    /// What it was packed in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes that weights and bias take, in whole panels of 32 outputs.
    pub fn bytes(&self) -> usize {
        let weights = match &self.weights {
            Weights::F32(weights) => weights.bytes(),
            Weights::Bf16(weights) => weights.bytes(),
            Weights::Int8(weights) => weights.bytes(),
            Weights::Composed(weight, _) => weight.elem_count() * size_of::<f32>(),
        };
        weights + size_of_val(&*self.bias)
    }
}

impl fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, out, precision, activation, .. } = self;
        write!(f, "PackedLinear({width} -> {out}, {precision:?}, {activation:?})")
    }
}

/// Several layers of one input, as an attention's query, key and value: the input is rounded once.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use kd_core::ops::packed::{PackedLinear, Precision, forward_all};
/// let layer = PackedLinear::new(&Tensor::ones((3, 2), DType::F32, &Device::Cpu)?, None, Precision::Bf16)?;
/// let [a, b] = forward_all([&layer, &layer], &Tensor::ones((4, 2), DType::F32, &Device::Cpu)?)?;
/// assert_eq!((a.dims(), b.to_vec2::<f32>()?[3][2]), (&[4, 3][..], 2.0));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// As [`PackedLinear::forward`], and if the layers are not of one precision and one width.
pub fn forward_all<const N: usize>(layers: [&PackedLinear; N], x: &Tensor) -> Result<[Tensor; N]> {
    let mut outputs = Vec::with_capacity(N);
    if let Some(first) = layers.first() {
        let (width, precision) = (first.width, first.precision);
        if let Some(other) = layers.iter().find(|layer| (layer.width, layer.precision) != (width, precision)) {
            bail!("packed: expected layers of one input and one precision, found {first:?} and {other:?}");
        }
        if x.rank() == 0 || x.dim(D::Minus1)? != width || x.dtype() != DType::F32 {
            bail!("packed: expected x of shape (.., {width}) in f32, found {:?} in {:?}", x.dims(), x.dtype());
        }
        if x.track_op() {
            bail!("packed: the layer has no backward, and x has a graph behind it; detach x if that may end here");
        }
        let x = x.contiguous()?;
        let mut shape = x.dims().to_vec();
        let count: usize = shape[..shape.len() - 1].iter().product();
        let on_cpu = x.device().is_cpu() && layers.iter().all(|layer| !matches!(layer.weights, Weights::Composed(..)));
        let values = if on_cpu { Some(cpu::values::<f32>(&x)?) } else { None };
        let rows = values.as_deref().map(|values| first.rows(values, count));
        for layer in layers {
            if let Some(last) = shape.last_mut() {
                *last = layer.out;
            }
            outputs.push(match (&layer.weights, &rows) {
                (Weights::Composed(weight, bias), _) => {
                    let y = super::linear(&x, weight, bias.as_ref())?;
                    match layer.activation {
                        Activation::Identity => y,
                        Activation::Relu => y.relu()?,
                        Activation::Tanh => y.tanh()?,
                        Activation::Gelu => super::gelu(&y)?,
                        Activation::GeluTanh => y.gelu()?,
                    }
                }
                (_, Some(rows)) => {
                    // SAFETY: `multiply` writes every value.
                    let mut y = unsafe { cpu::uninit::<f32>(count * layer.out) };
                    layer.multiply(&mut y, rows, count);
                    cpu::tensor(y, shape.clone())?
                }
                (_, None) => bail!("packed: expected x on the cpu, found it on {:?}", x.device().location()),
            });
        }
    }
    match outputs.try_into() {
        Ok(outputs) => Ok(outputs),
        Err(outputs) => bail!("packed: expected {N} outputs, found {}", outputs.len()),
    }
}

/// Rounds each row of a matrix to whole multiples of its scale; returns the multiples, -127 to 127, and the scales.
///
/// A value is off by at most half its row's scale, which is `max |value| / 127`.
///
/// ```
/// let (multiples, scales) = kd_core::ops::packed::quantize_rows(&[1.0, -2.0, 0.0, 0.0], 2);
/// assert_eq!((multiples, scales), (vec![64, -127, 0, 0], vec![2.0 / 127.0, 0.0])); // 63.5 rounds away from zero
/// ```
pub fn quantize_rows(values: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
    let mut multiples = Vec::with_capacity(values.len());
    let mut scales = Vec::new();
    for row in values.chunks_exact(columns.max(1)) {
        let scale = row.iter().fold(0f32, |largest, value| largest.max(value.abs())) / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        multiples.extend(row.iter().map(|value| (value * inverse).round().clamp(-127.0, 127.0) as i8));
        scales.push(scale);
    }
    (multiples, scales)
}

#[cfg(test)]
mod tests;
