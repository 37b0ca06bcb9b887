use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Rows, Tokens, pad};
use kd_core::model::Output;

use super::*;

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

fn about() -> About {
    About { tokenizer: "t".into(), max_len: 9, ..About::named("model", "w", names("O B I")) }
}

fn tensor(rows: &[[f32; 3]]) -> Tensor {
    Tensor::from_slice(rows.as_flattened(), (rows.len(), 3), &Device::Cpu).unwrap()
}

fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
    tensor.to_vec2().unwrap()
}

/// A sentence of two words, one of none and a text: two, no and one row.
fn sentences() -> (Vec<String>, Vec<String>) {
    (names("hello world"), Vec::new())
}

fn fill(outputs: &mut TeacherOutputs) {
    let (two, none) = sentences();
    outputs.append(&[(&two).into(), (&none).into()], &[2, 0], &tensor(&[[1., 2., 3.], [4., 5., 6.]])).unwrap();
    outputs.append(&["text".into()], &[1], &tensor(&[[7., 9., 8.]])).unwrap();
}

fn contents(sentences: &(Vec<String>, Vec<String>)) -> [Content<'_>; 3] {
    [(&sentences.0).into(), (&sentences.1).into(), "text".into()]
}

/// Logits of the three examples of [`fill`].
const EXPECTED: [&[[f32; 3]]; 3] = [&[[1., 2., 3.], [4., 5., 6.]], &[], &[[7., 9., 8.]]];

fn shards(folder: &Path) -> Vec<PathBuf> {
    let about = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let mut paths: Vec<PathBuf> = fs::read_dir(about).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "shard"));
    paths.sort();
    paths
}

#[test]
fn rows_follow_the_batch_and_columns_the_names() {
    let folder = tempfile::tempdir().unwrap();
    let sentences = sentences();
    let on_disk = Store::open(folder.path()).unwrap().teacher(&about()).unwrap();
    for mut outputs in [on_disk, TeacherOutputs::in_memory(about()).unwrap()] {
        assert!(outputs.is_empty());
        fill(&mut outputs);
        assert_eq!((outputs.len(), outputs.contains("text"), outputs.contains("texts")), (3, true, false));
        let joined = outputs.join(contents(&sentences)).unwrap();
        assert_eq!((joined.len(), joined.classes()), (3, &names("O B I")[..]));
        for (example, expected) in EXPECTED.iter().enumerate() {
            assert_eq!(rows(&joined.logits(example).unwrap()), *expected);
        }
        let batch = joined.collate(&[2, 1, 0], &names("I O B"), &Device::Cpu).unwrap();
        assert_eq!(rows(batch.logits().unwrap()), [[8., 7., 9.], [3., 1., 2.], [6., 4., 5.]]);
        assert!(batch.hidden.is_empty() && batch.attention.is_empty());
        let none = joined.collate(&[], &names("O B I"), &Device::Cpu).unwrap();
        assert_eq!(none.logits().unwrap().dims(), [0, 3]);
        let message = joined.collate(&[3], &names("O B I"), &Device::Cpu).unwrap_err().to_string();
        assert!(message.starts_with("teacher outputs: expected example ids below 3, found 3"), "{message}");
        // Joined once, whatever is appended later.
        outputs.append(&["more".into()], &[1], &tensor(&[[0.; 3]])).unwrap();
        assert_eq!(rows(&joined.logits(2).unwrap()), [[7., 9., 8.]]);
        assert_eq!(outputs.join(["text", "more", "text"]).unwrap().len(), 3);
    }
}

