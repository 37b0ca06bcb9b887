//! Spellings of one checkpoint that load, and files that do not.

mod reference;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use kd_core::model::Mode;
use kd_teachers::checkpoint::Checkpoint;
use kd_teachers::config::Family;
use kd_teachers::hub::ModelFiles;
use kd_teachers::int8;
use reference::{FAMILIES, Stored, assert_close, edited, encoder, folder, sequence, unpadded};
use safetensors::tensor::Dtype;

fn hidden(files: &ModelFiles) -> Vec<f32> {
    let (encoder, _) = encoder(files).unwrap();
    unpadded(&encoder.forward(&sequence(), Mode::Eval).unwrap(), &sequence())
}

fn original(family: &str) -> Vec<f32> {
    hidden(&ModelFiles::in_folder(&folder(family)).unwrap())
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn prefixes_and_old_names_do_not_matter() {
    for family in FAMILIES {
        let prefix = format!("{family}.");
        let rename: [&dyn Fn(&str) -> String; 3] = [
            &|name| name.strip_prefix(&prefix).unwrap_or(name).to_string(),
            &|name| format!("{prefix}{}", name.strip_prefix(&prefix).unwrap_or(name)),
            &|name| name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
        ];
        for rename in rename {
            let (_folder, files) = edited(family, |tensors| {
                for tensor in tensors.iter_mut().filter(|tensor| !tensor.0.starts_with("classifier.")) {
                    tensor.0 = rename(&tensor.0);
                }
            });
            assert_eq!(hidden(&files), original(family));
        }
    }
}

#[test]
fn what_an_encoder_does_not_use_is_left_out() {
    let (_folder, files) = edited("bert", |tensors| {
        tensors.push(("bert.embeddings.position_ids".into(), Dtype::I64, vec![1, 2], vec![0; 16]));
        tensors.push(("bert.pooler.dense.weight".into(), Dtype::F32, vec![1], vec![0; 4]));
        tensors.push(("cls.predictions.bias".into(), Dtype::F32, vec![1], vec![0; 4]));
    });
    assert_eq!(hidden(&files), original("bert"));
}

#[test]
fn halves_are_read() {
    let f16 = |x: f32| half::f16::from_f32(x).to_le_bytes();
    let bf16 = |x: f32| half::bf16::from_f32(x).to_le_bytes();
    let convert: [&dyn Fn(f32) -> [u8; 2]; 2] = [&f16, &bf16];
    for ((dtype, tolerance), convert) in [(Dtype::F16, 0.01), (Dtype::BF16, 0.1)].into_iter().zip(convert) {
        let (_folder, files) = edited("distilbert", |tensors| {
            for (_, stored_dtype, _, bytes) in tensors {
                *bytes = f32s(bytes).into_iter().flat_map(convert).collect();
                *stored_dtype = dtype;
            }
        });
        assert_close(&hidden(&files), &original("distilbert"), tolerance, &format!("{dtype:?}"));
    }
}

#[test]
fn several_files_are_one_model() {
    let (folder, mut files) = edited("bert", |_| {});
    let mut rest = Vec::new();
    let (_half, first_half) = edited("bert", |tensors| rest = tensors.split_off(tensors.len() / 2));
    let second = folder.path().join("second.safetensors");
    reference::write(&second, &rest);
    files.weights = vec![first_half.weights[0].clone(), second];
    assert_eq!(hidden(&files), original("bert"));
    files.weights = vec![files.weights[0].clone(); 2];
    let message = encoder(&files).unwrap_err().to_string();
    assert!(message.contains("are both `classifier.bias`") || message.contains("are both `embeddings."), "{message}");
}

#[test]
fn bytes_with_scales_are_within_half_a_step() {
    for (family, name) in [(Family::Bert, "bert"), (Family::DistilBert, "distilbert")] {
        let (folder, files) = edited(name, |_| {});
        let exact = Checkpoint::read(&files.weights, family).unwrap();
        let tensors: BTreeMap<String, Tensor> =
            exact.tensors().map(|(name, t)| (name.to_string(), t.clone())).collect();
        let path = folder.path().join("model.safetensors");
        let before = std::fs::metadata(&path).unwrap().len();
        int8::write(&path, &tensors).unwrap();
        let after = std::fs::metadata(&path).unwrap().len();
        assert!(after * 5 < before * 2, "{before} bytes became {after}");
        let rounded: BTreeMap<String, Tensor> = Checkpoint::read(&files.weights, family)
            .unwrap()
            .tensors()
            .map(|(n, t)| (n.to_string(), t.clone()))
            .collect();
        assert!(rounded.keys().eq(tensors.keys()));
        for (name, tensor) in &tensors {
            if let Ok((_, columns)) = tensor.dims2() {
                let (exact, rounded) = (reference::values(tensor), reference::values(&rounded[name]));
                for (exact, rounded) in exact.chunks(columns).zip(rounded.chunks(columns)) {
                    let scale = exact.iter().fold(0f32, |largest, x| largest.max(x.abs())) / 127.0;
                    assert_close(rounded, exact, scale * 0.5001, name);
                }
            } else {
                assert_eq!(reference::values(tensor), reference::values(&rounded[name]), "{name}");
            }
        }
        // Two layers of random weights carry an error of half a percent this far and no further.
        assert_close(&hidden(&files), &original(name), 0.15, name);
    }
}

#[test]
fn bytes_need_finite_values() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = BTreeMap::from([("x".to_string(), Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu).unwrap())]);
    let message = int8::write(&folder.path().join("x.safetensors"), &tensors).unwrap_err().to_string();
    assert!(message.contains("`x`: expected finite values, found NaN"), "{message}");
}

