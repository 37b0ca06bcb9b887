use std::path::PathBuf;

use super::*;
use crate::teacher_outputs::About;

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

fn outputs(classes: &str) -> TeacherOutputs {
    TeacherOutputs::in_memory(About::named("m", "w", names(classes))).unwrap()
}

fn file(name: &str, bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn rows<'a>(outputs: &TeacherOutputs, example: impl Into<Content<'a>>) -> Vec<Vec<f32>> {
    outputs.join([example.into()]).unwrap().logits(0).unwrap().to_vec2().unwrap()
}

#[test]
fn json_lines_of_texts_pairs_and_words() {
    let text = "\u{feff}{\"text\": \"a\", \"logits\": [1, -2.5, 3e0], \"id\": 7}\r\n\n\
                {\"text_a\": \"a\", \"text_b\": \"b\", \"probs\": [0.5, 0.25, 0.25]}\n\
                {\"words\": [\"a\", \"b\"], \"logits\": [{\"y\": 2, \"x\": 1, \"z\": 3}, [4, 5, 6]]}";
    let (_folder, path) = file("a.jsonl", text);
    let mut outputs = outputs("x y z");
    assert_eq!(jsonl(&path, &mut outputs).unwrap(), 3);
    assert_eq!(rows(&outputs, "a"), [[1., -2.5, 3.]]);
    assert_eq!(rows(&outputs, ("a", "b")), [[0.5f32.ln(), 0.25f32.ln(), 0.25f32.ln()]]);
    assert_eq!(rows(&outputs, &names("a b")), [[1., 2., 3.], [4., 5., 6.]]);
}

#[test]
fn one_number_is_the_second_classs() {
    let text = "{\"text\": \"a\", \"probs\": 0.25}\n{\"text\": \"b\", \"logits\": [2]}";
    let (_folder, path) = file("a.jsonl", text);
    let mut outputs = outputs("no yes");
    jsonl(&path, &mut outputs).unwrap();
    assert_eq!(rows(&outputs, "a"), [[0.75f32.ln(), 0.25f32.ln()]]);
    assert_eq!(rows(&outputs, "b"), [[0., 2.]]);
}

#[test]
fn wrong_json_lines_are_named_and_what_stood_before_is_kept() {
    let good = "{\"text\": \"good\", \"probs\": [0.5, 0.5]}\n";
    for (line, expected) in [
        ("{\"text\": \"t\", \"probs\": [0, 1]}", "expected a probability above 0 and at most 1 of class `no`, found 0"),
        (
            "{\"text\": \"t\", \"probs\": [1.5, 0.1]}",
            "expected a probability above 0 and at most 1 of class `no`, found 1.5",
        ),
        ("{\"text\": \"t\", \"probs\": [0.5, 0.4]}", "expected probabilities whose sum is 1, found 0.9"),
        ("{\"text\": \"t\", \"probs\": 1}", "expected a probability above 0 and below 1 of class `yes`, found 1"),
        (
            "{\"text\": \"t\", \"logits\": [1e39, 0]}",
            "expected a finite logit of class `no`, found 1000000000000000000000",
        ),
        ("{\"text\": \"t\", \"logits\": [1, 2, 3]}", "expected 2 numbers or 1 of the classes no, yes, found 3"),
        ("{\"text\": \"t\", \"logits\": [1, \"2\"]}", "expected a number, found \"2\""),
        (
            "{\"text\": \"t\", \"logits\": {\"no\": 1}}",
            "expected a number for each of the classes no, yes, found none for `yes`",
        ),
        (
            "{\"text\": \"t\", \"logits\": {\"maybe\": 1}}",
            "expected a number for each of the classes no, yes, found one for `maybe`",
        ),
        ("{\"text\": \"t\"}", "expected `logits` or `probs`, found neither"),
        ("{\"text\": \"t\", \"logits\": [1, 2], \"probs\": 0.5}", "expected `logits` or `probs`, found both"),
        (
            "{\"text_a\": \"t\", \"logits\": [1, 2]}",
            "expected either `text`, or `text_a` and `text_b`, or `words`, found another",
        ),
        ("{\"words\": [\"a\", \"b\"], \"logits\": [[1, 2]]}", "expected 2 rows, one a word, found 1"),
        ("{\"text\": NaN}", "expected an object with text and logits or probs, found "),
    ] {
        let (_folder, path) = file("a.jsonl", format!("{good}{line}\n"));
        let mut outputs = outputs("no yes");
        let message = jsonl(&path, &mut outputs).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}:2: {expected}", path.display())), "{message}");
        assert!(outputs.contains("good") && outputs.len() == 1);
    }
    let (_folder, path) = file("a.jsonl", b"{}\n{\"\xff".as_slice());
    let message = for_lines(&path, |_, _| Ok(())).unwrap_err().to_string();
    assert!(message.ends_with(":2: expected utf-8, found an invalid sequence at byte 5 of the file"), "{message}");
}

