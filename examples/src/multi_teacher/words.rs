//! Pairs of texts as words, for a BiLSTM.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Rows, Tokens, pad};
use kd_core::nn::HeadPerTeacher;
use kd_core::variables::Variables;
use kd_data::digest;
use kd_data::encode::Encode;
use kd_data::example::TextExample;
use kd_data::glove::read_vectors;
use kd_data::task::Examples;
use kd_data::vocabulary::Vocabulary;
use kd_students::bundle::{BundleOptions, PairDescription, save_pairs};
use kd_students::encoder::UNKNOWN;
use kd_students::lookup::Lookup;
use kd_students::pair::{Combination, PairEncoder, PairEncoderConfig};
use kd_students::split_words;
use serde_json::{Value, json};

/// Of the words of a training text those are known that occur at least so often; the others train the unknown word.
const LEAST: usize = 2;

/// The words that a BiLSTM knows, and what their vectors start as.
#[derive(Debug)]
pub(super) struct Words {
    lookup: Lookup,
    /// By the row of the table.
    vectors: Vec<(usize, Vec<f32>)>,
    config: PairEncoderConfig,
    digest: String,
    /// The table that students start from, once one was made, if all of it is vectors.
    table: RefCell<Option<Tensor>>,
}

/// The variable of the table.
const TABLE: &str = "words.weight";

impl Words {
    /// The first `n` words of the vectors at `path`, in lower case, or without any the `n` most frequent of `texts`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn open(path: Option<&Path>, n: usize, combination: Combination, texts: &[&Examples]) -> Result<Self> {
        let (words, values, width) = match path {
            Some(path) => {
                let mut known = HashSet::new();
                let is_wanted = |word: &str| known.len() < n && known.insert(word.to_lowercase());
                let vectors = read_vectors(path, is_wanted)?;
                let words: Vec<String> = vectors.words.iter().map(|word| word.to_lowercase()).collect();
                (words, vectors.values, Some(vectors.width))
            }
            None => {
                let examples: Vec<&TextExample> =
                    texts.iter().map(|texts| of(texts)).collect::<Result<Vec<_>>>()?.concat();
                let split = examples.iter().flat_map(|example| {
                    std::iter::once(&example.first).chain(&example.second).map(|text| words_of(text))
                });
                let words = Vocabulary::words_where(split, |_, times| times >= LEAST);
                (words.symbols().iter().take(n).cloned().collect(), Vec::new(), None)
            }
        };
        let digest = digest::of_parts([
            digest::of_parts(&words),
            digest::of_bytes(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()),
        ]);
        let lookup = Lookup::new(words, Vec::new(), true, 1)?;
        let config = PairEncoderConfig::new(lookup.word_rows());
        // A difference and a product say something of two vectors if one encoder made both (Conneau et al. 2017).
        let shared = combination == Combination::ConcatDifferenceProduct;
        let word_width = width.unwrap_or(config.word_width);
        let config = PairEncoderConfig { word_width, combination, shared, ..config };
        let first = lookup.word_rows() - lookup.words().len();
        let vectors = values.chunks(config.word_width).enumerate();
        let vectors = vectors.map(|(place, vector)| (first + place, vector.to_vec())).collect();
        Ok(Self { lookup, vectors, config, digest, table: RefCell::default() })
    }

    /// Everything that decides how a student starts and what it reads.
    pub(super) fn describe(&self) -> Value {
        json!({"bilstm": self.config, "words": self.digest})
    }

    /// The encoder and its variables.
    pub(super) fn build(&self, seed: u64, device: &Device) -> Result<(PairEncoder, Variables)> {
        let table = self.table.borrow().clone();
        let is_new = table.is_none();
        let there = table.map(|table| (TABLE.to_string(), table));
        let variables = Variables::from_tensors(there, DType::F32, device)?.with_seed(seed);
        let encoder = PairEncoder::new(&self.config, variables.builder())?;
        if is_new && !self.vectors.is_empty() {
            encoder.set_word_vectors(&self.vectors)?;
            let copy = variables.tensors().get(TABLE).map(|table| table.detach().copy()).transpose()?;
            *self.table.borrow_mut() = copy;
        }
        Ok((encoder, variables))
    }

    /// Writes a student of these words into `folder`.
    pub(super) fn save<B>(
        &self,
        student: &HeadPerTeacher<B>,
        classes: &[Vec<String>],
        variables: &Variables,
        folder: &Path,
    ) -> Result<()> {
        let description = PairDescription {
            encoder: self.config.clone(),
            sets: student.sets().to_vec(),
            bias: student.has_bias(),
            dropout: student.dropout(),
            classes: classes.to_vec(),
            words: self.lookup.words().to_vec(),
            lower_case: true,
        };
        save_pairs(folder, &description, variables, BundleOptions::default())?;
        Ok(())
    }

    /// The pairs as ids, each text cut to `max_len` words; how many are cut is said on standard error.
    pub(super) fn encode(
        &self,
        name: &str,
        examples: &Examples,
        max_len: usize,
        device: &Device,
    ) -> Result<EncodedPairs> {
        if max_len == 0 {
            bail!("--max-len: expected at least 1, found 0");
        }
        let mut cut = 0;
        let mut ids = |text: &str| {
            let mut ids: Vec<u32> = words_of(text).iter().map(|word| self.lookup.word(word)).collect();
            cut += usize::from(ids.len() > max_len);
            ids.truncate(max_len);
            if ids.is_empty() { vec![UNKNOWN] } else { ids }
        };
        let mut pairs = Vec::with_capacity(examples.len());
        for example in of(examples)? {
            let second = example.second.as_ref().with_context(|| {
                format!(
                    "{}:{}: expected two texts, which bilstm reads, found one",
                    examples.path().display(),
                    example.line
                )
            })?;
            pairs.push((ids(&example.first), ids(second)));
        }
        if cut > 0 {
            eprintln!("note: {cut} texts of {} {name} pairs are cut to {max_len} words", pairs.len());
        }
        Ok(EncodedPairs::new(pairs, device))
    }

    /// A batch of pairs of `len` words together, of no meaning: to be timed.
    pub(super) fn some_tokens(&self, batch: usize, len: usize, device: &Device) -> candle_core::Result<Tokens> {
        let rows = self.config.words;
        let ids = |n: usize| (0..n.max(1)).map(|place| (1 + (place * 7919) % (rows - 1)) as u32).collect::<Vec<u32>>();
        let pairs = vec![(ids(len / 5), ids(len - len / 5)); batch];
        EncodedPairs::new(pairs, device).collate(&(0..batch).collect::<Vec<_>>())
    }
}

