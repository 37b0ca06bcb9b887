//! Words of the Penn Treebank, as NLTK's `word_tokenize` cuts them.
//!
//! The text is cut into sentences ([`super::sentence_ends`]), because a full stop is a word of its own only at the end of one,
//! and each sentence goes through a list of substitutions that set blanks around what is a word: quotation marks, punctuation,
//! brackets, dashes, clitics (`do n't`, `it 's`) and a few contractions (`can not`, `gon na`). Straight double quotes become
//! `` `` `` and `''`. The substitutions are MacIntyre's for the Penn Treebank in the form and order that NLTK 3.10 gave
//! them (Bird, Klein and Loper 2009; Apache-2.0), and `tests/reference/english_words.py` compares the two.
//!
//! What differs: the sentences, see there.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::sentence_ends::sentences;

/// The words of a text.
///
/// ```
/// let words = kd_data::tokenize::english_words("\"I can't,\" she said. It cost $3.88.");
/// assert_eq!(words.join(" "), "`` I ca n't , '' she said . It cost $ 3.88 .");
/// ```
pub fn words(text: &str) -> Vec<String> {
    sentences(text).into_iter().flat_map(|bytes| of_sentence(&text[bytes])).collect()
}

/// The bytes of each word of [`words`] in the text; those of a quotation mark are its own.
pub fn spans(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    for sentence in sentences(text) {
        let mut at = sentence.start;
        for word in of_sentence(&text[sentence.clone()]) {
            let rest = text[at..sentence.end].trim_start_matches(white);
            at = sentence.end - rest.len();
            let quote = word == "``" || word == "''";
            let len = match rest {
                _ if rest.starts_with(&word) => word.len(),
                _ if quote && rest.starts_with('"') => 1,
                _ if quote && rest.starts_with("''") => 2,
                // The substitutions add blanks and change these marks, nothing else.
                _ => unreachable!("the word `{word}` does not stand in `{rest}`"),
            };
            spans.push(at..at + len);
            at += len;
        }
    }
    spans
}

/// White space in the sense of Python's `str.split` and `\s`.
pub(super) fn white(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The substitutions before blanks are set around the sentence, those before clitics, and those from clitics on.
struct Rules {
    quotes: Vec<(Regex, &'static str)>,
    punctuation: Vec<(Regex, &'static str)>,
    endings: Vec<(Regex, &'static str)>,
}

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let compile = |rules: &[(&str, &'static str)]| -> Vec<(Regex, &'static str)> {
        let rule = |(pattern, by): &(&str, &'static str)| {
            (Regex::new(pattern).expect("the patterns are constants, and compile in the tests"), *by)
        };
        rules.iter().map(rule).collect()
    };
    Rules {
        quotes: compile(&[
            ("([«“‘„]|`+)", " $1 "),
            ("^\"", "``"),
            ("(``)", " $1 "),
            ("([ (\\[{<])(\"|'{2})", "$1 `` "),
        ]),
        punctuation: compile(&[
            ("([^.])(\\.)([\\])}>\"'»”’ ]*)[\\s\\x1c-\\x1f]*$", "$1 $2 $3 "),
            ("([:,])([^\\d])", " $1 $2"),
            ("([:,])$", " $1 "),
            ("\\.{2,}", " $0 "),
            ("[;@#$%&]", " $0 "),
            ("[\\x{2012}-\\x{2015}]", " $0 "),
            ("([^.])(\\.)([\\])}>\"']*)[\\s\\x1c-\\x1f]*$", "$1 $2$3 "),
            ("[?!]", " $0 "),
            ("([^'])' ", "$1 ' "),
            ("[*]", " $0 "),
            ("[\\]\\[(){}<>]", " $0 "),
            ("--", " -- "),
        ]),
        endings: compile(&[
            ("([»”’])", " $1 "),
            ("''", " '' "),
            ("\"", " '' "),
            ("[\\s\\x1c-\\x1f]+", " "),
            ("([^' ])('[sS]|'[mM]|'[dD]|') ", "$1 $2 "),
            ("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "$1 $2 "),
            ("(?i)\\b(can)(not)\\b", " $1 $2 "),
            ("(?i)\\b(d)('ye)\\b", " $1 $2 "),
            ("(?i)\\b(gim)(me)\\b", " $1 $2 "),
            ("(?i)\\b(gon)(na)\\b", " $1 $2 "),
            ("(?i)\\b(got)(ta)\\b", " $1 $2 "),
            ("(?i)\\b(lem)(me)\\b", " $1 $2 "),
            ("(?i)\\b(more)('n)\\b", " $1 $2 "),
            ("(?i)\\b(wan)(na)(\\s)", " $1 $2 $3"),
            ("(?i) ('t)(is)\\b", " $1 $2 "),
            ("(?i) ('t)(was)\\b", " $1 $2 "),
        ]),
    }
});

/// The words of one sentence.
fn of_sentence(sentence: &str) -> Vec<String> {
    let apply = |text: String, rules: &[(Regex, &str)]| {
        rules.iter().fold(text, |text, (pattern, by)| match pattern.replace_all(&text, *by) {
            Cow::Borrowed(_) => text,
            Cow::Owned(changed) => changed,
        })
    };
    let text = apply(sentence.to_string(), &RULES.quotes);
    let text = apply(open_single_quotes(&text), &RULES.punctuation);
    let text = apply(format!(" {text} "), &RULES.endings);
    text.split(white).filter(|word| !word.is_empty()).map(str::to_string).collect()
}

/// Sets a blank behind an apostrophe that opens a quotation: one after no word character and before one, unless a clitic
/// follows (`'s`, `'ll`, …).
fn open_single_quotes(text: &str) -> String {
    const CLITICS: [&str; 8] = ["re", "ve", "ll", "m", "t", "s", "d", "n"];
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut opened = String::with_capacity(text.len());
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        opened.push(c);
        if c == '\'' && !word(before) {
            let rest = &text[at + 1..];
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            let clitic = CLITICS.iter().any(|clitic| rest[..end].eq_ignore_ascii_case(clitic));
            if end > 0 && !clitic {
                opened.push(' ');
            }
        }
        before = c;
    }
    opened
}
