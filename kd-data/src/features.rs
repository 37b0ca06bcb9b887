//! Examples of named columns: what a configured network reads of a file, as symbols.
//!
//! ```text
//! file --Table::read--> lines --Features::of_table--> symbols of every column, labels --dictionary--> a model's symbols
//! ```
//!
//! A [`Reading`] says which columns of the file are texts, which of them make up a *branch* (a text of the model, with what
//! is known of each of its words) and which columns share a *cluster* (a dictionary and an embedding: `word`, `char`,
//! `postag`, …). [`Features`] hold the symbols, every distinct one once, and the labels by kind.
//!
//! # Dictionaries
//! This crate counts symbols and does not number them: [`dictionary`] lists those of a cluster, the most frequent first, and the
//! student that is built over the list has the only table from symbols to ids, in training and in deployment alike. The
//! symbols of `char` are characters, those of the boundaries are words like others. So features depend on file and reading
//! alone, and [`read_cached`] keeps them under a name made of both.
//!
//! ```
//! use kd_data::features::{Branch, Cluster, Features, Limits, Reading, Target, TargetKind, dictionary};
//! use kd_data::table::{Layout, Line, Table};
//! use kd_data::{cleaning::Cleaning, tokenize::Tokenizer};
//!
//! let named = |name: &str, columns: &[&str]| (name.to_string(), columns.iter().map(|c| c.to_string()).collect());
//! let (name, columns) = named("question", &["question_text", "question_char"]);
//! let branches = vec![Branch { name, columns, max_len: Some(30) }];
//! let clusters = [("word", "question_text"), ("char", "question_char")].map(|(name, column)| {
//!     let (name, columns) = named(name, &[column]);
//!     Cluster { name, columns }
//! });
//! let reading = Reading {
//!     layout: Layout::new([("question_text".to_string(), 0), ("label".to_string(), 1)])?,
//!     header: false,
//!     branches,
//!     clusters: clusters.to_vec(),
//!     targets: vec![Target { column: "label".to_string(), kind: TargetKind::Class }],
//!     tokenizer: Tokenizer::English,
//!     cleaning: Cleaning::default(),
//!     boundaries: false,
//!     passage: None,
//! };
//! let lines = vec![Line { number: 1, columns: ["Isn't it odd?", "1"].map(String::from).to_vec() }];
//! let table = Table { path: "typed".into(), lines, skipped: vec![] };
//! let features = Features::of_table(&table, &reading)?;
//! assert_eq!(features.words(0, 0).collect::<Vec<_>>(), ["Is", "n't", "it", "odd", "?"]);
//! assert_eq!(features.class_names("label")?, ["1"]);
//! let limits = Limits { min_word_frequency: 1, ..Limits::default() };
//! assert_eq!(dictionary(&[&features], "word", &limits)?, ["Is", "n't", "it", "odd", "?"]);
//! assert_eq!(dictionary(&[&features], "char", &limits)?.concat(), "Isn'tiod?");
//! # Ok::<(), kd_data::Error>(())
//! ```

mod cache;
mod dictionary;
mod encode;
mod reading;
mod sequences;
mod spans;

use std::collections::HashMap;
use std::path::PathBuf;

pub use cache::{Origin, read_cached};
pub use dictionary::{Limits, dictionary};
pub use reading::{Branch, CHARACTERS, Cluster, END, POSITIONS, Reading, START, Target, TargetKind, WORDS};
pub use sequences::Sequences;
pub use spans::{Passage, best_span};

use crate::error::{Error, Result};
use crate::table::Skipped;
use crate::tags::Classes;

/// What is read of a file: the symbols of its columns and its labels. Every list has an entry for each example.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// The file.
    pub path: PathBuf,
    /// The line of each example in it, counted from 1.
    pub lines: Vec<usize>,
    /// The lines that are no examples.
    pub skipped: Vec<Skipped>,
    /// The columns of the first branch, in its order, then those of the second, and so on. Those of one branch have equally
    /// many symbols in an example.
    pub columns: Vec<Column>,
    /// The labels, in the reading's order.
    pub targets: Vec<Labels>,
    /// The text in which answers are sought.
    pub passage: Option<Passage>,
}

/// A column of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name of its branch.
    pub branch: String,
    /// Its name.
    pub name: String,
    /// Name of its cluster.
    pub cluster: String,
    /// What stands in it.
    pub symbols: Symbols,
}

