//! A model of candle-transformers as a teacher says what our encoder says.
#![cfg(feature = "candle-transformers")]

mod reference;

use candle_core::Device;
use kd_core::model::Teacher;
use kd_teachers::frozen::FrozenModel;
use kd_teachers::hub::ModelFiles;
use reference::{assert_close, floats, folder, tokens, values};

#[test]
fn the_bert_of_candle_transformers_agrees_with_transformers() {
    let files = ModelFiles::in_folder(&folder("bert")).unwrap();
    let teacher = FrozenModel::bert(&files, &Device::Cpu).unwrap();
    assert_eq!(teacher.classes(), ["O", "B-PER", "I-PER"]);
    let logits = values(teacher.teach(&tokens()).unwrap().logits().unwrap());
    assert_close(&logits, &floats(&reference::reference()["bert"]["logits"]), 2e-5, "logits");
}

#[test]
fn another_family_is_an_error_that_names_it() {
    let files = ModelFiles::in_folder(&folder("distilbert")).unwrap();
    let message = FrozenModel::bert(&files, &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("config.json: `model_type`: expected `bert`, found `distilbert`"), "{message}");
}