#[test]
fn labels_are_indices_of_the_students_classes() {
    let mut outputs = TeacherOutputs::in_memory(about()).unwrap();
    fill(&mut outputs);
    outputs.append(&["ties".into()], &[1], &tensor(&[[1., 1., 0.]])).unwrap();
    let sentences = sentences();
    let joined = outputs.join(contents(&sentences)).unwrap();
    // The largest of (1, 2, 3) and (4, 5, 6) is `I`, of (7, 9, 8) it is `B`.
    assert_eq!(joined.labels(0, &names("O B I")).unwrap(), [2, 2]);
    assert_eq!(joined.labels(0, &names("I O B")).unwrap(), [0, 0]);
    assert_eq!(joined.labels(2, &names("I O B")).unwrap(), [2]);
    let ties = outputs.join(["ties"]).unwrap();
    assert_eq!(ties.labels(0, &names("I B O")).unwrap(), [1]); // the first of the equal ones
    let message = joined.labels(0, &names("O B X")).unwrap_err().to_string();
    assert!(message.contains(r#"only the teacher has ["I"], only the student has ["X"]"#), "{message}");
}

#[test]
fn a_missing_example_is_named() {
    let mut outputs = TeacherOutputs::in_memory(about()).unwrap();
    fill(&mut outputs);
    let message = outputs.join(["text", "not asked", "nor this"]).unwrap_err().to_string();
    let expected = "teacher outputs of example 1 `not asked`: expected them in memory, by model, \
                    found 3 others, and not those of 2 of 3";
    assert_eq!(message, expected);
}

#[test]
fn outputs_that_do_not_fit_are_refused_whole() {
    let mut outputs = TeacherOutputs::in_memory(about()).unwrap();
    let mut message = |examples: &[&str], per_example: &[usize], logits: &Tensor| {
        let examples: Vec<Content> = examples.iter().map(|&text| text.into()).collect();
        outputs.append(&examples, per_example, logits).unwrap_err().to_string()
    };
    let one = tensor(&[[0.; 3]]);
    let expected = "teacher logits: expected the rows of all examples, found 1 rows for 1 example with [2] rows";
    assert_eq!(message(&["a"], &[2], &one), expected);
    assert!(message(&["a", "b"], &[1], &one).starts_with("teacher logits: expected the rows of all examples"));
    let narrow = Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(message(&["a"], &[1], &narrow), "teacher logits: expected 3 columns, one a class, found 2");
    let nan = tensor(&[[0.; 3], [0., f32::NAN, 0.]]);
    let expected = "teacher's logits of `b`: expected numbers that are finite in f32, found NaN";
    assert_eq!(message(&["a", "b"], &[1, 1], &nan), expected);
    assert!(outputs.is_empty());

    let refused = |about: About| TeacherOutputs::in_memory(about).unwrap_err().to_string();
    let none = About { classes: vec![], ..about() };
    assert_eq!(refused(none), "teacher outputs: classes: expected at least one, found none");
    let twice = About { classes: names("O O"), ..about() };
    assert_eq!(refused(twice), "teacher outputs: classes: expected each name once, found `O` twice");
    let wide = About { stored: Stored { top_k: Some(4), ..Stored::default() }, ..about() };
    assert_eq!(refused(wide), "teacher outputs: top_k: expected 1 to 3, the number of classes, found 4");
}

#[test]
fn an_example_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut outputs = Store::open(folder.path()).unwrap().teacher(&about()).unwrap();
    outputs.append(&["a".into(), "a".into(), "b".into()], &[1; 3], &tensor(&[[1.; 3], [2.; 3], [3.; 3]])).unwrap();
    let length = fs::metadata(&shards(folder.path())[0]).unwrap().len();
    outputs.append(&["b".into()], &[1], &tensor(&[[4.; 3]])).unwrap();
    assert_eq!(fs::metadata(&shards(folder.path())[0]).unwrap().len(), length);
    let joined = outputs.join(["a", "b"]).unwrap();
    assert_eq!(
        rows(joined.collate(&[0, 1], &names("O B I"), &Device::Cpu).unwrap().logits().unwrap()),
        [[1.; 3], [3.; 3]]
    );
}

#[test]
fn rows_are_checked_against_the_encoded_texts() {
    let mut outputs = TeacherOutputs::in_memory(about()).unwrap();
    fill(&mut outputs);
    let sentences = sentences();
    let joined = outputs.join(contents(&sentences)).unwrap();
    joined.check_rows(&[2, 0, 1]).unwrap();
    let message = |rows: &[usize]| joined.check_rows(rows).unwrap_err().to_string();
    assert_eq!(message(&[3, 0, 1]), "teacher outputs of example 0: expected 3 rows, found 2");
    assert_eq!(message(&[2, 0]), "teacher outputs: expected 2 examples, found 3");
}

#[test]
fn the_key_depends_on_all_that_outputs_depend_on() {
    let key = about().key();
    assert_eq!(key, About { model: "other".into(), revision: Some("main".into()), ..about() }.key());
    let hidden = Hidden { dtype: FloatType::F16, layers: vec![0], width: 4 };
    let attention = Attention { dtype: FloatType::F32, layers: vec![0], heads: 4 };
    for other in [
        About { weights: "v".into(), ..about() },
        About { tokenizer: "s".into(), ..about() },
        About { max_len: 8, ..about() },
        About { compute: "bf16".into(), ..about() },
        About { classes: names("B O I"), ..about() },
        About { stored: Stored { logits: FloatType::F16, ..Stored::default() }, ..about() },
        About { stored: Stored { top_k: Some(2), ..Stored::default() }, ..about() },
        About { stored: Stored { hidden: Some(hidden), ..Stored::default() }, ..about() },
        About { stored: Stored { attention: Some(attention), ..Stored::default() }, ..about() },
    ] {
        assert_ne!(key, other.key(), "{other:?}");
    }
}

#[test]
fn teachers_are_found_by_name_or_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let message = |name: &str| store.find(name).unwrap_err().to_string();
    assert!(message("model").ends_with("expected one teacher `model`, by model or key, found none"));
    fill(&mut store.teacher(&about()).unwrap());
    let other = About { weights: "v".into(), ..about() };
    store.teacher(&other).unwrap();
    let third = About { model: "third".into(), max_len: 5, ..about() };
    store.teacher(&third).unwrap();
    assert_eq!(store.teachers().unwrap().len(), 3);
    assert_eq!(store.find("third").unwrap().about(), &third);
    assert_eq!(store.find(&about().key()[..8]).unwrap().len(), 3);
    let message = message("model");
    for key in [about().key(), other.key()] {
        assert!(message.contains(&format!("{} (model)", &key[..8])), "{message}");
    }
    assert!(!message.contains("third"), "{message}");
}

