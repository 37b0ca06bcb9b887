//! A sequence of symbols for each example, every distinct symbol stored once.

use std::collections::HashMap;

/// Sequences of words or other symbols: what stands in one column of a file, example by example.
///
/// The ids are places in [`Sequences::symbols`], the list of this column's distinct symbols in the order in which they were
/// met. They are **not** the ids of a model: a model looks every symbol up once and maps the ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    pub(super) symbols: Vec<String>,
    pub(super) ids: Vec<u32>,
    /// Where each sequence ends in `ids`.
    pub(super) ends: Vec<u64>,
}

impl Sequences {
    /// The sequences of a list.
    ///
    /// ```
    /// use kd_data::features::Sequences;
    /// let sequences = Sequences::of([vec!["to", "be"], vec![], vec!["be"]]);
    /// assert_eq!((sequences.symbols().len(), sequences.ids(0), sequences.ids(2)), (2, &[0, 1][..], &[1][..]));
    /// assert_eq!(sequences.words(0).collect::<Vec<_>>(), ["to", "be"]);
    /// ```
    pub fn of(sequences: impl IntoIterator<Item: IntoIterator<Item: AsRef<str>>>) -> Self {
        let mut interning = Interning::default();
        sequences.into_iter().for_each(|sequence| interning.push(sequence));
        interning.finish()
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The distinct symbols; an id is a place in this list.
    pub fn symbols(&self) -> &[String] {
        &self.symbols
    }

    /// The ids of a sequence.
    ///
    /// # Panics
    /// If there are not so many sequences.
    pub fn ids(&self, sequence: usize) -> &[u32] {
        let start = if sequence == 0 { 0 } else { self.ends[sequence - 1] as usize };
        &self.ids[start..self.ends[sequence] as usize]
    }

    /// The symbols of a sequence.
    ///
    /// # Panics
    /// If there are not so many sequences.
    pub fn words(&self, sequence: usize) -> impl Iterator<Item = &str> {
        self.ids(sequence).iter().map(|&id| self.symbols[id as usize].as_str())
    }
}

/// Sequences while they are being made.
#[derive(Debug, Default)]
pub(super) struct Interning {
    places: HashMap<String, u32>,
    sequences: Sequences,
}

impl Interning {
    pub(super) fn push(&mut self, sequence: impl IntoIterator<Item: AsRef<str>>) {
        for symbol in sequence {
            let symbol = symbol.as_ref();
            let id = self.places.get(symbol).copied().unwrap_or_else(|| {
                let id = self.sequences.symbols.len() as u32;
                self.places.insert(symbol.to_string(), id);
                self.sequences.symbols.push(symbol.to_string());
                id
            });
            self.sequences.ids.push(id);
        }
        self.sequences.ends.push(self.sequences.ids.len() as u64);
    }

    pub(super) fn finish(self) -> Sequences {
        self.sequences
    }
}
