use super::*;

#[derive(serde::Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    fixed: String,
}

#[test]
fn texts_are_repaired_as_ftfy_repairs_them() {
    let reference: Reference = serde_json::from_str(include_str!("../../tests/reference/cleaning.json")).unwrap();
    assert!(reference.cases.len() > 15);
    for case in reference.cases {
        assert_eq!(fix_unicode(&case.text), case.fixed, "{:?}", case.text);
    }
    // Entities that are unknown or no character stay.
    assert_eq!(fix_unicode("&nope; &#0; &#xD800; R&D;"), "&nope; &#0; &#xD800; R&D;");
}

#[test]
fn only_full_width_ascii_is_narrowed() {
    assert_eq!(half_width("（Ａ～！）"), "(A~!)");
    assert_eq!(half_width("ｶ　é“”"), "ｶ　é“”");
}

#[test]
fn stop_words_are_those_of_the_language() {
    let words = ["the", "The", "isn't", "cat", "的", "你", "猫"];
    let english = words.map(|word| is_stop_word(word, Tokenizer::English));
    assert_eq!(english, [true, false, true, false, false, false, false]);
    let chinese = words.map(|word| is_stop_word(word, Tokenizer::Chinese));
    assert_eq!(chinese, [false, false, false, false, true, true, false]);
    assert!(words.iter().all(|word| !is_stop_word(word, Tokenizer::Blanks)));
}

#[test]
fn a_text_is_cleaned_as_asked() {
    let text = "ＡＢ cafÃ©";
    let cleaned = |half_width, fix_unicode| {
        Cleaning { half_width, fix_unicode, remove_stop_words: true }.clean(text).into_owned()
    };
    assert_eq!((cleaned(false, false), cleaned(true, false)), (text.to_string(), "AB cafÃ©".to_string()));
    assert_eq!((cleaned(false, true), cleaned(true, true)), ("AB café".to_string(), "AB café".to_string()));
    assert!(!Cleaning::default().removes("the", Tokenizer::English));
}
