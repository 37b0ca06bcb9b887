use std::path::Path;

use super::*;
use crate::error::Result;

const BERT: &str = r#"{"model_type": "bert", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 40, "type_vocab_size": 2,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.2, "somebody_elses_key": [1]}"#;
const DISTILBERT: &str = r#"{"model_type": "distilbert", "vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4,
    "hidden_dim": 64, "max_position_embeddings": 40, "activation": "gelu", "dropout": 0.3,
    "id2label": {"1": "I", "0": "O"}}"#;

fn parse(text: &str) -> Result<EncoderConfig> {
    EncoderConfig::parse(text, Path::new("folder/config.json"))
}

#[test]
fn both_spellings_are_read() {
    let (bert, distilbert) = (parse(BERT).unwrap(), parse(DISTILBERT).unwrap());
    for config in [&bert, &distilbert] {
        let sizes = (config.vocabulary, config.hidden, config.layers, config.heads, config.intermediate);
        assert_eq!((sizes, config.max_positions), ((100, 32, 2, 4, 64), 40));
        assert_eq!((config.layer_norm_eps, config.attention_dropout), (1e-12, 0.1));
    }
    assert_eq!((bert.segments, distilbert.segments), (2, 0));
    assert_eq!((bert.hidden_dropout, distilbert.hidden_dropout), (0.2, 0.3));
    assert_eq!(bert.classes, None);
    assert_eq!(distilbert.classes, Some(vec!["O".to_string(), "I".to_string()]));
}

#[test]
fn what_is_written_is_read_again() {
    for text in [BERT, DISTILBERT] {
        let classes = vec!["B".to_string(), "A".to_string()];
        let config = EncoderConfig { classes: Some(classes.clone()), ..parse(text).unwrap() };
        assert_eq!(parse(&config.to_json("X", &classes).to_string()).unwrap(), config);
    }
}

#[test]
fn what_is_not_implemented_is_an_error_that_names_it() {
    let check = |text: &str, from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{from}");
        let message = parse(&text.replace(from, to)).unwrap_err().to_string();
        assert!(message.starts_with("folder/config.json: ") && message.contains(expected), "{message}");
    };
    check(BERT, "\"bert\"", "\"gpt2\"", "unsupported model_type `gpt2`, expected one of `bert`, `roberta`");
    let expected = "unsupported `hidden_act`: expected one of \"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\", \"relu\", found \"silu\"";
    check(BERT, "\"gelu\"", "\"silu\"", expected);
    check(DISTILBERT, "\"gelu\"", "\"silu\"", "unsupported `activation`: expected one of \"gelu\"");
    let relative = r#""position_embedding_type": "relative_key", "hidden_act""#;
    check(BERT, "\"hidden_act\"", relative, "`position_embedding_type`: expected \"absolute\", found \"relative_key\"");
    check(BERT, "\"hidden_size\": 32, ", "", "`hidden_size`: expected a whole number from 1, found none");
    check(BERT, "\"hidden_size\": 32", "\"hidden_size\": 33", "the width 33 is no multiple of the 4 attention heads");
    check(BERT, "\"vocab_size\": 100", "\"vocab_size\": -1", "`vocab_size`: expected a whole number from 1, found -1");
    check(BERT, "0.2", "1.0", "expected a probability below 1, found 1");
    check(DISTILBERT, "\"1\": \"I\"", "\"2\": \"I\"", "`id2label`: expected an object with a name for each");
    check(BERT, "{\"model_type\"", "{model_type", "key must be a string at line 1 column 2");
}

/// The config.json of a family's base model, with classes.
fn base_of(family: Family) -> (EncoderConfig, serde_json::Value) {
    let classes = vec!["B".to_string(), "A".to_string()];
    let config = EncoderConfig { classes: Some(classes.clone()), ..EncoderConfig::base(family) };
    let json = config.to_json("X", &classes);
    (config, json)
}

