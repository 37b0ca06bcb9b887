//! Encoders as they are trained: gradients reach every variable, dropout is drawn from a seed.
//!
//! An [`Encoder`] is made of an [`EncoderConfig`], whose family decides what stands inside. Variables have the names of
//! transformers' `BertModel`, `RobertaModel`, `DistilBertModel`, `AlbertModel` and `ElectraModel`.
//!
//! ```
//! use candle_core::{DType, Device};
//! use kd_core::{batch::pad, model::Mode, variables::Variables};
//! use kd_teachers::{config::EncoderConfig, encoder::Encoder};
//! let config = EncoderConfig { vocabulary: 50, hidden: 16, layers: 1, heads: 2, intermediate: 32, ..EncoderConfig::bert_base() };
//! let variables = Variables::new(1, DType::F32, &Device::Cpu);
//! let encoder = Encoder::new(&config, variables.builder())?;
//! let hidden = encoder.forward(&pad(&[vec![2, 7, 3], vec![2, 3]], &Device::Cpu)?, Mode::Eval)?;
//! assert_eq!(hidden.dims(), [2, 3, 16]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::{DType, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use kd_core::batch::Sequence;
use kd_core::model::Mode;
use kd_core::nn::Linear;

use crate::config::{EncoderConfig, Family};

mod bert;
mod names;
pub(crate) mod packed;

pub use packed::PackedEncoder;

/// What a forward pass returns besides the last hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// All hidden states.
    pub hidden: bool,
    /// The attention probabilities of every layer.
    pub attention: bool,
}

/// What a forward pass returns, with a graph behind it where there are variables.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The last hidden states, `(batch, len, hidden)`; those of padding mean nothing.
    pub last: Tensor,
    /// All hidden states, `(batch, len, hidden)` each, if they are wanted: what the first layer reads, then what every layer
    /// says.
    pub hidden: Vec<Tensor>,
    /// The attention probabilities of every layer before dropout, `(batch, heads, len, len)` with queries before keys, if
    /// they are wanted; 0 for every key that is padding.
    pub attention: Vec<Tensor>,
}

/// What a head stands on.
pub trait Encode {
    /// The hidden states of a batch, and what else is wanted.
    ///
    /// # Errors
    /// If it cannot read the sequence, has no such mode, or cannot return what is wanted.
    fn encode(&self, sequence: &Sequence, mode: Mode, wanted: Wanted) -> Result<Encoded>;

    /// The shape that it was made with.
    fn config(&self) -> &EncoderConfig;
}

/// One call of a body.
#[derive(Debug, Clone, Copy)]
struct Request {
    mode: Mode,
    wanted: Wanted,
    /// What the layers compute in, if not in the dtype of their weights; results are in that of the weights.
    compute: Option<DType>,
}

/// An encoder without a head.
#[derive(Debug, Clone)]
pub struct Encoder {
    config: EncoderConfig,
    body: Body,
    compute: Option<DType>,
}

/// Each has `new(&EncoderConfig, &VarBuilder) -> Result<Self>` and `encode(&Sequence, &Request) -> Result<Encoded>`.
#[derive(Debug, Clone)]
enum Body {
    Bert(bert::Body),
}

impl Encoder {
    /// An encoder of the variables below `vb`; those that do not exist yet are drawn as the family draws them:
    /// weights from a normal distribution of standard deviation `initializer_range`, biases 0.
    ///
    /// # Errors
    /// If a variable of `vb` has another shape.
    pub fn new(config: &EncoderConfig, vb: VarBuilder) -> Result<Self> {
        let body = match config.family {
            Family::MpNet | Family::XlNet => bail!("unsupported model_type `{}`", config.family.model_type()),
            _ => Body::Bert(bert::Body::new(config, &vb)?),
        };
        Ok(Self { config: config.clone(), body, compute: None })
    }

    /// The same encoder with layers that compute in `dtype`, bf16 or f16, while weights and their gradients stay f32 (mixed
    /// precision, Micikevicius et al. 2018): what a GPU is fast at. Embeddings and results are in the weights' dtype.
    pub fn computing_in(self, dtype: DType) -> Self {
        Self { compute: Some(dtype), ..self }
    }

    /// The shape that it was made with.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The last hidden states, `(batch, len, hidden)`; those of padding mean nothing.
    ///
    /// Without segment ids every token is in segment 0; a family without segments does not look at them.
    ///
    /// # Errors
    /// If a sequence is longer than `max_positions`, or an id is not below the vocabulary's size.
    pub fn forward(&self, sequence: &Sequence, mode: Mode) -> Result<Tensor> {
        Ok(self.encode(sequence, mode, Wanted::default())?.last)
    }

    /// All hidden states, `(batch, len, hidden)` each: what the first layer reads, then every layer's.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn hidden_states(&self, sequence: &Sequence, mode: Mode) -> Result<Vec<Tensor>> {
        Ok(self.encode(sequence, mode, Wanted { hidden: true, attention: false })?.hidden)
    }

    /// The last hidden states and what else is `wanted`; all of it is differentiable.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn encode(&self, sequence: &Sequence, mode: Mode, wanted: Wanted) -> Result<Encoded> {
        let request = Request { mode, wanted, compute: self.compute };
        match &self.body {
            Body::Bert(body) => body.encode(sequence, &request),
        }
    }
}

impl Encode for Encoder {
    fn encode(&self, sequence: &Sequence, mode: Mode, wanted: Wanted) -> Result<Encoded> {
        Encoder::encode(self, sequence, mode, wanted)
    }

    fn config(&self) -> &EncoderConfig {
        Encoder::config(self)
    }
}

/// How the weights of all families start.
fn init(config: &EncoderConfig) -> Init {
    Init::Randn { mean: 0.0, stdev: config.initializer_range }
}

/// A linear layer with BERT's initial values: weights from a normal distribution, biases 0.
pub(crate) fn dense(config: &EncoderConfig, input: usize, output: usize, vb: VarBuilder) -> Result<Linear> {
    Linear::new_with(input, output, init(config), Init::Const(0.0), vb)
}
