//! Metrics against scikit-learn's, scipy's and plain loops' numbers, `reference/metrics.py`.

use kd_core::metrics::{
    Average, average_precision, class_scores, expected_calibration_error, pearson, ranking_scores, roc_auc, spearman,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    classes: Vec<Classes>,
    scores: Vec<Scores>,
    correlations: Vec<Correlations>,
    ranking: Vec<Ranking>,
    calibration: Vec<Calibration>,
}

/// Precision, recall and F1 of each average.
#[derive(Deserialize)]
struct Classes {
    predicted: Vec<u32>,
    gold: Vec<u32>,
    accuracy: f64,
    matthews: f64,
    r#macro: [f64; 3],
    micro: [f64; 3],
    weighted: [f64; 3],
    /// Of class 1.
    binary: [f64; 3],
}

#[derive(Deserialize)]
struct Scores {
    scores: Vec<f64>,
    gold: Vec<bool>,
    roc_auc: Option<f64>,
    average_precision: f64,
}

#[derive(Deserialize)]
struct Correlations {
    predicted: Vec<f64>,
    gold: Vec<f64>,
    pearson: Option<f64>,
    spearman: Option<f64>,
}

#[derive(Deserialize)]
struct Ranking {
    questions: Vec<u32>,
    scores: Vec<f64>,
    gold: Vec<bool>,
    map: f64,
    mrr: f64,
    without_right: usize,
    only_right: usize,
}

#[derive(Deserialize)]
struct Calibration {
    confidences: Vec<f64>,
    correct: Vec<bool>,
    bins: usize,
    error: f64,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("reference/metrics.json")).unwrap()
}

#[track_caller]
fn check(what: &str, found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12, "{what}: expected {expected}, found {found}");
}

#[track_caller]
fn check_option(what: &str, found: Option<f64>, expected: Option<f64>) {
    match (found, expected) {
        (Some(found), Some(expected)) => check(what, found, expected),
        _ => assert_eq!(found, expected, "{what}"),
    }
}

#[test]
fn numbers_of_classes_are_scikit_learns() {
    for (idx, case) in reference().classes.into_iter().enumerate() {
        let scores = class_scores(&case.predicted, &case.gold).unwrap();
        check(&format!("accuracy {idx}"), scores.accuracy(), case.accuracy);
        check(&format!("matthews {idx}"), scores.matthews(), case.matthews);
        let averages = [
            (Average::Macro, case.r#macro),
            (Average::Micro, case.micro),
            (Average::Weighted, case.weighted),
            (Average::Binary { positive: 1 }, case.binary),
        ];
        for (average, expected) in averages {
            let found = [scores.precision(average), scores.recall(average), scores.f1(average)];
            for (name, (found, expected)) in
                ["precision", "recall", "f1"].into_iter().zip(found.into_iter().zip(expected))
            {
                check(&format!("{name} {average:?} {idx}"), found, expected);
            }
        }
    }
}

#[test]
fn areas_and_average_precisions_are_scikit_learns() {
    for (idx, case) in reference().scores.into_iter().enumerate() {
        let found = roc_auc(&case.scores, &case.gold).unwrap();
        check_option(&format!("roc_auc {idx}"), found, case.roc_auc);
        let found = average_precision(&case.scores, &case.gold).unwrap();
        check(&format!("average_precision {idx}"), found, case.average_precision);
    }
}

#[test]
fn correlations_are_scipys() {
    for (idx, case) in reference().correlations.into_iter().enumerate() {
        let found = pearson(&case.predicted, &case.gold).unwrap();
        check_option(&format!("pearson {idx}"), found, case.pearson);
        let found = spearman(&case.predicted, &case.gold).unwrap();
        check_option(&format!("spearman {idx}"), found, case.spearman);
    }
}

#[test]
fn rankings_are_those_of_plain_loops_in_any_order_of_rows() {
    for case in reference().ranking {
        let found = ranking_scores(&case.questions, &case.scores, &case.gold).unwrap();
        check("map", found.mean_average_precision, case.map);
        check("mrr", found.mean_reciprocal_rank, case.mrr);
        assert_eq!((found.without_right, found.only_right), (case.without_right, case.only_right));
        let backwards = ranking_scores(
            &case.questions.iter().rev().collect::<Vec<_>>(),
            &case.scores.iter().rev().copied().collect::<Vec<_>>(),
            &case.gold.iter().rev().copied().collect::<Vec<_>>(),
        );
        assert_eq!(backwards.unwrap(), found);
    }
}

#[test]
fn calibration_errors_are_those_of_plain_loops() {
    for (idx, case) in reference().calibration.into_iter().enumerate() {
        let found = expected_calibration_error(&case.confidences, &case.correct, case.bins).unwrap();
        check(&format!("case {idx}"), found, case.error);
    }
}
