//! The compact text classifier: one class per text.
//!
//! [`WordEncoder`] → maximum and mean over the words → dropout → linear. The maximum finds the one word that
//! decides, the mean the tone of the whole; both leave padding out.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_core::model::{Mode, Output, Student};
use kd_core::nn::Linear;
use kd_core::ops;
use kd_core::ops::packed::Precision;
use serde::{Deserialize, Serialize};

use crate::encoder::{WordEncoder, WordEncoderConfig};
use crate::error::Error;

/// Sizes of a [`Classifier`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The part that reads the words.
    pub encoder: WordEncoderConfig,
}

/// A compact text classifier.
#[derive(Debug)]
pub struct Classifier {
    encoder: WordEncoder,
    out: Linear,
    dropout: f64,
}

impl Classifier {
    /// Builds the classifier with variables `encoder.*` and `out.*`.
    ///
    /// # Errors
    /// If a field of `config` is out of its range, there are no classes, or `vb` cannot give a variable.
    pub fn new(config: &ClassifierConfig, classes: usize, vb: VarBuilder) -> crate::Result<Self> {
        if classes == 0 {
            return Err(Error::config("classes", "at least 1", classes));
        }
        let encoder = WordEncoder::new(&config.encoder, vb.pp("encoder"))?;
        let out = Linear::new(2 * config.encoder.width(), classes, vb.pp("out"))?;
        Ok(Self { encoder, out, dropout: config.encoder.dropout })
    }

    /// Prepares the student for inference, see [`WordEncoder::freeze`].
    ///
    /// # Errors
    /// As there.
    pub fn freeze(&mut self, precision: Precision) -> candle_core::Result<()> {
        self.encoder.freeze(precision)
    }

    /// Puts pretrained vectors into rows of the word table, see [`WordEncoder::set_word_vectors`].
    ///
    /// # Errors
    /// As there.
    pub fn set_word_vectors(&self, vectors: &[(usize, Vec<f32>)]) -> Result<()> {
        self.encoder.set_word_vectors(vectors)
    }
}

impl Student for Classifier {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> Result<Output> {
        if !matches!(tokens.rows, Rows::Examples) {
            bail!("a classifier labels examples, the tokens have one row per word");
        }
        let hidden = self.encoder.forward(&tokens.first, mode.site(0))?; // (batch, len, 2 · hidden)
        let pooled = pool(&hidden, &tokens.first)?; // (batch, 4 · hidden)
        let logits = self.out.forward(&ops::dropout(&pooled, self.dropout, mode.site(1))?)?;
        Ok(Output { pooled: Some(pooled), ..Output::from_logits(logits) })
    }
}

/// Maximum and mean of the words of each example, side by side: `(batch, len, width)` → `(batch, 2 · width)`.
fn pool(hidden: &Tensor, sequence: &Sequence) -> Result<Tensor> {
    let lengths = sequence.lengths()?;
    if let Some(example) = lengths.iter().position(|&length| length == 0) {
        bail!("example {example} of the batch has no words");
    }
    let mask = sequence.mask.ne(0u8)?.unsqueeze(2)?.broadcast_as(hidden.shape())?; // (batch, len, width)
    let nothing = Tensor::full(f32::MIN, hidden.shape(), hidden.device())?.to_dtype(hidden.dtype())?;
    let maximum = mask.where_cond(hidden, &nothing)?.max(1)?;
    let sum = mask.where_cond(hidden, &hidden.zeros_like()?)?.sum(1)?;
    let counts: Vec<f32> = lengths.iter().map(|&length| length as f32).collect();
    let counts = Tensor::from_vec(counts, (lengths.len(), 1), hidden.device())?.to_dtype(hidden.dtype())?;
    Tensor::cat(&[maximum, sum.broadcast_div(&counts)?], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use kd_core::batch::pad;

    #[test]
    fn pooling_leaves_padding_out() {
        let sequence = pad(&[vec![5, 6], vec![7]], &Device::Cpu).unwrap();
        let hidden = [[[-1f32, 4.0], [-3.0, 2.0]], [[-2.0, 1.0], [f32::NAN, 100.0]]];
        let pooled = pool(&Tensor::new(&hidden, &Device::Cpu).unwrap(), &sequence).unwrap();
        assert_eq!(pooled.to_vec2::<f32>().unwrap(), [[-1.0, 4.0, -2.0, 3.0], [-2.0, 1.0, -2.0, 1.0]]);
    }

    #[test]
    fn an_example_without_words_is_named() {
        let sequence = pad(&[vec![5], vec![]], &Device::Cpu).unwrap();
        let hidden = Tensor::zeros((2, 1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(pool(&hidden, &sequence).unwrap_err().to_string().contains("example 1 of the batch has no words"));
    }
}
