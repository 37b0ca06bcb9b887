//! Weights that `torch.save` wrote. Their values and the script that made them are in `tests/reference/pickle`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::DType;
use kd_teachers::checkpoint::Checkpoint;
use kd_teachers::config::Family;
use kd_teachers::hub::{FindOptions, ModelFiles};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/pickle").join(name)
}

/// Whether a checkpoint has what the script saved, exactly.
fn check(checkpoint: &Checkpoint) {
    let text = std::fs::read_to_string(file("reference.json")).unwrap();
    let reference: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let expected: BTreeMap<String, (Vec<usize>, Vec<f64>)> = reference
        .into_iter()
        .filter(|(name, _)| !name.ends_with("position_ids"))
        .map(|(name, value)| {
            let name = name.trim_start_matches("bert.").replace("gamma", "weight");
            let array = |key: &str| value[key].as_array().unwrap().clone();
            let shape = array("shape").iter().map(|len| len.as_u64().unwrap() as usize).collect();
            (name, (shape, array("values").iter().map(|value| value.as_f64().unwrap()).collect()))
        })
        .collect();
    let found = checkpoint.tensors().map(|(name, tensor)| {
        assert_eq!(tensor.dtype(), DType::F32, "{name}");
        let values = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        (name.to_string(), (tensor.dims().to_vec(), values))
    });
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
}

/// A folder with these of the files, and a configuration and a tokenizer to be found with them.
fn folder(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::copy(file(name), folder.path().join(name)).unwrap();
    }
    for name in ["config.json", "tokenizer.json"] {
        std::fs::write(folder.path().join(name), "{}").unwrap();
    }
    folder
}

const SHARDS: [&str; 3] =
    ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];

#[test]
fn values_are_those_that_were_saved() {
    check(&Checkpoint::read_pickle(&[file("pytorch_model.bin")], Family::Bert).unwrap());
}

#[test]
fn a_pickle_is_read_only_where_it_is_allowed() {
    let allowed = FindOptions { pickle: true, ..FindOptions::default() };
    for names in [&["pytorch_model.bin"][..], &SHARDS] {
        let folder = folder(names);
        let message = ModelFiles::in_folder(folder.path()).unwrap_err().to_string();
        for part in ["no model.safetensors in", names[0], "convert them to safetensors", "pickle: true"] {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        let files = ModelFiles::in_folder_with(folder.path(), &allowed).unwrap();
        assert!(files.pickle && files.weights.len() == names.len().div_ceil(2), "{files:?}");
        check(&Checkpoint::of(&files, Family::Bert).unwrap());
    }
    // As a single file.
    let folder = folder(&["pytorch_model.bin"]);
    let weights = folder.path().join("pytorch_model.bin");
    let message = ModelFiles::of_weights(&weights, None, None, &FindOptions::default()).unwrap_err().to_string();
    assert!(message.contains("weights are pickled"), "{message}");
    check(&Checkpoint::of(&ModelFiles::of_weights(&weights, None, None, &allowed).unwrap(), Family::Bert).unwrap());
    // Safetensors come first, allowed or not.
    std::fs::write(folder.path().join("model.safetensors"), "").unwrap();
    assert!(!ModelFiles::in_folder_with(folder.path(), &allowed).unwrap().pickle);
    // And nobody reads one for the other.
    let message = Checkpoint::read(&[weights], Family::Bert).unwrap_err().to_string();
    assert!(message.contains("expected a safetensors file, found a zip file"), "{message}");
}

#[test]
fn a_tensor_that_its_shard_lacks_is_named() {
    let folder = folder(&SHARDS);
    std::fs::copy(file(SHARDS[2]), folder.path().join(SHARDS[1])).unwrap();
    let allowed = FindOptions { pickle: true, ..FindOptions::default() };
    let message = ModelFiles::in_folder_with(folder.path(), &allowed).unwrap_err().to_string();
    for part in [SHARDS[1], "expected tensor `bert.encoder.layer.0.attention.self.key.weight` and 2 more", SHARDS[0]] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let check = |name: &str, parts: &[&str]| {
        let message = Checkpoint::read_pickle(&[file(name)], Family::Bert).unwrap_err().to_string();
        for part in [&[name], parts].concat() {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    };
    check("strided.bin", &["`bert.encoder.layer.0.output.dense.weight`", "non-contiguous"]);
    check("integers.bin", &["`bert.encoder.layer.0.output.dense.bias`: expected F32, F16 or BF16, found I64"]);
    check("list.bin", &["found no tensors"]);
    check("make.py", &["expected a state dict that torch.save wrote"]);
    check("none.bin", &["expected a state dict that torch.save wrote"]);
    let same = [file("pytorch_model.bin"), file("pytorch_model-00001-of-00002.bin")];
    let message = Checkpoint::read_pickle(&same, Family::Bert).unwrap_err().to_string();
    assert!(message.contains("are both `encoder.layer.0.attention.self.key.weight`"), "{message}");
}