#[test]
fn a_description_that_was_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.teacher(&about()).unwrap();
    let path = folder.path().join(&about().key()[..32]).join("about.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"max_len\": 9", "\"max_len\": 8")).unwrap();
    let message = store.teacher(&about()).unwrap_err().to_string();
    let expected = About { max_len: 8, ..about() }.key();
    assert!(message.contains(&format!("under the key {expected}, found {}", about().key())), "{message}");
    fs::write(&path, text.replace("teacher outputs 2", "teacher outputs 1")).unwrap();
    let message = store.teachers().unwrap_err().to_string();
    assert!(message.ends_with("found the format `teacher outputs 1`"), "{message}");
}

#[test]
fn top_k_keeps_the_best_and_spreads_the_rest() {
    let about =
        About { stored: Stored { top_k: Some(2), ..Stored::default() }, ..About::named("m", "w", names("a b c d")) };
    let mut outputs = TeacherOutputs::in_memory(about).unwrap();
    // The softmax of ln(1, 6, 2, 1) is (0.1, 0.6, 0.2, 0.1): the others have 0.2 together, 0.1 each.
    let logits = [1f32, 6., 2., 1., 1., 4., 5., 3.].map(f32::ln);
    let logits = Tensor::from_slice(&logits, (2, 4), &Device::Cpu).unwrap();
    outputs.append(&["x".into(), "y".into()], &[1, 1], &logits).unwrap();
    let batch = outputs.join(["x", "y"]).unwrap().collate(&[0, 1], &names("d c b a"), &Device::Cpu).unwrap();
    let probs = rows(&kd_core::ops::softmax(batch.logits().unwrap()).unwrap());
    // Of (1, 4, 5, 3) / 13 the others are 1 and 3: 2 each.
    for (row, expected) in probs.iter().zip([[1., 2., 6., 1.].map(|p| p / 10.), [2., 5., 4., 2.].map(|p| p / 13.)]) {
        for (value, expected) in row.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{row:?} {expected}");
        }
    }
    // The kept logits themselves are the teacher's.
    assert_eq!(rows(batch.logits().unwrap())[0][2], 6f32.ln());
}

