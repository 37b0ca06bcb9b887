//! Where English sentences end, as far as it matters to words: behind which full stops.
//!
//! The rules are those of Punkt (Kiss and Strunk 2006, §3 and §4). A full stop ends a sentence unless
//! - it belongs to an abbreviation; but then it does if the next word is a capitalised one that often begins sentences;
//! - it follows a number, and the next word is in lower case or punctuation follows.
//!
//! Marks of question and exclamation, and dots in a row, are words in any case.
//!
//! What differs: Punkt learns its abbreviations, the words that begin sentences, and how words are capitalised from a corpus;
//! here both lists are written by hand and nothing is known of other words. Of 18,000 passages and queries of the web, 71 get other
//! words than from NLTK's English model; `tests/reference/english_words.py` counts them.

use std::ops::Range;

use super::english::white;

/// Titles, months, days, places, forms of companies, units and others, without their last full stop. Other letters with full
/// stops between them are none, as they are none in Punkt's English model.
const ABBREVIATIONS: &[&str] = &[
    "a.m", "p.m", "d.c", "l.a", "n.c", "n.h", "n.j", "n.y", "s.c", "u.k", "u.n", "u.s", "u.s.a", "u.s.s.r", "adm",
    "ariz", "aug", "ave", "bros", "calif", "cie", "co", "col", "colo", "conn", "corp", "cos", "ct", "dec", "dr", "feb",
    "fla", "fri", "ft", "ga", "gen", "ill", "inc", "jan", "jr", "kan", "ky", "lt", "ltd", "maj", "messrs", "mg",
    "mich", "minn", "mr", "mrs", "ms", "nev", "nov", "oct", "ok", "okla", "ore", "pa", "ph.d", "prof", "rep", "reps",
    "sen", "sep", "sept", "sr", "st", "sw", "tenn", "tues", "va", "vs", "wash", "wed", "wis", "yr",
];

/// Letters that may end a sentence, if one of [`STARTERS`] follows; the others are taken for initials.
const ENDING_LETTERS: &[&str] = &["a", "b", "i", "j", "o", "q", "u", "x", "y", "z"];

/// Words that often begin sentences.
const STARTERS: &[&str] = &[
    "a",
    "according",
    "after",
    "all",
    "also",
    "although",
    "among",
    "an",
    "and",
    "as",
    "at",
    "both",
    "but",
    "by",
    "despite",
    "during",
    "each",
    "even",
    "few",
    "for",
    "from",
    "he",
    "her",
    "his",
    "how",
    "however",
    "i",
    "if",
    "in",
    "indeed",
    "instead",
    "it",
    "its",
    "many",
    "meanwhile",
    "moreover",
    "most",
    "my",
    "nevertheless",
    "no",
    "nor",
    "not",
    "now",
    "on",
    "once",
    "one",
    "other",
    "others",
    "our",
    "she",
    "similarly",
    "since",
    "so",
    "some",
    "such",
    "that",
    "the",
    "their",
    "then",
    "there",
    "these",
    "they",
    "this",
    "those",
    "though",
    "thus",
    "to",
    "under",
    "until",
    "we",
    "what",
    "when",
    "where",
    "while",
    "who",
    "why",
    "with",
    "yet",
    "you",
    "your",
];

/// What stands in no word: Punkt's characters that end a word, and quotation marks.
fn parts_words(c: char) -> bool {
    matches!(c, ')' | '"' | ';' | '}' | ']' | '*' | ':' | '@' | '\'' | '(' | '{' | '[' | '?' | '!')
        || matches!(c, '‘' | '’' | '“' | '”' | '«' | '»')
}

/// What may close a sentence behind its full stop.
fn closes(c: char) -> bool {
    matches!(c, '"' | '\'' | ')' | ']' | '}' | '‘' | '’' | '“' | '”' | '«' | '»')
}

/// The bytes of each piece of `text` that ends in a sentence's full stop, and of the rest, without white space around them.
pub(super) fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut sentences = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices('.') {
        if at < start || !ends_sentence(text, at) {
            continue;
        }
        let rest = &text[at + 1..];
        let behind = rest.trim_start_matches(closes);
        // Closing marks belong to the sentence where white space follows them.
        let end = if behind.starts_with(white) || behind.is_empty() { text.len() - behind.len() } else { at + 1 };
        sentences.push(start..end);
        start = end;
    }
    sentences.push(start..text.len());
    let trimmed = |bytes: Range<usize>| {
        let piece = &text[bytes.clone()];
        let start = bytes.end - piece.trim_start_matches(white).len();
        start..start + text[start..bytes.end].trim_end_matches(white).len()
    };
    sentences.into_iter().map(trimmed).filter(|bytes| !bytes.is_empty()).collect()
}

/// Whether the full stop at byte `at` ends a sentence, other than that of the whole text.
fn ends_sentence(text: &str, at: usize) -> bool {
    let (before, after) = (&text[..at], &text[at + 1..]);
    let Some(next) = after.chars().next() else { return false };
    if before.ends_with('.') || !(white(next) || parts_words(next)) || after.trim_start_matches(white).is_empty() {
        return false;
    }
    let word = before.rsplit(|c| white(c) || parts_words(c)).next().unwrap_or(before);
    let word = word.rsplit("--").next().unwrap_or(word).trim_start_matches(['`', '&', '#', ',', '-']);
    let following = after.trim_start_matches(white);
    let following = following.split(|c: char| white(c) || parts_words(c) || c == ',').next().unwrap_or(following);
    let lower = following.starts_with(char::is_lowercase);
    let starter = || following.starts_with(char::is_uppercase) && STARTERS.contains(&following.to_lowercase().as_str());
    if word.chars().count() == 1 && word.starts_with(char::is_alphabetic) {
        return ENDING_LETTERS.contains(&word.to_lowercase().as_str()) && starter();
    }
    if is_abbreviation(word) {
        return starter();
    }
    let number = word.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '.' | '-')) && !word.is_empty();
    !(number && (lower || matches!(next, ':' | ';' | '?' | '!')))
}

/// Whether a word before a full stop is an abbreviation, perhaps behind a hyphen.
fn is_abbreviation(word: &str) -> bool {
    let word = word.to_lowercase();
    let last = word.rsplit('-').next().unwrap_or(&word);
    [word.as_str(), last].iter().any(|word| ABBREVIATIONS.contains(word))
}
