use super::*;

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

fn tensor(rows: &[[f32; 3]]) -> Tensor {
    Tensor::from_slice(rows.as_flattened(), (rows.len(), 3), &Device::Cpu).unwrap()
}

/// Examples 4 (two rows), 0 (none) and 2 (one row), in this order.
fn outputs() -> TeacherOutputs {
    let mut outputs = TeacherOutputs::new(names("O B I"), "k1".to_string()).unwrap();
    outputs.append(&[4, 0], &[2, 0], &tensor(&[[1., 2., 3.], [4., 5., 6.]])).unwrap();
    outputs.append(&[2], &[1], &tensor(&[[7., 9., 8.]])).unwrap();
    outputs
}

fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
    tensor.to_vec2().unwrap()
}

#[test]
fn rows_follow_the_batch_and_columns_the_names() {
    let outputs = outputs();
    assert_eq!(outputs.examples().collect::<Vec<_>>(), [0, 2, 4]);
    assert_eq!(rows(&outputs.logits(4).unwrap()), [[1., 2., 3.], [4., 5., 6.]]);
    let joined = outputs.collate(&[2, 0, 4], &names("I O B"), &Device::Cpu).unwrap();
    assert_eq!(rows(&joined), [[8., 7., 9.], [3., 1., 2.], [6., 4., 5.]]);
    assert_eq!(outputs.collate(&[], &names("O B I"), &Device::Cpu).unwrap().dims(), [0, 3]);
}

#[test]
fn labels_are_indices_of_the_students_classes() {
    let outputs = outputs();
    // The largest of (1, 2, 3) and (4, 5, 6) is `I`, of (7, 9, 8) it is `B`.
    assert_eq!(outputs.labels(4, &names("O B I")).unwrap(), [2, 2]);
    assert_eq!(outputs.labels(4, &names("I O B")).unwrap(), [0, 0]);
    assert_eq!(outputs.labels(2, &names("I O B")).unwrap(), [2]);
    let mut ties = TeacherOutputs::new(names("O B I"), String::new()).unwrap();
    ties.append(&[0], &[1], &tensor(&[[1., 1., 0.]])).unwrap();
    assert_eq!(ties.labels(0, &names("I B O")).unwrap(), [1]); // the first of the equal ones
}

#[test]
fn a_missing_example_is_named() {
    let expected = "teacher outputs: expected example 7, found 3 others under the key k1";
    for result in [
        outputs().logits(7).map(drop),
        outputs().collate(&[4, 7], &names("O B I"), &Device::Cpu).map(drop),
        outputs().labels(7, &names("O B I")).map(drop),
    ] {
        assert!(result.unwrap_err().to_string().starts_with(expected));
    }
}

