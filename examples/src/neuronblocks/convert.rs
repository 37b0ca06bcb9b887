//! `convert`: tags from one scheme into another.
//!
//! A file is one of two kinds: a sentence a line, words and tags apart by tabs and each apart by blanks, as
//! NeuronBlocks reads it; or a word a line with its tag last and blank lines between sentences, as CoNLL has it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kd_data::tags::{TagScheme, convert};

use crate::report;

/// A scheme by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SchemeChoice {
    /// B only between neighbours of one type
    Iob,
    /// B on every first word
    Bio,
    /// B, I, E, and S on single words
    Bioes,
}

impl SchemeChoice {
    fn scheme(self) -> TagScheme {
        match self {
            Self::Iob => TagScheme::Iob1,
            Self::Bio => TagScheme::Iob2,
            Self::Bioes => TagScheme::Bioes,
        }
    }
}

/// `convert`.
#[derive(Debug, Clone, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Convert {
    /// File to read
    #[arg(long, alias = "input-path")]
    pub input_path: PathBuf,
    /// File to write
    #[arg(long, alias = "output-path")]
    pub output_path: PathBuf,
    /// Scheme of the file; by default whatever its tags are read as, which is right for all three
    #[arg(long, value_enum, ignore_case = true)]
    pub input_scheme: Option<SchemeChoice>,
    /// Scheme to write
    #[arg(long, value_enum, ignore_case = true)]
    pub output_scheme: SchemeChoice,
    /// Place of the tags among the columns, from 0; by default the last
    #[arg(long)]
    pub tag_column: Option<usize>,
    /// Whether the first line names the columns
    #[arg(long)]
    pub header: bool,
}

impl Convert {
    /// Converts the file.
    ///
    /// # Errors
    /// If it cannot be read or written, a line has no tags, or they are not of `input_scheme`.
    pub fn run(&self) -> Result<()> {
        let path = || self.input_path.display().to_string();
        let text = std::fs::read_to_string(&self.input_path).with_context(path)?;
        let converted = self.text(&text).with_context(path)?;
        report::save_text(&self.output_path, &converted)
    }

    fn text(&self, text: &str) -> Result<String> {
        let lines: Vec<&str> = text.lines().collect();
        let (head, body) = lines.split_at(usize::from(self.header).min(lines.len()));
        let is_a_word_a_line = body.iter().any(|line| line.trim().is_empty());
        let mut out: Vec<String> = head.iter().map(|line| line.to_string()).collect();
        if is_a_word_a_line {
            let mut first = head.len();
            for sentence in body.split_inclusive(|line| line.trim().is_empty()) {
                let words = sentence.iter().filter(|line| !line.trim().is_empty());
                let rows: Vec<Vec<&str>> = words.map(|line| line.split_whitespace().collect()).collect();
                let tags = rows.iter().enumerate().map(|(idx, row)| self.tags_in(row, first + idx + 1));
                let tags: Vec<String> = tags.collect::<Result<Vec<_>>>()?.into_iter().map(str::to_string).collect();
                for (row, tag) in rows.iter().zip(self.convert(&tags, first + 1)?) {
                    out.push(self.replaced(row, &tag, " "));
                }
                if rows.len() < sentence.len() {
                    out.push(String::new());
                }
                first += sentence.len();
            }
        } else {
            for (idx, line) in body.iter().enumerate() {
                let row: Vec<&str> = line.split('\t').collect();
                let number = head.len() + idx + 1;
                let tags: Vec<String> = self.tags_in(&row, number)?.split(' ').map(str::to_string).collect();
                out.push(self.replaced(&row, &self.convert(&tags, number)?.join(" "), "\t"));
            }
        }
        Ok(out.join("\n") + if text.ends_with('\n') { "\n" } else { "" })
    }

    fn place(&self, row: &[&str]) -> usize {
        self.tag_column.unwrap_or(row.len().saturating_sub(1))
    }

    fn tags_in<'a>(&self, row: &[&'a str], line: usize) -> Result<&'a str> {
        match row.get(self.place(row)) {
            Some(tags) if row.len() > 1 => Ok(tags),
            _ => bail!("line {line}: expected words and tags, found {} columns", row.len()),
        }
    }

    fn replaced(&self, row: &[&str], tags: &str, between: &str) -> String {
        let place = self.place(row);
        let column = |(idx, &column): (usize, &&str)| if idx == place { tags.to_string() } else { column.to_string() };
        row.iter().enumerate().map(column).collect::<Vec<_>>().join(between)
    }

    fn convert(&self, tags: &[String], line: usize) -> Result<Vec<String>> {
        let at = || format!("line {line}");
        if let Some(scheme) = self.input_scheme {
            let written = convert(tags, scheme.scheme()).with_context(at)?;
            if let Some(idx) = (0..tags.len()).find(|&idx| tags[idx] != written[idx]) {
                bail!("line {line}: expected `{}` as tag {idx} in this scheme, found `{}`", written[idx], tags[idx]);
            }
        }
        convert(tags, self.output_scheme.scheme()).with_context(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(scheme: SchemeChoice) -> Convert {
        Convert {
            input_path: PathBuf::new(),
            output_path: PathBuf::new(),
            input_scheme: None,
            output_scheme: scheme,
            tag_column: None,
            header: false,
        }
    }

    #[test]
    fn a_sentence_a_line_and_a_word_a_line() {
        let bioes = to(SchemeChoice::Bioes);
        let lines = "to New York\tO B-LOC I-LOC\nhi\tO\n";
        assert_eq!(bioes.text(lines).unwrap(), "to New York\tO B-LOC E-LOC\nhi\tO\n");
        let words = "to TO O\nParis NP I-LOC\n\nhi UH O\n";
        assert_eq!(bioes.text(words).unwrap(), "to TO O\nParis NP S-LOC\n\nhi UH O\n");
        let back = to(SchemeChoice::Iob);
        assert_eq!(back.text("a b\tS-LOC S-LOC\n").unwrap(), "a b\tI-LOC B-LOC\n");
        let headed = Convert { header: true, tag_column: Some(0), ..to(SchemeChoice::Bio) };
        assert_eq!(headed.text("tags\twords\nS-PER O\tAda here").unwrap(), "tags\twords\nB-PER O\tAda here");
    }

    #[test]
    fn wrong_lines_are_named() {
        let bio = Convert { input_scheme: Some(SchemeChoice::Bioes), ..to(SchemeChoice::Bio) };
        assert_eq!(bio.text("a\tO\nb\n").unwrap_err().to_string(), "line 2: expected words and tags, found 1 columns");
        let message = bio.text("a\tO\nb c\tB-LOC I-LOC\n").unwrap_err().to_string();
        assert_eq!(message, "line 2: expected `E-LOC` as tag 1 in this scheme, found `I-LOC`");
    }
}
