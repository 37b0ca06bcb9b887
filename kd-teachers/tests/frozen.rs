//! Models of candle-transformers as teachers say what transformers says.
#![cfg(feature = "candle-transformers")]

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use kd_core::batch::{Rows, Sequence, Tokens, pad};
use kd_core::model::Teacher;
use kd_teachers::frozen::FrozenModel;
use kd_teachers::hub::ModelFiles;
use serde_json::{Value, json};

fn reference() -> Value {
    serde_json::from_str(include_str!("reference/frozen.json")).unwrap()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/frozen").join(name)
}

fn files(folder: &Path) -> ModelFiles {
    // The other files of some model: no tokenizer is read here.
    let others = ModelFiles::in_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/bert")).unwrap();
    ModelFiles { config: folder.join("config.json"), weights: vec![folder.join("model.safetensors")], ..others }
}

fn whole(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Three sequences of 20, 9 and 1 tokens.
fn sequence(segments: bool) -> Sequence {
    let reference = reference();
    let rows = |key: &str| -> Vec<Vec<u32>> {
        let rows = reference[key].as_array().unwrap().iter().zip(whole(&reference["lengths"]));
        rows.map(|(row, len)| whole(row)[..len as usize].to_vec()).collect()
    };
    let sequence = pad(&rows("ids"), &Device::Cpu).unwrap();
    let segments = segments.then(|| pad(&rows("segments"), &Device::Cpu).unwrap().ids);
    Sequence { segments, ..sequence }
}

fn words() -> Rows {
    let index = Tensor::new(whole(&reference()["words"]), &Device::Cpu).unwrap();
    Rows::Words { index, per_example: vec![4, 2, 1] }
}

fn tokens(name: &str) -> Tokens {
    let rows = if name.ends_with("token") { words() } else { Rows::Examples };
    let first = sequence(name.starts_with("bert") || name.starts_with("deberta-v2"));
    Tokens { first, second: None, more: Vec::new(), rows }
}

fn logits(teacher: &FrozenModel, tokens: &Tokens) -> Vec<f32> {
    teacher.teach(tokens).unwrap().logits().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn logits_agree_with_transformers() {
    let reference = reference();
    let expected = reference["logits"].as_object().unwrap();
    assert_eq!(expected.len(), 10);
    for (name, expected) in expected {
        let teacher = FrozenModel::from_files(&files(&folder(name)), &Device::Cpu).unwrap();
        assert_eq!(teacher.classes(), ["no", "perhaps", "yes"]);
        let expected: Vec<f32> = serde_json::from_value(expected.clone()).unwrap();
        let found = logits(&teacher, &tokens(name));
        assert_eq!(found.len(), expected.len(), "{name}");
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{name}: largest difference {worst:e}");
        assert!(worst <= 1e-5, "{name}: largest difference {worst:e}: {found:?}, expected {expected:?}");
    }
}

#[test]
fn padding_changes_nothing() {
    for name in reference()["logits"].as_object().unwrap().keys() {
        let teacher = FrozenModel::from_files(&files(&folder(name)), &Device::Cpu).unwrap();
        let all = tokens(name);
        let junk = Tensor::full(9u32, all.first.ids.shape(), &Device::Cpu).unwrap();
        let ids = all.first.mask.where_cond(&all.first.ids, &junk).unwrap();
        let with_junk = Tokens { first: Sequence { ids, ..all.first.clone() }, ..all.clone() };
        assert_eq!(logits(&teacher, &all), logits(&teacher, &with_junk), "{name}");
    }
}

/// A copy of a checkpoint whose config.json went through `edit`.
fn edited(name: &str, edit: impl FnOnce(&mut Value)) -> (tempfile::TempDir, ModelFiles) {
    let to = tempfile::tempdir().unwrap();
    std::fs::copy(folder(name).join("model.safetensors"), to.path().join("model.safetensors")).unwrap();
    let mut config: Value = serde_json::from_slice(&std::fs::read(folder(name).join("config.json")).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(to.path().join("config.json"), config.to_string()).unwrap();
    let files = files(to.path());
    (to, files)
}

#[test]
fn older_spellings_of_a_config_mean_the_same() {
    let expected = logits(
        &FrozenModel::from_files(&files(&folder("modernbert-mean")), &Device::Cpu).unwrap(),
        &tokens("modernbert-mean"),
    );
    let (_folder, older) = edited("modernbert-mean", |config| {
        let config = config.as_object_mut().unwrap();
        config.remove("layer_types");
        config.remove("rope_parameters");
        config.insert("global_attn_every_n_layers".into(), json!(3));
        config.insert("global_rope_theta".into(), json!(1000.0));
        config.insert("local_rope_theta".into(), json!(50.0));
    });
    let teacher = FrozenModel::from_files(&older, &Device::Cpu).unwrap();
    assert_eq!(logits(&teacher, &tokens("modernbert-mean")), expected);
    // DeBERTa's `pos_att_type` as one text.
    let expected =
        logits(&FrozenModel::from_files(&files(&folder("deberta-v3-token")), &Device::Cpu).unwrap(), &tokens("token"));
    let (_folder, text) = edited("deberta-v3-token", |config| config["pos_att_type"] = json!("p2c|c2p"));
    assert_eq!(logits(&FrozenModel::from_files(&text, &Device::Cpu).unwrap(), &tokens("token")), expected);
    // Without names the classes are called as transformers calls them.
    let (_folder, nameless) = edited("bert-token", |config| {
        config.as_object_mut().unwrap().remove("id2label");
        config["num_labels"] = json!(3);
    });
    let teacher = FrozenModel::from_files(&nameless, &Device::Cpu).unwrap();
    assert_eq!(teacher.classes(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

#[test]
fn what_that_crate_does_not_do_is_an_error_that_names_it() {
    let message = |name: &str, key: &str, value: Value| {
        let (_folder, files) = edited(name, |config| config[key] = value);
        FrozenModel::from_files(&files, &Device::Cpu).unwrap_err().to_string()
    };
    let check = |name: &str, key: &str, value: Value, expected: &str| {
        let message = message(name, key, value);
        assert!(message.contains("config.json: ") && message.contains(expected), "{message}");
    };
    let types = "`model_type`: expected one of `bert`, `roberta`, `xlm-roberta`, `deberta-v2`, `modernbert`, \
                 found `xlnet`";
    check("bert-token", "model_type", json!("xlnet"), types);
    check("bert-token", "architectures", json!(["BertForMaskedLM"]), "*ForTokenClassification, found BertForMaskedLM");
    check("deberta-v3-token", "conv_kernel_size", json!(3), "unsupported `conv_kernel_size`: expected 0, found 3");
    check(
        "deberta-v3-token",
        "position_biased_input",
        json!(true),
        "unsupported `position_biased_input`: expected false",
    );
    check("deberta-v3-token", "embedding_size", json!(8), "unsupported `embedding_size`: expected 16, found 8");
    check(
        "deberta-v3-token",
        "pos_att_type",
        json!(["c2p", "p2p"]),
        "`pos_att_type`: expected `c2p` and `p2c`, found `p2p`",
    );
    check(
        "modernbert-token",
        "attention_bias",
        json!(true),
        "unsupported `attention_bias`: expected false, found true",
    );
    let layers = json!(["full_attention", "full_attention", "sliding_attention", "full_attention"]);
    check("modernbert-token", "layer_types", layers, "`layer_types`: expected `full_attention` every so many layers");
    let relative = json!("relative_key");
    check("bert-token", "position_embedding_type", relative, "expected \"absolute\", found \"relative_key\"");
    check("bert-token", "id2label", json!({"1": "a"}), "`id2label`: expected an object with a name for each of");
    let message = FrozenModel::bert(&files(&folder("modernbert-token")), &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("config.json: `model_type`: expected `bert`, found `modernbert`"), "{message}");
    // Rows of the other kind.
    let tagger = FrozenModel::from_files(&files(&folder("bert-token")), &Device::Cpu).unwrap();
    let message = tagger.teach(&tokens("bert-sequence")).unwrap_err().to_string();
    assert!(message.contains("labels words, found rows of examples"), "{message}");
    let classifier = FrozenModel::from_files(&files(&folder("bert-sequence")), &Device::Cpu).unwrap();
    let message = classifier.teach(&tokens("bert-token")).unwrap_err().to_string();
    assert!(message.contains("labels examples, found rows of words"), "{message}");
}
