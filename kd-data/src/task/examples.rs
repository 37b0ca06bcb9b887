//! What a task's file holds, and what its labels are as numbers.

use std::path::Path;

use super::{Task, TaskKind};
use crate::error::{Error, Result};
use crate::example::{Dataset, Label, Sentence, TextExample};
use crate::tags::Classes;

/// The examples of a part.
#[derive(Debug, Clone, PartialEq)]
pub enum Examples {
    /// Texts or pairs of texts.
    Texts {
        /// The examples.
        data: Dataset<TextExample>,
        /// Lines that hold no example by their publishers' fault: pairs without an agreed label in SNLI, broken rows in
        /// QQP.
        left_out: Vec<usize>,
    },
    /// Sentences of tagged words.
    Sentences(Dataset<Sentence>),
}

/// The labels of all examples as numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// The class of every row: one of a text, one of every word of a sentence.
    Classes(Vec<Vec<u32>>),
    /// The number of every text.
    Scores(Vec<f64>),
    /// The classes, ascending, of every text.
    Sets(Vec<Vec<u32>>),
}

impl Examples {
    /// Where they come from.
    pub fn path(&self) -> &Path {
        match self {
            Self::Texts { data, .. } => &data.path,
            Self::Sentences(data) => &data.path,
        }
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts { data, .. } => data.len(),
            Self::Sentences(data) => data.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `n` examples, or all if there are fewer.
    pub fn truncate(&mut self, n: usize) {
        match self {
            Self::Texts { data, .. } => data.examples.truncate(n),
            Self::Sentences(data) => data.examples.truncate(n),
        }
    }

    /// Whether the first example has a label; files have labels everywhere or nowhere.
    pub fn is_labelled(&self) -> bool {
        match self {
            Self::Texts { data, .. } => data.examples.first().is_some_and(|example| example.label != Label::None),
            Self::Sentences(data) => data.examples.first().is_some_and(|sentence| !sentence.tags.is_empty()),
        }
    }

    /// What each example is a candidate for; empty if one has no group.
    pub fn groups(&self) -> Vec<&str> {
        match self {
            Self::Texts { data, .. } => {
                data.examples.iter().map(|example| example.group.as_deref()).collect::<Option<_>>().unwrap_or_default()
            }
            Self::Sentences(_) => Vec::new(),
        }
    }

    /// The names of the classes that occur.
    pub(super) fn classes(&self) -> Result<Vec<String>> {
        let classes = match self {
            Self::Sentences(data) => {
                let tags = || data.examples.iter().flat_map(|sentence| &sentence.tags);
                if tags().next().is_none() {
                    return Err(Error::file(&data.path, "sentences with tags", "none"));
                }
                Classes::iob2(tags().filter_map(|tag| tag.split_once('-')).map(|(_, kind)| kind))?
            }
            Self::Texts { data, .. } => {
                let names = data.examples.iter().flat_map(|example| match &example.label {
                    Label::Class(name) => std::slice::from_ref(name),
                    Label::Classes(names) => names,
                    Label::None | Label::Score(_) => &[],
                });
                Classes::from_names(names.map(String::as_str))
                    .map_err(|_| Error::file(&data.path, "examples with classes", "none"))?
            }
        };
        Ok(classes.names().to_vec())
    }
}

impl Task {
    /// The labels of `examples` as numbers, classes by their place in `classes`.
    ///
    /// # Errors
    /// If an example has no label, one of another kind, or a class that `classes` lacks; the message names file and line.
    pub fn targets(&self, examples: &Examples, classes: &[String]) -> Result<Targets> {
        let known = Classes::new(classes.to_vec())?;
        let data = match examples {
            Examples::Sentences(data) => return Ok(Targets::Classes(known.encode(data)?)),
            Examples::Texts { data, .. } => data,
        };
        let wrong = |example: &TextExample, expected: String, found: String| {
            Error::line(&data.path, example.line, expected, found)
        };
        let index = |example: &TextExample, name: &String| {
            let expected = || format!("one of the classes {}", classes.join(", "));
            known.index(name).ok_or_else(|| wrong(example, expected(), format!("`{name}`")))
        };
        let of_kind = |example: &TextExample, expected: &str| {
            let expected = format!("{expected}, as the task {} has it", self.name);
            wrong(example, expected, example.label.kind().to_string())
        };
        let class = |example: &TextExample| match &example.label {
            Label::Class(name) => Ok(vec![index(example, name)?]),
            _ => Err(of_kind(example, "a class")),
        };
        let score = |example: &TextExample| match example.label {
            Label::Score(score) => Ok(score),
            _ => Err(of_kind(example, "a number")),
        };
        let set = |example: &TextExample| match &example.label {
            Label::Classes(names) => {
                let mut set = names.iter().map(|name| index(example, name)).collect::<Result<Vec<_>>>()?;
                set.sort_unstable();
                set.dedup();
                Ok(set)
            }
            _ => Err(of_kind(example, "several classes")),
        };
        let rows = data.examples.iter();
        Ok(match self.kind {
            TaskKind::Classification | TaskKind::Tagging => Targets::Classes(rows.map(class).collect::<Result<_>>()?),
            TaskKind::Regression => Targets::Scores(rows.map(score).collect::<Result<_>>()?),
            TaskKind::MultiLabel => Targets::Sets(rows.map(set).collect::<Result<_>>()?),
        })
    }
}
