//! CoNLL's column files: one word a line, an empty line after each sentence.
//!
//! ```text
//! EU NNP I-NP I-ORG          @paulwalk<TAB>O
//! rejects VBZ I-VP O         It<TAB>O
//! ```
//!
//! The file's first word decides how columns are parted: by single tabs if its line holds one (a word may then contain
//! blanks of any kind), by runs of blanks otherwise. Lines of blanks and tabs end a sentence, `-DOCSTART-` lines too and are
//! no words. A byte order mark and `\r\n` are accepted. Nothing else is repaired: a line with more or fewer columns than the
//! first, a malformed tag, bytes that are not UTF-8 and a file without words are errors that name their line.

use std::path::Path;

use kd_core::metrics::split_tag;

use crate::error::{Error, Result, count, read_text};
use crate::example::{Dataset, Layout, Sentence};

/// Where a column file has its tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TagColumn {
    /// In the last column.
    #[default]
    Last,
    /// In this column, counted from 0.
    At(usize),
    /// Nowhere: the text is unlabelled.
    None,
}

/// Which columns of a file to read. The default is the first column for words and the last for tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConllOptions {
    /// The column of the words, counted from 0.
    pub word_column: usize,
    /// The column of the tags.
    pub tag_column: TagColumn,
}

/// The sentences of a column file, with the tags as they stand there ([`crate::tags`] converts them).
///
/// # Errors
/// If the file cannot be read, is not UTF-8, has no words, or has a line that does not fit its first one or
/// carries a malformed tag.
pub fn read_conll(path: impl AsRef<Path>, options: &ConllOptions) -> Result<Dataset<Sentence>> {
    let path = path.as_ref();
    parse_conll(&read_text(path)?, path, options)
}

/// Reads column text that is in memory; `path` is what errors call it.
///
/// ```
/// use kd_data::conll::{ConllOptions, parse_conll};
/// let text = "EU NNP I-ORG\nrejects VBZ O\n\n";
/// let data = parse_conll(text, "train.txt".as_ref(), &ConllOptions::default())?;
/// assert_eq!(data.examples[0].words, ["EU", "rejects"]);
/// assert_eq!(data.examples[0].tags, ["I-ORG", "O"]);
/// let ragged = parse_conll("EU I-ORG\nrejects\n", "train.txt".as_ref(), &ConllOptions::default());
/// assert_eq!(ragged.unwrap_err().to_string(), "train.txt:2: expected 2 columns as on line 1, found 1 column");
/// # Ok::<(), kd_data::Error>(())
/// ```
///
/// # Errors
/// As [`read_conll`], but for reading.
pub fn parse_conll(text: &str, path: &Path, options: &ConllOptions) -> Result<Dataset<Sentence>> {
    let mut examples: Vec<Sentence> = Vec::new();
    let mut open = false; // whether the last sentence goes on
    let mut first: Option<First> = None;
    for (idx, text) in text.split('\n').enumerate() {
        let line = idx + 1;
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.bytes().all(|byte| byte == b' ' || byte == b'\t') || is_document_start(text) {
            open = false;
            continue;
        }
        let tabs = first.as_ref().map_or_else(|| text.contains('\t'), |first| first.tabs);
        let columns = columns_of(text, tabs);
        let first = match &first {
            Some(first) => first,
            None => first.insert(First::new(path, line, tabs, columns.len(), options)?),
        };
        if columns.len() != first.columns {
            let expected = format!("{} as on line {}", count(first.columns, "column"), first.line);
            return Err(Error::line(path, line, expected, count(columns.len(), "column")));
        }
        let word = columns[options.word_column];
        if word.is_empty() {
            return Err(Error::line(path, line, "a word", "an empty column"));
        }
        if !open {
            examples.push(Sentence { line, layout: Layout::Column, ..Sentence::default() });
            open = true;
        }
        if let Some(sentence) = examples.last_mut() {
            sentence.words.push(word.to_string());
            if let Some(column) = first.tag_column {
                check_tag(path, line, columns[column])?;
                sentence.tags.push(columns[column].to_string());
            }
        }
    }
    if examples.is_empty() {
        let found = if text.is_empty() { "an empty file" } else { "a file without words" };
        return Err(Error::file(path, "at least one sentence", found));
    }
    Ok(Dataset { path: path.to_path_buf(), examples })
}

/// What the file's first word says about the others.
struct First {
    line: usize,
    tabs: bool,
    columns: usize,
    tag_column: Option<usize>,
}

impl First {
    fn new(path: &Path, line: usize, tabs: bool, columns: usize, options: &ConllOptions) -> Result<Self> {
        let tag_column = match options.tag_column {
            TagColumn::Last => Some((columns - 1).max(options.word_column + 1)),
            TagColumn::At(column) => Some(column),
            TagColumn::None => None,
        };
        let needed = 1 + options.word_column.max(tag_column.unwrap_or(0));
        if columns < needed {
            let expected = format!("at least {} (words in column {}", count(needed, "column"), options.word_column + 1);
            let expected = match tag_column {
                Some(tags) => format!("{expected}, tags in column {})", tags + 1),
                None => format!("{expected})"),
            };
            return Err(Error::line(path, line, expected, count(columns, "column")));
        }
        Ok(Self { line, tabs, columns, tag_column })
    }
}

fn columns_of(text: &str, tabs: bool) -> Vec<&str> {
    if tabs { text.split('\t').collect() } else { text.split(' ').filter(|column| !column.is_empty()).collect() }
}

fn is_document_start(text: &str) -> bool {
    text.split([' ', '\t']).next() == Some("-DOCSTART-")
}

/// An error that names the line if `tag` is not `O` or a mark with a type.
pub(crate) fn check_tag(path: &Path, line: usize, tag: &str) -> Result<()> {
    match split_tag(tag) {
        Some(_) => Ok(()),
        None => {
            Err(Error::line(path, line, "the tag `O` or one of B, I, E, S, a hyphen and a type", format!("`{tag}`")))
        }
    }
}

#[cfg(test)]
mod tests;
