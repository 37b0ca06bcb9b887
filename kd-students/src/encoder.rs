//! Words to vectors: word embedding and character CNN, then a BiLSTM over the sentence.
//!
//! ```text
//! ids   --embedding--> (batch, len, word_width) --.
//! chars --char-CNN---> (batch, len, filters) -----+--> dropout --> BiLSTM --> (batch, len, 2 · hidden)
//! ```
//!
//! The encoder of Izsak, Guskin and Wasserblat 2019, with the sizes of its published code (class `CNNLSTM` of NLP
//! Architect). Two ids of words and characters are special: 0 is padding and 1 is whatever is not in the list.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use kd_core::batch::Sequence;
use kd_core::model::Mode;
use kd_core::nn::{BiLstm, CharCnn};
use kd_core::ops;
use kd_core::ops::packed::Precision;
use kd_core::variables::Variables;
use serde::{Deserialize, Serialize};

use crate::error::Error;

pub(crate) mod words;
use words::WORD_TABLE;

/// Id of padding, of words and of characters.
pub const PADDING: u32 = 0;
/// Id of every word or character that is not in its list.
pub const UNKNOWN: u32 = 1;
/// Ids that stand before the first entry of a list.
pub const SPECIAL: usize = 2;

/// Sizes of a [`WordEncoder`].
///
/// | field | of [`WordEncoderConfig::compact`] | range |
/// |---|---|---|
/// | `words` | given | ≥ 2 |
/// | `word_width` | 100 | ≥ 1 |
/// | `characters` | given | ≥ 2 |
/// | `character_width` | 16 | ≥ 1 |
/// | `filters` | 128 | ≥ 1 |
/// | `kernel` | 3 | ≥ 1, odd |
/// | `max_chars` | 20 | ≥ 1 |
/// | `hidden` | 100 | ≥ 1 |
/// | `layers` | 2 | ≥ 1 |
/// | `dropout` | 0.5 | `[0, 1)` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordEncoderConfig {
    /// Rows of the word table: the listed words, padding and unknown.
    pub words: usize,
    /// Width of a word vector; 100 as in the published code, and of the common GloVe file.
    pub word_width: usize,
    /// Rows of the character table: the listed characters, padding and unknown.
    pub characters: usize,
    /// Width of a character vector; 16 as in the published code.
    pub character_width: usize,
    /// Features of a word made from its characters; 128 as in the published code.
    pub filters: usize,
    /// Characters that a feature sees at once; 3 as in the published code.
    pub kernel: usize,
    /// Characters of a word that are read, from its start. The published code reads 12; 20 reads nearly every
    /// English word whole.
    pub max_chars: usize,
    /// Width of the LSTM's state in each direction; 100 as in the published code.
    pub hidden: usize,
    /// Layers of the BiLSTM; 2 as in the published code.
    pub layers: usize,
    /// Probability of dropping a number before the BiLSTM and before the head; 0.5 as in the published code.
    pub dropout: f64,
}

impl WordEncoderConfig {
    /// The sizes of the published code for tables of `words` and `characters` rows.
    pub fn compact(words: usize, characters: usize) -> Self {
        Self {
            words,
            word_width: 100,
            characters,
            character_width: 16,
            filters: 128,
            kernel: 3,
            max_chars: 20,
            hidden: 100,
            layers: 2,
            dropout: 0.5,
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of its range, by name.
    pub fn check(&self) -> crate::Result<()> {
        let at_least = [
            ("encoder.words", self.words, SPECIAL),
            ("encoder.word_width", self.word_width, 1),
            ("encoder.characters", self.characters, SPECIAL),
            ("encoder.character_width", self.character_width, 1),
            ("encoder.filters", self.filters, 1),
            ("encoder.kernel", self.kernel, 1),
            ("encoder.max_chars", self.max_chars, 1),
            ("encoder.hidden", self.hidden, 1),
            ("encoder.layers", self.layers, 1),
        ];
        for (field, found, least) in at_least {
            if found < least {
                return Err(Error::config(field, format!("at least {least}"), found));
            }
        }
        if self.kernel.is_multiple_of(2) {
            return Err(Error::config("encoder.kernel", "an odd number", self.kernel));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("encoder.dropout", "a number in [0, 1)", self.dropout));
        }
        Ok(())
    }

    /// Width of a word's vector after the BiLSTM: both directions.
    pub fn width(&self) -> usize {
        2 * self.hidden
    }
}

/// Word embedding, character CNN and BiLSTM.
#[derive(Debug)]
pub struct WordEncoder {
    words: Tensor,
    characters: CharCnn,
    lstm: BiLstm,
    dropout: f64,
}

impl WordEncoder {
    /// Builds the encoder with variables `words.weight`, `characters.*` and `lstm.*`.
    ///
    /// A new word table starts uniform in `±sqrt(3 / word_width)` (Ma and Hovy 2016), its padding and unknown rows at
    /// zero; a table that `vb` already has is taken as it is.
    ///
    /// # Errors
    /// If a field of `config` is out of its range, or `vb` cannot give a variable.
    pub fn new(config: &WordEncoderConfig, vb: VarBuilder) -> crate::Result<Self> {
        config.check()?;
        let bound = (3.0 / config.word_width as f64).sqrt();
        let start = Init::Uniform { lo: -bound, up: bound };
        let words = words::table(config.words, config.word_width, start, &vb)?;
        let (symbols, width) = (config.characters, config.character_width);
        let characters = CharCnn::new(symbols, width, config.filters, config.kernel, vb.pp("characters"))?;
        let input = config.word_width + config.filters;
        let lstm = BiLstm::new(input, config.hidden, config.layers, vb.pp("lstm"))?;
        Ok(Self { words, characters, lstm, dropout: config.dropout })
    }

