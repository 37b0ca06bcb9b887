//! The heads of fine-tuned checkpoints, as transformers has them: pooling, a dense layer, its norm, the classifier.

use candle_core::{Result, Tensor, bail};
use candle_nn::var_builder::VarBuilder;
use kd_core::batch::{Rows, Tokens};
use kd_core::nn::{LayerNorm, Linear};

/// What a head labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Sequence,
    Token,
}

impl Task {
    pub(super) fn check(self, rows: &Rows) -> Result<()> {
        match (self, rows) {
            (Task::Sequence, Rows::Examples) | (Task::Token, Rows::Words { .. }) => Ok(()),
            (Task::Sequence, _) => bail!("the frozen model's head labels examples, found rows of words"),
            (Task::Token, _) => bail!("the frozen model's head labels words, found rows of examples"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    Gelu,
    Relu,
    Tanh,
}

/// `classifier(norm(activation(dense(pooled))))`.
pub(super) struct Head {
    /// Pooled is the mean over the tokens; otherwise the rows, of which an example's is its first token.
    pub(super) mean: bool,
    pub(super) dense: Option<(Linear, Activation)>,
    pub(super) norm: Option<LayerNorm>,
    pub(super) classifier: Linear,
}

impl Head {
    /// A classifier alone, on the rows.
    pub(super) fn linear(classifier: Linear) -> Self {
        Self { mean: false, dense: None, norm: None, classifier }
    }

    pub(super) fn forward(&self, hidden: &Tensor, tokens: &Tokens) -> Result<Tensor> {
        let mut xs = if self.mean {
            let mask = tokens.first.mask.to_dtype(hidden.dtype())?.unsqueeze(2)?; // (batch, len, 1)
            hidden.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?
        } else {
            tokens.rows.select(hidden)?
        };
        if let Some((dense, activation)) = &self.dense {
            xs = dense.forward(&xs)?;
            xs = match activation {
                Activation::Gelu => xs.gelu_erf()?,
                Activation::Relu => xs.relu()?,
                Activation::Tanh => xs.tanh()?,
            };
        }
        if let Some(norm) = &self.norm {
            xs = norm.forward(&xs)?;
        }
        self.classifier.forward(&xs)
    }
}

/// A linear layer with a bias.
pub(super) fn linear(inputs: usize, outputs: usize, vb: VarBuilder<'_>) -> Result<Linear> {
    Ok(Linear::from_tensors(vb.get((outputs, inputs), "weight")?, Some(vb.get(outputs, "bias")?)))
}
