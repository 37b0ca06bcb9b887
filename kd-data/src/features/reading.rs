//! What is read of a file's columns, and how.

use serde::Serialize;

use crate::cleaning::Cleaning;
use crate::error::{Error, Result};
use crate::table::Layout;
use crate::tokenize::Tokenizer;

/// The word before a text, where [`Reading::boundaries`] asks for it.
pub const START: &str = "<start>";
/// The word after a text, where [`Reading::boundaries`] asks for it.
pub const END: &str = "<eos>";

/// The cluster of words.
pub const WORDS: &str = "word";
/// The cluster of the characters of words.
pub const CHARACTERS: &str = "char";
/// The cluster of positions, which are counted where the file has no column of them.
pub const POSITIONS: &str = "position";

/// What is read of a file, and how; equal readings of equal files give equal [`Features`](super::Features).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// The file's columns.
    pub layout: Layout,
    /// Whether the first line is not data.
    pub header: bool,
    /// The texts that a model reads.
    pub branches: Vec<Branch>,
    /// What is embedded together.
    pub clusters: Vec<Cluster>,
    /// The labels; none where there are none yet.
    pub targets: Vec<Target>,
    /// What cuts texts into words. It is not asked where words are given: see [`Reading::blanks`].
    pub tokenizer: Tokenizer,
    /// What is done to texts before.
    pub cleaning: Cleaning,
    /// Whether every sequence gets [`START`] before it and [`END`] after it. They are words like others: counted, looked up
    /// and spelled; a label of words is not given to them. They come on top of [`Branch::max_len`].
    pub boundaries: bool,
    /// The branch in whose text answers are sought: its text and the place of every word in it are kept.
    pub passage: Option<String>,
}

/// A text of an example: one column of words and what else is known of each word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Branch {
    /// Its name.
    pub name: String,
    /// Its columns, each of a cluster. Those of the cluster [`CHARACTERS`] are no columns of the file: they spell the words
    /// of the branch's column of words (if it has several, of that with the same name up to the first `_`).
    pub columns: Vec<String>,
    /// How many words are read, counted without boundaries; all if `None`.
    pub max_len: Option<usize>,
}

/// Columns whose symbols share a dictionary and an embedding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// `word`, `char`, `position`, or a name of one's own, such as `postag`.
    pub name: String,
    /// Its columns.
    pub columns: Vec<String>,
}

/// A column of labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its name in the layout.
    pub column: String,
    /// What stands in it.
    pub kind: TargetKind,
}

/// What stands in a column of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// The name of a class.
    Class,
    /// A finite number.
    Number,
    /// Tags parted by blanks, one for each word of the first branch.
    Tags,
    /// Where an answer starts in the passage, in characters from 0; becomes the place of the word there.
    SpanStart,
    /// Where an answer ends in the passage, in characters, exclusive; becomes the place of the answer's last word.
    SpanEnd,
    /// Text as it stands: an answer in words.
    Text,
}

/// Where the symbols of a column come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The words of a text in this place.
    Text(usize),
    /// Symbols parted by blanks in this place.
    Symbols(usize),
    /// The characters of the words of another column, by its place among [`Reading::columns`].
    Spelling(usize),
    /// Positions, counted.
    Counted,
}

/// A column of a branch with what is known of it.
#[derive(Debug, Clone)]
pub(super) struct ColumnPlan {
    pub(super) branch: usize,
    pub(super) name: String,
    pub(super) cluster: String,
    pub(super) source: Source,
}

impl Reading {
    /// Whether texts are already cut into words, parted by blanks: where words have tags, or other columns of the file say
    /// something of each word.
    pub fn blanks(&self) -> bool {
        let tags = self.targets.iter().any(|target| target.kind == TargetKind::Tags);
        tags || self.branches.iter().flat_map(|branch| &branch.columns).any(|column| {
            let cluster = self.cluster(column);
            cluster.is_some_and(|cluster| cluster.name != WORDS) && self.layout.place(column).is_some()
        })
    }

