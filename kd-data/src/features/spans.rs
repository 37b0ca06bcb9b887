//! Answers as places in a text (Rajpurkar et al. 2016, SQuAD).

use std::ops::Range;

/// The texts in which answers are sought, with the place of each word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passage {
    /// The text of each example.
    pub texts: Vec<String>,
    /// The bytes of each of its words that are read.
    pub spans: Vec<Vec<Range<u32>>>,
}

impl Passage {
    /// The text from the first byte of word `first` to the last of word `last`, both counted from 0.
    ///
    /// # Panics
    /// If there is no such example or word.
    pub fn answer(&self, example: usize, first: usize, last: usize) -> &str {
        let spans = &self.spans[example];
        &self.texts[example][spans[first].start as usize..spans[last].end as usize]
    }
}

/// The words `(first, last)`, `first ≤ last`, for which `start[first] + end[last]` is largest; of equally good ones those
/// of the earliest end, then of the earliest start. `start` and `end` may be logits or log-probabilities of all words of one text.
///
/// `None` if there are no words, or not as many of one as of the other.
///
/// ```
/// // Apart, the best start is word 2 and the best end word 0.
/// let (start, end) = ([1.0, 0.0, 3.0], [4.0, 3.0, 0.5]);
/// assert_eq!(kd_data::features::best_span(&start, &end), Some((0, 0)));
/// ```
pub fn best_span(start: &[f32], end: &[f32]) -> Option<(usize, usize)> {
    if start.is_empty() || start.len() != end.len() {
        return None;
    }
    let (mut first, mut best, mut value) = (0, (0, 0), f32::NEG_INFINITY);
    for last in 0..end.len() {
        if start[last] > start[first] {
            first = last;
        }
        if start[first] + end[last] > value {
            (best, value) = ((first, last), start[first] + end[last]);
        }
    }
    Some(best)
}

/// The place of the first word that reaches beyond character `start` of `text`.
pub(super) fn first_word(text: &str, words: &[Range<usize>], start: usize) -> Option<usize> {
    let byte = byte_of(text, start)?;
    words.iter().position(|word| word.end > byte)
}

/// The place of the last word that begins before character `end` of `text`.
pub(super) fn last_word(text: &str, words: &[Range<usize>], end: usize) -> Option<usize> {
    let byte = byte_of(text, end)?;
    words.iter().rposition(|word| word.start < byte)
}

/// Where a character of `text`, or its end, begins.
fn byte_of(text: &str, character: usize) -> Option<usize> {
    text.char_indices().map(|(byte, _)| byte).chain([text.len()]).nth(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_span_is_that_of_all_pairs() {
        let (start, end) = ([0.3f32, -1.0, 2.0, 0.1, 1.9], [1.0f32, 2.0, -3.0, 0.4, 0.2]);
        let mut all: Vec<(f32, (usize, usize))> = Vec::new();
        for (last, end) in end.iter().enumerate() {
            all.extend((0..=last).map(|first| (start[first] + end, (first, last))));
        }
        let best = all.iter().fold(all[0], |best, other| if other.0 > best.0 { *other } else { best });
        assert_eq!(best_span(&start, &end), Some(best.1));
        assert_eq!(best_span(&[1.0, 1.0], &[0.0, 0.0]), Some((0, 0)));
        // Padding is -∞ like.
        assert_eq!(best_span(&[0.0, 1.0, f32::NEG_INFINITY], &[0.0, 1.0, f32::NEG_INFINITY]), Some((1, 1)));
        assert_eq!((best_span(&[], &[]), best_span(&[1.0], &[])), (None, None));
    }

    #[test]
    fn characters_become_words() {
        let text = "né à Köln, 1815";
        let words = [0..3, 4..6, 7..12, 12..13, 14..18];
        // `Köln` is characters 5 to 9; in the middle of a word and on a blank it is the word there and the next.
        assert_eq!((first_word(text, &words, 5), last_word(text, &words, 9)), (Some(2), Some(2)));
        assert_eq!((first_word(text, &words, 6), last_word(text, &words, 8)), (Some(2), Some(2)));
        assert_eq!((first_word(text, &words, 4), last_word(text, &words, 15)), (Some(2), Some(4)));
        assert_eq!((first_word(text, &words, 15), last_word(text, &words, 0)), (None, None));
        assert_eq!((first_word(text, &words, 99), last_word(text, &words, 99)), (None, None));
    }

    #[test]
    fn an_answer_is_cut_from_the_text() {
        let passage =
            Passage { texts: vec!["né à Köln, 1815".into()], spans: vec![vec![0..3, 4..6, 7..12, 12..13, 14..18]] };
        assert_eq!(passage.answer(0, 2, 4), "Köln, 1815");
        assert_eq!(passage.answer(0, 1, 1), "à");
    }
}
