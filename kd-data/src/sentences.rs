//! The sentences of a text.
//!
//! Boundaries are those of Unicode's rules (UAX #29), which take every full stop before a capital for an end. So a
//! sentence that ends in an abbreviation is joined with the next: a letter (`J. Smith`), letters with stops between
//! them (`the U.S. Army`), or one of a few English titles and words that stand before a name (`Dr.`, `St.`). A sentence
//! that truly ends in one of them is joined too.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Abbreviations before a name or a number.
const ABBREVIATIONS: [&str; 18] = [
    "capt", "col", "dr", "fr", "gen", "gov", "lt", "mr", "mrs", "ms", "mt", "no", "prof", "rev", "sen", "sgt", "st",
    "vs",
];

/// The bytes of each sentence of `text`, without white space around it.
///
/// ```
/// let text = "Dr. Who met J. Smith of the U.S. Army. He ran!  Why?";
/// let sentences: Vec<&str> = kd_data::sentences::spans(text).into_iter().map(|bytes| &text[bytes]).collect();
/// assert_eq!(sentences, ["Dr. Who met J. Smith of the U.S. Army.", "He ran!", "Why?"]);
/// ```
pub fn spans(text: &str) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (start, piece) in text.split_sentence_bound_indices() {
        let bytes = start + (piece.len() - piece.trim_start().len())..start + piece.trim_end().len();
        if bytes.start >= bytes.end {
            continue;
        }
        match spans.last_mut() {
            Some(last) if ends_in_abbreviation(&text[last.clone()]) => last.end = bytes.end,
            _ => spans.push(bytes),
        }
    }
    spans
}

fn ends_in_abbreviation(sentence: &str) -> bool {
    let Some(stem) = sentence.strip_suffix('.') else { return false };
    let word = stem.rsplit(|c: char| c.is_whitespace() || matches!(c, '(' | '"' | '[' | '-' | '\u{2013}')).next();
    let word = word.unwrap_or(stem);
    let letters = |part: &str| part.chars().count() == 1 && part.chars().all(char::is_alphabetic);
    word.split('.').all(letters) || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<&str> {
        spans(text).into_iter().map(|bytes| &text[bytes]).collect()
    }

    #[test]
    fn ends_are_found_and_white_space_is_left_out() {
        assert_eq!(
            of(" It cost 3.5 euros. \n\tWhy? \"No.\" She left\u{2026}"),
            ["It cost 3.5 euros.", "Why?", "\"No.\"", "She left\u{2026}"]
        );
        assert_eq!(of("Été à Rome. Déjà vu."), ["Été à Rome.", "Déjà vu."]);
        assert!(of("").is_empty() && of(" \n").is_empty());
        assert_eq!(of("no end"), ["no end"]);
    }

    #[test]
    fn abbreviations_end_no_sentence() {
        for text in
            ["Mr. Smith", "the (St. Louis) arch", "at 3 p.m. Monday", "by J. R. R. Tolkien", "in Washington D.C. Then"]
        {
            assert_eq!(of(text), [text]);
        }
        assert_eq!(of("He said yes. Smith left."), ["He said yes.", "Smith left."]);
    }
}
