//! The Stanford Natural Language Inference corpus (Bowman et al. 2015): premise, hypothesis and one of three classes.
//!
//! Three files are read: tab-separated text with the columns `sentence1`, `sentence2` and `gold_label`, among others and in
//! any order, which are the `snli_1.0_*.txt` of the corpus and what others made of them; its `snli_1.0_*.jsonl`, told by
//! the name's end; both without quoting beyond JSON's own. MultiNLI's own files have the same columns.
//!
//! A pair whose annotators did not agree has the gold label `-`. It has no class, so it is left out, as everywhere, and
//! counted.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result, read_text};
use crate::example::{Dataset, TextExample};
use crate::glue::{INFERENCE, class};
use crate::separated::{Header, lines};

/// What stands for the class of a pair that has none.
const NO_AGREEMENT: &str = "-";

/// The classes of natural language inference, in the order that most models have them in.
pub fn classes() -> Vec<String> {
    INFERENCE.iter().map(|(_, name)| name.to_string()).collect()
}

/// The pairs of a file, and the lines of those that have no gold label.
///
/// # Errors
/// If the file cannot be read, is not UTF-8 or has no labelled pairs, if a column or key is missing, a line has another
/// number of columns than the header, or a label is unknown.
pub fn read_snli(path: impl AsRef<Path>) -> Result<(Dataset<TextExample>, Vec<usize>)> {
    let path = path.as_ref();
    let text = read_text(path)?;
    let mut found = Found { path, examples: Vec::new(), without: Vec::new() };
    if path.extension().is_some_and(|extension| extension == "jsonl") {
        for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
            let pair: Pair = serde_json::from_str(text).map_err(|error| {
                let expected = "an object with the texts `gold_label`, `sentence1` and `sentence2`";
                Error::line(path, line + 1, expected, error.to_string())
            })?;
            found.add(line + 1, &pair.gold_label, pair.sentence1, pair.sentence2)?;
        }
    } else {
        let mut rows = lines(&text);
        let Some((line, names)) = rows.next() else {
            return Err(Error::file(path, "a header and pairs", "an empty file"));
        };
        let header = Header::new(path, line, names);
        let [label, first, second] = ["gold_label", "sentence1", "sentence2"].map(|name| header.column(name));
        let (label, first, second) = (label?, first?, second?);
        for (line, columns) in rows {
            header.check(line, columns.len())?;
            found.add(line, columns[label], columns[first].to_string(), columns[second].to_string())?;
        }
    }
    let Found { examples, without, .. } = found;
    if examples.is_empty() {
        return Err(Error::file(path, "at least one labelled pair", "none"));
    }
    Ok((Dataset { path: path.to_path_buf(), examples }, without))
}

#[derive(Deserialize)]
struct Pair {
    gold_label: String,
    sentence1: String,
    sentence2: String,
}

struct Found<'a> {
    path: &'a Path,
    examples: Vec<TextExample>,
    without: Vec<usize>,
}

impl Found<'_> {
    fn add(&mut self, line: usize, label: &str, first: String, second: String) -> Result<()> {
        if label == NO_AGREEMENT {
            self.without.push(line);
            return Ok(());
        }
        let label = class(self.path, line, label, INFERENCE)?;
        self.examples.push(TextExample { first, second: Some(second), label, line, group: None });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::Label;

    fn read(name: &str, text: &str) -> Result<(Dataset<TextExample>, Vec<usize>)> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
        read_snli(folder.path().join(name))
    }

    fn message(name: &str, text: &str) -> String {
        let message = read(name, text).unwrap_err().to_string();
        message[message.find(name).unwrap()..].to_string()
    }

    const TSV: &str = "gold_label\tsentence1_binary_parse\tsentence1\tsentence2\tlabel1\r\n\
                       neutral\t( A dog )\tA dog \"sleeps\".\tA pet dreams.\tneutral\r\n\
                       -\t( A cat )\tA cat.\tA dog.\tcontradiction\r\n\
                       contradiction\t( A hen )\tA hen.\tNo hen.\tcontradiction\r\n";

    #[test]
    fn text_and_json_lines_say_the_same() {
        let (data, without) = read("snli_1.0_dev.txt", TSV).unwrap();
        let first = TextExample {
            first: "A dog \"sleeps\".".into(),
            second: Some("A pet dreams.".into()),
            label: Label::Class("neutral".into()),
            line: 2,
            group: None,
        };
        assert_eq!((data.len(), &data.examples[0], data.examples[1].line), (2, &first, 4));
        assert_eq!(without, [3]);
        let json = r#"{"gold_label": "neutral", "pairID": "1", "sentence1": "A dog \"sleeps\".", "sentence2": "A pet dreams."}
{"gold_label": "-", "sentence1": "A cat.", "sentence2": "A dog."}
"#;
        let (same, without) = read("dev.jsonl", json).unwrap();
        assert_eq!(same.examples, [TextExample { line: 1, ..first }]);
        assert_eq!(without, [2]);
    }

    #[test]
    fn columns_may_stand_in_any_order() {
        let (data, _) = read("a.tsv", "index\tsentence2\tgold_label\tsentence1\n0\tb\tentailment\ta\n").unwrap();
        assert_eq!((data.examples[0].first.as_str(), data.examples[0].second.as_deref()), ("a", Some("b")));
    }

    #[test]
    fn wrong_lines_are_named() {
        assert_eq!(message("a.tsv", ""), "a.tsv: expected a header and pairs, found an empty file");
        assert_eq!(
            message("a.tsv", "sentence1\tgold_label\n"),
            "a.tsv:1: expected a column `sentence2`, found the columns `sentence1`, `gold_label`"
        );
        let header = "sentence1\tsentence2\tgold_label\n";
        assert_eq!(message("a.tsv", header), "a.tsv: expected at least one labelled pair, found none");
        assert_eq!(
            message("a.tsv", &format!("{header}a\tb\n")),
            "a.tsv:2: expected 3 columns as on line 1, found 2 columns"
        );
        assert_eq!(
            message("a.tsv", &format!("{header}a\tb\tyes\n")),
            "a.tsv:2: expected one of the labels entailment, neutral, contradiction, found `yes`"
        );
        let found = message("a.jsonl", "{\"gold_label\": \"neutral\", \"sentence1\": \"a\"}\n");
        assert!(found.starts_with("a.jsonl:1: expected an object with the texts `gold_label`, `sentence1` and `sentence2`, found missing field `sentence2`"), "{found}");
    }
}
