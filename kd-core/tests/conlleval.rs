//! Entity counts against an independent walk by conlleval's tables, `reference/conlleval.py`.

use std::collections::BTreeMap;

use kd_core::metrics::entity_f1;

#[derive(serde::Deserialize)]
struct Case {
    sentences: Vec<(String, String)>,
    /// Correct, gold and predicted of each type.
    by_type: BTreeMap<String, (usize, usize, usize)>,
}

#[test]
fn counts_are_those_of_conlleval() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("reference/conlleval.json")).unwrap();
    assert_eq!(cases.len(), 120);
    for (idx, case) in cases.iter().enumerate() {
        let split = |tags: &String| tags.split(' ').map(str::to_string).collect::<Vec<_>>();
        let sentences: Vec<_> = case.sentences.iter().map(|(gold, guess)| (split(gold), split(guess))).collect();
        let scores = entity_f1(sentences.iter().map(|(gold, guess)| (&gold[..], &guess[..]))).unwrap();
        let counts =
            scores.by_type.iter().map(|(kind, counts)| (kind.clone(), (counts.correct, counts.gold, counts.predicted)));
        assert_eq!(counts.collect::<BTreeMap<_, _>>(), case.by_type, "case {idx}: {:?}", case.sentences);
    }
}