#[test]
fn a_checkpoint_that_does_not_fit_is_an_error_that_names_file_tensor_and_shapes() {
    let check = |edit: &dyn Fn(&mut Vec<Stored>), parts: &[&str]| {
        let (folder, files) = edited("bert", |tensors| edit(tensors));
        let message = encoder(&files).unwrap_err().to_string();
        let file = folder.path().join("model.safetensors").display().to_string();
        assert!(message.starts_with(&file), "{message}");
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    };
    fn find<'a>(tensors: &'a mut [Stored], name: &str) -> &'a mut Stored {
        tensors.iter_mut().find(|tensor| tensor.0.ends_with(name)).unwrap()
    }
    check(
        &|tensors| tensors.retain(|tensor| !tensor.0.contains("layer.0.intermediate.dense.weight")),
        &["`encoder.layer.0.intermediate.dense.weight`: expected shape [64, 32], found no such tensor"],
    );
    check(
        &|tensors| find(tensors, "layer.1.output.dense.weight").2 = vec![64, 32],
        &["`bert.encoder.layer.1.output.dense.weight`: expected shape [32, 64], found [64, 32]"],
    );
    check(
        &|tensors| tensors.push(("bert.adapter.weight".into(), Dtype::F32, vec![1], vec![0; 4])),
        &["`bert.adapter.weight`: expected no such tensor, found shape [1]"],
    );
    check(&|tensors| tensors.retain(|tensor| !tensor.0.contains("layer.0.")), &["found no such tensor; and 8 more"]);
    check(
        &|tensors| find(tensors, "LayerNorm.bias").1 = Dtype::I32,
        &["expected F32, F16, BF16 or I8 with a scale, found I32"],
    );
    check(
        &|tensors| {
            let weight = find(tensors, "layer.0.output.dense.weight");
            (weight.1, weight.3) = (Dtype::I8, vec![0; 32 * 64]);
        },
        &["expected `bert.encoder.layer.0.output.dense.weight.scale` beside a tensor of dtype I8, found none"],
    );
    check(
        &|tensors| {
            let weight = find(tensors, "layer.0.output.dense.weight");
            (weight.1, weight.3) = (Dtype::I8, vec![0; 32 * 64]);
            let name = format!("{}.scale", weight.0);
            tensors.push((name, Dtype::F32, vec![64], vec![0; 256]));
        },
        &["dense.weight.scale`: expected shape [32], found [64]"],
    );
}

#[test]
fn a_file_that_was_cut_off_is_an_error() {
    let (_folder, files) = edited("bert", |_| {});
    let bytes = std::fs::read(&files.weights[0]).unwrap();
    std::fs::write(&files.weights[0], &bytes[..bytes.len() / 2]).unwrap();
    let message = encoder(&files).unwrap_err().to_string();
    assert!(message.contains("model.safetensors: expected a safetensors file"), "{message}");
}
