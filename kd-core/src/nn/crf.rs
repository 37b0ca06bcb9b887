//! The transitions of a linear-chain CRF.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use candle_nn::init::Init;

use crate::ops::crf;

/// Transition scores of a CRF over the classes of a tagger; the functions of them are those of [`crate::ops::crf`].
///
/// The variable `transitions` is `(classes + 2, classes)`: from class to class, from the start, to the end. It starts
/// uniform within ±0.1, as in the Python package `pytorch-crf`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use kd_core::nn::Crf;
/// use kd_core::variables::Variables;
/// let variables = Variables::new(0, DType::F32, &Device::Cpu);
/// let crf = Crf::new(3, variables.builder())?;
/// let emissions = Tensor::new(&[[9f32, 0., 0.], [0., 9., 0.], [0., 0., 9.]], &Device::Cpu)?;
/// let labels = Tensor::new(&[0u32, 1, 2], &Device::Cpu)?;
/// assert_eq!(crf.viterbi(&emissions, &[2, 1])?, [0, 1, 2]);
/// let loss = crf.negative_log_likelihood(&emissions, &labels, &[2, 1])?; // mean per word
/// assert!(loss.to_scalar::<f32>()? < 0.01);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Crf {
    transitions: Tensor,
}

impl Crf {
    /// A CRF over `classes` classes.
    ///
    /// # Errors
    /// If `classes` is 0, or `vb` has no such variable.
    pub fn new(classes: usize, vb: VarBuilder<'_>) -> Result<Self> {
        if classes == 0 {
            bail!("a crf needs at least one class");
        }
        let init = Init::Uniform { lo: -0.1, up: 0.1 };
        Ok(Self { transitions: vb.get_with_hints((classes + 2, classes), "transitions", init)? })
    }

    /// `(classes + 2, classes)`.
    pub fn transitions(&self) -> &Tensor {
        &self.transitions
    }

    /// [`crf::negative_log_likelihood`]: a scalar, mean per row.
    ///
    /// # Errors
    /// If shapes do not fit or there are no rows.
    pub fn negative_log_likelihood(&self, emissions: &Tensor, labels: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        crf::negative_log_likelihood(emissions, &self.transitions, labels, lengths)
    }

    /// [`crf::log_marginals`], `(rows, classes)`.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn log_marginals(&self, emissions: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        crf::log_marginals(emissions, &self.transitions, lengths)
    }

    /// [`crf::viterbi`], one class per row.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn viterbi(&self, emissions: &Tensor, lengths: &[usize]) -> Result<Vec<u32>> {
        crf::viterbi(emissions, &self.transitions, lengths)
    }

    /// [`crf::k_best`], the best paths of each sequence.
    ///
    /// # Errors
    /// If shapes do not fit, `k` is 0, or a score is NaN or +∞.
    pub fn k_best(&self, emissions: &Tensor, lengths: &[usize], k: usize) -> Result<Vec<Vec<crf::Path>>> {
        crf::k_best(emissions, &self.transitions, lengths, k)
    }
}
