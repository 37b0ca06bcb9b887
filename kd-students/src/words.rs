//! Raw text to words.

/// Splits text into words, about as the CoNLL and WNUT corpora are split.
///
/// 1. White space (Unicode's) separates.
/// 2. Punctuation at either end of such a piece becomes a word of its own; a run of one mark stays together (`...`).
///    Punctuation is ASCII's and the common typographic, Chinese and Japanese marks; other symbols and emoji are not.
/// 3. Inside a piece nothing is split (`well-known`, `3.5`, `a@b.org`), but an English `'s` at its end is.
/// 4. These stay whole: a final dot after a single letter or where an earlier dot stands between letters (`J.`,
///    `U.S.`); `@` and `#` before a letter or digit (`@ada`); a sign before a digit (`-5`, `+49`).
///
/// Every word is a slice of `text`, and all that is lost is white space. It knows no abbreviation but by rule 4 and no
/// language but by `'s`; a corpus with words of its own needs no splitter.
///
/// ```
/// use kd_students::split_words;
/// assert_eq!(split_words("Ada's (new) flat, in the U.S.: 3.5 rooms..."), [
///     "Ada", "'s", "(", "new", ")", "flat", ",", "in", "the", "U.S.", ":", "3.5", "rooms", "...",
/// ]);
/// ```
pub fn split_words(text: &str) -> Vec<&str> {
    text.split_whitespace().flat_map(split_piece).collect()
}

fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation()
        || matches!(character, '«' | '»' | '¡' | '¿' | '§' | '·')
        || matches!(character, '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}') // dashes, quotes, bullets, ellipsis
        || matches!(character, '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}' | '\u{ff01}'..='\u{ff0f}') // 、。「」！
        || matches!(character, '\u{ff1a}' | '\u{ff1b}' | '\u{ff1f}') // ：；？
}

/// Bytes of the run of the mark that `characters` begins with; 0 if it begins with no mark.
fn run(mut characters: impl Iterator<Item = char>) -> usize {
    match characters.next() {
        Some(mark) if is_punctuation(mark) => {
            mark.len_utf8() * (1 + characters.take_while(|&character| character == mark).count())
        }
        _ => 0,
    }
}

fn split_piece(piece: &str) -> Vec<&str> {
    let (mut before, mut after, mut rest) = (Vec::new(), Vec::new(), piece);
    while !rest.is_empty() && !starts_whole(rest) {
        let bytes = run(rest.chars());
        if bytes == 0 {
            break;
        }
        before.push(&rest[..bytes]);
        rest = &rest[bytes..];
    }
    while !rest.is_empty() && !ends_whole(rest) {
        let bytes = run(rest.chars().rev());
        if bytes == 0 {
            break;
        }
        after.push(&rest[rest.len() - bytes..]);
        rest = &rest[..rest.len() - bytes];
    }
    for ending in ["'s", "’s", "'S", "’S"] {
        if rest.len() > ending.len() && rest.ends_with(ending) {
            after.push(&rest[rest.len() - ending.len()..]);
            rest = &rest[..rest.len() - ending.len()];
        }
    }
    if !rest.is_empty() {
        before.push(rest);
    }
    before.extend(after.into_iter().rev());
    before
}

/// Whether `rest` begins with a mark that belongs to its word.
fn starts_whole(rest: &str) -> bool {
    let mut characters = rest.chars();
    match (characters.next(), characters.next()) {
        (Some('@' | '#'), Some(next)) => next.is_alphanumeric(),
        (Some('-' | '+'), Some(next)) => next.is_ascii_digit(),
        (Some('\'' | '’'), Some('s' | 'S')) => characters.next().is_none(),
        _ => false,
    }
}

/// Whether `rest` ends with a dot that belongs to its word.
fn ends_whole(rest: &str) -> bool {
    let Some(stem) = rest.strip_suffix('.') else { return false };
    let letters = stem.split('.').all(|part| !part.is_empty() && part.chars().all(char::is_alphabetic));
    letters && (stem.chars().count() == 1 || stem.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_documented() {
        for (text, expected) in [
            ("", &[][..]),
            (" \t\u{a0}\u{3000}\r\n ", &[]),
            ("EU rejects German call.", &["EU", "rejects", "German", "call", "."]),
            ("Peter Blackburn's \"book\"", &["Peter", "Blackburn", "'s", "\"", "book", "\""]),
            ("(\"What?!\")", &["(", "\"", "What", "?", "!", "\"", ")"]),
            ("J. Smith of the U.S.A., e.g.", &["J.", "Smith", "of", "the", "U.S.A.", ",", "e.g."]),
            ("It cost $3.50, up -5 or +49%", &["It", "cost", "$", "3.50", ",", "up", "-5", "or", "+49", "%"]),
            ("@ada: see #nlp https://a.org/b?c=1.", &["@ada", ":", "see", "#nlp", "https://a.org/b?c=1", "."]),
            ("well-known -- don't 1996-08-22", &["well-known", "--", "don't", "1996-08-22"]),
            ("„Grüß Gott“, sagte Zoë…", &["„", "Grüß", "Gott", "“", ",", "sagte", "Zoë", "…"]),
            ("¿Qué? 東京。 I ❤️ U 👩‍💻!", &["¿", "Qué", "?", "東京", "。", "I", "❤️", "U", "👩‍💻", "!"]),
            ("... 's @ # - the dog’s", &["...", "'s", "@", "#", "-", "the", "dog", "’s"]),
        ] {
            assert_eq!(split_words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn nothing_but_white_space_is_lost() {
        // Every string of up to four of these characters.
        let alphabet = ["a", ".", "'", "s", " ", "é", "…", "-", "5", "👍"];
        for code in 0..10usize.pow(4) {
            let text: String = (0..4).map(|place| alphabet[code / 10usize.pow(place) % 10]).collect();
            let words = split_words(&text);
            assert!(words.iter().all(|word| !word.is_empty()), "{text:?}: {words:?}");
            assert_eq!(words.concat(), text.replace(' ', ""), "{text:?}");
        }
    }
}
