//! How a sequence becomes one vector.

use candle_core::{Result, Tensor, bail};
use kd_core::batch::{Rows, Sequence};

/// How a [`super::SequenceClassifier`] makes one vector of a sequence, and what stands on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// The first token's hidden state, under a linear layer.
    Cls,
    /// The mean of the hidden states of all tokens that are not padding, which sentence encoders are trained with, under a
    /// linear layer.
    #[default]
    Mean,
    /// What the family has in transformers, its `*ForSequenceClassification`; transformers reads what is saved.
    ///
    /// | family         | token | variables                                   | head                                                |
    /// |----------------|-------|---------------------------------------------|-----------------------------------------------------|
    /// | BERT           | first | `pooler.dense`, `classifier`                | dense, tanh, dropout, linear                        |
    /// | ALBERT         | first | `pooler`, `classifier`                      | dense, tanh, dropout, linear                        |
    /// | DistilBERT     | first | `pre_classifier`, `classifier`              | dense, ReLU, dropout, linear                        |
    /// | RoBERTa, MPNet | first | `classifier.dense`, `classifier.out_proj`   | dropout, dense, tanh, dropout, linear               |
    /// | ELECTRA        | first | `classifier.dense`, `classifier.out_proj`   | dropout, dense, GELU, dropout, linear               |
    /// | XLNet          | last  | `sequence_summary.summary`, `logits_proj`   | dense, tanh, dropout, linear                        |
    Family,
}

impl Pooling {
    /// Those that config.json has to name.
    pub(crate) const NAMED: [(Pooling, &str); 2] = [(Pooling::Cls, "cls"), (Pooling::Mean, "mean")];

    /// One vector per example, `(batch, width)`, of `hidden`, `(batch, len, width)`; the mean divides by the number of
    /// tokens (by 1 if there is none).
    ///
    /// # Errors
    /// If shapes do not fit; and for [`Pooling::Family`], which has weights.
    pub fn pool(self, hidden: &Tensor, sequence: &Sequence) -> Result<Tensor> {
        match self {
            Pooling::Cls => Rows::Examples.select(hidden),
            Pooling::Mean => {
                let mask = sequence.mask.to_dtype(hidden.dtype())?; // (batch, len)
                let count = mask.sum_keepdim(1)?.maximum(1.0)?; // (batch, 1)
                let share = mask.broadcast_div(&count)?.unsqueeze(2)?; // (batch, len, 1)
                hidden.broadcast_mul(&share)?.sum(1)
            }
            Pooling::Family => bail!("the family's own pooling has weights: ask a classifier for its pooled output"),
        }
    }
}
