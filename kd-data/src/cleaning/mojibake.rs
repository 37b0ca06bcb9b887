//! Text that was decoded in the wrong way.
//!
//! What is done, in this order, is what ftfy's `fix_text` does by default (Speer 2019):
//!
//! 1. HTML entities become characters, unless there is a `<`: numbers, those of XML and of Latin-1, and common punctuation.
//! 2. UTF-8 that was read as Windows-1252 or Latin-1 (`cafÃ©`) is read again, as often as that changes something.
//! 3. Latin ligatures become letters, full- and half-width forms the usual ones, curly quotation marks straight ones.
//! 4. Line ends become `\n`, control characters and codes of terminals are taken out.
//! 5. The text is composed (NFC).
//!
//! What differs: ftfy weighs how likely a text is before it reads it again, and knows more encodings than these two; here
//! every sequence that is UTF-8 in Windows-1252's clothes is taken for it, which `Ã` or `Â` and a sign in well-read text
//! seldom are. Entities of other scripts stay.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use unicode_normalization::UnicodeNormalization;

/// What Windows-1252 has at 0x80 to 0x9f; where it has nothing, Latin-1's control characters, as browsers do.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// The entities of U+00A0 to U+00FF, in order.
const LATIN_1: &str = "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn sup2 \
    sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave Aacute Acirc Atilde Auml \
    Aring AElig Ccedil Egrave Eacute Ecirc Euml Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml \
    times Oslash Ugrave Uacute Ucirc Uuml Yacute THORN szlig agrave aacute acirc atilde auml aring aelig ccedil egrave \
    eacute ecirc euml igrave iacute icirc iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute \
    ucirc uuml yacute thorn yuml";

/// Other entities.
const ENTITIES: [(&str, char); 17] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("ndash", '–'),
    ("mdash", '—'),
    ("lsquo", '‘'),
    ("rsquo", '’'),
    ("ldquo", '“'),
    ("rdquo", '”'),
    ("sbquo", '‚'),
    ("bdquo", '„'),
    ("hellip", '…'),
    ("bull", '•'),
    ("euro", '€'),
    ("trade", '™'),
];

/// A text with what is listed above repaired.
///
/// ```
/// use kd_data::cleaning::fix_unicode;
/// assert_eq!(fix_unicode("cafÃ© &amp; â€œbarâ€\u{9d}"), "café & \"bar\"");
/// ```
pub fn fix_unicode(text: &str) -> String {
    static ESCAPES: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\x1b\[[\d;]*[a-zA-Z]").expect("the pattern is constant, and compiles in the tests")
    });
    let mut text = if text.contains('<') { text.to_string() } else { unescape(text) };
    while let Some(better) = reread(&text) {
        text = better;
    }
    let text = text.replace("\r\n", "\n");
    let text = ESCAPES.replace_all(&text, "");
    text.chars().flat_map(plain).collect::<String>().nfc().collect()
}

/// Entities as characters.
fn unescape(text: &str) -> String {
    static ENTITY: LazyLock<Regex> = LazyLock::new(|| {
        let pattern = r"&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([A-Za-z]+[0-9]*));";
        Regex::new(pattern).expect("the pattern is constant, and compiles in the tests")
    });
    let character = |entity: &Captures<'_>| -> Option<char> {
        let number = |group, radix| entity.get(group).and_then(|n| u32::from_str_radix(n.as_str(), radix).ok());
        if let Some(code) = number(1, 10).or_else(|| number(2, 16)) {
            return char::from_u32(code).filter(|c| *c != '\0');
        }
        let name = entity.get(3)?.as_str();
        let latin = || LATIN_1.split_whitespace().zip('\u{a0}'..='\u{ff}').find(|(other, _)| *other == name);
        ENTITIES.into_iter().find(|(other, _)| *other == name).or_else(latin).map(|(_, character)| character)
    };
    let by = |entity: &Captures<'_>| character(entity).map_or_else(|| entity[0].to_string(), String::from);
    match ENTITY.replace_all(text, by) {
        Cow::Borrowed(same) => same.to_string(),
        Cow::Owned(changed) => changed,
    }
}

/// The text with every sequence read again that is a character of several bytes in UTF-8; `None` if there is none.
fn reread(text: &str) -> Option<String> {
    let characters: Vec<char> = text.chars().collect();
    let (mut better, mut at, mut changed) = (String::with_capacity(text.len()), 0, false);
    while at < characters.len() {
        let len = match byte(characters[at]) {
            Some(0xc2..=0xdf) => 2,
            Some(0xe0..=0xef) => 3,
            Some(0xf0..=0xf4) => 4,
            _ => 1,
        };
        let sequence = characters.get(at..at + len).filter(|sequence| sequence.len() > 1);
        let bytes: Option<Vec<u8>> = sequence.and_then(|sequence| sequence.iter().map(|&c| byte(c)).collect());
        match bytes.as_deref().map(std::str::from_utf8) {
            Some(Ok(character)) => {
                better.push_str(character);
                at += len;
                changed = true;
            }
            _ => {
                better.push(characters[at]);
                at += 1;
            }
        }
    }
    changed.then_some(better)
}

/// The byte that a character was read from, if it was read from one as Windows-1252 or Latin-1.
fn byte(character: char) -> Option<u8> {
    match character as u32 {
        code @ 0..=0xff => Some(code as u8),
        _ => WINDOWS_1252.iter().position(|&other| other == character).map(|place| 0x80 + place as u8),
    }
}

/// A character in its plain form; nothing for a control character.
fn plain(character: char) -> impl Iterator<Item = char> {
    let mapped: Vec<char> = match character {
        '‘' | '’' | '‛' => vec!['\''],
        '“' | '”' | '‟' => vec!['"'],
        '\r' | '\u{2028}' | '\u{2029}' | '\u{85}' => vec!['\n'],
        '\u{3000}' => vec![' '],
        'Ĳ' | 'ĳ' | 'ŉ' | 'Ǳ'..='ǳ' | 'Ǆ'..='ǌ' | 'ﬀ'..='ﬆ' | '\u{ff01}'..='\u{ffef}' => {
            [character].into_iter().nfkc().collect()
        }
        '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' => vec![],
        '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}' => vec![],
        _ => vec![character],
    };
    mapped.into_iter()
}