/// Two texts of three and one token, two layers of width 2, one layer of two heads.
fn deep() -> (Tokens, Output) {
    let tokens = Tokens {
        first: pad(&[vec![5, 6, 7], vec![8]], &Device::Cpu).unwrap(),
        second: None,
        more: Vec::new(),
        rows: Rows::Examples,
    };
    let ramp = |shape: &[usize], scale: f64| {
        let n = shape.iter().product::<usize>() as f32;
        let ramp = Tensor::arange(1f32, n + 1.0, &Device::Cpu).unwrap();
        (ramp * scale).unwrap().reshape(shape).unwrap()
    };
    let hidden = [1.0, 0.5, 0.25].map(|scale| ramp(&[2, 3, 2], scale)).to_vec();
    let attention = vec![ramp(&[2, 2, 3, 3], 0.125)];
    (tokens, Output { hidden, attention, ..Output::from_logits(tensor(&[[1., 2., 3.], [4., 5., 6.]])) })
}

#[test]
fn hidden_states_and_attentions_come_back_padded_with_zeros() {
    let (tokens, output) = deep();
    for dtype in [FloatType::F32, FloatType::F16] {
        let hidden = Some(Hidden { dtype, layers: vec![2, 0], width: 2 });
        let attention = Some(Attention { dtype, layers: vec![0], heads: 2 });
        let stored = Stored { hidden, attention, ..Stored::default() };
        let mut outputs = TeacherOutputs::in_memory(About { stored, ..about() }).unwrap();
        outputs.append_output(&["abc".into(), "d".into()], &tokens, &output).unwrap();
        let joined = outputs.join(["d", "abc"]).unwrap();
        let batch = joined.collate(&[0, 1], &names("O B I"), &Device::Cpu).unwrap();
        // The ramp 1, 2, … over (2, 3, 2): `abc` has 1 to 6, `d` has 7, 8 and padding that is not stored.
        let states = |layer: usize| batch.hidden[layer].to_vec3::<f32>().unwrap();
        let (quarter, whole) = (states(0), states(1));
        assert_eq!(whole, [[[7., 8.], [0., 0.], [0., 0.]], [[1., 2.], [3., 4.], [5., 6.]]]);
        assert_eq!(quarter[1], [[0.25, 0.5], [0.75, 1.0], [1.25, 1.5]]);
        // Over (2, 2, 3, 3), in eighths: `abc` has 1 to 18, the heads of `d` begin at 19 and 28.
        let attention = (&batch.attention[0] * 8.0).unwrap();
        let head = |example: usize, head: usize| rows(&attention.get(example).unwrap().get(head).unwrap());
        assert_eq!(head(0, 0), [[19., 0., 0.], [0.; 3], [0.; 3]]);
        assert_eq!(head(0, 1), [[28., 0., 0.], [0.; 3], [0.; 3]]);
        assert_eq!(head(1, 1), [[10., 11., 12.], [13., 14., 15.], [16., 17., 18.]]);
        // A batch of short ones has no padding of the long ones.
        let short = joined.collate(&[0], &names("O B I"), &Device::Cpu).unwrap();
        assert_eq!((short.hidden[0].dims(), short.attention[0].dims()), (&[1, 1, 2][..], &[1, 2, 1, 1][..]));
    }
}

