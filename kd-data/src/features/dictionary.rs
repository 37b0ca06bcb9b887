//! The symbols of a cluster, by the number of texts that they occur in.

use std::collections::{HashMap, HashSet};

use super::{Features, Symbols};
use crate::error::{Error, Result};

/// How long a dictionary may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Limits {
    /// In how many texts a symbol must occur. By default 3, that of Gong et al. 2019 (NeuronBlocks).
    pub min_word_frequency: usize,
    /// How many symbols are kept, the most frequent ones. By default 800,000, from there.
    pub max_vocabulary: usize,
    /// How many examples are looked at, the first ones. By default 1,000,000, from there.
    pub max_building_lines: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_word_frequency: 3, max_vocabulary: 800_000, max_building_lines: 1_000_000 }
    }
}

/// The symbols of a cluster, those of the most texts first, of equally many the first met; of `char`, the characters.
///
/// A text is one column of one example, and a symbol counts once in it however often it occurs there. `sets` should be what a
/// model is trained on; a test set belongs there only if one wants its words to be known.
///
/// # Errors
/// If no column is of the cluster.
pub fn dictionary(sets: &[&Features], cluster: &str, limits: &Limits) -> Result<Vec<String>> {
    let has = |features: &&Features| features.columns.iter().any(|column| column.cluster == cluster);
    if !sets.iter().any(has) {
        return Err(Error::argument(format!("cluster `{cluster}`"), "at least one column of it", "none"));
    }
    let mut counting = Counting::default();
    let mut left = limits.max_building_lines;
    for features in sets {
        let examples = features.len().min(left);
        left -= examples;
        let columns: Vec<usize> =
            (0..features.columns.len()).filter(|&column| features.columns[column].cluster == cluster).collect();
        for example in 0..examples {
            for &column in &columns {
                match &features.columns[column].symbols {
                    Symbols::Own(sequences) => counting.add(sequences.words(example)),
                    Symbols::Spelling(words) => {
                        let mut buffer = [0; 4];
                        let characters: Vec<String> = (features.words(*words, example).flat_map(str::chars))
                            .map(|character| character.encode_utf8(&mut buffer).to_string())
                            .collect();
                        counting.add(characters.iter().map(String::as_str));
                    }
                }
            }
        }
    }
    Ok(counting.most_frequent(limits))
}

/// The symbols of these texts, cut to `limits`.
pub(super) fn most_frequent<'a>(texts: impl Iterator<Item: Iterator<Item = &'a str>>, limits: &Limits) -> Vec<String> {
    let mut counting = Counting::default();
    texts.take(limits.max_building_lines).for_each(|text| counting.add(text));
    counting.most_frequent(limits)
}

/// In how many texts each symbol occurs; symbols in the order in which they were met.
#[derive(Debug, Default)]
struct Counting {
    places: HashMap<String, usize>,
    counts: Vec<(String, usize)>,
}

impl Counting {
    fn add<'a>(&mut self, text: impl Iterator<Item = &'a str>) {
        let mut seen = HashSet::new();
        for symbol in text {
            if seen.insert(symbol) {
                let place = self.places.get(symbol).copied().unwrap_or_else(|| {
                    self.places.insert(symbol.to_string(), self.counts.len());
                    self.counts.push((symbol.to_string(), 0));
                    self.counts.len() - 1
                });
                self.counts[place].1 += 1;
            }
        }
    }

    fn most_frequent(mut self, limits: &Limits) -> Vec<String> {
        // The sort is stable, so that equally frequent symbols stay as they were met.
        self.counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let kept = self.counts.into_iter().take(limits.max_vocabulary);
        kept.take_while(|(_, count)| *count >= limits.min_word_frequency).map(|(symbol, _)| symbol).collect()
    }
}
