//! Which positions the neurons of a layer respond to, as distributions.
//!
//! A neuron's *selectivity* is the vector of its activations over the tokens of an example, normalised to length 1. The
//! loss is the squared maximum mean discrepancy (MMD) between the student's neurons and the teacher's:
//!
//! ```text
//! MMD² = | 1/C_T Σ_i φ(t_i) - 1/C_S Σ_j φ(s_j) |²,   k(x, y) = φ(x)ᵀ φ(y)
//! ```
//!
//! (Huang and Wang 2017, §4.) Both kernels have a finite `φ`: `x` itself for the linear `xᵀy`, and `x xᵀ` for the
//! polynomial `(xᵀy)²` (the paper's `d = 2`, `c = 0`). So the means are subtracted instead of summing three matrices of
//! kernels: the value cannot become negative by rounding, and the cost is `C · len²`. The widths `C_S` and `C_T` may differ.
//!
//! For the mask and why the row is an example see [`losses`](super#representations).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::mean;
use super::token_mask::TokenMask;
use super::unit::unit;
use super::vectors::{check, wide_pair};

/// The kernel of [`neuron_selectivity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelectivityKernel {
    /// `xᵀy`: the distributions' means agree.
    Linear,
    /// `(xᵀy)²`: their second moments agree; the paper's best.
    Polynomial,
}

/// MMD² between the selectivities of student and teacher, mean over examples; at least 0 (Huang and Wang 2017, §4).
///
/// A neuron's selectivity is the vector of its activations over the tokens of an example, normalised to length 1; the
/// squared maximum mean discrepancy is `|1/C_T Σ_i φ(t_i) - 1/C_S Σ_j φ(s_j)|²` over the teacher's `C_T` and the student's `C_S`
/// neurons, for the kernel `k(x, y) = φ(x)ᵀ φ(y)`.
///
/// The paper weighs it with `λ/2`. A neuron that is zero on all tokens adds nothing to its mean and gets no gradient.
///
/// # Shapes
/// - `student`, `teacher`: `(batch, len, width)` float, each with its own width; the teacher is detached
/// - `mask`: `(batch, len)` u8, 0 on padding
/// - returns a scalar of the student's dtype; half precision is computed in `f32`
///
/// # Errors
/// If shapes do not fit.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{SelectivityKernel::Polynomial, neuron_selectivity};
/// let student = Tensor::new(&[[[2f64], [0.]]], &Device::Cpu)?; // one neuron, for the first token: (1, 0)
/// let teacher = Tensor::new(&[[[0f64, 0.], [3., 1.]]], &Device::Cpu)?; // two, both (0, 1)
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// assert_eq!(neuron_selectivity(&student, &teacher, Polynomial, &mask)?.to_scalar::<f64>()?, 1. + 1. - 2. * 0.);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn neuron_selectivity(
    student: &Tensor,
    teacher: &Tensor,
    kernel: SelectivityKernel,
    mask: &Tensor,
) -> Result<Tensor> {
    mean(&neuron_selectivity_rows(student, teacher, kernel, mask)?)
}

/// [`neuron_selectivity`] of each example, `(batch,)`.
pub fn neuron_selectivity_rows(
    student: &Tensor,
    teacher: &Tensor,
    kernel: SelectivityKernel,
    mask: &Tensor,
) -> Result<Tensor> {
    const LOSS: &str = "neuron_selectivity";
    check(LOSS, "(batch, len, width)", 3, true, student, teacher)?;
    let (batch, len, _) = student.dims3()?;
    let (s, t) = wide_pair(LOSS, student, teacher)?;
    let tokens = TokenMask::new(LOSS, mask, batch, len, s.dtype())?;
    let embedding = |x: &Tensor| {
        let neurons = unit(&tokens.keep_rows(x)?.transpose(1, 2)?.contiguous()?)?; // (batch, width, len)
        let width = neurons.dim(1)? as f64;
        match kernel {
            SelectivityKernel::Linear => neurons.sum(1)? / width, // (batch, len)
            SelectivityKernel::Polynomial => {
                neurons.transpose(1, 2)?.contiguous()?.matmul(&neurons)? / width // (batch, len, len)
            }
        }
    };
    (embedding(&s)? - embedding(&t)?)?.sqr()?.flatten_from(1)?.sum(1)?.to_dtype(student.dtype())
}
