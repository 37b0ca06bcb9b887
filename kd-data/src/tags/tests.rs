use std::path::PathBuf;

use super::*;
use crate::example::Layout;

fn tags(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

fn sentence(text: &str, line: usize) -> Sentence {
    let tags = tags(text);
    Sentence { words: tags.iter().map(|_| "w".to_string()).collect(), tags, line, layout: Layout::Column }
}

fn dataset(examples: Vec<Sentence>) -> Dataset<Sentence> {
    Dataset { path: PathBuf::from("dev.conll"), examples }
}

/// (IOB1, IOB2, BIOES) of the same entities.
const SAME: [[&str; 3]; 6] = [
    ["O I-PER O", "O B-PER O", "O S-PER O"],
    ["I-LOC I-LOC", "B-LOC I-LOC", "B-LOC E-LOC"],
    ["I-LOC I-LOC I-LOC", "B-LOC I-LOC I-LOC", "B-LOC I-LOC E-LOC"],
    ["I-LOC B-LOC I-LOC", "B-LOC B-LOC I-LOC", "S-LOC B-LOC E-LOC"],
    ["I-LOC I-PER B-PER", "B-LOC B-PER B-PER", "S-LOC S-PER S-PER"],
    ["O O", "O O", "O O"],
];

#[test]
fn every_scheme_converts_to_every_other() {
    for same in SAME {
        for from in same {
            for (to, scheme) in same.iter().zip([TagScheme::Iob1, TagScheme::Iob2, TagScheme::Bioes]) {
                assert_eq!(convert(&tags(from), scheme).unwrap(), tags(to), "{from} to {scheme:?}");
            }
        }
    }
}

#[test]
fn invalid_sequences_become_valid() {
    assert_eq!(to_iob2(&tags("O I-PER I-LOC B-LOC E-PER")).unwrap(), tags("O B-PER B-LOC B-LOC B-PER"));
    assert_eq!(convert(&tags("B-PER O I-LOC"), TagScheme::Iob1).unwrap(), tags("I-PER O I-LOC"));
}

#[test]
fn schemes_are_told_apart() {
    let detect = |sentences: &[&str]| {
        let sentences: Vec<_> = sentences.iter().map(|text| tags(text)).collect();
        TagScheme::detect(sentences.iter().map(Vec::as_slice))
    };
    assert_eq!(detect(&["O B-PER I-PER", "B-LOC"]), (TagScheme::Iob2, 0));
    assert_eq!(detect(&["O I-PER I-PER", "I-LOC B-LOC"]), (TagScheme::Iob1, 0));
    assert_eq!(detect(&["O S-PER", "B-LOC E-LOC"]), (TagScheme::Bioes, 0));
    assert_eq!(detect(&["O O"]), (TagScheme::Iob2, 0));
    // Two of three are IOB1; the second has a B that IOB1 does not need.
    assert_eq!(detect(&["I-PER I-PER", "O B-PER", "I-LOC O"]), (TagScheme::Iob1, 1));
    assert_eq!(detect(&["B-PER", "I-PER"]), (TagScheme::Iob2, 1));
    assert_eq!(detect(&["S-PER", "S-PER", "O I-PER"]), (TagScheme::Bioes, 1));
    assert_eq!(detect(&["O FOO"]), (TagScheme::Iob2, 1));
}

#[test]
fn a_malformed_tag_is_named_with_its_line() {
    let mut data = dataset(vec![sentence("O", 1), sentence("O X-PER", 3)]);
    let expected = "dev.conll:4: expected the tag `O` or one of B, I, E, S, a hyphen and a type, found `X-PER`";
    assert_eq!(convert_all(&mut data, TagScheme::Iob2).unwrap_err().to_string(), expected);
    let mut data = dataset(vec![sentence("O I-PER", 1)]);
    convert_all(&mut data, TagScheme::Iob2).unwrap();
    assert_eq!(data.examples[0].tags, tags("O B-PER"));
}

#[test]
fn transitions_of_iob2() {
    let all = [None, Some("O"), Some("B-PER"), Some("I-PER"), Some("B-LOC"), Some("I-LOC")];
    for from in all {
        for to in all {
            let allowed = match to {
                Some("I-PER") => matches!(from, Some("B-PER" | "I-PER")),
                Some("I-LOC") => matches!(from, Some("B-LOC" | "I-LOC")),
                _ => true,
            };
            assert_eq!(allowed_transition(from, to), allowed, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn classes_are_sorted_after_o() {
    let classes = Classes::from_sentences(&[sentence("B-PER I-PER", 1), sentence("B-LOC B-PER", 4)]).unwrap();
    assert_eq!(classes.names(), ["O", "B-LOC", "B-PER", "I-PER"]);
    assert_eq!((classes.index("B-PER"), classes.index("I-LOC")), (Some(2), None));
    assert_eq!((classes.name(3), classes.name(4)), (Some("I-PER"), None));
    assert_eq!(Classes::iob2(["PER", "LOC", "PER"]).unwrap().names(), ["O", "B-LOC", "B-PER", "I-LOC", "I-PER"]);
    assert_eq!(Classes::from_names(["b", "a", "b"]).unwrap().names(), ["a", "b"]);
}

#[test]
fn wrong_class_lists_are_errors() {
    let message = |result: Result<Classes>| result.unwrap_err().to_string();
    assert_eq!(message(Classes::new(vec![])), "classes: expected at least one name, found none");
    assert_eq!(message(Classes::new(tags("a b a"))), "class 2: expected a name of its own, found `a` again");
    assert_eq!(message(Classes::from_sentences(&[])), "classes: expected sentences with tags, found none");
    assert_eq!(message(Classes::iob2([""])), "entity types: expected names, found an empty one");
}

#[test]
fn unknown_tags_are_named_with_their_line() {
    let classes = Classes::iob2(["PER"]).unwrap();
    let data = dataset(vec![sentence("O B-PER", 1), sentence("O O B-LOC", 4)]);
    let expected = "dev.conll:6: expected one of the tags O B-PER I-PER, found the unknown tag `B-LOC`";
    assert_eq!(classes.encode(&data).unwrap_err().to_string(), expected);
    let data = dataset(vec![sentence("O B-PER I-PER", 1)]);
    assert_eq!(classes.encode(&data).unwrap(), [[0, 1, 2]]);
}

#[test]
fn missing_tags_are_an_error() {
    let classes = Classes::iob2(["PER"]).unwrap();
    let mut data = dataset(vec![sentence("O O", 7)]);
    data.examples[0].tags.clear();
    assert_eq!(classes.encode(&data).unwrap_err().to_string(), "dev.conll:7: expected 2 tags, found 0");
}

#[test]
fn classes_are_a_list_in_json() {
    let classes = Classes::iob2(["PER"]).unwrap();
    let json = serde_json::to_string(&classes).unwrap();
    assert_eq!(json, r#"["O","B-PER","I-PER"]"#);
    assert_eq!(serde_json::from_str::<Classes>(&json).unwrap(), classes);
    assert!(serde_json::from_str::<Classes>(r#"["O","O"]"#).unwrap_err().to_string().contains("a name of its own"));
}
