//! What stands on an encoder: a linear layer, or what the family has in transformers.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::batch::{Rows, Sequence};
use kd_core::model::Mode;
use kd_core::nn::Linear;
use kd_core::ops::{Activation, dropout, linear_activation};
use kd_core::variables::Variables;

use crate::config::{EncoderConfig, Family};
use crate::encoder::dense;
use crate::encoder::packed::copy_linear;

/// Dropout and a linear layer over the classes.
#[derive(Debug, Clone)]
pub(super) struct Head {
    dropout: f64,
    linear: Linear,
}

impl Head {
    pub(super) fn new(config: &EncoderConfig, classes: usize, variables: &Variables) -> Result<Self> {
        // XLNet's token classifier has no dropout.
        let otherwise = if config.family == Family::XlNet { 0.0 } else { config.hidden_dropout };
        let linear = dense(config, config.hidden, classes, variables.builder().pp("classifier"))?;
        Ok(Self { dropout: config.classifier_dropout.unwrap_or(otherwise), linear })
    }

    /// The same head without variables.
    pub(super) fn copy(&self) -> Result<Self> {
        Ok(Self { dropout: self.dropout, linear: copy_linear(&self.linear)? })
    }

    /// Logits of rows, `(rows, classes)`.
    pub(super) fn forward(&self, rows: &Tensor, mode: Mode) -> Result<Tensor> {
        self.linear.forward(&dropout(rows, self.dropout, mode)?)
    }
}

/// Where a family's own head for sequence classification keeps its variables, and how it works.
struct Shape {
    dense: &'static str,
    activation: Activation,
    out: &'static str,
    /// Whether there is a dropout in front of the dense layer too.
    drops_input: bool,
    /// Whether the last token is read instead of the first.
    reads_last: bool,
}

fn shape(family: Family) -> Shape {
    let bert = Shape {
        dense: "pooler.dense",
        activation: Activation::Tanh,
        out: "classifier",
        drops_input: false,
        reads_last: false,
    };
    let roberta = Shape { dense: "classifier.dense", out: "classifier.out_proj", drops_input: true, ..bert };
    match family {
        Family::Bert => bert,
        Family::Albert => Shape { dense: "pooler", ..bert },
        Family::DistilBert => Shape { dense: "pre_classifier", activation: Activation::Relu, ..bert },
        Family::Roberta | Family::XlmRoberta | Family::Camembert | Family::MpNet => roberta,
        Family::Electra => Shape { activation: Activation::Gelu, ..roberta },
        Family::XlNet => Shape { dense: "sequence_summary.summary", out: "logits_proj", reads_last: true, ..bert },
    }
}

/// What a family's own head for sequence classification reads: one token behind a dense layer with a function.
#[derive(Debug, Clone)]
pub(super) struct FamilyPooler {
    dense: Linear,
    activation: Activation,
    dropout: f64,
    drops_input: bool,
    reads_last: bool,
}

impl FamilyPooler {
    pub(super) fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let Shape { dense: dense_name, activation, drops_input, reads_last, .. } = shape(config.family);
        Ok(Self {
            dense: dense(config, config.hidden, config.hidden, vb.pp(dense_name))?,
            activation,
            dropout: match config.family {
                // What transformers takes where config.json does not say it.
                Family::DistilBert => config.summary_dropout.unwrap_or(0.2),
                Family::XlNet => config.summary_dropout.unwrap_or(0.1),
                _ => config.classifier_dropout.unwrap_or(config.hidden_dropout),
            },
            drops_input,
            reads_last,
        })
    }

    /// The same without variables.
    pub(super) fn copy(&self) -> Result<Self> {
        Ok(Self { dense: copy_linear(&self.dense)?, ..*self })
    }

    /// One vector per example, `(batch, hidden)`: what stands behind the dense layer and its function.
    pub(super) fn pool(&self, hidden: &Tensor, sequence: &Sequence, mode: Mode) -> Result<Tensor> {
        let token = if self.reads_last { last_token(hidden, sequence)? } else { Rows::Examples.select(hidden)? };
        let token = if self.drops_input { dropout(&token, self.dropout, mode.site(0))? } else { token };
        match self.dense.bias() {
            Some(bias) => linear_activation(&token, self.dense.weight(), bias, self.activation),
            None => candle_core::bail!("the head's dense layer has no bias"),
        }
    }
}

/// A family's own head for sequence classification: its pooler, and a linear layer.
#[derive(Debug, Clone)]
pub(super) struct FamilyHead {
    pooler: FamilyPooler,
    out: Linear,
}

impl FamilyHead {
    pub(super) fn new(config: &EncoderConfig, classes: usize, variables: &Variables) -> Result<Self> {
        let vb = variables.builder();
        let pooler = FamilyPooler::new(config, &vb)?;
        Ok(Self { pooler, out: dense(config, config.hidden, classes, vb.pp(shape(config.family).out))? })
    }

    /// The same head without variables.
    pub(super) fn copy(&self) -> Result<Self> {
        Ok(Self { pooler: self.pooler.copy()?, out: copy_linear(&self.out)? })
    }

    /// [`FamilyPooler::pool`].
    pub(super) fn pool(&self, hidden: &Tensor, sequence: &Sequence, mode: Mode) -> Result<Tensor> {
        self.pooler.pool(hidden, sequence, mode)
    }

    /// Logits of pooled vectors, `(batch, classes)`.
    pub(super) fn forward(&self, pooled: &Tensor, mode: Mode) -> Result<Tensor> {
        self.out.forward(&dropout(pooled, self.pooler.dropout, mode.site(1))?)
    }
}

/// The hidden state of each example's last token that is not padding, `(batch, width)`; of an example without any, its
/// first.
fn last_token(hidden: &Tensor, sequence: &Sequence) -> Result<Tensor> {
    let (batch, len, _width) = hidden.dims3()?;
    let device = hidden.device();
    // Counted in f32, which has no rounding below 2^24, because not every device adds whole numbers.
    let mask = sequence.mask.to_dtype(candle_core::DType::F32)?;
    let behind = (mask.sum(1)?.maximum(1.0)? - 1.0)?.to_dtype(candle_core::DType::U32)?; // (batch,)
    let starts = (Tensor::arange(0u32, u32::try_from(batch)?, device)? * len as f64)?;
    let index = (starts + behind)?;
    Rows::Words { index, per_example: vec![1; batch] }.select(hidden)
}
