//! What the readers return.

use std::path::PathBuf;

/// Examples and the file they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset<T> {
    /// The file, or the folder of a format of several files; errors about an example name it.
    pub path: PathBuf,
    /// The examples in the file's order: an example's id is its position here.
    pub examples: Vec<T>,
}

impl<T> Dataset<T> {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }
}

impl<T: Clone> Dataset<T> {
    /// The examples with these ids, in this order, under the same path.
    ///
    /// # Panics
    /// If there is no example of that id.
    #[must_use]
    pub fn select(&self, ids: &[usize]) -> Self {
        Self { path: self.path.clone(), examples: ids.iter().map(|&id| self.examples[id].clone()).collect() }
    }
}

/// How a sentence stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// One word a line, as in CoNLL's column files.
    #[default]
    Column,
    /// The whole sentence on one line, as in SNIPS.
    Line,
}

/// A tokenised sentence and the tag of every word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sentence {
    /// The words, at least one.
    pub words: Vec<String>,
    /// As many tags, or none if the sentence is unlabelled.
    pub tags: Vec<String>,
    /// Line of the first word, counted from 1.
    pub line: usize,
    /// How the words stand on the lines.
    pub layout: Layout,
}

impl Sentence {
    /// A sentence that came from no file, without tags.
    pub fn unlabelled(words: Vec<String>) -> Self {
        Self { words, ..Self::default() }
    }

    /// The line of word `word_idx`, counted from 1.
    pub fn line_of(&self, word_idx: usize) -> usize {
        match self.layout {
            Layout::Column => self.line + word_idx,
            Layout::Line => self.line,
        }
    }
}

impl AsRef<[String]> for Sentence {
    /// The words.
    fn as_ref(&self) -> &[String] {
        &self.words
    }
}

/// A command to an assistant: words, slots and intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Utterance {
    /// The words with the tags of their slots.
    pub sentence: Sentence,
    /// The name of the intent.
    pub intent: String,
}

impl AsRef<[String]> for Utterance {
    /// The words.
    fn as_ref(&self) -> &[String] {
        &self.sentence.words
    }
}

impl Utterance {
    /// The words joined by blanks.
    pub fn text(&self) -> String {
        self.sentence.words.join(" ")
    }
}

/// A text, or a pair of texts, and what is said of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextExample {
    /// The text, or the first of a pair.
    pub first: String,
    /// The second text of a pair.
    pub second: Option<String>,
    /// What is said of it.
    pub label: Label,
    /// Its line in the file, or in a format without lines its row; counted from 1.
    pub line: usize,
    /// What it is a candidate for, a question's id; in formats that have such a thing.
    pub group: Option<String>,
}

/// What is said of a text.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Label {
    /// Nothing: the text is unlabelled.
    #[default]
    None,
    /// One class, by name.
    Class(String),
    /// A number.
    Score(f64),
    /// Any number of classes, by name, none included.
    Classes(Vec<String>),
}

impl Label {
    /// The kind of label in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "no label",
            Self::Class(_) => "a class",
            Self::Score(_) => "a number",
            Self::Classes(_) => "several classes",
        }
    }
}
