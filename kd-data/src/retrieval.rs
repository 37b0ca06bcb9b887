//! Lexical retrieval: which texts share the words of a query, by BM25 (Robertson & Zaragoza 2009).
//!
//! The formula and its numbers are the crate `bm25`'s: `k1` 1.2, `b` 0.75, and `ln(1 + (N - n + 0.5) / (n + 0.5))` for
//! a word in `n` of `N` texts. Words are those of Unicode's rules (UAX #29) in lower case; there is no stemming and no
//! list of stop words, which the weight of a word does without.

use bm25::{Embedder, EmbedderBuilder, Scorer, Tokenizer};
use unicode_segmentation::UnicodeSegmentation;

/// Texts that can be searched.
///
/// ```
/// use kd_data::retrieval::Index;
/// let index = Index::new(&["a red fox", "a red hen", "no bird"]);
/// let texts: Vec<usize> = index.search("The red hen?", 2).iter().map(|found| found.text).collect();
/// assert_eq!(texts, [1, 0]);
/// assert_eq!(index.score("bird", 0), 0.0);
/// ```
pub struct Index {
    embedder: Embedder<u64, Words>,
    scorer: Scorer<usize, u64>,
    len: usize,
}

/// A text that shares words with a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Its place among the texts.
    pub text: usize,
    /// Its BM25 score, above 0 and the higher the more it shares.
    pub score: f32,
}

impl Index {
    /// An index of these texts; each is known by its place.
    pub fn new<T: AsRef<str>>(texts: &[T]) -> Self {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let embedder = EmbedderBuilder::with_tokenizer_and_fit_to_corpus(Words, &texts).build();
        let mut scorer = Scorer::new();
        for (text_idx, text) in texts.iter().enumerate() {
            scorer.upsert(&text_idx, embedder.embed(text));
        }
        Self { embedder, scorer, len: texts.len() }
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// At most `k` texts that share a word with `query`, the best first; among equal scores the first text is.
    pub fn search(&self, query: &str, k: usize) -> Vec<Found> {
        let matches = self.scorer.matches(&self.embedder.embed(query)).into_iter();
        let mut found: Vec<Found> = matches.map(|found| Found { text: found.id, score: found.score }).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.text.cmp(&b.text)));
        found.truncate(k);
        found
    }

    /// The score of text `text_idx`; 0 where it shares no word with `query`, and where there is no such text.
    pub fn score(&self, query: &str, text_idx: usize) -> f32 {
        self.scorer.score(&text_idx, &self.embedder.embed(query)).unwrap_or(0.0)
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("texts", &self.len).finish_non_exhaustive()
    }
}

/// The words of a text in lower case.
#[derive(Debug)]
struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        text.unicode_words().map(str::to_lowercase).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_formula() {
        // Lengths 2, 2, 4: the mean is 8/3. "hen" stands in 2 of 3 texts: ln(1 + 1.5/2.5) = ln 1.6.
        // Once in a text of 2: 2.2 / (1 + 1.2 (0.25 + 0.75 · 2/(8/3))) = 2.2 / 1.975.
        // Twice in a text of 4: 2 · 2.2 / (2 + 1.2 (0.25 + 0.75 · 4/(8/3))) = 4.4 / 3.65.
        let index = Index::new(&["red fox", "RED hen", "hen, hen & a cat"]);
        let idf = 1.6f32.ln();
        let found = index.search("hen", 5);
        assert_eq!(found.iter().map(|found| found.text).collect::<Vec<_>>(), [2, 1]);
        assert!((found[0].score - idf * 4.4 / 3.65).abs() < 1e-6, "{found:?}");
        assert!((found[1].score - idf * 2.2 / 1.975).abs() < 1e-6, "{found:?}");
        assert_eq!(index.score("Hen!", 1), found[1].score);
        assert_eq!((index.score("hen", 0), index.score("hen", 7)), (0.0, 0.0));
    }

    #[test]
    fn equal_texts_come_in_their_order_every_time() {
        let texts: Vec<&str> = (0..40).map(|idx| if idx % 2 == 0 { "red hen" } else { "blue fox" }).collect();
        for _ in 0..20 {
            let found: Vec<usize> = Index::new(&texts).search("hen", 5).iter().map(|found| found.text).collect();
            assert_eq!(found, [0, 2, 4, 6, 8]);
        }
    }

    #[test]
    fn what_shares_no_word_is_not_found() {
        let index = Index::new(&["red fox", "été"]);
        assert_eq!(index.search("hen", 5), []);
        assert_eq!(index.search("", 5), []);
        assert_eq!(index.search("ÉTÉ", 5).len(), 1);
        assert_eq!(index.search("red", 0), []);
        assert!(Index::new::<&str>(&[]).is_empty() && Index::new::<&str>(&[]).search("red", 1).is_empty());
    }
}