#[test]
fn layers_that_are_not_there_are_named() {
    let (tokens, output) = deep();
    let message = |stored: Stored, output: &Output| {
        let mut outputs = TeacherOutputs::in_memory(About { stored, ..about() }).unwrap();
        outputs.append_output(&["abc".into(), "d".into()], &tokens, output).unwrap_err().to_string()
    };
    let hidden = |layers: Vec<usize>, width: usize| Stored {
        hidden: Some(Hidden { dtype: FloatType::F16, layers, width }),
        ..Stored::default()
    };
    assert_eq!(message(hidden(vec![3], 2), &output), "teacher's hidden states: expected layer 3, found 3 of them");
    let expected = "teacher's hidden states: expected 2 sequences of 4, found the shape [2, 3, 2]";
    assert_eq!(message(hidden(vec![0], 4), &output), expected);
    let attention = Attention { dtype: FloatType::F32, layers: vec![1], heads: 2 };
    let attention = Stored { attention: Some(attention), ..Stored::default() };
    assert_eq!(message(attention, &output), "teacher's attentions: expected layer 1, found 1 of them");
    let mut large = output.clone();
    large.hidden[0] = (&large.hidden[0] * 70_000.0).unwrap();
    let expected = "teacher's hidden states of `abc`: expected numbers that are finite in f16, found 70000";
    assert_eq!(message(hidden(vec![0], 2), &large), expected);

    let mut outputs = TeacherOutputs::in_memory(About { stored: hidden(vec![0], 2), ..about() }).unwrap();
    let message = outputs.append(&["a".into()], &[1], &tensor(&[[0.; 3]])).unwrap_err().to_string();
    assert!(message.contains("or `append_output`"), "{message}");
    let message = outputs.append_output(&["abc".into()], &tokens, &output).unwrap_err().to_string();
    assert_eq!(message, "teacher's hidden states: expected one sequence an example, found 2 sequences for 1 example");
}

#[test]
fn an_exported_file_is_a_store_and_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let mut outputs = store.teacher(&about()).unwrap();
    fill(&mut outputs);
    let (sentences, file) = (sentences(), folder.path().join("deep/er/exported.shard"));
    let [two, _, text] = contents(&sentences);
    outputs.export(&file, [text, two, text], FloatType::F32).unwrap();
    assert!(!String::from_utf8_lossy(&fs::read(&file).unwrap()).contains("hello"), "no text");
    let mut exported = TeacherOutputs::open_file(&file).unwrap();
    assert_eq!((exported.len(), exported.about()), (2, &about()));
    assert_eq!(rows(&exported.join([two]).unwrap().logits(0).unwrap()), EXPECTED[0]);
    let message = exported.append(&["a".into()], &[1], &tensor(&[[0.; 3]])).unwrap_err().to_string();
    assert!(message.ends_with("expected a folder, which outputs can be added to, found one file"), "{message}");
    let first = fs::read(&file).unwrap();
    outputs.export(&file, [text, two], FloatType::F32).unwrap();
    assert_eq!(fs::read(&file).unwrap(), first, "the same outputs are the same bytes");

    let elsewhere = Store::open(folder.path().join("elsewhere")).unwrap();
    let mut merged = elsewhere.teacher(&about()).unwrap();
    fs::copy(&file, folder.path().join("elsewhere").join(&about().key()[..32]).join("exported.shard")).unwrap();
    assert!(merged.is_empty());
    merged.refresh().unwrap();
    assert_eq!(rows(&merged.join([text]).unwrap().logits(0).unwrap()), EXPECTED[2]);

    // In half the bytes, and as a teacher of its own.
    outputs.export(&file, [text], FloatType::F16).unwrap();
    let short = TeacherOutputs::open_file(&file).unwrap();
    assert_ne!(short.about().key(), about().key());
    assert_eq!(rows(&short.join([text]).unwrap().logits(0).unwrap()), EXPECTED[2]);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let message = TeacherOutputs::open_file(&file).unwrap_err().to_string();
    assert!(message.contains("found an unfinished block at byte"), "{message}");
    fs::write(&file, "text").unwrap();
    let message = TeacherOutputs::open_file(&file).unwrap_err().to_string();
    assert!(
        message.ends_with("expected a shard of teacher outputs, found not a shard of teacher outputs"),
        "{message}"
    );
}

mod faults;
mod processes;
