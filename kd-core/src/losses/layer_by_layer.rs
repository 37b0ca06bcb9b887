//! Layers, embeddings, attention and prediction of a Transformer student, each against its teacher's.
//!
//! The recipe of TinyBERT (Jiao et al. 2020, §3): for each mapped pair of layers the squared difference of attention
//! and of projected hidden states, for the embeddings the same with a projection of their own, and the soft
//! cross-entropy of the logits. The paper trains on the first three, then on the prediction alone, so the terms are
//! returned one by one.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::hidden::layer;
use super::{Projection, attention_mse, hidden_mse, soft_cross_entropy};
use crate::batch::{Rows, Sequence};
use crate::model::Output;
use crate::ops;

/// What [`LayerByLayer::losses`] compares, each term a scalar of the student's dtype.
#[derive(Debug, Clone)]
pub struct LayerLosses {
    /// [`hidden_mse`] of the embeddings, if they are mapped (eq. 9).
    pub embeddings: Option<Tensor>,
    /// [`hidden_mse`] of the layers, summed over the mapped pairs, if there are any (eq. 8).
    pub hidden: Option<Tensor>,
    /// [`attention_mse`] of the layers, summed over the mapped pairs, if there are any (eq. 7).
    pub attention: Option<Tensor>,
    /// [`soft_cross_entropy`] of the first head's logits (eq. 10).
    pub prediction: Tensor,
}

impl LayerLosses {
    /// The sum of embeddings, hidden states and attention: the paper's first stage.
    ///
    /// # Errors
    /// If the terms have different dtypes.
    pub fn intermediate(&self) -> Result<Tensor> {
        let terms = [&self.embeddings, &self.hidden, &self.attention];
        match terms.into_iter().flatten().cloned().map(Ok).reduce(|a, b| a? + b?) {
            Some(sum) => sum,
            None => bail!("no layer is mapped"),
        }
    }

    /// The sum of all terms (eq. 6 with every weight 1).
    ///
    /// # Errors
    /// If the terms have different dtypes.
    pub fn total(&self) -> Result<Tensor> {
        self.intermediate()? + &self.prediction
    }
}

/// Layers, embeddings, attention and prediction of a Transformer student, each against its teacher's: the recipe of TinyBERT
/// (Jiao et al. 2020, §3). Holds the mapped pairs of layers and the trained projections between their widths.
///
/// ```
/// use candle_core::{DType, Device};
/// use kd_core::{losses::{LayerByLayer, LayerMap}, variables::Variables};
/// let pairs = LayerMap::UniformWithEmbeddings.pairs(3, 12)?;
/// let variables = Variables::new(1, DType::F32, &Device::Cpu);
/// LayerByLayer::new(pairs, 312, 768, 1.0, variables.builder())?;
/// assert_eq!(variables.parameter_count(), 2 * 312 * 768); // of the embeddings and of the layers
/// # Ok::<(), kd_core::Error>(())
/// ```
///
/// | variable | shape | there if |
/// |---|---|---|
/// | `embeddings.weight` | `(teacher width, student width)` | the student's embeddings are mapped |
/// | `hidden.weight` | the same, one for all layers | a layer of the student is mapped |
#[derive(Debug, Clone)]
pub struct LayerByLayer {
    pairs: Vec<(usize, usize)>,
    temperature: f64,
    embeddings: Option<Projection>,
    hidden: Option<Projection>,
}

impl LayerByLayer {
    /// For `pairs` from [`LayerMap::pairs`](super::LayerMap::pairs). The variables are trained with the student's and not
    /// needed afterwards. The logits are compared at `temperature`, 1 in the paper.
    ///
    /// # Errors
    /// If there are no pairs or `vb` has variables of other shapes.
    pub fn new(
        pairs: Vec<(usize, usize)>,
        student_width: usize,
        teacher_width: usize,
        temperature: f64,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        if pairs.is_empty() {
            bail!("layer by layer: expected pairs of layers, found none");
        }
        let projection = |wanted: bool, name: &str| {
            wanted.then(|| Projection::new(student_width, teacher_width, vb.pp(name))).transpose()
        };
        let embeddings = projection(pairs.iter().any(|pair| pair.0 == 0), "embeddings")?;
        let hidden = projection(pairs.iter().any(|pair| pair.0 != 0), "hidden")?;
        Ok(Self { pairs, temperature, embeddings, hidden })
    }

    /// The losses of `student` against `teacher`, which is detached, on the sequence both have read.
    ///
    /// Hidden states are compared on the tokens that `tokens` lists: [`Sequence::token_rows`] of the same sequence,
    /// found once per batch because it reads the mask from its device. Attention is that of [`Output::attention`], so
    /// probabilities, where the paper has scores; a pair with the embeddings on either side has none.
    ///
    /// # Errors
    /// If a layer is missing in an output, or shapes do not fit.
    pub fn losses(
        &self,
        student: &Output,
        teacher: &Output,
        sequence: &Sequence,
        tokens: &Rows,
    ) -> Result<LayerLosses> {
        const LOSS: &str = "layer by layer";
        let (mut embeddings, mut hidden, mut attention) = (None, None, None);
        for &(student_idx, teacher_idx) in &self.pairs {
            let student_rows = tokens.select(layer(LOSS, "student", "hidden state", &student.hidden, student_idx)?)?;
            let teacher_rows = tokens.select(layer(LOSS, "teacher", "hidden state", &teacher.hidden, teacher_idx)?)?;
            let (projection, sum) = match student_idx {
                0 => (&self.embeddings, &mut embeddings),
                _ => (&self.hidden, &mut hidden),
            };
            if let Some(projection) = projection {
                add(sum, hidden_mse(&projection.forward(&student_rows)?, &teacher_rows)?)?;
            }
            if student_idx > 0 && teacher_idx > 0 {
                let of_student = layer(LOSS, "student", "attention map", &student.attention, student_idx - 1)?;
                let of_teacher = layer(LOSS, "teacher", "attention map", &teacher.attention, teacher_idx - 1)?;
                add(&mut attention, attention_mse(of_student, of_teacher, &sequence.mask)?)?;
            }
        }
        let logits = student.logits()?;
        let teacher_logits = teacher.logits()?.detach().to_dtype(logits.dtype())?;
        let probs = ops::softmax(&(teacher_logits / self.temperature)?)?;
        let prediction = soft_cross_entropy(logits, &probs, self.temperature)?;
        Ok(LayerLosses { embeddings, hidden, attention, prediction })
    }
}

fn add(sum: &mut Option<Tensor>, term: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(sum) => (sum + term)?,
        None => term,
    });
    Ok(())
}
