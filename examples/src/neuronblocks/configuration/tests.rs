use std::path::Path;

use kd_core::optim::{OptimizerConfig, SgdConfig};
use kd_core::schedule::Schedule;
use serde_json::{Value, json};

use super::*;

fn small() -> Value {
    json!({
        "license": "MIT", "tool_version": "1.1.3", "model_description": "pairs of texts",
        "inputs": {
            "dataset_type": "classification",
            "file_header": {"first": 0, "second": 1, "label": 2, "soft": 3},
            "model_inputs": {"a": ["first"], "b": ["second"]},
            "target": ["label"]
        },
        "outputs": {"save_base_dir": "models/", "model_name": "model.nb"},
        "training_params": {
            "optimizer": {"name": "SGD", "params": {"lr": 0.2, "momentum": 0.9, "nesterov": true}},
            "lr_decay": 0.95, "minimum_lr": 0.05, "epoch_start_lr_decay": 2, "batch_size": 4
        },
        "architecture": [], "loss": {}, "metrics": ["auc"]
    })
}

/// `small` with the value at `pointer` replaced, or put there.
fn with(pointer: &str, value: Value) -> Result<Configuration> {
    let mut all = small();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    all.pointer_mut(parent).unwrap()[key] = value;
    Configuration::parse(Path::new("small.json"), all)
}

#[test]
fn what_is_left_out_has_the_defaults_of_the_format() {
    let read = Configuration::parse(Path::new("small.json"), small()).unwrap();
    let Configuration { inputs, outputs, training, .. } = &read;
    assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    assert_eq!(read.language, Language::English);
    assert!(inputs.use_cache && !inputs.file_with_col_header && !inputs.add_start_end_for_seq);
    assert_eq!((inputs.vector_type, inputs.vector_coding), (VectorType::Glove, VectorCoding::Text));
    assert_eq!(inputs.model_inputs[1], ("b".to_string(), vec!["second".to_string()]));
    assert_eq!(outputs.predict_fields, [Field::Prediction, Field::Confidence]);
    assert_eq!(outputs.predict_output_name, "predict.tsv");
    let limits = VocabularyLimits { min_word_frequency: 3, max_vocabulary: 800_000, max_building_lines: 1_000_000 };
    assert_eq!(training.vocabulary, limits);
    let sgd = SgdConfig { momentum: 0.9, nesterov: true, ..SgdConfig::with_lr(0.2) };
    assert_eq!(training.optimizer, OptimizerConfig::Sgd(sgd));
    assert_eq!((training.validation, training.max_epoch, training.clip_norm), (Validation::Steps(10), None, None));
}

#[test]
fn the_rate_decays_after_each_epoch_down_to_the_minimum() {
    let training = Configuration::parse(Path::new("small.json"), small()).unwrap().training;
    let expected = Schedule::StepDecay { start: 20, every: 10, rate: 0.95, minimum: 0.25 };
    assert_eq!(training.schedule(10), expected);
    let constant = with("/training_params/minimum_lr", json!(0.3)).unwrap().training;
    assert_eq!(constant.schedule(10), Schedule::Constant);
}

#[test]
fn keys_that_the_original_never_read_are_warnings() {
    let read = with("/training_params/max_lengths", json!({"a": 30, "second": 100})).unwrap();
    assert_eq!(read.training.max_lengths, [("a".to_string(), 30)]);
    assert_eq!(
        read.warnings,
        ["training_params.max_lengths.second: has no effect, this is a column; lengths are those of branches"]
    );
    let read = with("/training_params/fixed_lengths", json!({"c": 3})).unwrap();
    assert_eq!(
        read.warnings,
        ["training_params.fixed_lengths.c: has no effect, there is no branch of this name (but a, b)"]
    );
    let read = with("/training_params/valid_times_per_epoch", json!(2)).unwrap();
    assert_eq!(read.warnings, ["training_params.valid_times_per_epoch: is an old name of `steps_per_validation`"]);
    assert_eq!([1, 7, 8].map(|steps| read.training.steps_per_validation(steps)), [1, 3, 4]);
}