    /// Prepares the weights for inference ([`CharCnn::freeze`], [`BiLstm::freeze`], the latter in `precision`): later changes
    /// of these variables are not seen.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn freeze(&mut self, precision: Precision) -> Result<()> {
        self.characters.freeze()?;
        self.lstm.freeze(precision)
    }

    /// A vector for every word of the sentence in its place, `(batch, len, 2 · hidden)`; what stands on padding
    /// means nothing.
    ///
    /// # Errors
    /// If `sequence` has no characters, or an id is no row of its table.
    pub fn forward(&self, sequence: &Sequence, mode: Mode) -> Result<Tensor> {
        let Some(chars) = &sequence.chars else {
            bail!("the student reads words and their characters, and the tokens have no characters");
        };
        let words = ops::embedding(&self.words, &sequence.ids)?; // (batch, len, word_width)
        let chars = self.characters.forward(chars)?; // (batch, len, filters)
        let input = ops::dropout(&Tensor::cat(&[words, chars], 2)?, self.dropout, mode.site(0))?;
        self.lstm.forward(&input, &sequence.lengths()?)
    }

    /// Puts `vectors` into the given rows of the word table; the other rows stay.
    ///
    /// Meant for pretrained vectors before training. The table is written in place, so the variable that a
    /// [`kd_core::variables::Variables`] holds changes with it.
    ///
    /// # Errors
    /// If a row does not exist or is the padding row, a vector has another width than the table, or holds a value
    /// that is not finite. Nothing is changed then.
    pub fn set_word_vectors(&self, vectors: &[(usize, Vec<f32>)]) -> Result<()> {
        words::set_vectors(&self.words, vectors)
    }
}