/// The texts of a data set.
pub(super) fn of(examples: &Examples) -> Result<Vec<&TextExample>> {
    match examples {
        Examples::Texts { data, .. } => Ok(data.examples.iter().collect()),
        Examples::Sentences(_) => bail!("expected texts, found sentences of words"),
    }
}

fn words_of(text: &str) -> Vec<String> {
    split_words(text).into_iter().map(str::to_string).collect()
}

/// Pairs of texts as ids of words, encoded apart.
#[derive(Debug)]
pub(super) struct EncodedPairs {
    pairs: Vec<(Vec<u32>, Vec<u32>)>,
    lengths: Vec<usize>,
    rows: Vec<usize>,
    device: Device,
}

impl EncodedPairs {
    fn new(pairs: Vec<(Vec<u32>, Vec<u32>)>, device: &Device) -> Self {
        let lengths = pairs.iter().map(|(first, second)| first.len() + second.len()).collect();
        Self { rows: vec![1; pairs.len()], pairs, lengths, device: device.clone() }
    }
}

impl Encode for EncodedPairs {
    fn collate(&self, examples: &[usize]) -> candle_core::Result<Tokens> {
        let pair = |&id: &usize| match self.pairs.get(id) {
            Some(pair) => Ok(pair.clone()),
            None => candle_core::bail!("collate: expected example ids below {}, found {id}", self.pairs.len()),
        };
        let pairs = examples.iter().map(pair).collect::<candle_core::Result<Vec<_>>>()?;
        let (first, second): (Vec<Vec<u32>>, Vec<Vec<u32>>) = pairs.into_iter().unzip();
        let (first, second) = (pad(&first, &self.device)?, pad(&second, &self.device)?);
        Ok(Tokens { first, second: Some(second), more: Vec::new(), rows: Rows::Examples })
    }

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn rows(&self) -> &[usize] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kd_core::model::{Mode, Represent};
    use kd_data::example::Dataset;