#[test]
fn what_is_wrong_is_named_with_its_path() {
    for (pointer, value, message) in [
        ("/tool_version", json!("1.2.0"), "tool_version: expected 1.1.x, found `1.2.0`"),
        ("/language", json!("French"), "language: expected english or chinese, found `French`"),
        ("/metric", json!(["f1"]), "metric: unknown key, expected one of `license`"),
        ("/inputs/use_cahce", json!(true), "inputs.use_cahce: unknown key, expected one of"),
        (
            "/inputs/target",
            json!(["lable"]),
            "inputs.target: expected columns of file_header (first, second, label, soft), found `lable`",
        ),
        ("/inputs/dataset_type", json!("ranking"), "inputs.dataset_type: expected classification, regression,"),
        ("/inputs/dataset_type", json!("sequence_tagging"), "inputs.tagging_scheme: expected BIO or BIOES, which"),
        (
            "/inputs/file_header",
            json!({"first": 0, "label": 0}),
            "inputs.file_header.label: expected a place of its own, `first` has this one, found 0",
        ),
        (
            "/inputs/model_inputs",
            json!({"a": "first"}),
            "inputs.model_inputs.a: expected a list of columns, found \"first\"",
        ),
        (
            "/outputs/predict_fields",
            json!(["prediction", "odds"]),
            "outputs.predict_fields[1]: expected prediction, confidence or confidence@CLASS, found `odds`",
        ),
        ("/training_params/batch_size", json!(0), "training_params.batch_size: expected at least 1, found 0"),
        (
            "/training_params/batch_size",
            json!("4"),
            "training_params.batch_size: invalid type: string \"4\", expected usize",
        ),
        ("/training_params/lr_decay", json!(1.5), "training_params.lr_decay: expected a factor in (0, 1], found 1.5"),
        (
            "/training_params/optimizer/name",
            json!("LBFGS"),
            "training_params.optimizer.name: expected SGD, Adam, AdamW, Adamax, NAdam, RAdam, Adagrad, Adadelta or RMSprop, found `LBFGS`",
        ),
        (
            "/training_params/optimizer/params",
            json!({"lr": -1.0}),
            "training_params.optimizer.params.lr: expected a finite rate of at least 0",
        ),
        (
            "/training_params/optimizer/params",
            json!({"lr": 1.0, "momentun": 0.9}),
            "training_params.optimizer.params.momentun: unknown key",
        ),
        (
            "/training_params/text_preprocessing",
            json!(["lower"]),
            "training_params.text_preprocessing: unknown variant `lower`",
        ),
        (
            "/training_params/vocabulary",
            json!({"min_frequency": 1}),
            "training_params.vocabulary.min_frequency: unknown key",
        ),
        (
            "/distillation",
            json!({"alpha": 2, "teachers": []}),
            "distillation.alpha: expected a weight in [0, 1], found 2",
        ),
        ("/distillation", json!({"teachers": []}), "distillation.teachers: expected at least one, found none"),
        (
            "/distillation",
            json!({"teachers": [{"scores": "sotf"}]}),
            "distillation.teachers[0].scores: expected columns of inputs.file_header, found `sotf`",
        ),
        (
            "/distillation",
            json!({"teachers": [{"file": "a", "model": "b"}]}),
            "distillation.teachers[0].model: expected one of",
        ),
        ("/outputs/answer", json!([]), "outputs.answer: expected at least one output layer, found none"),
        (
            "/distillation",
            json!({"loss": "logit_mse", "temperature": 2.0, "teachers": [{"file": "a"}]}),
            "distillation.temperature: expected 1, `logit_mse` has none, found 2",
        ),
    ] {
        let found = with(pointer, value).unwrap_err().to_string();
        assert!(found.starts_with(message), "{pointer}: {found}");
    }
}

#[test]
fn a_file_is_named_with_what_is_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.json");
    std::fs::write(&path, "{\"tool_version\": ").unwrap();
    let message = format!("{:#}", Configuration::read(&path).unwrap_err());
    assert!(message.contains("broken.json: EOF while parsing a value at line 1"), "{message}");
    std::fs::write(&path, format!("\u{feff}{}", small())).unwrap(); // as editors of another system save it
    assert_eq!(Configuration::read(&path).unwrap().metrics, ["auc"]);
}

#[test]
fn teachers_are_columns_files_or_models() {
    let teachers = json!({"alpha": 0.9, "temperature": 2.0, "teachers": [
        {"scores": {"0": "first", "1": "soft"}, "numbers": "probs"},
        {"file": "bert.teacher", "output": "head"},
        {"model": "me/bert", "store": "teachers/"}
    ]});
    let read = with("/distillation", teachers).unwrap().distillation.unwrap();
    assert_eq!(read.loss, kd_core::objective::SoftLoss::Kl { temperature: 2.0 });
    assert!(matches!(&read.teachers[0].source, Source::Scores { columns, .. } if columns.len() == 2));
    assert_eq!(read.teachers[1].output.as_deref(), Some("head"));
    assert!(matches!(&read.teachers[2].source, Source::Model { revision, .. } if revision == "main"));
}

#[test]
fn a_regression_learns_from_numbers_as_they_are() {
    let mut all = small();
    all["inputs"]["dataset_type"] = json!("regression");
    all["metrics"] = json!(["RMSE"]);
    all["distillation"] = json!({"teachers": [{"scores": "soft", "numbers": "probs"}]});
    let message = Configuration::parse(Path::new("small.json"), all).unwrap_err().to_string();
    assert!(message.starts_with("distillation.teachers[0].numbers: expected logits"), "{message}");
}

#[test]
fn boundaries_around_a_passage_are_a_warning() {
    let mut all = small();
    all["inputs"]["dataset_type"] = json!("mrc");
    all["inputs"]["add_start_end_for_seq"] = json!(true);
    all["metrics"] = json!(["f1"]);
    let read = Configuration::parse(Path::new("small.json"), all).unwrap();
    assert!(!read.inputs.add_start_end_for_seq);
    assert_eq!(
        read.warnings,
        ["inputs.add_start_end_for_seq: has no effect in mrc, answers are places in the passage"]
    );
}
