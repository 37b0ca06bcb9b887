//! A pair of texts to one vector: each text through a BiLSTM of its own, then pooled and put together.
//!
//! ```text
//! first  --embedding--> (batch, len, word_width) --BiLSTM--> pool --> u (batch, 2 · hidden) --.
//! second --the same---> (batch, len, word_width) --BiLSTM--> pool --> v (batch, 2 · hidden) --+--> [u, v]
//! ```
//!
//! The recurrent student of Yang et al. 2020 ("Model compression with two-stage multi-teacher knowledge distillation", §4.4),
//! who give its sizes and not how the two texts meet: with 150,000 words, BiLSTMs of their own and the concatenation under two
//! linear heads of two classes it has the number of parameters that they report, 50.44 M. `|u - v|` and `u · v` are those of
//! Conneau et al. 2017 (InferSent). It is a [`Represent`]; [`HeadPerTeacher`](kd_core::nn::HeadPerTeacher) puts heads on it:
//!
//! ```
//! use candle_core::{DType, Device};
//! use kd_core::{model::{Mode, Represent}, variables::Variables};
//! use kd_students::{lookup::Lookup, pair::{PairEncoder, PairEncoderConfig}};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lookup = Lookup::new(["who", "wrote", "ada"].map(String::from).to_vec(), vec![], true, 1)?;
//! let variables = Variables::new(1, DType::F32, &Device::Cpu);
//! let config = PairEncoderConfig { word_width: 6, hidden: 4, ..PairEncoderConfig::new(lookup.word_rows()) };
//! let encoder = PairEncoder::new(&config, variables.builder())?;
//! let words = |text: &str| text.split(' ').map(String::from).collect();
//! let tokens = lookup.pairs(&[(words("who wrote it ?"), words("Ada wrote it ."))], &Device::Cpu)?;
//! assert_eq!(encoder.represent(&tokens, Mode::Eval)?.dims(), [1, 16]); // one pair, two texts of 2 · 4
//! # Ok(()) }
//! ```

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_core::model::{Mode, Represent};
use kd_core::nn::BiLstm;
use kd_core::ops;
use kd_core::ops::packed::Precision;
use serde::{Deserialize, Serialize};

use crate::encoder::{SPECIAL, words};
use crate::error::Error;

/// How a text becomes one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairPooling {
    /// The maximum of each feature over the text's words.
    Max,
    /// The state of each direction where it ends: left to right behind the last word, right to left before the first.
    LastStates,
}

/// How the vectors `u` and `v` of the two texts become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combination {
    /// `[u, v]`.
    Concat,
    /// `[u, v, |u - v|, u · v]` (Conneau et al. 2017), of one encoder: those of two have no axes in common.
    ConcatDifferenceProduct,
}

/// Sizes of a [`PairEncoder`].
///
/// | field | of [`PairEncoderConfig::new`] | range |
/// |---|---|---|
/// | `words` | given | ≥ 2 |
/// | `word_width` | 300 | ≥ 1 |
/// | `hidden` | 256 | ≥ 1 |
/// | `layers` | 2 | ≥ 1 |
/// | `shared` | no | |
/// | `pooling` | `max` | |
/// | `combination` | `concat` | |
/// | `dropout` | 0 | `[0, 1)` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairEncoderConfig {
    /// Rows of the word table, which both texts share: the listed words, padding and unknown.
    pub words: usize,
    /// Width of a word vector; 300 as in the paper.
    pub word_width: usize,
    /// Width of the LSTM's state in each direction; 256 as in the paper.
    pub hidden: usize,
    /// Layers of each BiLSTM; 2 as in the paper.
    pub layers: usize,
    /// Whether one BiLSTM reads both texts. The paper's number of parameters is that of two.
    pub shared: bool,
    /// How a text becomes one vector.
    pub pooling: PairPooling,
    /// How the two vectors become one.
    pub combination: Combination,
    /// Probability of dropping a number of a word vector; the paper names none.
    pub dropout: f64,
}

