//! Contrast by example, with a memory of all of them: [`Contrastive`], its [`MemoryBank`] and the estimate of one direction,
//! [`noise_contrast`].

mod bank;
mod noise_contrast;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::mean;
use super::preconditions::wide;
use super::unit::unit;
use super::vectors::{check, wide_pair};
use crate::nn::Linear;

pub use bank::{ContrastiveConfig, MemoryBank};
pub use noise_contrast::{noise_contrast, noise_contrast_rows};

/// Contrast by example: a student's representation should be near its teacher's of the same example and far from those
/// of others.
///
/// Student and teacher are projected to one width and normalised, `u = W_S s / |W_S s|` and `v = W_T t / |W_T t|`. A memory
/// bank holds the last `u` and `v` of every example of the data. Against the teacher's memory `m`, an example `i` with
/// `K` others drawn has
///
/// ```text
/// P(j) = exp(m_j · u / τ) / Z      h(j) = P(j) / (P(j) + K/N)      loss = -ln h(i) - Σ_others ln(1 - h(j))
/// ```
///
/// and the loss is this plus the same of `v` against the student's memory (Tian et al. 2020, §3, in the
/// noise-contrastive form of Wu et al. 2018). As in the authors' programs, `Z` is fixed by the first batch, at `N` times
/// the mean of `exp(m_j · u / τ)` over all drawn `j`, one for each direction, and is a constant afterwards; a memory
/// starts uniform in `±√(3/width)`, which has length 1 on average; and after each loss the memory of the batch's examples
/// becomes `momentum · old + (1 - momentum) · new`, normalised. Others are never the example itself.
///
/// Everything that changes is in the [`MemoryBank`], which is saved and restored as tensors. The others are a function of
/// the bank's seed, the step and the row. A value depends on the memories, so there is no value without a bank; given
/// one, it is a sum over rows and [`Contrastive::rows`] returns each.
///
/// This holds the two projections, trained with the student and not needed afterwards:
///
/// | variable | shape |
/// |---|---|
/// | `student.weight`, `student.bias` | `(width, student width)`, `(width,)` |
/// | `teacher.weight`, `teacher.bias` | `(width, teacher width)`, `(width,)` |
///
/// ```
/// use candle_core::{DType, Device};
/// use kd_core::{losses::{Contrastive, ContrastiveConfig, MemoryBank}, testing::random, variables::Variables};
/// let config = ContrastiveConfig { examples: 10, width: 4, negatives: 3, temperature: 0.07, momentum: 0.5, seed: 1 };
/// let mut bank = MemoryBank::new(config, DType::F64, &Device::Cpu)?;
/// let contrast = Contrastive::new(6, 8, 4, Variables::new(2, DType::F64, &Device::Cpu).builder())?;
/// let rows = contrast.rows(&mut bank, &random(3, (2, 6))?, &random(4, (2, 8))?, &[7, 2], 0)?;
/// assert_eq!(rows.dims(), [2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Contrastive {
    student: Linear,
    teacher: Linear,
}

impl Contrastive {
    /// Projections to `width`, that of the bank, with variables from `vb`.
    ///
    /// # Errors
    /// If `vb` has variables of other shapes.
    pub fn new(student_width: usize, teacher_width: usize, width: usize, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            student: Linear::new(student_width, width, vb.pp("student"))?,
            teacher: Linear::new(teacher_width, width, vb.pp("teacher"))?,
        })
    }

    /// The loss of a batch, mean over rows, in nats; afterwards the bank holds the batch.
    ///
    /// # Errors
    /// As [`Contrastive::rows`].
    pub fn loss(
        &self,
        bank: &mut MemoryBank,
        student: &Tensor,
        teacher: &Tensor,
        examples: &[usize],
        step: u64,
    ) -> Result<Tensor> {
        mean(&self.rows(bank, student, teacher, examples, step)?)
    }

    /// The loss of each row, `(rows,)`, in nats; afterwards the bank holds the batch.
    ///
    /// # Shapes
    /// - `student`, `teacher`: `(rows, student width)` and `(rows, teacher width)` float; the teacher is detached, its
    ///   projection learns
    /// - `examples`: the index of each row's example in the data, as [`Batch::examples`](crate::batch::Batch::examples);
    ///   of an example that stands there twice, the bank keeps the last row
    /// - `step`: number of the step, from which the others are drawn
    /// - returns the student's dtype; half precision is computed in `f32` behind the projections
    ///
    /// # Errors
    /// If shapes do not fit or an example is not below the bank's number. The bank is unchanged then.
    pub fn rows(
        &self,
        bank: &mut MemoryBank,
        student: &Tensor,
        teacher: &Tensor,
        examples: &[usize],
        step: u64,
    ) -> Result<Tensor> {
        const LOSS: &str = "contrastive";
        check(LOSS, "(rows, width)", 2, true, student, teacher)?;
        if examples.len() != student.dim(0)? {
            bail!("{LOSS}: expected an example for each of {} rows, found {}", student.dim(0)?, examples.len());
        }
        let (_, teacher) = wide_pair(LOSS, student, teacher)?;
        let teacher = teacher.to_dtype(self.teacher.weight().dtype())?;
        let u = unit(&wide(&self.student.forward(student)?)?)?;
        let v = unit(&wide(&self.teacher.forward(&teacher)?)?)?;
        let rows = bank.contrast_rows(&u, &v, examples, step)?;
        bank.remember(&u, &v, examples)?;
        rows.to_dtype(student.dtype())
    }
}
