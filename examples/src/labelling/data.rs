//! What is asked about.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use kd_data::task::{Examples, Part, Task};
use kd_data::teacher_outputs::Content;

/// The share of the examples of `task` in these files, one after the other; a folder is every part of the task in it.
///
/// Of tables of columns only the share is ever in memory. Examples outside it are read all the same, and what is wrong with one
/// is an error.
///
/// # Errors
/// If a folder has no file of the task, and what the task's reader finds wrong.
pub fn read(task: &Task, paths: &[impl AsRef<Path>], share: Share) -> Result<Vec<Examples>> {
    let mut files = Vec::new();
    for path in paths.iter().map(AsRef::as_ref) {
        let parts: Vec<PathBuf> = Part::ALL.into_iter().filter_map(|part| task.path(path, part)).collect();
        if parts.is_empty() && path.is_dir() {
            bail!("{}: expected the files of {} in this folder, found none of them", path.display(), task.name);
        }
        files.extend(if parts.is_empty() { vec![path.to_path_buf()] } else { parts });
    }
    let mut all = 0..;
    let mut keep = || all.next().is_some_and(|idx| share.contains(idx));
    Ok(files.iter().map(|file| task.read_where(file, &mut keep)).collect::<kd_data::Result<_>>()?)
}

/// Their texts, pairs or sentences.
pub fn contents(examples: &[Examples]) -> Vec<Content<'_>> {
    let mut contents = Vec::new();
    for examples in examples {
        match examples {
            Examples::Texts { data, .. } => contents.extend(data.examples.iter().map(Content::from)),
            Examples::Sentences(data) => contents.extend(data.examples.iter().map(Content::from)),
        }
    }
    contents
}

/// `i/n`: every `n`-th example, beginning with the `i`-th, counted from 0. The shares `0/n` to `n-1/n` are everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    idx: usize,
    of: usize,
}

impl Share {
    /// Everything.
    pub const ALL: Self = Self { idx: 0, of: 1 };

    /// Whether the example `idx` of all, counted from 0, is in this share.
    pub fn contains(self, idx: usize) -> bool {
        idx % self.of == self.idx
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts = text.split_once('/').and_then(|(idx, of)| Some((idx.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((idx, of)) if idx < of => Ok(Self { idx, of }),
            _ => Err(format!("expected i/n with whole numbers and i below n, found `{text}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_everything_once() {
        let of = |share: &str| -> Vec<usize> {
            let share: Share = share.parse().unwrap();
            (0..11).filter(|&idx| share.contains(idx)).collect()
        };
        assert_eq!([of("0/3"), of("1/3"), of("2/3")], [vec![0, 3, 6, 9], vec![1, 4, 7, 10], vec![2, 5, 8]]);
        assert!((0..11).all(|idx| Share::ALL.contains(idx)));
        for wrong in ["3/3", "1", "a/2", "-1/2", "0/0"] {
            let expected = format!("expected i/n with whole numbers and i below n, found `{wrong}`");
            assert_eq!(wrong.parse::<Share>().unwrap_err(), expected);
        }
    }

    #[test]
    fn a_share_goes_over_all_files() {
        let folder = tempfile::tempdir().unwrap();
        let parts = folder.path().join("parts");
        std::fs::create_dir(&parts).unwrap();
        std::fs::write(folder.path().join("a.tsv"), "text\n0\n1\n2\n").unwrap();
        std::fs::write(parts.join("train.csv"), "text\n3\n4\n").unwrap();
        std::fs::write(parts.join("test.jsonl"), "{\"text\": 5}\n{\"text\": 6}\n").unwrap();
        let task = Task::of_columns("columns", kd_data::columns::Columns::text("text"));
        let paths = [folder.path().join("a.tsv"), parts];
        let texts = |share: &str| -> Vec<String> {
            let files = read(&task, &paths, share.parse().unwrap()).unwrap();
            let text = |content: &Content<'_>| match content {
                Content::Text(text) => text.to_string(),
                other => panic!("{other:?}"),
            };
            contents(&files).iter().map(text).collect()
        };
        let all = ["0", "1", "2", "3", "4", "5", "6"];
        assert_eq!(texts("0/1"), all);
        for (idx, share) in ["0/3", "1/3", "2/3"].into_iter().enumerate() {
            assert_eq!(texts(share), all.into_iter().skip(idx).step_by(3).collect::<Vec<_>>());
        }
        assert_eq!(texts("8/9"), [""; 0]);
        let empty = tempfile::tempdir().unwrap();
        let message = read(&task, &[empty.path()], Share::ALL).unwrap_err().to_string();
        assert!(message.ends_with(": expected the files of columns in this folder, found none of them"), "{message}");
    }
}
