//! WikiQA (Yang et al. 2015): questions, and sentences of a Wikipedia page that answer them or not.
//!
//! ```text
//! QuestionID  Question             DocumentID  DocumentTitle  SentenceID  Sentence                    Label
//! Q1          how are caves made?  D1          Cave           D1-0        A cave is a hollow place .  0
//! ```
//!
//! Tab-separated, no quoting, `\r\n`. An example's group is its question's id: MAP and MRR
//! ([`kd_core::metrics::ranking_scores`]) are means over questions, of which those without an answer are left out.

use std::path::Path;

use crate::error::{Error, Result, read_text};
use crate::example::{Dataset, Label, TextExample};
use crate::glue::class;
use crate::separated::{Header, lines};

/// The names of the classes: `0`, no answer, and `1`, an answer.
pub fn classes() -> Vec<String> {
    WRITTEN.iter().map(|(_, name)| name.to_string()).collect()
}

const WRITTEN: &[(&str, &str)] = &[("0", "0"), ("1", "1")];

/// The pairs of question and sentence of a file; without labels if it has no column `Label`.
///
/// # Errors
/// If the file cannot be read, is not UTF-8 or has no pairs, if a column is missing, a line has another number of columns
/// than the header, or a label is neither 0 nor 1.
pub fn read_wikiqa(path: impl AsRef<Path>) -> Result<Dataset<TextExample>> {
    let path = path.as_ref();
    let text = read_text(path)?;
    let mut rows = lines(&text);
    let Some((line, names)) = rows.next() else {
        return Err(Error::file(path, "a header and pairs", "an empty file"));
    };
    let header = Header::new(path, line, names);
    let question_id = header.column("QuestionID")?;
    let (question, sentence) = (header.column("Question")?, header.column("Sentence")?);
    let label = header.find("Label")?;
    let mut examples = Vec::new();
    for (line, columns) in rows {
        header.check(line, columns.len())?;
        examples.push(TextExample {
            first: columns[question].to_string(),
            second: Some(columns[sentence].to_string()),
            label: label.map_or(Ok(Label::None), |column| class(path, line, columns[column], WRITTEN))?,
            line,
            group: Some(columns[question_id].to_string()),
        });
    }
    if examples.is_empty() {
        return Err(Error::file(path, "at least one pair", "a header alone"));
    }
    Ok(Dataset { path: path.to_path_buf(), examples })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "QuestionID\tQuestion\tDocumentID\tDocumentTitle\tSentenceID\tSentence\tLabel\r\n";

    fn read(text: &str) -> Result<Dataset<TextExample>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("dev.tsv"), text).unwrap();
        read_wikiqa(folder.path().join("dev.tsv"))
    }

    fn message(text: &str) -> String {
        let message = read(text).unwrap_err().to_string();
        message[message.find("dev.tsv").unwrap()..].to_string()
    }

    #[test]
    fn candidates_belong_to_their_question() {
        let text = format!("{HEADER}Q1\twho?\tD1\tT\tD1-0\tA \"quote .\t0\r\nQ1\twho?\tD1\tT\tD1-1\tMe .\t1\r\n");
        let data = read(&text).unwrap();
        let second = TextExample {
            first: "who?".into(),
            second: Some("Me .".into()),
            label: Label::Class("1".into()),
            line: 3,
            group: Some("Q1".into()),
        };
        assert_eq!((data.len(), &data.examples[1]), (2, &second));
        assert_eq!(data.examples[0].second.as_deref(), Some("A \"quote ."));
    }

    #[test]
    fn a_file_without_labels_is_read_and_wrong_lines_are_named() {
        let unlabelled = read("QuestionID\tQuestion\tSentence\nQ1\ta\tb\n").unwrap();
        assert_eq!(unlabelled.examples[0].label, Label::None);
        assert_eq!(message(""), "dev.tsv: expected a header and pairs, found an empty file");
        assert_eq!(message(HEADER), "dev.tsv: expected at least one pair, found a header alone");
        assert_eq!(
            message("QuestionID\tQuestion\n"),
            "dev.tsv:1: expected a column `Sentence`, found the columns `QuestionID`, `Question`"
        );
        assert_eq!(message(&format!("{HEADER}Q1\ta\n")), "dev.tsv:2: expected 7 columns as on line 1, found 2 columns");
        let wrong = message(&format!("{HEADER}Q1\ta\tD\tT\tS\tb\t2\n"));
        assert_eq!(wrong, "dev.tsv:2: expected one of the labels 0, 1, found `2`");
    }
}