/// A copy of the variables of a trained tagger or classifier whose word table has `vectors`, `(words, word_width)`, as
/// further rows.
///
/// Meant for the pretrained vectors of words that the training text lacks. Training would not have moved them: without a
/// gradient and without weight decay a row stays as it is. Appended afterwards, they cost no training time, and the
/// student knows rare words, names above all, in the text it will meet. The caller appends the words to the
/// [`crate::lookup::Lookup`] and adds their number to [`WordEncoderConfig::words`].
///
/// # Errors
/// If there is no word table, or the width differs.
pub fn append_words(variables: &Variables, vectors: &Tensor) -> Result<Variables> {
    let name = format!("encoder.{WORD_TABLE}");
    let mut tensors = variables.tensors();
    let Some(table) = tensors.get_mut(&name) else { bail!("there is no word table `{name}`") };
    let (width, found) = (table.dim(1)?, vectors.dim(1)?);
    if found != width {
        bail!("word vectors: expected width {width}, found {found}");
    }
    *table = Tensor::cat(&[&table.detach(), &vectors.to_dtype(table.dtype())?.to_device(table.device())?], 0)?;
    let (dtype, device) = (table.dtype(), table.device().clone());
    Variables::from_tensors(tensors, dtype, &device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn small() -> WordEncoderConfig {
        WordEncoderConfig { word_width: 3, filters: 4, hidden: 2, layers: 1, ..WordEncoderConfig::compact(6, 5) }
    }

    fn table(variables: &Variables) -> Vec<Vec<f32>> {
        variables.tensors()["words.weight"].to_vec2().unwrap()
    }

    #[test]
    fn the_published_sizes_have_the_published_number_of_parameters() {
        // Derived from the published code: conv 6,272 + LSTM 264,000 + 241,600; and two tables of 58 · 16 and 100 · 100.
        let variables = Variables::new(0, DType::F32, &Device::Cpu);
        WordEncoder::new(&WordEncoderConfig::compact(100, 58), variables.builder()).unwrap();
        assert_eq!(variables.parameter_count(), 928 + 6_272 + 264_000 + 241_600 + 10_000);
    }

    #[test]
    fn padding_and_unknown_start_at_zero_and_a_given_table_is_kept() {
        let variables = Variables::new(1, DType::F32, &Device::Cpu);
        let encoder = WordEncoder::new(&small(), variables.builder()).unwrap();
        let start = table(&variables);
        assert_eq!(start[..2], [[0f32; 3]; 2]);
        assert!(start[2..].iter().flatten().all(|&value| value != 0.0 && value.abs() <= 1.0), "{start:?}");
        encoder.set_word_vectors(&[(1, vec![7.0; 3]), (4, vec![1.0, 2.0, 3.0])]).unwrap();
        let set = table(&variables);
        assert_eq!((set[1].as_slice(), set[4].as_slice(), &set[2]), (&[7.0; 3][..], &[1.0, 2.0, 3.0][..], &start[2]));
        WordEncoder::new(&small(), variables.builder()).unwrap();
        assert_eq!(table(&variables), set);
    }

    #[test]
    fn appended_words_follow_the_others_and_change_nothing_else() {
        let variables = Variables::new(1, DType::F32, &Device::Cpu);
        let tagger = crate::tagger::Tagger::new(
            &crate::tagger::TaggerConfig { encoder: small(), head: crate::tagger::Head::Softmax },
            2,
            variables.builder(),
        );
        tagger.unwrap();
        let more = append_words(&variables, &Tensor::new(&[[1f32, 2., 3.]], &Device::Cpu).unwrap()).unwrap();
        let (before, after) = (variables.tensors(), more.tensors());
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (name, tensor) in &before {
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let added: &[f32] = if name == "encoder.words.weight" { &[1., 2., 3.] } else { &[] };
            assert_eq!(values(&after[name]), [&values(tensor), added].concat(), "{name}");
        }
        let narrow = Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(append_words(&variables, &narrow).unwrap_err().to_string().contains("expected width 3, found 2"));
    }

    #[test]
    fn word_vectors_that_do_not_fit_change_nothing() {
        let variables = Variables::new(1, DType::F32, &Device::Cpu);
        let encoder = WordEncoder::new(&small(), variables.builder()).unwrap();
        let before = table(&variables);
        for (row, vector, expected) in [
            (0, vec![0.0; 3], "row 0: expected a row in 1..6"),
            (6, vec![0.0; 3], "row 6: expected a row in 1..6"),
            (3, vec![0.0; 2], "row 3: expected 3 values, found 2"),
            (3, vec![0.0, f32::NAN, 0.0], "row 3: expected finite values, found NaN"),
        ] {
            let message = encoder.set_word_vectors(&[(2, vec![9.0; 3]), (row, vector)]).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(table(&variables), before);
    }

    #[test]
    fn a_field_out_of_its_range_is_named() {
        type Break = fn(&mut WordEncoderConfig);
        let fields: [(&str, &str, Break); 11] = [
            ("encoder.words", "at least 2, found 1", |c| c.words = 1),
            ("encoder.word_width", "at least 1, found 0", |c| c.word_width = 0),
            ("encoder.characters", "at least 2, found 0", |c| c.characters = 0),
            ("encoder.character_width", "at least 1, found 0", |c| c.character_width = 0),
            ("encoder.filters", "at least 1, found 0", |c| c.filters = 0),
            ("encoder.kernel", "an odd number, found 4", |c| c.kernel = 4),
            ("encoder.max_chars", "at least 1, found 0", |c| c.max_chars = 0),
            ("encoder.hidden", "at least 1, found 0", |c| c.hidden = 0),
            ("encoder.layers", "at least 1, found 0", |c| c.layers = 0),
            ("encoder.dropout", "a number in [0, 1), found 1", |c| c.dropout = 1.0),
            ("encoder.dropout", "a number in [0, 1), found NaN", |c| c.dropout = f64::NAN),
        ];
        for (field, message, break_it) in fields {
            let mut config = small();
            break_it(&mut config);
            assert_eq!(config.check().unwrap_err().to_string(), format!("{field}: expected {message}"));
        }
        assert!(small().check().is_ok());
    }
}