#[test]
fn other_class_names_are_an_error() {
    let message = outputs().collate(&[4], &names("O B X"), &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains(r#"only the teacher has ["I"], only the student has ["X"]"#), "{message}");
    assert!(outputs().labels(4, &names("O B")).is_err());
}

#[test]
fn outputs_that_do_not_fit_are_refused_whole() {
    let mut outputs = outputs();
    let before = outputs.clone();
    let mut message = |examples: &[usize], per_example: &[usize], logits: &Tensor| {
        outputs.append(examples, per_example, logits).unwrap_err().to_string()
    };
    let one = tensor(&[[0.; 3]]);
    let two = tensor(&[[0.; 3]; 2]);
    let once = "expected each example once, found it again";
    assert_eq!(message(&[5, 4], &[1, 1], &two), format!("teacher logits of example 4: {once}"));
    assert_eq!(message(&[5, 5], &[1, 1], &two), format!("teacher logits of example 5: {once}"));
    let expected = "teacher logits: expected the rows of all examples, found 1 rows for 1 example with [2] rows";
    assert_eq!(message(&[5], &[2], &one), expected);
    assert!(message(&[5, 6], &[1], &one).starts_with("teacher logits: expected the rows of all examples"));
    let narrow = Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(message(&[5], &[1], &narrow), "teacher logits: expected 3 columns, one a class, found 2");
    let nan = tensor(&[[0.; 3], [0., f32::NAN, 0.]]);
    assert_eq!(message(&[5, 6], &[1, 1], &nan), "teacher logits of example 6: expected finite numbers, found NaN");
    assert_eq!(outputs, before);
    assert_eq!(
        TeacherOutputs::new(vec![], String::new()).unwrap_err().to_string(),
        "teacher outputs: expected at least one class, found none"
    );
}

#[test]
fn rows_are_checked_against_the_encoded_texts() {
    let mut outputs = TeacherOutputs::new(names("O B I"), String::new()).unwrap();
    outputs.append(&[1, 0], &[2, 1], &tensor(&[[0.; 3]; 3])).unwrap();
    outputs.check_rows(&[1, 2]).unwrap();
    let message = |rows: &[usize]| outputs.check_rows(rows).unwrap_err().to_string();
    assert_eq!(message(&[1, 3]), "teacher outputs of example 1: expected 3 rows, found 2");
    assert_eq!(message(&[1, 2, 1]), "teacher outputs of example 2: expected 1 row, found no such example");
}

#[test]
fn a_saved_store_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/outputs.safetensors");
    let outputs = outputs();
    outputs.save(&path).unwrap();
    assert_eq!(TeacherOutputs::load(&path, "k1").unwrap(), outputs);
    let first = std::fs::read(&path).unwrap();
    outputs.save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "the same outputs are the same bytes");
    let files: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(files.len(), 1, "nothing is left beside it: {files:?}");
}

#[test]
fn an_empty_store_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outputs.safetensors");
    let outputs = TeacherOutputs::new(names("O B I"), "k".to_string()).unwrap();
    outputs.save(&path).unwrap();
    assert_eq!(TeacherOutputs::load(&path, "k").unwrap(), outputs);
}

#[test]
fn a_store_under_another_key_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outputs.safetensors");
    assert_eq!(TeacherOutputs::load_if_fresh(&path, "k1").unwrap(), None);
    outputs().save(&path).unwrap();
    let error = TeacherOutputs::load(&path, "k2").unwrap_err();
    let expected = format!("{}: expected outputs made under the key k2, found k1", path.display());
    assert_eq!(error.to_string(), expected);
    assert!(matches!(error, Error::Stale { .. }));
    assert_eq!(TeacherOutputs::load_if_fresh(&path, "k2").unwrap(), None);
    assert_eq!(TeacherOutputs::load_if_fresh(&path, "k1").unwrap(), Some(outputs()));
}

#[test]
fn a_damaged_or_foreign_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outputs.safetensors");
    outputs().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let message = TeacherOutputs::load_if_fresh(&path, "k1").unwrap_err().to_string();
    assert!(message.starts_with(&path.display().to_string()), "{message}");
    checkpoint::save(&path, &BTreeMap::new(), &serde_json::json!({"step": 3})).unwrap();
    let message = TeacherOutputs::load_if_fresh(&path, "k1").unwrap_err().to_string();
    let expected = format!("{}: expected a file of `teacher outputs 1`, found the format null", path.display());
    assert_eq!(message, expected);
    let state = serde_json::json!({"format": FORMAT, "key": "k1", "classes": ["O"]});
    checkpoint::save(&path, &BTreeMap::new(), &state).unwrap();
    let message = TeacherOutputs::load(&path, "k1").unwrap_err().to_string();
    assert!(message.ends_with("found no tensor `examples`"), "{message}");
}

#[test]
fn the_key_depends_on_all_it_is_made_of() {
    let key = TeacherOutputs::key("w", "t", "x");
    assert_eq!(key, TeacherOutputs::key("w", "t", "x"));
    for other in [("v", "t", "x"), ("w", "s", "x"), ("w", "t", "y"), ("wt", "", "x")] {
        assert_ne!(key, TeacherOutputs::key(other.0, other.1, other.2));
    }
}
