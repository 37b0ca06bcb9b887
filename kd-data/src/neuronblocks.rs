//! Query and web passage with a score: the pairs of NeuronBlocks' knowledge distillation (Gong et al. 2019, MIT licence).
//!
//! ```text
//! what kind of bond ⇥ A less often mentioned type of bonding is the metallic bond. ... ⇥ 0.2854161
//! ```
//!
//! There is no header and no quoting; a line may end in a tab. In training and validation files the score is a
//! teacher's probability that the passage answers the query, and no person said whether it does; in test files it is a
//! person's 0 or 1. So the class of an example is **what the teacher holds likelier**, `1` from 0.5 on, except in test
//! files. The scores themselves are a teacher like any other:
//! [`teacher_outputs::import::tsv`](crate::teacher_outputs::import::tsv) takes them into a store.
//!
//! ```sh
//! kd-label --import train_autotest.tsv --text 1 --second 2 --scores 3 --numbers probs \
//!     --teacher neuronblocks --weights 1 --classes 0,1 --store outputs
//! ```

use std::path::Path;

use crate::error::{Error, Result, count, read_text};
use crate::example::{Dataset, Label, TextExample};
use crate::separated::{lines, number};

/// From this probability on a pair is of the class `1`.
const LIKELIER: f64 = 0.5;

/// The names of the classes: `0`, no answer, and `1`, an answer.
pub fn classes() -> Vec<String> {
    ["0", "1"].map(String::from).to_vec()
}

/// The pairs of a file, each with its class.
///
/// # Errors
/// If the file cannot be read, is not UTF-8 or has no pairs, if a line has not three columns (or an empty fourth one), or a
/// score is not a number from 0 to 1.
pub fn read_query_passages(path: impl AsRef<Path>) -> Result<Dataset<TextExample>> {
    let path = path.as_ref();
    let text = read_text(path)?;
    let mut examples = Vec::new();
    for (line, columns) in lines(&text) {
        let (query, passage, score) = match columns[..] {
            [query, passage, score] | [query, passage, score, ""] => (query, passage, score),
            _ => {
                let expected = "the columns query, passage and score, parted by tabs";
                return Err(Error::line(path, line, expected, count(columns.len(), "column")));
            }
        };
        let class = usize::from(number(path, line, score, 0.0..=1.0)? >= LIKELIER);
        examples.push(TextExample {
            first: query.to_string(),
            second: Some(passage.to_string()),
            label: Label::Class(["0", "1"][class].to_string()),
            line,
            group: None,
        });
    }
    if examples.is_empty() {
        return Err(Error::file(path, "at least one pair", "none"));
    }
    Ok(Dataset { path: path.to_path_buf(), examples })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teacher_outputs::import::{Numbers, ScoreColumns, tsv};
    use crate::teacher_outputs::{About, TeacherOutputs};

    const TRAIN: &str = "who?\ta \"hen\"\t0.75\t\nwhy?\tno\t0.5\t\nwho?\ta fox\t4.5e-1\t\n";

    fn read(text: &str) -> Result<Dataset<TextExample>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.tsv"), text).unwrap();
        read_query_passages(folder.path().join("train.tsv"))
    }

    #[test]
    fn the_class_is_the_likelier_one() {
        let data = read(TRAIN).unwrap();
        let second = TextExample {
            first: "why?".into(),
            second: Some("no".into()),
            label: Label::Class("1".into()),
            line: 2,
            group: None,
        };
        assert_eq!((data.len(), &data.examples[1]), (3, &second));
        assert_eq!(data.examples[0].second.as_deref(), Some("a \"hen\""));
        assert_eq!(data.examples[2].label, Label::Class("0".into()));
        let test = read("\u{feff}a\tb\t1\r\na\tc\t0\r\n").unwrap();
        let labels: Vec<&Label> = test.examples.iter().map(|example| &example.label).collect();
        assert_eq!(labels, [&Label::Class("1".into()), &Label::Class("0".into())]);
    }

    #[test]
    fn the_scores_are_a_teacher_of_the_same_examples() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.tsv");
        std::fs::write(&path, TRAIN).unwrap();
        let columns = ScoreColumns {
            header: false,
            first: "1".into(),
            second: Some("2".into()),
            scores: vec!["3".into()],
            numbers: Numbers::Probs,
        };
        let mut outputs = TeacherOutputs::in_memory(About::named("neuronblocks", "1", classes())).unwrap();
        assert_eq!(tsv(&path, &columns, &mut outputs).unwrap(), 3);
        let data = read_query_passages(&path).unwrap();
        let pairs = data.examples.iter().map(|pair| (pair.first.as_str(), pair.second.as_deref().unwrap()));
        let logits = outputs.join(pairs).unwrap().logits(0).unwrap().to_vec2::<f32>().unwrap();
        let expected = [[0.25f32, 0.75], [0.5, 0.5], [0.55, 0.45]].map(|row| row.map(f32::ln).to_vec());
        assert!(logits.concat().iter().zip(expected.concat()).all(|(a, b)| (a - b).abs() < 1e-6), "{logits:?}");
    }

    #[test]
    fn wrong_lines_are_named() {
        let message = |text: &str| {
            let message = read(text).unwrap_err().to_string();
            message[message.find("train.tsv").unwrap()..].to_string()
        };
        assert_eq!(message(""), "train.tsv: expected at least one pair, found none");
        let expected = "train.tsv:2: expected the columns query, passage and score, parted by tabs, found";
        assert_eq!(message("a\tb\t1\na\t1\n"), format!("{expected} 2 columns"));
        assert_eq!(message("a\tb\t1\na\tb\t1\tc\n"), format!("{expected} 4 columns"));
        assert_eq!(message("a\tb\t1.5\n"), "train.tsv:1: expected a number from 0 to 1, found `1.5`");
        assert_eq!(message("a\tb\tyes\n"), "train.tsv:1: expected a number from 0 to 1, found `yes`");
    }
}