    fn pairs(texts: &[(&str, Option<&str>)]) -> Examples {
        let example = |(first, second): &(&str, Option<&str>)| TextExample {
            first: first.to_string(),
            second: second.map(str::to_string),
            line: 7,
            ..TextExample::default()
        };
        let data = Dataset { path: "pairs.tsv".into(), examples: texts.iter().map(example).collect() };
        Examples::Texts { data, left_out: Vec::new() }
    }

    fn ids(words: &Words, texts: &[(&str, Option<&str>)], max_len: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
        words.encode("test", &pairs(texts), max_len, &Device::Cpu).unwrap().pairs
    }

    #[test]
    fn the_first_words_of_the_vectors_are_known_in_lower_case() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.txt");
        std::fs::write(&path, "The 1 2\nthe 3 4\ncat 5 6\ndog 7 8\n").unwrap();
        let words = Words::open(Some(&path), 2, Combination::Concat, &[]).unwrap();
        assert_eq!(words.lookup.words(), ["the", "cat"]);
        assert_eq!(words.vectors, [(2, vec![1., 2.]), (3, vec![5., 6.])]);
        assert_eq!((words.config.word_width, words.config.words), (2, 4));
        // An empty text is one unknown word; longer ones are cut.
        assert_eq!(ids(&words, &[("The CAT dog", Some(""))], 2), [(vec![2, 3], vec![UNKNOWN])]);
        let (_, variables) = words.build(1, &Device::Cpu).unwrap();
        let table = variables.tensors()["words.weight"].to_vec2::<f32>().unwrap();
        assert_eq!(table[2..], [[1., 2.], [5., 6.]]);
        // The second is made of the first one's table, which training does not change, and of its own seed.
        let all = |variables: &kd_core::variables::Variables| {
            let values =
                |(name, tensor): (String, Tensor)| (name, tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            variables.tensors().into_iter().map(values).collect::<Vec<_>>()
        };
        let alone = Words::open(Some(&path), 2, Combination::Concat, &[]).unwrap().build(2, &Device::Cpu).unwrap().1;
        variables.named().iter().for_each(|(_, var)| var.set(&var.zeros_like().unwrap()).unwrap());
        assert_eq!(all(&words.build(2, &Device::Cpu).unwrap().1), all(&alone));
    }

    #[test]
    fn where_vectors_are_compared_the_same_text_is_twice_the_same_vector() {
        let train = pairs(&[("a b a", Some("b a"))]);
        let of = |combination| {
            let words = Words::open(None, 10, combination, &[&train]).unwrap();
            let tokens = words.encode("test", &pairs(&[("a b", Some("a b"))]), 5, &Device::Cpu).unwrap();
            let (encoder, _) = words.build(1, &Device::Cpu).unwrap();
            let vector = encoder.represent(&tokens.collate(&[0]).unwrap(), Mode::Eval).unwrap();
            (vector.to_vec2::<f32>().unwrap().remove(0), 2 * encoder.config().hidden)
        };
        let (vector, width) = of(Combination::ConcatDifferenceProduct);
        assert_eq!(vector[..width], vector[width..2 * width]);
        assert!(vector[2 * width..3 * width].iter().all(|difference| *difference == 0.0), "|u - v| of equal texts");
        let (apart, width) = of(Combination::Concat);
        assert_ne!(apart[..width], apart[width..], "TMKD's two encoders");
    }

    #[test]
    fn without_vectors_the_frequent_words_of_the_texts_are_known() {
        let train = pairs(&[("a b", Some("c a")), ("b d", Some("a"))]);
        let words = Words::open(None, 10, Combination::Concat, &[&train]).unwrap();
        assert_eq!(words.lookup.words(), ["a", "b"]);
        assert_ne!(words.digest, Words::open(None, 1, Combination::Concat, &[&train]).unwrap().digest);
        let single = pairs(&[("a", None)]);
        let message = words.encode("test", &single, 5, &Device::Cpu).unwrap_err().to_string();
        assert_eq!(message, "pairs.tsv:7: expected two texts, which bilstm reads, found one");
    }
}