    fn cluster(&self, column: &str) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.columns.iter().any(|other| other == column))
    }

    /// The columns of all branches, in order.
    ///
    /// # Errors
    /// See [`Features::of_table`](super::Features::of_table).
    pub(super) fn columns(&self) -> Result<Vec<ColumnPlan>> {
        self.check()?;
        let mut columns = Vec::new();
        for (branch_idx, branch) in self.branches.iter().enumerate() {
            for name in &branch.columns {
                let what = || format!("column `{name}` of branch `{}`", branch.name);
                let Some(cluster) = self.cluster(name) else {
                    return Err(Error::argument(what(), "a cluster that has it", "none"));
                };
                let source = match (cluster.name.as_str(), self.layout.place(name)) {
                    (WORDS, Some(place)) => Source::Text(place),
                    (CHARACTERS, _) => Source::Spelling(usize::MAX), // filled below, when all columns are known
                    (_, Some(place)) => Source::Symbols(place),
                    (POSITIONS, None) => Source::Counted,
                    (_, None) => {
                        let names = self.layout.names().join("`, `");
                        return Err(Error::argument(what(), "a column of the file", format!("`{names}`")));
                    }
                };
                let cluster = cluster.name.clone();
                columns.push(ColumnPlan { branch: branch_idx, name: name.clone(), cluster, source });
            }
        }
        for idx in 0..columns.len() {
            if matches!(columns[idx].source, Source::Spelling(_)) {
                columns[idx].source = Source::Spelling(self.spelled(&columns, idx)?);
            }
        }
        Ok(columns)
    }

    /// The column whose words column `idx` spells.
    fn spelled(&self, columns: &[ColumnPlan], idx: usize) -> Result<usize> {
        let stem = |name: &str| name.split('_').next().unwrap_or(name).to_string();
        let ColumnPlan { branch, name, .. } = &columns[idx];
        let of_words = |other: &usize| columns[*other].branch == *branch && columns[*other].cluster == WORDS;
        let candidates: Vec<usize> = (0..columns.len()).filter(of_words).collect();
        match candidates[..] {
            [only] => Ok(only),
            _ => candidates.iter().copied().find(|&other| stem(&columns[other].name) == stem(name)).ok_or_else(|| {
                let what = format!("column `{name}` of branch `{}`", self.branches[*branch].name);
                Error::argument(what, "a column of words to spell", "none")
            }),
        }
    }

    fn check(&self) -> Result<()> {
        if self.branches.iter().all(|branch| branch.columns.is_empty()) {
            return Err(Error::argument("branches", "at least one column", "none"));
        }
        for target in &self.targets {
            let what = || format!("target `{}`", target.column);
            if self.layout.place(&target.column).is_none() {
                let names = self.layout.names().join("`, `");
                return Err(Error::argument(what(), "a column of the file", format!("`{names}`")));
            }
            if matches!(target.kind, TargetKind::SpanStart | TargetKind::SpanEnd) && self.passage.is_none() {
                return Err(Error::argument(what(), "a passage in which the answer stands", "none"));
            }
            let cut = self.branches.first().and_then(|branch| branch.max_len);
            if let (TargetKind::Tags, Some(max_len)) = (target.kind, cut) {
                let found = format!("at most {max_len}");
                return Err(Error::argument(what(), "all words of a sentence to be read", found));
            }
        }
        if let Some(passage) = &self.passage {
            if !self.branches.iter().any(|branch| branch.name == *passage) {
                let names: Vec<&str> = self.branches.iter().map(|branch| branch.name.as_str()).collect();
                return Err(Error::argument(
                    "passage",
                    "a branch",
                    format!("`{passage}` beside `{}`", names.join("`, `")),
                ));
            }
            if self.cleaning.fix_unicode {
                let expected = "texts as they stand, since answers are places in them";
                return Err(Error::argument("cleaning of a passage", expected, "fix_unicode"));
            }
            if self.boundaries {
                return Err(Error::argument("boundaries", "none around a passage with answers", "some"));
            }
        }
        if self.blanks() && self.cleaning.remove_stop_words {
            let expected = "all words to stay, since other columns say something of each";
            return Err(Error::argument("cleaning", expected, "remove_stop_words"));
        }
        Ok(())
    }
}
