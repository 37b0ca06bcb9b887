use super::*;

fn tags(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// `sentences` are gold and predicted tags; expected are (correct, gold, predicted).
fn check(name: &str, sentences: &[(&str, &str)], expected: (usize, usize, usize)) {
    let sentences: Vec<_> = sentences.iter().map(|(gold, predicted)| (tags(gold), tags(predicted))).collect();
    let scores = entity_f1(sentences.iter().map(|(gold, predicted)| (&gold[..], &predicted[..]))).unwrap();
    assert_eq!((scores.correct, scores.gold, scores.predicted), expected, "{name}");
    let sum = scores
        .by_type
        .values()
        .fold((0, 0, 0), |sum, counts| (sum.0 + counts.correct, sum.1 + counts.gold, sum.2 + counts.predicted));
    assert_eq!(sum, expected, "{name}: the sum over types");
}

/// Each case was worked out on paper by `conlleval`'s rules; spans are `type[first word, last word]`.
#[test]
fn counts_worked_out_by_hand() {
    // Gold PER[0,1] LOC[3,3]; predicted the same.
    check("iob2, all right", &[("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC")], (2, 2, 2));
    // The same entities written in IOB1 are the same entities: I after nothing and after O starts.
    check("iob1 against iob2", &[("I-PER I-PER O I-LOC", "B-PER I-PER O B-LOC")], (2, 2, 2));
    // Gold PER[0,1]; predicted PER[0,0]: the end differs, so it is wrong although it overlaps.
    check("too short", &[("B-PER I-PER", "B-PER O")], (0, 1, 1));
    // Gold PER[0,1]; predicted ORG[0,1]: the type differs.
    check("wrong type", &[("B-PER I-PER", "B-ORG I-ORG")], (0, 1, 1));
    // Gold LOC[0,0] LOC[1,1], adjacent and of the same type (B always starts); predicted LOC[0,1].
    check("adjacent, same type, joined", &[("B-LOC B-LOC", "B-LOC I-LOC")], (0, 2, 1));
    // The same two in IOB1: I-LOC B-LOC; predicted right in IOB2.
    check("adjacent, same type, iob1", &[("I-LOC B-LOC", "B-LOC B-LOC")], (2, 2, 2));
    // Gold PER[0,0] LOC[1,1]: a change of type starts an entity without B.
    check("type change without B", &[("I-PER I-LOC", "B-PER B-LOC")], (2, 2, 2));
    // Predicted PER[0,0] LOC[1,2]: I-LOC after B-PER is invalid IOB2 and starts LOC. Gold PER[0,0] LOC[1,2].
    check("invalid I after B of another type", &[("B-PER B-LOC I-LOC", "B-PER I-LOC I-LOC")], (2, 2, 2));
    // Predicted O, then I-ORG after O starts ORG[1,1]; gold ORG[0,1]: the start differs.
    check("invalid I after O", &[("B-ORG I-ORG", "O I-ORG")], (0, 1, 1));
    // Nothing to find, nothing found: 0 / 0 counts as 0.
    check("all O", &[("O O O", "O O O")], (0, 0, 0));
    // Nothing to find, two found.
    check("only predicted", &[("O O O", "B-PER O B-PER")], (0, 0, 2));
    // One to find, none found.
    check("only gold", &[("O B-PER O", "O O O")], (0, 1, 0));
    check("no sentence", &[], (0, 0, 0));
    check("an empty sentence", &[("", "")], (0, 0, 0));
    // Two sentences: PER ends with the first, so I-PER at the start of the second is a new entity: PER[0,0] in both.
    check("an entity ends with its sentence", &[("O B-PER", "O B-PER"), ("I-PER O", "B-PER O")], (2, 2, 2));
    // Gold MISC[0,2]; predicted MISC[0,0] MISC[1,2]: one entity cut in two is two wrong ones.
    check("one cut in two", &[("B-MISC I-MISC I-MISC", "B-MISC B-MISC I-MISC")], (0, 1, 2));
    // Gold PER[0,2] LOC[3,3]; predicted PER[0,2] and, after E, I-PER is new: PER[3,3].
    check("bioes: nothing continues after E", &[("B-PER I-PER E-PER S-LOC", "B-PER I-PER E-PER I-PER")], (1, 2, 2));
    // Gold PER[0,0] PER[1,2]; predicted E after S is new and ends at once, the next E is new: PER[0,0] PER[1,1] PER[2,2].
    check("bioes: E after S and after E", &[("S-PER B-PER E-PER", "S-PER E-PER E-PER")], (1, 2, 3));
    // BIOES against IOB2: the same entities PER[0,1] PER[2,2].
    check("bioes against iob2", &[("B-PER E-PER S-PER", "B-PER I-PER B-PER")], (2, 2, 2));
    // Types with hyphens: `creative-work` is one type, split at the first hyphen only.
    check("a type with a hyphen", &[("B-creative-work I-creative-work", "B-creative-work I-creative")], (0, 1, 2));
}

#[test]
fn quotients_are_as_defined() {
    let counts = Counts { correct: 2, gold: 4, predicted: 3 };
    assert_eq!((counts.precision(), counts.recall()), (2.0 / 3.0, 0.5));
    // 2 · (2/3 · 1/2) / (2/3 + 1/2) = (2/3) / (7/6) = 4/7.
    assert_eq!(counts.f1(), 4.0 / 7.0);
    let none = Counts::default();
    assert_eq!((none.precision(), none.recall(), none.f1()), (0.0, 0.0, 0.0));
}

#[test]
fn types_are_counted_apart() {
    let gold = tags("B-PER O B-LOC I-LOC B-PER");
    let predicted = tags("B-PER O B-LOC O B-ORG");
    let scores = entity_f1([(&gold[..], &predicted[..])]).unwrap();
    let counts = |correct, gold, predicted| Counts { correct, gold, predicted };
    let expected =
        [("LOC", counts(0, 1, 1)), ("ORG", counts(0, 0, 1)), ("PER", counts(1, 2, 1))].map(|(k, c)| (k.to_string(), c));
    assert_eq!(scores.by_type, BTreeMap::from(expected));
    assert_eq!(scores.overall(), counts(1, 3, 3));
}

#[test]
fn errors_name_the_sentence_and_the_word() {
    let good = ["O"];
    let check = |gold: &[&str], predicted: &[&str], expected: &str| {
        let message = entity_f1([(&good[..], &good[..]), (gold, predicted)]).unwrap_err().to_string();
        assert_eq!(message.lines().next(), Some(expected)); // a backtrace may follow
    };
    check(&["O", "O"], &["O"], "sentence 1: expected 2 predicted tags, found 1");
    for bad in ["X-PER", "B-", "BPER", "", "b-PER", "BI-PER", "-PER", "OO"] {
        let expected = format!(
            "sentence 1: word 1: expected `O` or one of B, I, E, S, a hyphen and a type, found the tag `{bad}`"
        );
        check(&["O", "O"], &["O", bad], &expected);
        check(&["O", bad], &["O", "O"], &expected);
    }
}
