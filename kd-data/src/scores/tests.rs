use std::collections::BTreeMap;

use super::*;

#[derive(serde::Deserialize)]
struct Reference {
    classes: Vec<Classes>,
    numbers: Vec<Numbers>,
}

#[derive(serde::Deserialize)]
struct Classes {
    classes: Vec<String>,
    positive: Option<String>,
    gold: Vec<u32>,
    scores: Vec<Vec<f32>>,
    values: BTreeMap<String, f64>,
}

#[derive(serde::Deserialize)]
struct Numbers {
    gold: Vec<f64>,
    predicted: Vec<f64>,
    values: BTreeMap<String, f64>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../tests/reference/scores.json")).unwrap()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

#[test]
fn scores_of_classes_are_those_of_scikit_learn() {
    for case in reference().classes {
        let rows = ClassRows {
            classes: &case.classes,
            positive: case.positive.as_deref(),
            gold: &case.gold,
            scores: &case.scores,
        };
        assert!(case.values.len() > 10);
        for (name, expected) in case.values {
            let found = Score::named(&name, Problem::Classification).unwrap().of_classes(&rows).unwrap().unwrap();
            assert!((found - expected).abs() < 1e-12, "{name}: {found}, expected {expected}");
        }
    }
}

#[test]
fn scores_of_numbers_are_those_of_scikit_learn() {
    for case in reference().numbers {
        assert_eq!(case.values.len(), 4);
        for (name, expected) in case.values {
            let score = Score::named(&name, Problem::Regression).unwrap();
            let found = score.of_numbers(&case.gold, &case.predicted).unwrap().unwrap();
            assert!((found - expected).abs() < 1e-12, "{name}: {found}, expected {expected}");
        }
    }
    // (1² + 3²) / 2 and its root; the mean of nothing is none.
    let numbers = |name: &str, gold: &[f64], predicted: &[f64]| {
        Score::named(name, Problem::Regression).unwrap().of_numbers(gold, predicted).unwrap()
    };
    assert_eq!(numbers("MSE", &[0.0, 1.0], &[1.0, -2.0]), Some(5.0));
    assert_eq!(numbers("RMSE", &[0.0, 1.0], &[1.0, -2.0]), Some(5f64.sqrt()));
    assert_eq!((numbers("RMSE", &[], &[]), numbers("pearsonr", &[1.0, 1.0], &[1.0, 2.0])), (None, None));
}

#[test]
fn scores_of_tags_count_entities_and_words() {
    let gold = [strings(&["B-PER", "I-PER", "O"]), strings(&["B-LOC", "O"])];
    let predicted = [strings(&["B-PER", "O", "O"]), strings(&["B-LOC", "O"])];
    let of = |name: &str| Score::named(name, Problem::SequenceTagging).unwrap().of_tags(&gold, &predicted).unwrap();
    // One of two entities is right; four of five words are.
    assert_eq!((of("seq_tag_f1"), of("seq_tag_accuracy")), (0.5, 0.8));
    let bioes = [strings(&["S-PER", "O", "B-LOC", "E-LOC"])];
    let other = [strings(&["S-PER", "O", "B-LOC", "O"])];
    let f1 = Score::EntityF1;
    assert_eq!((f1.of_tags(&bioes, &bioes).unwrap(), f1.of_tags(&bioes, &other).unwrap()), (1.0, 0.5));
    let message = f1.of_tags(&gold, &predicted[..1]).unwrap_err().to_string();
    assert_eq!(message, "predicted tags: expected 5 words of 2 sentences, found 3 words of 1 sentences");
}

#[test]
fn answers_are_compared_by_their_words() {
    let gold = strings(&["the Normans", "in 1066", "Köln"]);
    let predicted = strings(&["Normans!", "1066 or 1067", "Berlin"]);
    let of = |name: &str| Score::named(name, Problem::Mrc).unwrap().of_answers(&gold, &predicted).unwrap();
    // 1; one of two and of three words, 2 / 5; 0.
    assert!((of("f1") - (1.0 + 0.4 + 0.0) / 3.0).abs() < 1e-15);
    assert!((of("em") - 1.0 / 3.0).abs() < 1e-15);
    // A word counts as often as it occurs in both.
    assert_eq!(answers::f1("to be to", "to to to"), 2.0 * 2.0 / 6.0);
    assert_eq!(answers::f1("the", "a"), 0.0);
    assert!(answers::exact_match("the", "a"));
}

#[test]
fn what_cannot_be_scored_is_named() {
    let classes = strings(&["yes", "no"]);
    let rows =
        ClassRows { classes: &classes, positive: None, gold: &[0, 1], scores: &[vec![0.9, 0.1], vec![0.2, 0.8]] };
    let message = |score: &Score, rows: &ClassRows<'_>| score.of_classes(rows).unwrap_err().to_string();
    let auc = Score::Auc(Positive::Configured);
    let unnamed = "positive class: expected its name, or the classes `0` and `1`, found `yes`, `no`";
    assert_eq!(message(&auc, &rows), unnamed);
    assert_eq!(message(&Score::Classes(ClassScore::F1, Over::Positive), &rows), unnamed);
    let maybe = ClassRows { positive: Some("maybe"), ..rows };
    assert_eq!(message(&auc, &maybe), "positive class: expected `yes`, `no`, found `maybe`");
    let few = ClassRows { scores: &[vec![0.9, 0.1]], ..rows };
    assert_eq!(message(&auc, &few), "scores: expected those of 2 rows, found 1");
    let nan = ClassRows { scores: &[vec![0.9, f32::NAN], vec![0.2, 0.8]], ..rows };
    assert_eq!(message(&auc, &nan), "scores: expected 2 numbers a row, found [0.9, NaN]");
    let third = ClassRows { gold: &[0, 2], ..rows };
    assert_eq!(message(&auc, &third), "gold: expected classes below 2, found 2");
    assert_eq!(message(&Score::Mse, &rows), "metric: expected one of classes, found Mse");
    let one = ClassRows { positive: Some("yes"), gold: &[0, 0], ..rows };
    assert_eq!(auc.of_classes(&one).unwrap(), None);
    assert_eq!(Score::Auc(Positive::Each).of_classes(&one).unwrap(), None);
    assert!(Score::Accuracy.of_numbers(&[1.0], &[1.0]).is_err() && Score::EntityF1.of_answers(&["a"], &["a"]).is_err());
    let message = Score::named("auc@", Problem::Classification).unwrap_err().to_string();
    assert!(message.starts_with("metric `auc@`: expected one of accuracy"), "{message}");
    assert_eq!(
        Score::named("em", Problem::SequenceTagging).unwrap_err().to_string(),
        "metric `em`: expected one of seq_tag_f1, seq_tag_accuracy, found another name"
    );
}
