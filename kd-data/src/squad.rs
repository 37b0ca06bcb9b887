//! The Stanford Question Answering Dataset (Rajpurkar et al. 2016, 2018) and sets in its format, XQuAD for one:
//! articles, their paragraphs, and questions whose answers are spans of the paragraph.
//!
//! ```text
//! {"data": [{"title": "Normans", "paragraphs": [{"context": "The Normans ...", "qas": [
//!     {"id": "56d", "question": "In what country ...?", "answers": [{"text": "France", "answer_start": 159}], "is_impossible": false}]}]}]}
//! ```
//!
//! Version 1.1 has no `is_impossible`; a test file has no answers. Two sets of pairs are made of them:
//! [`sentence_pairs`], labelled, as QNLI has them, and [`passage_pairs`], unlabelled, for the distillation pre-training
//! of TMKD (Yang et al. 2020, §3.1.1). [`merge`] makes one set of several files, [`split`] cuts it by article.

mod merge;
mod passages;
mod sentence_pairs;
mod split;

use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result, read_text};

pub use merge::{Merged, merge};
pub use passages::{PassageCounts, passage_pairs};
pub use sentence_pairs::{SentenceCounts, sentence_pairs};
pub use split::{Split, split};

/// A title and its paragraphs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Article {
    /// The title, with underscores as in the file.
    pub title: String,
    /// The paragraphs, in the file's order.
    pub paragraphs: Vec<Paragraph>,
}

/// A paragraph and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paragraph {
    /// Its text, as in the file.
    pub context: String,
    /// The questions, in the file's order.
    pub questions: Vec<Question>,
}

/// A question of a paragraph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its id in the file.
    pub id: String,
    /// Its text, in one line: a blank for each run of white space.
    pub text: String,
    /// What is known of its answer.
    pub answer: Answer,
}

/// What is known of the answer of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Bytes of the paragraph's context, at least one range; several where several annotators answered.
    Spans(Vec<Range<usize>>),
    /// The paragraph does not answer it.
    Impossible,
    /// Nothing: the file has no answers.
    Unknown,
}

/// The articles of a file.
///
/// # Errors
/// If the file cannot be read, is not UTF-8, no JSON or has no articles, if a value is missing or of another kind, or
/// if an answer does not stand where `answer_start`, in characters, says. Messages name the place,
/// `data[0].paragraphs[2].context` for example.
pub fn read_squad(path: impl AsRef<Path>) -> Result<Vec<Article>> {
    let path = path.as_ref();
    let text = read_text(path)?;
    let file: Value =
        serde_json::from_str(&text).map_err(|error| Error::line(path, error.line(), "JSON", error.to_string()))?;
    let articles = Node { path, place: String::new(), value: &file }.list("data")?;
    if articles.is_empty() {
        return Err(Error::file(path, "at least one article in `data`", "none"));
    }
    articles.iter().map(article).collect()
}

/// A text in one line, a blank for each run of white space.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn article(node: &Node<'_>) -> Result<Article> {
    let paragraphs = node.list("paragraphs")?.iter().map(paragraph).collect::<Result<_>>()?;
    Ok(Article { title: node.text("title")?.to_string(), paragraphs })
}

fn paragraph(node: &Node<'_>) -> Result<Paragraph> {
    let context = node.text("context")?;
    let questions = node.list("qas")?.iter().map(|node| question(node, context)).collect::<Result<_>>()?;
    Ok(Paragraph { context: context.to_string(), questions })
}

fn question(node: &Node<'_>, context: &str) -> Result<Question> {
    let impossible = match node.value.get("is_impossible") {
        None => None,
        Some(Value::Bool(impossible)) => Some(*impossible),
        Some(found) => return Err(node.wrong("is_impossible", "true or false", found)),
    };
    let spans = node.list("answers")?.iter().map(|node| span(node, context)).collect::<Result<Vec<_>>>()?;
    let answer = match (spans.is_empty(), impossible) {
        (false, Some(true)) => {
            return Err(node.wrong("answers", "none of an impossible question", &node.value["answers"]));
        }
        (false, _) => Answer::Spans(spans),
        (true, Some(true)) => Answer::Impossible,
        (true, _) => Answer::Unknown,
    };
    let text = one_line(node.text("question")?);
    if text.is_empty() {
        return Err(node.wrong("question", "a question", &node.value["question"]));
    }
    Ok(Question { id: node.text("id")?.to_string(), text, answer })
}

/// The bytes of an answer.
fn span(node: &Node<'_>, context: &str) -> Result<Range<usize>> {
    let answer = node.text("text")?;
    let found = node.value.get("answer_start").unwrap_or(&Value::Null);
    let Some(characters) = found.as_u64() else {
        return Err(node.wrong("answer_start", "a number of characters", found));
    };
    let ends = context.char_indices().map(|(byte, _)| byte).chain([context.len()]);
    let start = ends.into_iter().nth(usize::try_from(characters).unwrap_or(usize::MAX));
    match start.filter(|&start| !answer.is_empty() && context[start..].starts_with(answer)) {
        Some(start) => Ok(start..start + answer.len()),
        None => {
            let expected = format!("where `{answer}` begins in the context");
            Err(node.wrong("answer_start", &expected, found))
        }
    }
}

/// A value and its place in the file.
struct Node<'a> {
    path: &'a Path,
    place: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    fn text(&self, key: &str) -> Result<&'a str> {
        let found = self.value.get(key).unwrap_or(&Value::Null);
        found.as_str().ok_or_else(|| self.wrong(key, "a text", found))
    }

    fn list(&self, key: &str) -> Result<Vec<Node<'a>>> {
        let found = self.value.get(key).unwrap_or(&Value::Null);
        let items = found.as_array().ok_or_else(|| self.wrong(key, "a list", found))?;
        let node = |(idx, value)| Node { path: self.path, place: format!("{}[{idx}]", self.place_of(key)), value };
        Ok(items.iter().enumerate().map(node).collect())
    }

    fn place_of(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_string() } else { format!("{}.{key}", self.place) }
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        let found = match found {
            Value::Null => "nothing".to_string(),
            Value::Array(items) => format!("a list of {}", items.len()),
            Value::Object(_) => "an object".to_string(),
            value => format!("`{value}`"),
        };
        Error::file(self.path, format!("{expected} at `{}`", self.place_of(key)), found)
    }
}

#[cfg(test)]
mod tests;