#[test]
fn a_column_a_class_or_one_score() {
    let (_folder, path) = file("a.tsv", "q\tpassage\tx\ty\tz\na \"b\tc\t1\t2\t3\n");
    let mut three = outputs("z y x");
    let columns = ScoreColumns {
        header: true,
        first: "q".into(),
        second: Some("passage".into()),
        scores: names("z y x"),
        numbers: Numbers::Logits,
    };
    assert_eq!(tsv(&path, &columns, &mut three).unwrap(), 1);
    assert_eq!(rows(&three, ("a \"b", "c")), [[3., 2., 1.]]);

    // NeuronBlocks' query_binary_classifier: no header, a byte order mark, the score of class 1.
    let (_folder, path) = file("train.tsv", "\u{feff}some query\t0.25\nanother\t0.5");
    let mut two = outputs("0 1");
    let columns = ScoreColumns {
        first: "1".into(),
        scores: vec!["2".into()],
        numbers: Numbers::Probs,
        ..ScoreColumns::default()
    };
    assert_eq!(tsv(&path, &columns, &mut two).unwrap(), 2);
    assert_eq!(rows(&two, "some query"), [[0.75f32.ln(), 0.25f32.ln()]]);
    assert_eq!(rows(&two, "another"), [[0.5f32.ln(); 2]]);
}

#[test]
fn wrong_columns_are_named() {
    let columns = ScoreColumns {
        first: "1".into(),
        scores: vec!["2".into()],
        numbers: Numbers::Probs,
        ..ScoreColumns::default()
    };
    let named = ScoreColumns { header: true, first: "text".into(), ..columns.clone() };
    for (columns, text, expected) in [
        (&columns, "a\t0.5\nb\tx\n", ":2: expected a number in column 2, found `x`"),
        (&columns, "a\t0.5\nb\tNaN\n", ":2: expected a probability above 0 and below 1 of class `1`, found NaN"),
        (&columns, "a\t0.5\nb\n", ":2: expected 2 columns, found 1"),
        (&columns, "a\n", ":1: expected a column `2`, found 1 to 1"),
        (&named, "query\tscore\n", ":1: expected a column `text`, found query, score"),
    ] {
        let (_folder, path) = file("a.tsv", text);
        let message = tsv(&path, columns, &mut outputs("0 1")).unwrap_err().to_string();
        assert!(message.ends_with(expected), "{message}");
    }
}

/// `numpy.save` of version 1.0; the header is padded with blanks.
fn numpy(descr: &str, order: &str, shape: &str, numbers: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(numbers);
    bytes
}

#[test]
fn a_numpy_matrix_of_any_precision() {
    let values = [1.0f64, 2.0, -3.5, 0.25, 5.0, 6.0];
    let bytes: [Vec<u8>; 3] = [
        values.iter().flat_map(|&value| half::f16::from_f64(value).to_le_bytes()).collect(),
        values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
        values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    ];
    for (descr, bytes) in ["<f2", "<f4", "<f8"].into_iter().zip(&bytes) {
        let (_folder, path) = file("a.npy", numpy(descr, "False", "(3, 2)", bytes));
        let (mut outputs, words) = (outputs("x y"), names("a b"));
        // A sentence of two words, then a text.
        let examples = [(&words).into(), "text".into()];
        assert_eq!(npy(&path, &examples, &[2, 1], Numbers::Logits, &mut outputs).unwrap(), 2);
        assert_eq!(rows(&outputs, &words), [[1., 2.], [-3.5, 0.25]]);
        assert_eq!(rows(&outputs, "text"), [[5., 6.]]);
    }
    let (_folder, path) =
        file("a.npy", numpy("<f8", "False", "(2,)", &[0.25f64.to_le_bytes(), 0.5f64.to_le_bytes()].concat()));
    let mut outputs = outputs("x y");
    npy(&path, &["a".into(), "b".into()], &[1, 1], Numbers::Probs, &mut outputs).unwrap();
    assert_eq!(rows(&outputs, "a"), [[0.75f32.ln(), 0.25f32.ln()]]);
}

#[test]
fn other_numpy_files_are_refused() {
    let number = 0.5f64.to_le_bytes();
    for (bytes, expected) in [
        (numpy("<f8", "True", "(1, 2)", &number), "found Fortran's order"),
        (numpy("<i8", "False", "(1, 2)", &number), "found the type <i8"),
        (numpy("<f8", "False", "(2, 2)", &number), "expected the shape (1, 2), found [2, 2]"),
        (numpy("<f8", "False", "(1, 2)", &number), "failed to fill whole buffer"),
        (
            numpy("<f8", "False", "(1, 1)", &[0; 8]),
            ":1: expected a probability above 0 and below 1 of class `y`, found 0",
        ),
        (
            b"PK\x03\x04 and more".to_vec(),
            "expected a .npy file of f16, f32 or f64 in C's order, found another beginning",
        ),
    ] {
        let (_folder, path) = file("a.npy", bytes);
        let message = npy(&path, &["a".into()], &[1], Numbers::Probs, &mut outputs("x y")).unwrap_err().to_string();
        assert!(message.starts_with(&path.display().to_string()) && message.ends_with(expected), "{message}");
    }
}
