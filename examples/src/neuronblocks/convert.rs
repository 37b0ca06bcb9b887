//! `convert`: tags from one scheme into another.
//!
//! A file is one of two kinds: a sentence a line, words and tags apart by tabs and each apart by blanks, as
//! NeuronBlocks reads it; or a word a line with its tag last and blank lines between sentences, as CoNLL has it, its
//! columns apart by tabs or blanks. Only the tags change.

use std::ops::Range;
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

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LineKind {
    /// A sentence
    Sentence,
    /// A word
    Word,
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
    /// What a line is; by default a sentence where a line has several tags, as many as words, and else a word
    #[arg(long, value_enum, ignore_case = true)]
    pub layout: Option<LineKind>,
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
        let layout = match self.layout {
            Some(layout) => layout,
            None => self.layout_of(body)?,
        };
        let mut out: Vec<String> = head.iter().map(|line| line.to_string()).collect();
        let is_blank = |line: &&str| line.trim().is_empty();
        let mut number = head.len() + 1;
        if layout == LineKind::Sentence {
            for line in body {
                if is_blank(line) {
                    out.push(line.to_string());
                } else {
                    let place = self.tags_of_sentence(line, number)?;
                    let tags: Vec<String> = line[place.clone()].split_whitespace().map(str::to_string).collect();
                    out.push(replaced(line, place, &self.convert(&tags, number)?.join(" ")));
                }
                number += 1;
            }
        } else {
            for sentence in body.split_inclusive(is_blank) {
                let places = sentence.iter().zip(number..).filter(|(line, _)| !line.trim().is_empty());
                let places = places.map(|(line, number)| self.tag_of_word(line, number)).collect::<Result<Vec<_>>>()?;
                let tags: Vec<String> =
                    sentence.iter().zip(&places).map(|(line, place)| line[place.clone()].trim().to_string()).collect();
                let converted = self.convert(&tags, number)?;
                let lines = sentence.iter().zip(places).zip(&converted);
                out.extend(lines.map(|((line, place), tag)| replaced(line, place, tag)));
                out.extend(sentence.iter().skip(converted.len()).map(|line| line.to_string()));
                number += sentence.len();
            }
        }
        Ok(out.join("\n") + if text.ends_with('\n') { "\n" } else { "" })
    }

    /// What the lines are.
    ///
    /// # Errors
    /// If they may be either.
    fn layout_of(&self, lines: &[&str]) -> Result<LineKind> {
        let tags = |line: &str| {
            let columns = columns(line, '\t');
            let count = |place: &Range<usize>| line[place.clone()].split_whitespace().count();
            let (idx, tags) = self.tag_place(&columns)?;
            let has_words = columns.iter().enumerate().any(|(at, column)| at != idx && count(column) == count(&tags));
            has_words.then(|| count(&tags))
        };
        if lines.iter().any(|line| tags(line).is_some_and(|tags| tags > 1)) {
            return Ok(LineKind::Sentence);
        }
        let body: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
        let last = body.iter().rposition(|line| !line.is_empty()).unwrap_or(0);
        let has_gap = body.iter().take(last).any(|line| line.is_empty());
        if has_gap || lines.iter().any(|line| !line.trim().is_empty() && !line.contains('\t')) || body.is_empty() {
            return Ok(LineKind::Word);
        }
        bail!("expected --layout, since each line may be a sentence of one word or a word of one sentence, found none");
    }

    /// The column of the tags of several, and its place.
    fn tag_place(&self, columns: &[Range<usize>]) -> Option<(usize, Range<usize>)> {
        let place = self.tag_column.unwrap_or(columns.len().saturating_sub(1));
        columns.get(place).filter(|_| columns.len() > 1).map(|column| (place, column.clone()))
    }

    /// Where the tags of a sentence stand in its line.
    fn tags_of_sentence(&self, line: &str, number: usize) -> Result<Range<usize>> {
        let columns = columns(line, '\t');
        let Some((place, tags)) = self.tag_place(&columns) else {
            bail!("line {number}: expected words and tags, found {} columns", columns.len())
        };
        let count = |column: &Range<usize>| line[column.clone()].split_whitespace().count();
        if !columns.iter().enumerate().any(|(idx, column)| idx != place && count(column) == count(&tags)) {
            bail!("line {number}: expected as many tags as words, found {} tags", count(&tags));
        }
        Ok(tags)
    }

    /// Where the tag of a word stands in its line.
    fn tag_of_word(&self, line: &str, number: usize) -> Result<Range<usize>> {
        let columns = match line.contains('\t') {
            true => columns(line, '\t'),
            false => columns(line, ' ').into_iter().filter(|column| !column.is_empty()).collect(),
        };
        match self.tag_place(&columns) {
            Some((_, tag)) if !line[tag.clone()].trim().contains(' ') => Ok(tag),
            Some((_, tag)) => bail!("line {number}: expected one tag, found `{}`", &line[tag]),
            None => bail!("line {number}: expected words and tags, found {} columns", columns.len()),
        }
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

/// Where the columns of a line stand.
fn columns(line: &str, between: char) -> Vec<Range<usize>> {
    let mut start = 0;
    let column = |column: &str| {
        let place = start..start + column.len();
        start = place.end + between.len_utf8();
        place
    };
    line.split(between).map(column).collect()
}

fn replaced(line: &str, place: Range<usize>, by: &str) -> String {
    format!("{}{by}{}", &line[..place.start], &line[place.end..])
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
            layout: None,
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
        // Nothing but the tags changes, tabs, blanks and blank lines least.
        let columns = "to\tTO\tO\nParis\tNP\tI-LOC\n\nhi\tUH\tO\n\n";
        assert_eq!(bioes.text(columns).unwrap(), columns.replace("I-LOC", "S-LOC"));
        assert_eq!(bioes.text("to  TO  O\nYork  NP  I-LOC \n\n").unwrap(), "to  TO  O\nYork  NP  S-LOC \n\n");
        let last = "to New York\tO B-LOC I-LOC\n\n";
        assert_eq!(bioes.text(last).unwrap(), "to New York\tO B-LOC E-LOC\n\n");
        let headed = Convert { header: true, tag_column: Some(0), ..to(SchemeChoice::Bio) };
        assert_eq!(headed.text("tags\twords\nS-PER O\tAda here").unwrap(), "tags\twords\nB-PER O\tAda here");
    }

    #[test]
    fn lines_that_may_be_either_ask_for_the_layout() {
        let bioes = to(SchemeChoice::Bioes);
        let either = "New\tI-LOC\nYork\tI-LOC\n";
        let message = bioes.text(either).unwrap_err().to_string();
        assert!(message.starts_with("expected --layout"), "{message}");
        let words = Convert { layout: Some(LineKind::Word), ..bioes.clone() };
        assert_eq!(words.text(either).unwrap(), "New\tB-LOC\nYork\tE-LOC\n");
        let sentences = Convert { layout: Some(LineKind::Sentence), ..bioes };
        assert_eq!(sentences.text(either).unwrap(), "New\tS-LOC\nYork\tS-LOC\n");
    }

    #[test]
    fn wrong_lines_are_named() {
        let bio = Convert { input_scheme: Some(SchemeChoice::Bioes), ..to(SchemeChoice::Bio) };
        assert_eq!(bio.text("a\tO\nb\n").unwrap_err().to_string(), "line 2: expected words and tags, found 1 columns");
        let message = bio.text("a b\tO O\nb c d\tO O\n").unwrap_err().to_string();
        assert_eq!(message, "line 2: expected as many tags as words, found 2 tags");
        let message = bio.text("a\tO\nb c\tB-LOC I-LOC\n").unwrap_err().to_string();
        assert_eq!(message, "line 2: expected `E-LOC` as tag 1 in this scheme, found `I-LOC`");
    }
}
