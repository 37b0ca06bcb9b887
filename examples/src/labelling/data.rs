//! What is asked about.

use std::path::Path;
use std::str::FromStr;

use anyhow::Result;
use kd_data::task::{Examples, Part, Task};
use kd_data::teacher_outputs::Content;

/// The examples of a file of `task`, or of every part in a folder.
///
/// # Errors
/// What the task's reader finds wrong.
pub fn read(task: &Task, path: &Path) -> Result<Vec<Examples>> {
    let parts: Vec<Part> = Part::ALL.into_iter().filter(|&part| task.path(path, part).is_some()).collect();
    if parts.is_empty() {
        return Ok(vec![task.read(path)?]);
    }
    Ok(parts.into_iter().map(|part| task.read_part(path, part)).collect::<kd_data::Result<_>>()?)
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

    /// The examples of this share.
    pub fn select<T: Copy>(self, all: &[T]) -> Vec<T> {
        all.iter().copied().skip(self.idx).step_by(self.of).collect()
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
        let all: Vec<usize> = (0..11).collect();
        let mut together = Vec::new();
        for share in ["0/3", "1/3", "2/3"] {
            together.extend(share.parse::<Share>().unwrap().select(&all));
        }
        assert_eq!(together[..4], [0, 3, 6, 9]);
        together.sort();
        assert_eq!(together, all);
        assert_eq!(Share::ALL.select(&all), all);
        for wrong in ["3/3", "1", "a/2", "-1/2", "0/0"] {
            let expected = format!("expected i/n with whole numbers and i below n, found `{wrong}`");
            assert_eq!(wrong.parse::<Share>().unwrap_err(), expected);
        }
    }
}
