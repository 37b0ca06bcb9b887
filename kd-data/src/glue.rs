//! The TSV files of GLUE (Wang et al. 2019): tab-separated, no quoting, mostly with a header.
//!
//! | set                  | texts                              | label column  | classes or scores                            |
//! |----------------------|------------------------------------|---------------|----------------------------------------------|
//! | [`Glue::Rte`]        | `sentence1`, `sentence2`           | `label`       | `entailment`, `not_entailment`               |
//! | [`Glue::Mrpc`]       | `#1 String`, `#2 String`           | `Quality`     | `not_equivalent` (0), `equivalent` (1)       |
//! | [`Glue::Sst2`]       | `sentence`                         | `label`       | `negative` (0), `positive` (1)               |
//! | [`Glue::Qnli`]       | `question`, `sentence`             | `label`       | `entailment`, `not_entailment`               |
//! | [`Glue::Mnli`]       | `sentence1`, `sentence2`           | `gold_label`  | `entailment`, `neutral`, `contradiction`     |
//! | [`Glue::Qqp`]        | `question1`, `question2`           | `is_duplicate`| `not_duplicate` (0), `duplicate` (1)         |
//! | [`Glue::Cola`]       | `sentence`; training files have no header and the text in column 4 | column 2 | `unacceptable` (0), `acceptable` (1) |
//! | [`Glue::StsB`]       | `sentence1`, `sentence2`           | `score`       | a number from 0 to 5                         |
//!
//! A file whose header lacks the label column is unlabelled: the test files. The names of classes are those of the
//! `glue` data set on the Hugging Face hub.

use std::path::Path;

use crate::error::{Error, Result, count, read_text};
use crate::example::{Dataset, Label, TextExample};
use crate::separated::{Header, lines, number};

/// A data set of GLUE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glue {
    /// Recognising Textual Entailment.
    Rte,
    /// The Microsoft Research Paraphrase Corpus.
    Mrpc,
    /// The Stanford Sentiment Treebank in two classes.
    Sst2,
    /// Questions of SQuAD and sentences that answer them or not.
    Qnli,
    /// Multi-Genre Natural Language Inference, matched and mismatched files alike.
    Mnli,
    /// Quora Question Pairs.
    Qqp,
    /// The Corpus of Linguistic Acceptability.
    Cola,
    /// The Semantic Textual Similarity Benchmark.
    StsB,
}

/// How a class is written in the file, and its name.
type Written = (&'static str, &'static str);

const ENTAILMENT: &[Written] = &[("entailment", "entailment"), ("not_entailment", "not_entailment")];
/// The classes of natural language inference.
pub(crate) const INFERENCE: &[Written] =
    &[("entailment", "entailment"), ("neutral", "neutral"), ("contradiction", "contradiction")];

impl Glue {
    /// The names of the classes in the order of their numbers; none where the label is a number.
    pub fn classes(self) -> Option<Vec<String>> {
        let written = self.written();
        (!written.is_empty()).then(|| written.iter().map(|(_, name)| name.to_string()).collect())
    }

    fn written(self) -> &'static [Written] {
        match self {
            Self::Rte | Self::Qnli => ENTAILMENT,
            Self::Mnli => INFERENCE,
            Self::Mrpc => &[("0", "not_equivalent"), ("1", "equivalent")],
            Self::Sst2 => &[("0", "negative"), ("1", "positive")],
            Self::Qqp => &[("0", "not_duplicate"), ("1", "duplicate")],
            Self::Cola => &[("0", "unacceptable"), ("1", "acceptable")],
            Self::StsB => &[],
        }
    }

    /// The columns of the texts and of the label.
    fn columns(self) -> (&'static str, Option<&'static str>, &'static str) {
        match self {
            Self::Rte => ("sentence1", Some("sentence2"), "label"),
            Self::Mrpc => ("#1 String", Some("#2 String"), "Quality"),
            Self::Sst2 => ("sentence", None, "label"),
            Self::Qnli => ("question", Some("sentence"), "label"),
            Self::Mnli => ("sentence1", Some("sentence2"), "gold_label"),
            Self::Qqp => ("question1", Some("question2"), "is_duplicate"),
            Self::Cola => ("sentence", None, "label"),
            Self::StsB => ("sentence1", Some("sentence2"), "score"),
        }
    }
}

/// The header that CoLA's labelled files lack.
const COLA: [&str; 4] = ["source", "label", "original label", "sentence"];

/// The examples of a file of GLUE, and the lines that were left out.
///
/// Only QQP has such lines: some of its questions hold line ends, without quoting, so that their rows are broken in
/// two. Lines of fewer columns than its header are left out and returned; everywhere else they are an error.
///
/// ```no_run
/// use kd_data::example::Label;
/// use kd_data::glue::{Glue, read_glue};
/// let (data, _) = read_glue("RTE/train.tsv", Glue::Rte)?;
/// assert_eq!(data.examples[0].label, Label::Class("not_entailment".into()));
/// # Ok::<(), kd_data::Error>(())
/// ```
///
/// # Errors
/// If the file cannot be read, is not UTF-8 or has no examples, if a column is missing, if a line has another number of
/// columns than the header, or a label that is none of the set's.
pub fn read_glue(path: impl AsRef<Path>, set: Glue) -> Result<(Dataset<TextExample>, Vec<usize>)> {
    let path = path.as_ref();
    let text = read_text(path)?;
    let mut rows = lines(&text).peekable();
    let Some((line, names)) = rows.peek().cloned() else {
        return Err(Error::file(path, "a header and examples", "an empty file"));
    };
    let header = match set {
        // The test file has a header, of two columns.
        Glue::Cola if names.len() != 2 => Header::new(path, line, COLA.to_vec()),
        _ => {
            rows.next();
            Header::new(path, line, names)
        }
    };
    let (first, second, label) = set.columns();
    let (first, second) = (header.column(first)?, second.map(|name| header.column(name)).transpose()?);
    let label = header.find(label)?;
    let (mut examples, mut broken) = (Vec::new(), Vec::new());
    for (line, columns) in rows {
        if set == Glue::Qqp && columns.len() < header.len() {
            broken.push(line);
            continue;
        }
        header.check(line, columns.len())?;
        examples.push(TextExample {
            first: columns[first].to_string(),
            second: second.map(|column| columns[column].to_string()),
            label: match label {
                Some(column) => label_of(set, path, line, columns[column])?,
                None => Label::None,
            },
            line,
            group: None,
        });
    }
    if examples.is_empty() {
        let found = if broken.is_empty() { "a header alone".into() } else { count(broken.len(), "broken line") };
        return Err(Error::file(path, "at least one example", found));
    }
    Ok((Dataset { path: path.to_path_buf(), examples }, broken))
}

fn label_of(set: Glue, path: &Path, line: usize, text: &str) -> Result<Label> {
    match set.written() {
        [] => Ok(Label::Score(number(path, line, text, 0.0..=5.0)?)),
        written => class(path, line, text, written),
    }
}

/// The class that `text` stands for.
pub(crate) fn class(path: &Path, line: usize, text: &str, written: &[Written]) -> Result<Label> {
    match written.iter().find(|(known, _)| *known == text) {
        Some((_, name)) => Ok(Label::Class(name.to_string())),
        None => {
            let known: Vec<&str> = written.iter().map(|(known, _)| *known).collect();
            Err(Error::line(path, line, format!("one of the labels {}", known.join(", ")), format!("`{text}`")))
        }
    }
}

#[cfg(test)]
mod tests;
