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
