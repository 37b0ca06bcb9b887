//! The compact tagger: one class per word.
//!
//! [`WordEncoder`] → rows → dropout → linear, then a softmax per word or a linear-chain CRF over each sentence
//! (Izsak, Guskin and Wasserblat 2019). The words that get a label are picked out *before* the linear layer, so no
//! time goes into padding and dropout does not depend on it.
//!
//! With a CRF, [`Output::logits`] holds emissions, and [`Output::transitions`] the CRF's scores. A softmax over
//! emissions is not the model's distribution over tags; [`kd_core::ops::crf::log_marginals`] is.

use candle_core::{DType, Tensor, bail};
use candle_nn::VarBuilder;
use kd_core::batch::{Rows, Tokens};
use kd_core::model::{Mode, Output, Student};
use kd_core::nn::{Crf, Linear};
use kd_core::ops;
use kd_core::ops::packed::Precision;
use serde::{Deserialize, Serialize};

use crate::encoder::{WordEncoder, WordEncoderConfig};
use crate::error::Error;

/// How a tagger decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// Every word for itself.
    Softmax,
    /// All words of a sentence together, by a linear-chain conditional random field.
    Crf,
}

/// Sizes of a [`Tagger`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaggerConfig {
    /// The part that reads the words.
    pub encoder: WordEncoderConfig,
    /// `softmax` or `crf`; the published code has both.
    pub head: Head,
}

/// A compact tagger.
#[derive(Debug)]
pub struct Tagger {
    encoder: WordEncoder,
    out: Linear,
    crf: Option<Crf>,
    dropout: f64,
}

