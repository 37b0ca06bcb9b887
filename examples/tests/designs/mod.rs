//! Small networks in files, for programs that have texts, labels and training of their own.

use serde_json::{Value, json};

use crate::teachers::checkpoint;

/// The paper's pair of texts, small; a target and an output that a program with its own has no use for.
pub(crate) fn pair_file() -> Value {
    json!({
        "tool_version": "1.1.0",
        "inputs": {
            "dataset_type": "classification",
            "file_header": {"label": 0, "answer": 2, "question": 1},
            "model_inputs": {"q": ["question"], "a": ["answer"]},
            "target": ["label"]
        },
        "outputs": {"save_base_dir": "unused", "model_name": "model.nb", "predict_fields": ["confidence@yes"]},
        "training_params": {
            "vocabulary": {"min_word_frequency": 1},
            "optimizer": {"name": "Adam", "params": {"lr": 0.02}},
            "max_lengths": {"q": 8}
        },
        "architecture": [
            {"layer": "Embedding", "conf": {"word": {"cols": ["question", "answer"], "dim": 12}}},
            {"layer_id": "q1", "layer": "BiLSTM", "conf": {"hidden_dim": 8}, "inputs": ["q"]},
            {"layer_id": "a1", "layer": "q1", "inputs": ["a"]},
            {"layer_id": "q2", "layer": "Pooling", "conf": {"pool_type": "max"}, "inputs": ["q1"]},
            {"layer_id": "a2", "layer": "Pooling", "conf": {"pool_type": "max"}, "inputs": ["a1"]},
            {"layer_id": "both", "layer": "Combination",
             "conf": {"operations": ["origin", "difference"]}, "inputs": ["q2", "a2"]},
            {"layer_id": "gold", "layer": "Linear", "inputs": ["both"], "output_layer_flag": true,
             "conf": {"hidden_dim": [16, -1], "last_hidden_activation": false}}
        ],
        "loss": {"losses": [{"type": "CrossEntropyLoss", "conf": {}, "inputs": ["gold", "label"]}]},
        "metrics": ["auc", "accuracy"]
    })
}

/// A pretrained encoder of a pair.
pub(crate) fn encoder_file() -> Value {
    let mut file = pair_file();
    file["inputs"]["model_inputs"] = json!({"pair": ["question", "answer"]});
    file["training_params"].as_object_mut().unwrap().remove("max_lengths");
    file["architecture"] = json!([
        {"layer_id": "encoder", "layer": "Encoder", "inputs": ["pair"],
         "conf": {"model": checkpoint("bert"), "layers": 1, "max_len": 14}},
        {"layer_id": "vector", "layer": "Pooling", "conf": {"pool_type": "mean"}, "inputs": ["encoder"]},
        {"layer_id": "gold", "layer": "Linear", "conf": {"hidden_dim": 5}, "inputs": ["vector"]},
        {"layer_id": "out", "layer": "Linear", "inputs": ["gold"], "output_layer_flag": true,
         "conf": {"hidden_dim": -1, "last_hidden_activation": false}},
    ]);
    file["loss"]["losses"][0]["inputs"] = json!(["out", "label"]);
    file
}

/// A tagger of words and their characters; its words stand in its `file_header`.
pub(crate) fn tagger_file(output: &str) -> Value {
    let mut file = pair_file();
    file["inputs"] = json!({
        "dataset_type": "sequence_tagging", "tagging_scheme": "BIO", "file_header": {"word": 0, "tag": 1},
        "predict_file_header": {"word": 0}, "model_inputs": {"words": ["word", "word_char"]}, "target": ["tag"]
    });
    file["outputs"]["predict_fields"] = json!(["prediction"]);
    file["training_params"].as_object_mut().unwrap().remove("max_lengths");
    let mut architecture = json!([
        {"layer": "Embedding", "conf": {
            "word": {"cols": ["word"], "dim": 10},
            "char": {"cols": ["word_char"], "type": "CNNCharEmbedding", "dim": 6, "embedding_matrix_dim": 4}}},
        {"layer_id": "states", "layer": "BiLSTM", "conf": {"hidden_dim": 8, "dropout": 0.1}, "inputs": ["words"]},
        {"layer_id": "tags", "layer": "Linear", "inputs": ["states"],
         "conf": {"hidden_dim": "#target#", "last_hidden_activation": false}},
        {"layer_id": "crf", "layer": "CRF", "conf": {}, "inputs": ["tags"], "output_layer_flag": true},
    ]);
    if output == "tags" {
        architecture.as_array_mut().unwrap().pop();
        architecture[2]["output_layer_flag"] = json!(true);
    }
    file["architecture"] = architecture;
    let loss = if output == "crf" { "CRFLoss" } else { "CrossEntropyLoss" };
    file["loss"]["losses"][0] = json!({"type": loss, "conf": {}, "inputs": [output, "tag"]});
    file["metrics"] = json!(["seq_tag_f1"]);
    file
}
