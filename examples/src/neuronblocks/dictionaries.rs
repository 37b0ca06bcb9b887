//! What a network knows: the symbols of each cluster, and the names of classes.

use std::collections::HashMap;

use anyhow::{Context, Result};
use kd_data::features::{self, CHARACTERS, Features, Limits, WORDS};
use kd_data::tags::Classes;
use serde::{Deserialize, Serialize};

/// Ids that are no symbol: 0 is padding, 1 a symbol that is not known.
pub const SPECIAL: usize = 2;
/// The id of a symbol that is not known.
pub const UNKNOWN: u32 = 1;
/// Characters of a word that are read.
const MAX_CHARS: usize = 64;

/// The symbols of each cluster and the names of the classes of each target: `dictionaries.json` of a saved model.
///
/// Symbol `n` of a cluster, counted from 0, has the id `n + 2`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dictionaries {
    /// Names and symbols of the clusters.
    pub clusters: Vec<(String, Vec<String>)>,
    /// Names of the targets that have classes, and of those.
    pub classes: Vec<(String, Classes)>,
}

impl Dictionaries {
    /// The symbols of `clusters` in `sets`, and the classes of `targets` there.
    ///
    /// # Errors
    /// If no column is of a cluster, or a target has no names.
    pub fn of(sets: &[&Features], clusters: &[String], targets: &[String], limits: &Limits) -> Result<Self> {
        let symbols = |name: &String| {
            // A character or a tag that is rare is worth its row; only words are so many.
            let limits = match name.as_str() {
                WORDS => *limits,
                _ => Limits { min_word_frequency: 1, ..*limits },
            };
            Ok((name.clone(), features::dictionary(sets, name, &limits)?))
        };
        let classes = |name: &String| {
            let mut names: Vec<String> = Vec::new();
            for set in sets {
                for class in set.class_names(name)? {
                    if !names.contains(&class) {
                        names.push(class);
                    }
                }
            }
            Ok((name.clone(), Classes::new(names).with_context(|| format!("target `{name}`"))?))
        };
        Ok(Self {
            clusters: clusters.iter().map(symbols).collect::<Result<_>>()?,
            classes: targets.iter().map(classes).collect::<Result<_>>()?,
        })
    }

    /// Rows of the table of each cluster, padding and unknown included.
    pub fn rows(&self) -> HashMap<String, usize> {
        self.clusters.iter().map(|(name, symbols)| (name.clone(), symbols.len() + SPECIAL)).collect()
    }

    /// The classes of a target, if it has any.
    pub fn classes_of(&self, target: &str) -> Option<&Classes> {
        self.classes.iter().find(|(name, _)| name == target).map(|(_, classes)| classes)
    }

    /// The symbols of a cluster.
    pub fn symbols_of(&self, cluster: &str) -> &[String] {
        self.clusters.iter().find(|(name, _)| name == cluster).map_or(&[], |(_, symbols)| symbols)
    }

    /// More symbols of a cluster, after those that it has.
    pub fn add(&mut self, cluster: &str, symbols: impl IntoIterator<Item = String>) {
        if let Some((_, known)) = self.clusters.iter_mut().find(|(name, _)| name == cluster) {
            known.extend(symbols);
        }
    }

    /// The ids of these symbols of a cluster. A word that is not known as it is written is looked up in lower case, as its
    /// vector is; vectors of words are mostly of lower case.
    pub fn ids<'a>(&self, cluster: &str, symbols: impl IntoIterator<Item = &'a String>) -> Vec<u32> {
        let known = self.table(cluster);
        let lower = |symbol: &str| match cluster {
            WORDS => known.get(symbol.to_lowercase().as_str()),
            _ => None,
        };
        let id = |symbol: &String| known.get(symbol.as_str()).or_else(|| lower(symbol)).copied().unwrap_or(UNKNOWN);
        symbols.into_iter().map(id).collect()
    }

    /// The ids of the characters of these words, at most the first 64 of each; a word without any is one unknown character.
    pub fn spellings<'a>(&self, words: impl IntoIterator<Item = &'a String>) -> Vec<Vec<u32>> {
        let known = self.table(CHARACTERS);
        let mut buffer = [0; 4];
        let mut spell = |word: &String| {
            let id = |c: char| known.get(&*c.encode_utf8(&mut buffer)).copied().unwrap_or(UNKNOWN);
            let ids: Vec<u32> = word.chars().take(MAX_CHARS).map(id).collect();
            if ids.is_empty() { vec![UNKNOWN] } else { ids }
        };
        words.into_iter().map(&mut spell).collect()
    }

    fn table(&self, cluster: &str) -> HashMap<&str, u32> {
        self.symbols_of(cluster).iter().map(String::as_str).zip(SPECIAL as u32..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dictionaries() -> Dictionaries {
        let list = |symbols: &[&str]| symbols.iter().map(|symbol| symbol.to_string()).collect::<Vec<_>>();
        Dictionaries {
            clusters: vec![("word".into(), list(&["the", "né"])), ("char".into(), list(&["n", "é"]))],
            classes: vec![("label".into(), Classes::new(list(&["0", "1"])).unwrap())],
        }
    }

    #[test]
    fn ids_begin_after_padding_and_unknown() {
        let dictionaries = dictionaries();
        let words = ["né", "The", "the", "cat"].map(String::from);
        assert_eq!(dictionaries.ids("word", &words), [3, 2, 2, UNKNOWN]);
        assert_eq!(dictionaries.ids("char", &["É", "n"].map(String::from)), [UNKNOWN, 2]);
        assert_eq!(
            dictionaries.spellings(&["né".to_string(), String::new(), "on".into()]),
            [vec![2, 3], vec![1], vec![1, 2]]
        );
        assert_eq!(dictionaries.spellings(&["n".repeat(100)])[0].len(), 64);
        assert_eq!(dictionaries.rows()["char"], 4);
        assert_eq!(dictionaries.classes_of("label").unwrap().len(), 2);
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = serde_json::to_string(&dictionaries()).unwrap();
        assert_eq!(serde_json::from_str::<Dictionaries>(&text).unwrap(), dictionaries());
    }
}