impl PairEncoderConfig {
    /// The paper's sizes for a table of `words` rows.
    pub fn new(words: usize) -> Self {
        Self {
            words,
            word_width: 300,
            hidden: 256,
            layers: 2,
            shared: false,
            pooling: PairPooling::Max,
            combination: Combination::Concat,
            dropout: 0.0,
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of its range, by name.
    pub fn check(&self) -> crate::Result<()> {
        let at_least = [
            ("words", self.words, SPECIAL),
            ("word_width", self.word_width, 1),
            ("hidden", self.hidden, 1),
            ("layers", self.layers, 1),
        ];
        for (field, found, least) in at_least {
            if found < least {
                return Err(Error::config(field, format!("at least {least}"), found));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("dropout", "a number in [0, 1)", self.dropout));
        }
        Ok(())
    }

    /// Width of a pair's vector.
    pub fn width(&self) -> usize {
        let of_text = 2 * self.hidden;
        match self.combination {
            Combination::Concat => 2 * of_text,
            Combination::ConcatDifferenceProduct => 4 * of_text,
        }
    }
}

/// Two texts to one vector.
///
/// | variable | shape | start |
/// |---|---|---|
/// | `words.weight` | `(words, word_width)` | normal, variance `1 / word_width`; padding and unknown 0 |
/// | `first.*`, `second.*`, or `both.*` | those of [`BiLstm`] | as there |
#[derive(Debug, Clone)]
pub struct PairEncoder {
    words: Tensor,
    first: BiLstm,
    /// None: the first reads both.
    second: Option<BiLstm>,
    config: PairEncoderConfig,
}

impl PairEncoder {
    /// Builds the encoder of `vb`'s variables. A table of words that `vb` already has is taken as it is.
    ///
    /// # Errors
    /// If a field of `config` is out of its range, or `vb` cannot give a variable.
    pub fn new(config: &PairEncoderConfig, vb: VarBuilder) -> crate::Result<Self> {
        config.check()?;
        // The paper says normal without a variance: that of the other students' start.
        let start = Init::Randn { mean: 0.0, stdev: 1.0 / (config.word_width as f64).sqrt() };
        let words = words::table(config.words, config.word_width, start, &vb)?;
        let lstm = |name: &str| BiLstm::new(config.word_width, config.hidden, config.layers, vb.pp(name));
        let (first, second) =
            if config.shared { (lstm("both")?, None) } else { (lstm("first")?, Some(lstm("second")?)) };
        Ok(Self { words, first, second, config: config.clone() })
    }

    /// Its sizes.
    pub fn config(&self) -> &PairEncoderConfig {
        &self.config
    }

    /// A copy for inference, without a gradient: on the CPU its BiLSTMs are packed in `precision` ([`BiLstm::freeze`]). Training
    /// the encoder on does not change it.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn pack(&self, precision: Precision) -> Result<Self> {
        let mut packed = Self {
            words: self.words.copy()?.detach(),
            first: self.first.copy()?,
            second: self.second.as_ref().map(BiLstm::copy).transpose()?,
            config: self.config.clone(),
        };
        packed.first.freeze(precision)?;
        if let Some(second) = &mut packed.second {
            second.freeze(precision)?;
        }
        Ok(packed)
    }

    /// Puts pretrained vectors into rows of the word table, see
    /// [`WordEncoder::set_word_vectors`](crate::encoder::WordEncoder::set_word_vectors).
    ///
    /// # Errors
    /// As there.
    pub fn set_word_vectors(&self, vectors: &[(usize, Vec<f32>)]) -> Result<()> {
        words::set_vectors(&self.words, vectors)
    }

    /// One vector per text, `(batch, 2 · hidden)`.
    fn text(&self, name: &str, sequence: &Sequence, lstm: &BiLstm, mode: Mode) -> Result<Tensor> {
        let lengths = sequence.lengths()?;
        if let Some(example) = lengths.iter().position(|&length| length == 0) {
            bail!("the {name} text of example {example} of the batch has no words");
        }
        let embedded = ops::dropout(&ops::embedding(&self.words, &sequence.ids)?, self.config.dropout, mode)?;
        let states = lstm.forward(&embedded, &lengths)?; // (batch, len, 2 · hidden)
        match self.config.pooling {
            PairPooling::Max => max_over_words(&states, &sequence.mask),
            PairPooling::LastStates => last_states(&states, &lengths),
        }
    }
}

impl Represent for PairEncoder {
    fn width(&self) -> usize {
        self.config.width()
    }

    fn represent(&self, tokens: &Tokens, mode: Mode) -> Result<Tensor> {
        if !matches!(tokens.rows, Rows::Examples) {
            bail!("an encoder of pairs represents examples, the tokens have one row per word");
        }
        let Some(second) = &tokens.second else {
            bail!("an encoder of pairs reads two texts apart, the tokens have no second one");
        };
        let u = self.text("first", &tokens.first, &self.first, mode.site(0))?;
        let v = self.text("second", second, self.second.as_ref().unwrap_or(&self.first), mode.site(1))?;
        match self.config.combination {
            Combination::Concat => Tensor::cat(&[u, v], 1),
            Combination::ConcatDifferenceProduct => {
                let (difference, product) = ((&u - &v)?.abs()?, (&u * &v)?);
                Tensor::cat(&[u, v, difference, product], 1)
            }
        }
    }
}

/// `(batch, len, width)` → `(batch, width)`; every text has a word.
fn max_over_words(states: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let mask = mask.ne(0u8)?.unsqueeze(2)?.broadcast_as(states.shape())?;
    let nothing = Tensor::full(f32::MIN, states.shape(), states.device())?.to_dtype(states.dtype())?;
    mask.where_cond(states, &nothing)?.max(1)
}

/// The first half of the last word's state and the second half of the first word's, `(batch, width)`.
fn last_states(states: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let (batch, len, width) = states.dims3()?;
    let last = lengths.iter().enumerate().map(|(text, &length)| (text * len + length - 1) as u32);
    let index = Tensor::new(last.collect::<Vec<u32>>(), states.device())?;
    let rows = Rows::Words { index, per_example: vec![1; batch] };
    let half = width / 2;
    let forward = rows.select(&states.narrow(2, 0, half)?)?;
    let backward = Rows::Examples.select(&states.narrow(2, half, half)?)?;
    Tensor::cat(&[forward, backward], 1)
}
