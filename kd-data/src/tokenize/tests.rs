use super::*;

#[derive(serde::Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    words: Vec<String>,
}

#[test]
fn english_words_are_those_of_nltk() {
    let reference: Reference = serde_json::from_str(include_str!("../../tests/reference/english_words.json")).unwrap();
    assert!(reference.cases.len() > 25);
    for case in reference.cases {
        assert_eq!(english_words(&case.text), case.words, "{}", case.text);
    }
}

#[test]
fn english_words_stand_in_their_text() {
    let text = "\"Isn't it?\" ''No.'' (“Yes.”)";
    let words: Vec<&str> = english_spans(text).into_iter().map(|bytes| &text[bytes]).collect();
    assert_eq!(words, ["\"", "Is", "n't", "it", "?", "\"", "''", "No", ".", "''", "(", "“", "Yes", ".", "”", ")"]);
    // Every text of five of these marks: a span for each word, and nothing but white space between the spans.
    let marks = ['a', '\'', '"', '`', '.', ' ', ')'];
    let mut texts = vec![String::new()];
    for _ in 0..5 {
        texts = texts.iter().flat_map(|text| marks.map(|mark| format!("{text}{mark}"))).collect();
    }
    for text in texts {
        let (words, spans) = (english_words(&text), english_spans(&text));
        assert_eq!(words.len(), spans.len(), "{text:?}");
        let read: String = spans.into_iter().map(|bytes| &text[bytes]).collect();
        assert_eq!(read, text.replace(' ', ""), "{text:?}");
    }
}

#[test]
fn blanks_part_words_and_names_name_tokenizers() {
    assert_eq!(Tokenizer::Blanks.words(" a  b.\u{a0}c ").unwrap(), ["a", "b.\u{a0}c"]);
    assert_eq!(Tokenizer::named("nltk").unwrap(), Tokenizer::English);
    assert_eq!(Tokenizer::named("jieba").unwrap(), Tokenizer::Chinese);
    let message = Tokenizer::named("spacy").unwrap_err().to_string();
    assert_eq!(message, "tokenizer: expected `nltk` or `jieba`, found `spacy`");
}

#[cfg(not(feature = "chinese"))]
#[test]
fn a_tokenizer_that_is_not_built_in_says_so() {
    let message = Tokenizer::Chinese.words("我").unwrap_err().to_string();
    assert_eq!(message, "tokenizer: expected one that is built in, found `jieba`, which needs the feature `chinese`");
}

#[cfg(feature = "chinese")]
#[test]
fn chinese_words_are_those_of_jieba() {
    let reference: Reference = serde_json::from_str(include_str!("../../tests/reference/chinese_words.json")).unwrap();
    assert!(reference.cases.len() > 10);
    for case in reference.cases {
        assert_eq!(Tokenizer::Chinese.words(&case.text).unwrap(), case.words, "{}", case.text);
        let spans = Tokenizer::Chinese.spans(&case.text).unwrap();
        assert_eq!(spans.iter().map(|bytes| &case.text[bytes.clone()]).collect::<String>(), case.text);
    }
}
