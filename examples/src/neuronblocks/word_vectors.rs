//! Pretrained vectors of the words of a dictionary.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use anyhow::Result;
use kd_core::variables::mix;
use kd_data::features::WORDS;
use kd_data::vectors::{self, Format, Storage};
use kd_students::blocks::embedding::Table as Rows;
use kd_students::plan::Plan;

use super::configuration::{Configuration, VectorCoding, VectorType};
use super::dictionaries::{Dictionaries, SPECIAL};

pub use kd_data::vectors::Vectors;

/// A file of vectors, and how many of its words become known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorFile {
    /// The file.
    pub path: PathBuf,
    /// Who wrote it.
    pub format: Format,
    /// How it is written.
    pub storage: Storage,
    /// So many words, the first of the file, are known besides those of the dictionary.
    pub further: usize,
}

impl VectorFile {
    /// `pre_trained_emb` of a configuration; all of its words become known with `involve_all_words_in_pretrained_emb`, none
    /// without.
    pub fn of(configuration: &Configuration) -> Option<Self> {
        let inputs = &configuration.inputs;
        Some(Self {
            path: inputs.paths.pre_trained_emb.clone()?,
            format: match inputs.vector_type {
                VectorType::Glove => Format::Glove,
                VectorType::Word2vec => Format::Word2vec,
                VectorType::Fasttext => Format::Fasttext,
            },
            storage: match inputs.vector_coding {
                VectorCoding::Text => Storage::Text,
                VectorCoding::Binary => Storage::Binary,
            },
            further: if inputs.involve_all_words_in_pretrained_emb { usize::MAX } else { 0 },
        })
    }

    /// A file in GloVe's text format.
    pub fn glove(path: PathBuf, further: usize) -> Self {
        Self { path, format: Format::Glove, storage: Storage::Text, further }
    }

    /// The vectors of the words of a dictionary, as they are written or in lower case, and of the further ones, which the
    /// dictionary then has too.
    ///
    /// # Errors
    /// If the file is wrong, or its vectors have not `width` values.
    pub fn read(&self, width: usize, dictionaries: &mut Dictionaries) -> Result<Vectors> {
        let exact: HashSet<String> = dictionaries.symbols_of(WORDS).iter().cloned().collect();
        let mut wanted = exact.clone();
        wanted.extend(exact.iter().map(|word| word.to_lowercase()));
        let mut further = HashSet::new();
        let mut is_wanted = |word: &str| {
            if further.len() < self.further {
                further.insert(word.to_string());
                return true;
            }
            wanted.contains(word)
        };
        let found = vectors::read(&self.path, self.format, self.storage, width, &mut is_wanted)?;
        let more = found.words.iter().filter(|word| further.contains(*word) && !exact.contains(*word));
        dictionaries.add(WORDS, more.cloned());
        Ok(found)
    }
}

/// Values of a word's vector, if the network has a row for each word.
pub fn width(plan: &Plan) -> Option<usize> {
    plan.clusters().iter().find_map(|cluster| match cluster.table {
        Rows::Rows { dim, .. } if cluster.name == WORDS => Some(dim),
        _ => None,
    })
}

/// The rows of the table of words, and how many of the words have a vector. A word is looked up as it is written, then in lower
/// case; one without a vector, and the unknown word, are drawn evenly from ±√(3 / width), as the original does.
pub fn rows(found: &Vectors, dictionaries: &Dictionaries, seed: u64) -> (Vec<(usize, Vec<f32>)>, usize) {
    let place: HashMap<&str, usize> = found.words.iter().map(String::as_str).zip(0..).collect();
    let (width, bound) = (found.width, (3.0 / found.width as f64).sqrt());
    let drawn = |row: usize| {
        let unit = |at: usize| mix(mix(seed, row as u64), at as u64) as f64 / u64::MAX as f64;
        (0..width).map(|at| ((2.0 * unit(at) - 1.0) * bound) as f32).collect::<Vec<f32>>()
    };
    let (mut rows, mut known) = (vec![(SPECIAL - 1, drawn(SPECIAL - 1))], 0);
    for (row, word) in (SPECIAL..).zip(dictionaries.symbols_of(WORDS)) {
        let vector = place.get(word.as_str()).or_else(|| place.get(word.to_lowercase().as_str()));
        known += usize::from(vector.is_some());
        let values = vector.map(|&idx| found.values[idx * width..][..width].to_vec());
        rows.push((row, values.unwrap_or_else(|| drawn(row))));
    }
    (rows, known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dictionaries() -> Dictionaries {
        Dictionaries {
            clusters: vec![(WORDS.to_string(), ["The", "cat"].map(String::from).to_vec())],
            classes: Vec::new(),
        }
    }

    #[test]
    fn words_of_the_dictionary_and_the_first_of_the_file_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.txt");
        std::fs::write(&path, "of 1 2\nthe 3 4\nrug 5 6\ncat 7 8\n").unwrap();
        for (further, expected) in
            [(0, vec!["The", "cat"]), (2, vec!["The", "cat", "of", "the"]), (9, vec!["The", "cat", "of", "the", "rug"])]
        {
            let mut known = dictionaries();
            let found = VectorFile::glove(path.clone(), further).read(2, &mut known).unwrap();
            assert_eq!(known.symbols_of(WORDS), expected);
            let (rows, with_vector) = rows(&found, &known, 1);
            // The unknown word is drawn; `The` starts as `the`.
            assert_eq!((rows[0].0, &rows[1], &rows[2]), (1, &(2, vec![3., 4.]), &(3, vec![7., 8.])));
            assert_eq!((rows.len(), with_vector), (1 + expected.len(), expected.len()));
        }
        let message = VectorFile::glove(path, 0).read(3, &mut dictionaries()).unwrap_err().to_string();
        assert!(message.contains("vectors.txt:1: expected 3 values"), "{message}");
    }
}