/// What stands in a column of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Symbols {
    /// A sequence for each example.
    Own(Sequences),
    /// The characters of the words of the column of this place in [`Features::columns`].
    Spelling(usize),
}

/// A column of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// Its name.
    pub column: String,
    /// Its values.
    pub values: Values,
}

/// The values of a column of labels, by [`TargetKind`].
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Names of classes or of tags: one for each example, or one for each of its words.
    Names(Sequences),
    /// Numbers.
    Numbers(Vec<f64>),
    /// Places of words in the passage, counted from 0.
    Places(Vec<u32>),
    /// Texts.
    Texts(Vec<String>),
}

impl Features {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The sequences of a column; those whose characters it spells, if it has none of its own.
    ///
    /// # Panics
    /// If there are not so many columns.
    pub fn sequences(&self, column: usize) -> &Sequences {
        match &self.columns[column].symbols {
            Symbols::Own(sequences) => sequences,
            Symbols::Spelling(words) => self.sequences(*words),
        }
    }

    /// The symbols of a column in an example, boundaries included.
    ///
    /// # Panics
    /// If there are not so many columns or examples.
    pub fn words(&self, column: usize, example: usize) -> impl Iterator<Item = &str> {
        self.sequences(column).words(example)
    }

    /// The labels of a column.
    ///
    /// # Errors
    /// If there is no such column of labels.
    pub fn labels(&self, column: &str) -> Result<&Values> {
        match self.targets.iter().find(|labels| labels.column == column) {
            Some(labels) => Ok(&labels.values),
            None => {
                let names: Vec<&str> = self.targets.iter().map(|labels| labels.column.as_str()).collect();
                let found = if names.is_empty() { "none".to_string() } else { format!("`{}`", names.join("`, `")) };
                Err(Error::argument("labels", format!("a target `{column}`"), found))
            }
        }
    }

    /// The names of the classes or tags of a column: those of the most examples first, of equally many the first met.
    /// This is the order in which weights of classes are written (Gong et al. 2019, NeuronBlocks).
    ///
    /// # Errors
    /// If there is no such column, or it holds no names.
    pub fn class_names(&self, column: &str) -> Result<Vec<String>> {
        let names = self.names(column)?;
        let limits = Limits { min_word_frequency: 1, max_vocabulary: usize::MAX, max_building_lines: usize::MAX };
        let documents = (0..names.len()).map(|example| names.words(example));
        Ok(dictionary::most_frequent(documents, &limits))
    }

    /// The class of each row of each example: of the example itself, or of its words where the column holds tags.
    ///
    /// # Errors
    /// If there is no such column or it holds no names, or a name is none of `classes`; the message names the line.
    pub fn class_rows(&self, column: &str, classes: &Classes) -> Result<Vec<Vec<u32>>> {
        let names = self.names(column)?;
        let places: HashMap<&str, u32> = classes.names().iter().map(String::as_str).zip(0..).collect();
        let ids: Vec<Option<u32>> = names.symbols().iter().map(|name| places.get(name.as_str()).copied()).collect();
        let row = |example: usize| {
            let id = |&name: &u32| {
                ids[name as usize].ok_or_else(|| {
                    let expected = format!("`{column}` to be one of `{}`", classes.names().join("`, `"));
                    let found = format!("`{}`", names.symbols()[name as usize]);
                    Error::line(&self.path, self.lines[example], expected, found)
                })
            };
            names.ids(example).iter().map(id).collect()
        };
        (0..names.len()).map(row).collect()
    }

    /// The numbers of a column.
    ///
    /// # Errors
    /// If there is no such column, or it holds no numbers.
    pub fn numbers(&self, column: &str) -> Result<&[f64]> {
        match self.labels(column)? {
            Values::Numbers(numbers) => Ok(numbers),
            _ => Err(Error::argument(format!("target `{column}`"), "numbers", "values of another kind")),
        }
    }

    fn names(&self, column: &str) -> Result<&Sequences> {
        match self.labels(column)? {
            Values::Names(names) => Ok(names),
            _ => Err(Error::argument(format!("target `{column}`"), "names of classes", "values of another kind")),
        }
    }
}

#[cfg(test)]
mod tests;