impl Tagger {
    /// Builds the tagger with variables `encoder.*`, `out.*` and, with a CRF, `crf.*`.
    ///
    /// # Errors
    /// If a field of `config` is out of its range, there are no classes, or `vb` cannot give a variable.
    pub fn new(config: &TaggerConfig, classes: usize, vb: VarBuilder) -> crate::Result<Self> {
        if classes == 0 {
            return Err(Error::config("classes", "at least 1", classes));
        }
        let encoder = WordEncoder::new(&config.encoder, vb.pp("encoder"))?;
        let out = Linear::new(config.encoder.width(), classes, vb.pp("out"))?;
        let crf = match config.head {
            Head::Softmax => None,
            Head::Crf => Some(Crf::new(classes, vb.pp("crf"))?),
        };
        Ok(Self { encoder, out, crf, dropout: config.encoder.dropout })
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
    pub fn set_word_vectors(&self, vectors: &[(usize, Vec<f32>)]) -> candle_core::Result<()> {
        self.encoder.set_word_vectors(vectors)
    }
}

impl Student for Tagger {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> candle_core::Result<Output> {
        if matches!(tokens.rows, Rows::Examples) {
            bail!("a tagger labels words, the tokens have one row per example");
        }
        let hidden = self.encoder.forward(&tokens.first, mode.site(0))?; // (batch, len, 2 · hidden)
        let rows = ops::dropout(&tokens.rows.select(&hidden)?, self.dropout, mode.site(1))?;
        let mut output = Output::from_logits(self.out.forward(&rows)?);
        output.transitions = self.crf.as_ref().map(|crf| crf.transitions().clone());
        Ok(output)
    }
}

/// The class of each row: the best path of each sentence if `output` has transitions, else the largest logit of each
/// row (the first of equals). Use it for scoring and for prediction alike.
///
/// `per_example` is the number of rows of each example, [`Tokens::rows_per_example`].
///
/// # Errors
/// If `output` has no head, or `per_example` does not sum to its rows.
pub fn decode(output: &Output, per_example: &[usize]) -> candle_core::Result<Vec<u32>> {
    let logits = output.logits()?;
    if let Some(transitions) = &output.transitions {
        return ops::crf::viterbi(logits, transitions, per_example);
    }
    let rows = logits.dim(0)?;
    if per_example.iter().sum::<usize>() != rows {
        bail!("the examples have {} rows, the logits {rows}", per_example.iter().sum::<usize>());
    }
    let best = |row: &Vec<f64>| {
        let better = |best: usize, class: usize| if row[class] > row[best] { class } else { best };
        (0..row.len()).fold(0, better) as u32
    };
    Ok(logits.to_dtype(DType::F64)?.to_vec2::<f64>()?.iter().map(best).collect())
}

/// The probability of every class of each row, `(rows, classes)`: the softmax of the logits or, with transitions, the
/// marginals of the CRF. Detached.
///
/// # Errors
/// As [`decode`].
pub fn class_probs(output: &Output, per_example: &[usize]) -> candle_core::Result<Tensor> {
    let logits = output.logits()?.detach();
    match &output.transitions {
        Some(transitions) => ops::crf::log_marginals(&logits, &transitions.detach(), per_example)?.exp(),
        None => ops::softmax(&logits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use kd_core::variables::Variables;

    #[test]
    fn a_config_has_the_documented_json() {
        let config = TaggerConfig { encoder: WordEncoderConfig::compact(10, 5), head: Head::Crf };
        let json = serde_json::to_string(&config).unwrap();
        let expected = r#"{"encoder":{"words":10,"word_width":100,"characters":5,"character_width":16,"filters":128,"kernel":3,"max_chars":20,"hidden":100,"layers":2,"dropout":0.5},"head":"crf"}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<TaggerConfig>(&json).unwrap(), config);
        let message = serde_json::from_str::<TaggerConfig>(&json.replace("hidden", "hiden")).unwrap_err().to_string();
        assert!(message.contains("unknown field `hiden`"), "{message}");
    }

    #[test]
    fn decoding_and_probabilities_follow_the_head() {
        // Alone, both words prefer class 0, by 1 and by 0.5. A path 0 → 0 costs 3, so the best path is 0 → 1.
        let emissions = Tensor::new(&[[1f64, 0.0], [0.5, 0.0]], &Device::Cpu).unwrap();
        let mut output = Output::from_logits(emissions);
        assert_eq!(decode(&output, &[2]).unwrap(), [0, 0]);
        let softmax = class_probs(&output, &[2]).unwrap().to_vec2::<f64>().unwrap();
        assert!((softmax[0][0] - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-6, "{softmax:?}");

        let transitions = [[-3f64, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]];
        output.transitions = Some(Tensor::new(&transitions, &Device::Cpu).unwrap());
        assert_eq!(decode(&output, &[2]).unwrap(), [0, 1]);
        assert_eq!(decode(&output, &[1, 1]).unwrap(), [0, 0]);
        // Path scores: 00: 1.5 - 3, 01: 1, 10: 0.5, 11: 0.
        let [a, b, c, d] = [-1.5f64, 1.0, 0.5, 0.0].map(f64::exp);
        let marginals = class_probs(&output, &[2]).unwrap().to_vec2::<f64>().unwrap();
        assert!((marginals[1][1] - (b + d) / (a + b + c + d)).abs() < 1e-6, "{marginals:?}");
    }

    #[test]
    fn equal_logits_give_the_first_class_and_lengths_are_checked() {
        let output = Output::from_logits(Tensor::new(&[[2f32, 5.0, 5.0]], &Device::Cpu).unwrap());
        assert_eq!(decode(&output, &[1]).unwrap(), [1]);
        assert!(decode(&output, &[2]).unwrap_err().to_string().contains("the examples have 2 rows, the logits 1"));
    }

    #[test]
    fn a_tagger_needs_classes() {
        let variables = Variables::new(0, DType::F32, &Device::Cpu);
        let config = TaggerConfig { encoder: WordEncoderConfig::compact(10, 5), head: Head::Crf };
        let message = Tagger::new(&config, 0, variables.builder()).unwrap_err().to_string();
        assert_eq!(message, "classes: expected at least 1, found 0");
    }
}
