//! Pairs of a language of six words, their classes, and teachers that were asked about them.

use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{Device, Tensor};
use kd_data::teacher_outputs::{About, Content, FloatType, TeacherOutputs};
use serde_json::Value;

/// Examples of the parts.
pub(crate) const PARTS: [(&str, std::ops::Range<usize>); 3] =
    [("train", 0..100), ("dev", 100..140), ("test", 140..180)];

/// Two layers of width 32 with a vocabulary of 100 pieces, weights random.
pub(crate) fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kd-teachers/tests/reference").join(name)
}

/// The `idx`-th pair, unlike all others: the first text names one of three things among four words, which say `idx` in digits of
/// base 4; the second is always the same.
pub(crate) fn pair(idx: usize) -> (String, String) {
    let mut words: Vec<&str> = (0..4).map(|digit| ["the", "ran", "mat", "big"][idx / 4usize.pow(digit) % 4]).collect();
    words.insert(idx % 5, ["cat", "rug", "dog"][idx % 3]);
    (words.join(" "), "the \"mat\"".to_string())
}

/// Its class of two: whether it is about a cat.
pub(crate) fn of_two(idx: usize) -> usize {
    usize::from(!idx.is_multiple_of(3))
}

/// Its class of three.
pub(crate) fn of_three(idx: usize) -> usize {
    idx % 3
}

/// RTE's files of these pairs; test has no labels, as GLUE has it.
pub(crate) fn rte(folder: &Path) -> PathBuf {
    let folder = folder.join("rte");
    std::fs::create_dir_all(&folder).unwrap();
    for (part, rows) in PARTS {
        let header = if part == "test" { "" } else { "\tlabel" };
        let row = |idx: usize| {
            let ((first, second), class) = (pair(idx), ["entailment", "not_entailment"][of_two(idx)]);
            let label = if part == "test" { String::new() } else { format!("\t{class}") };
            format!("{idx}\t{first}\t{second}{label}\n")
        };
        let text = format!("index\tsentence1\tsentence2{header}\n{}", rows.map(row).collect::<String>());
        std::fs::write(folder.join(format!("{part}.tsv")), text).unwrap();
    }
    folder
}

/// Tables of three classes.
pub(crate) fn animals(folder: &Path) -> PathBuf {
    let folder = folder.join("animals");
    std::fs::create_dir_all(&folder).unwrap();
    for (part, rows) in PARTS {
        let row = |idx: usize| {
            let (first, second) = pair(idx);
            format!("{first}\t{second}\t{}\n", ["a-cat", "a-rug", "the-dog"][of_three(idx)])
        };
        let text = format!("text\tother\tkind\n{}", rows.map(row).collect::<String>());
        std::fs::write(folder.join(format!("{part}.tsv")), text).unwrap();
    }
    folder
}

/// A teacher that holds the class `truth` of an example likelier by 3 logits, or the next class where its number says so.
pub(crate) struct Teacher<'a> {
    /// Its file's name.
    pub(crate) name: &'a str,
    /// Which teacher it is.
    pub(crate) weights: &'a str,
    pub(crate) classes: &'a [&'a str],
    pub(crate) truth: fn(usize) -> usize,
    /// It is wrong about every so manieth example.
    pub(crate) wrong_every: usize,
}

impl Teacher<'_> {
    /// Its file: what it says of these examples.
    pub(crate) fn file(&self, folder: &Path, examples: impl Iterator<Item = usize>) -> PathBuf {
        let classes: Vec<String> = self.classes.iter().map(|class| class.to_string()).collect();
        let pairs: Vec<(usize, (String, String))> = examples.map(|idx| (idx, pair(idx))).collect();
        let contents: Vec<Content<'_>> =
            pairs.iter().map(|(_, (first, second))| Content::from((first.as_str(), second.as_str()))).collect();
        let row = |idx: usize| -> Vec<f32> {
            let is_wrong = idx % self.wrong_every == self.wrong_every - 1;
            let said = ((self.truth)(idx) + usize::from(is_wrong)) % classes.len();
            (0..classes.len()).map(|class| if class == said { 2.0 } else { -1.0 }).collect()
        };
        let logits: Vec<Vec<f32>> = pairs.iter().map(|(idx, _)| row(*idx)).collect();
        let mut outputs = TeacherOutputs::in_memory(About::named("teacher", self.weights, classes.clone())).unwrap();
        let logits = Tensor::new(logits, &Device::Cpu).unwrap();
        outputs.append(&contents, &vec![1; contents.len()], &logits).unwrap();
        let path = folder.join(format!("{}.shard", self.name));
        outputs.export(&path, contents, FloatType::F32).unwrap();
        path
    }
}

/// What a program printed, standard error with it, after it came to its end.
pub(crate) fn success(mut command: Command) -> String {
    let output = command.output().unwrap();
    let all = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{all}");
    all
}

/// What a program that failed said.
pub(crate) fn failure(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "expected a failure");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The JSON without what a clock said.
pub(crate) fn without_clock(mut json: Value) -> Value {
    match &mut json {
        Value::Object(object) => {
            object.remove("pace");
            object.values_mut().for_each(|value| *value = without_clock(value.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_clock(item.take())),
        _ => {}
    }
    json
}

/// The JSON of a file.
pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