#[test]
fn every_family_is_written_and_read_again() {
    for family in Family::ALL {
        let (config, json) = base_of(family);
        assert_eq!(parse(&json.to_string()).unwrap(), config);
        assert_eq!(json["model_type"], family.model_type());
        // Values that are nobody's default.
        let config = EncoderConfig {
            activation: Activation::Relu,
            hidden_dropout: 0.25,
            attention_dropout: if family == Family::XlNet { 0.25 } else { 0.125 },
            classifier_dropout: Some(0.5),
            summary_dropout: matches!(family, Family::DistilBert | Family::XlNet).then_some(0.375),
            clamp_len: (family == Family::XlNet).then_some(7),
            groups: if family == Family::Albert { 3 } else { 1 },
            embedding: matches!(family, Family::Albert | Family::Electra).then_some(64),
            relative_buckets: if family == Family::MpNet { 16 } else { 32 },
            problem_type: Some(ProblemType::MultiLabel),
            initializer_range: 0.01,
            ..config
        };
        let json = config.to_json("X", &["B", "A"].map(String::from));
        assert_eq!(parse(&json.to_string()).unwrap(), config);
    }
}

#[test]
fn positions_start_behind_the_paddings_id_in_roberta() {
    let (_, mut json) = base_of(Family::Roberta);
    assert_eq!((&json["max_position_embeddings"], &json["pad_token_id"]), (&514.into(), &1.into()));
    json["pad_token_id"] = 3.into();
    let config = parse(&json.to_string()).unwrap();
    assert_eq!((config.first_position, config.max_positions), (4, 510));
    // MPNet's do not move, and what has no padding id gets the family's.
    let (_, mut json) = base_of(Family::MpNet);
    json["pad_token_id"] = 3.into();
    assert_eq!(parse(&json.to_string()).unwrap().first_position, 2);
    json["pad_token_id"] = serde_json::Value::Null;
    assert_eq!(parse(&json.to_string()).unwrap().padding_id, 1);
}

#[test]
fn both_names_of_the_approximate_gelu_are_read() {
    for name in ["gelu_new", "gelu_pytorch_tanh"] {
        let config = parse(&BERT.replace("\"gelu\"", &format!("\"{name}\""))).unwrap();
        assert_eq!(config.activation, Activation::GeluTanh);
        assert_eq!(config.to_json("X", &[])["hidden_act"], "gelu_new");
    }
}

#[test]
fn what_a_family_does_not_do_is_an_error_that_names_it() {
    let check = |family, key: &str, value: serde_json::Value, expected: &str| {
        let (_, mut json) = base_of(family);
        json[key] = value;
        let message = parse(&json.to_string()).unwrap_err().to_string();
        assert!(message.starts_with("folder/config.json: ") && message.contains(expected), "{message}");
    };
    check(Family::Albert, "inner_group_num", 2.into(), "unsupported `inner_group_num`: expected 1, found 2");
    check(Family::Albert, "num_hidden_groups", 5.into(), "the 12 layers are no multiple of the 5 groups");
    check(Family::XlNet, "attn_type", "uni".into(), "unsupported `attn_type`: expected \"bi\", found \"uni\"");
    check(Family::XlNet, "same_length", true.into(), "unsupported `same_length`: expected false, found true");
    check(Family::XlNet, "untie_r", false.into(), "unsupported `untie_r`: expected true, found false");
    check(Family::XlNet, "d_head", 32.into(), "unsupported `d_head`: expected 64, found 32");
    check(Family::XlNet, "summary_type", "mean".into(), "unsupported `summary_type`: expected \"last\"");
    check(Family::XlNet, "clamp_len", 0.into(), "`clamp_len`: expected a whole number from 1, found 0");
    check(Family::Electra, "embedding_size", 0.into(), "`embedding_size`: expected a whole number from 1, found 0");
    check(Family::Roberta, "is_decoder", true.into(), "unsupported `is_decoder`: expected false, found true");
    check(Family::Bert, "pad_token_id", (-1).into(), "`pad_token_id`: expected a word piece's id, found -1");
    check(Family::Bert, "problem_type", "x".into(), "unsupported `problem_type`: expected one of \"single_label");
}
