//! BERT and DistilBERT as they are trained: gradients reach every variable, dropout is drawn from a seed.
//!
//! ```text
//! x = dropout(LayerNorm(word[id] + position[idx] (+ segment[segment id])))
//! per layer:  a = LayerNorm(x + dropout(W_o · attention(W_q x, W_k x, W_v x)))
//!             x = LayerNorm(a + dropout(W_2 · gelu(W_1 a)))
//! ```
//!
//! (Devlin et al. 2019; Sanh et al. 2019: DistilBERT has no segments and no dropout after `W_o`.) The GELU is the exact
//! one. Variables have the names of transformers' `BertModel` and `DistilBertModel`.
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
use kd_core::nn::{LayerNorm, Linear};
use kd_core::ops;
use kd_core::ops::encoder_layer::{Affine, EncoderLayer};

use crate::config::{EncoderConfig, Family};

pub(crate) mod packed;

pub use packed::PackedEncoder;

/// A BERT or DistilBERT encoder without a head.
#[derive(Debug, Clone)]
pub struct Encoder {
    config: EncoderConfig,
    words: Tensor,
    positions: Tensor,
    segments: Option<Tensor>,
    norm: LayerNorm,
    layers: Vec<EncoderLayer>,
    /// What the layers compute in, if not in the dtype of their weights.
    compute: Option<DType>,
}

impl Encoder {
    /// An encoder of the variables below `vb`; those that do not exist yet are drawn as the family draws them:
    /// weights from a normal distribution of standard deviation `initializer_range`, biases 0.
    ///
    /// # Errors
    /// If a variable of `vb` has another shape.
    pub fn new(config: &EncoderConfig, vb: VarBuilder) -> Result<Self> {
        let embeddings = vb.pp("embeddings");
        let table =
            |rows: usize, name: &str| embeddings.pp(name).get_with_hints((rows, config.hidden), "weight", init(config));
        let segments = match config.segments {
            0 => None,
            segments => Some(table(segments, "token_type_embeddings")?),
        };
        let parent = match config.family {
            Family::Bert => vb.pp("encoder.layer"),
            Family::DistilBert => vb.pp("transformer.layer"),
        };
        Ok(Self {
            config: config.clone(),
            words: table(config.vocabulary, "word_embeddings")?,
            positions: table(config.max_positions, "position_embeddings")?,
            segments,
            norm: LayerNorm::new(config.hidden, config.layer_norm_eps, embeddings.pp("LayerNorm"))?,
            layers: (0..config.layers).map(|idx| layer(config, parent.pp(idx))).collect::<Result<_>>()?,
            compute: None,
        })
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
        self.run(sequence, mode, &mut |_| Ok(()))
    }

    /// All hidden states, `(batch, len, hidden)` each: the embeddings first, then every layer's.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn hidden_states(&self, sequence: &Sequence, mode: Mode) -> Result<Vec<Tensor>> {
        let mut states = Vec::with_capacity(self.layers.len() + 1);
        self.run(sequence, mode, &mut |hidden| {
            states.push(hidden.to_dtype(self.words.dtype())?);
            Ok(())
        })?;
        Ok(states)
    }

    fn run(&self, sequence: &Sequence, mode: Mode, each: &mut dyn FnMut(&Tensor) -> Result<()>) -> Result<Tensor> {
        let embedded = self.embed(sequence, mode.site(0))?;
        each(&embedded)?;
        let mut hidden = embedded.to_dtype(self.compute.unwrap_or(embedded.dtype()))?;
        for (layer, site) in self.layers.iter().zip(1..) {
            hidden = ops::encoder_layer(&hidden, &sequence.mask, layer, mode.site(site))?;
            each(&hidden)?;
        }
        hidden.to_dtype(embedded.dtype())
    }

    fn embed(&self, sequence: &Sequence, mode: Mode) -> Result<Tensor> {
        let (_batch, len) = sequence.ids.dims2()?;
        if len > self.config.max_positions {
            bail!("a sequence has {len} tokens, the encoder has {} positions", self.config.max_positions);
        }
        let words = ops::embedding(&self.words, &sequence.ids)?; // (batch, len, hidden)
        let positions = self.positions.narrow(0, 0, len)?; // (len, hidden)
        let sum = match (&self.segments, &sequence.segments) {
            (None, _) => words.broadcast_add(&positions)?,
            (Some(table), None) => words.broadcast_add(&positions.broadcast_add(&table.narrow(0, 0, 1)?)?)?,
            (Some(table), Some(ids)) => (words + ops::embedding(table, ids)?)?.broadcast_add(&positions)?,
        };
        ops::dropout(&self.norm.forward(&sum)?, self.config.hidden_dropout, mode)
    }
}

/// The variables of a layer, below `vb`.
fn layer(config: &EncoderConfig, vb: VarBuilder) -> Result<EncoderLayer> {
    // query, key, value, output, its norm, the two products of the feed-forward block, its norm
    let names: [&str; 8] = match config.family {
        Family::Bert => [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "attention.output.LayerNorm",
            "intermediate.dense",
            "output.dense",
            "output.LayerNorm",
        ],
        Family::DistilBert => [
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
            "sa_layer_norm",
            "ffn.lin1",
            "ffn.lin2",
            "output_layer_norm",
        ],
    };
    let (hidden, intermediate) = (config.hidden, config.intermediate);
    let affine = |name: usize, weight: (&[usize], Init), bias: usize| -> Result<Affine> {
        let vb = vb.pp(names[name]);
        Ok(Affine {
            weight: vb.get_with_hints(weight.0, "weight", weight.1)?,
            bias: vb.get_with_hints(bias, "bias", Init::Const(0.0))?,
        })
    };
    let map = |name: usize, input: usize, output: usize| affine(name, (&[output, input], init(config)), output);
    let norm = |name: usize| affine(name, (&[hidden], Init::Const(1.0)), hidden);
    Ok(EncoderLayer {
        query: map(0, hidden, hidden)?,
        key: map(1, hidden, hidden)?,
        value: map(2, hidden, hidden)?,
        output: map(3, hidden, hidden)?,
        attention_norm: norm(4)?,
        inner: map(5, hidden, intermediate)?,
        outer: map(6, intermediate, hidden)?,
        norm: norm(7)?,
        heads: config.heads,
        eps: config.layer_norm_eps,
        attention_dropout: config.attention_dropout,
        output_dropout: if config.family == Family::Bert { config.hidden_dropout } else { 0.0 },
        hidden_dropout: config.hidden_dropout,
    })
}

/// How BERT's weights start.
fn init(config: &EncoderConfig) -> Init {
    Init::Randn { mean: 0.0, stdev: config.initializer_range }
}

/// A linear layer with BERT's initial values: weights from a normal distribution, biases 0.
pub(crate) fn dense(config: &EncoderConfig, input: usize, output: usize, vb: VarBuilder) -> Result<Linear> {
    Linear::new_with(input, output, init(config), Init::Const(0.0), vb)
}
