//! Fine-tuning as its users run it: the same bytes however often it is killed, and every kind of task.

mod runs;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use candle_core::Device;
use kd_core::model::{Mode, Student};
use kd_data::encode::{Encode, EncodedTexts, WordPieces};
use kd_teachers::heads::{SequenceClassifier, TokenTagger};
use runs::{files, kill_until_done};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_finetune_teacher");

/// Two layers of width 32 with a vocabulary of 100 pieces, weights random.
fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kd-teachers/tests/reference").join(name)
}

/// The `idx`-th text of a language of five words, and whether it is about a cat.
fn text(idx: usize) -> (String, bool) {
    let word = |place: usize| ["the", "dog", "ran", "mat", "big"][(idx * 7 + place * 3 + idx / 5) % 5];
    let is_cat = idx.is_multiple_of(2);
    let animal = if is_cat { "cat" } else { "rug" };
    let mut words: Vec<&str> = (0..idx % 4).map(word).collect();
    words.insert(idx % (words.len() + 1), animal);
    (words.join(" "), is_cat)
}

/// A folder of the parts of a task: `row` gives the line of an example.
fn data(folder: &Path, name: &str, header: &str, row: impl Fn(usize) -> String) -> PathBuf {
    let folder = folder.join("data");
    std::fs::create_dir_all(&folder).unwrap();
    for (part, rows) in [("train", 0..40), ("dev", 40..60), ("test", 60..70)] {
        let text: String = rows.map(|idx| row(idx) + "\n").collect();
        std::fs::write(folder.join(name.replace("PART", part)), format!("{header}{text}")).unwrap();
    }
    folder
}

fn rte(folder: &Path) -> PathBuf {
    data(folder, "PART.tsv", "index\tsentence1\tsentence2\tlabel\n", |idx| {
        let (text, is_cat) = text(idx);
        format!("{idx}\t{text}\tthe \"cat\"\t{}", if is_cat { "entailment" } else { "not_entailment" })
    })
}

fn command(model: &str, data: &Path, out: &Path, options: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--model").arg(checkpoint(model)).arg("--data").arg(data).arg("--out").arg(out);
    command.args("--device cpu --max-len 12 --batch-size 8 --checkpoint-every 3".split_whitespace());
    command.args(options.split_whitespace()).env("HF_HUB_OFFLINE", "1");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn run(model: &str, data: &Path, out: &Path, options: &str) -> Value {
    let output = command(model, data, out, options).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    report(out)
}

fn failure(model: &str, data: &Path, out: &Path, options: &str) -> String {
    let output = command(model, data, out, options).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn pickled_weights_want_a_flag() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(checkpoint("bert").join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    let (data, model) = (rte(folder.path()), folder.path().display().to_string());
    let message = failure(&model, &data, &folder.path().join("out"), "--task rte --lr 1e-3");
    assert!(message.contains("there are only pickled weights, pytorch_model.bin: "), "{message}");
    assert!(message.contains("or allow them with --pickle") && !message.contains("FindOptions"), "{message}");
}

fn report(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap()
}

fn score(report: &Value, teacher: usize, part: &str, metric: &str) -> f64 {
    let teacher = &report["teachers"][teacher];
    let kept = teacher["kept_epoch"].as_u64().unwrap() as usize;
    teacher["epochs"][kept - 1]["scores"][part][metric].as_f64().unwrap()
}

/// The JSON without what a clock said.
fn without_seconds(mut json: Value) -> Value {
    match &mut json {
        Value::Object(object) => {
            object.remove("training_seconds");
            object.values_mut().for_each(|value| *value = without_seconds(value.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_seconds(item.take())),
        _ => {}
    }
    json
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (files(a), files(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (path, bytes) in &a {
        let json = |bytes: &[u8]| serde_json::from_slice(bytes).ok().map(without_seconds);
        let same = *bytes == b[path] || json(bytes).is_some_and(|json_of| Some(json_of) == json(&b[path]));
        assert!(same, "{} differs", path.display());
    }
}

#[test]
fn one_and_two_threads_and_a_run_killed_again_and_again_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let data = rte(folder.path());
    let options = "--task rte --lr 1e-3,3e-3 --epochs 20 --seed 5 --predict dev,test";
    let [one, two, killed] = ["one", "two", "killed"].map(|name| folder.path().join(name));
    let of = |out: &Path, threads: &str| {
        let mut command = command("bert", &data, out, options);
        command.env("RAYON_NUM_THREADS", threads);
        command
    };
    for (out, threads) in [(&one, "1"), (&two, "2")] {
        let output = of(out, threads).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_same(&one, &two);
    let kills = kill_until_done(|| of(&killed, "2"));
    assert!(kills >= 3, "killed only {kills} times");
    assert_same(&one, &killed);

    let report = report(&one);
    assert_eq!(report["teachers"].as_array().unwrap().len(), 2);
    assert_ne!(report["teachers"][0]["weights"], report["teachers"][1]["weights"]);
    assert_eq!(report["teachers"][0]["epochs"].as_array().unwrap().len(), 20);
    // Five steps an epoch, and a line for each.
    assert_eq!(std::fs::read_to_string(one.join("lr-1e-3.steps.jsonl")).unwrap().lines().count(), 100);
    let mut names: Vec<_> =
        std::fs::read_dir(&one).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let of_lr = ["", ".dev.tsv", ".json", ".steps.jsonl", ".test.tsv"];
    let expected = ["lr-1e-3", "lr-3e-3"].iter().flat_map(|lr| of_lr.map(|end| format!("{lr}{end}")));
    assert_eq!(names, expected.chain(["report.json".into(), "settings.json".into()]).collect::<Vec<_>>());
}

#[test]
fn ctrl_c_leaves_a_checkpoint_from_which_the_same_command_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = rte(folder.path());
    let [whole, stopped] = ["whole", "stopped"].map(|name| folder.path().join(name));
    let options = "--task rte --lr 1e-3 --epochs 100";
    run("bert", &data, &whole, options);
    let child = command("bert", &data, &stopped, options).spawn().unwrap();
    while !stopped.join("lr-1e-3.checkpoint").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("the same command goes on from the checkpoint"), "{message}");
    assert!(!stopped.join("report.json").exists());
    run("bert", &data, &stopped, options);
    assert_same(&whole, &stopped);
}

#[test]
fn learning_rates_are_added_and_other_settings_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (rte(folder.path()), folder.path().join("out"));
    let first = run("bert", &data, &out, "--task rte --lr 1e-3 --epochs 1");
    let before = std::fs::metadata(out.join("lr-1e-3/model.safetensors")).unwrap().modified().unwrap();
    let both = run("bert", &data, &out, "--task rte --lr 1e-3,2e-3 --epochs 1");
    assert_eq!(both["teachers"][0], first["teachers"][0]);
    assert_eq!(both["teachers"].as_array().unwrap().len(), 2);
    assert_eq!(std::fs::metadata(out.join("lr-1e-3/model.safetensors")).unwrap().modified().unwrap(), before);

    let message = failure("bert", &data, &out, "--task rte --lr 1e-3 --epochs 2");
    assert!(message.contains("`settings.epochs`: expected 2, found 1"), "{message}");
    let message = failure("bert", &data, &out, "--task rte --lr 1e-3 --epochs 1 --limit-train 30");
    assert!(message.contains("`data.train`: expected"), "{message}");
    let message = failure("distilbert", &data, &out, "--task rte --lr 1e-3 --epochs 1");
    assert!(message.contains("`model`: expected") && message.contains("`weights`"), "{message}");
}

#[test]
fn every_part_of_what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (rte(folder.path()), folder.path().join("out"));
    for (options, expected) in [
        ("--task iris --lr 1e-3", "task: expected one of rte, mrpc,"),
        ("--task rte --lr 1e-3 --epochs 0", "--epochs: expected at least 1, found 0"),
        ("--task rte --lr 1e-3 --warmup 1.5", "--warmup: expected a share from 0 to 1, found 1.5"),
        ("--task rte --lr 1e-3 --max-len 99", "--max-len: expected at most 40"),
        ("--task rte --lr 1e-3 --freeze 3", "found `encoder.layer.2.*`"),
        ("--task rte --lr 1e-3 --freeze all", "expected embeddings or a number of layers, found `all`"),
        ("--task rte --lr 1e-3 --predict train", "expected dev or test, found `train`"),
        ("--task qnli --lr 1e-3", "train.tsv:1: expected a column `question`"),
        ("--task wikiqa --lr 1e-3", "expected `WikiQA-train.tsv`, the train part of wikiqa"),
    ] {
        let message = failure("bert", &data, &out, options);
        assert!(message.contains(expected), "{options}: {message}");
        std::fs::remove_dir_all(&out).unwrap_or_default();
    }
}

#[test]
fn a_teacher_learns_and_its_folder_says_what_its_predictions_said() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), "PART.tsv", "sentence\tlabel\n", |idx| {
        let (text, is_cat) = text(idx);
        format!("{text}\t{}", u8::from(is_cat))
    });
    // The test file of GLUE has no labels.
    std::fs::write(data.join("test.tsv"), "index\tsentence\n0\tthe cat\n1\ta rug\n").unwrap();
    let out = folder.path().join("out");
    let options = "--task sst2 --lr 5e-3 --epochs 8 --predict test";
    let report = run("distilbert", &data, &out, options);
    assert_eq!(score(&report, 0, "dev", "accuracy"), 1.0);
    assert!(report["teachers"][0]["epochs"][0]["scores"].get("test").is_none());
    assert_eq!(report["run"]["classes"], serde_json::json!(["negative", "positive"]));

    let saved = out.join("lr-5e-3");
    let (teacher, _) = SequenceClassifier::load(&saved, &Device::Cpu).unwrap();
    assert_eq!(teacher.classes(), ["negative", "positive"]);
    let pieces = WordPieces::from_file(saved.join("tokenizer.json")).unwrap();
    let encoded = EncodedTexts::new(&pieces, ["the cat", "a rug"], 12, &Device::Cpu).unwrap();
    let output = teacher.forward(&encoded.collate(&[0, 1]).unwrap(), Mode::Eval).unwrap();
    let logits: Vec<Vec<f32>> = output.logits().unwrap().to_vec2().unwrap();
    let predictions = std::fs::read_to_string(out.join("lr-5e-3.test.tsv")).unwrap();
    let lines: Vec<Vec<&str>> = predictions.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines[0], ["index", "prediction", "negative", "positive"]);
    assert_eq!((&lines[1][..2], &lines[2][..2]), (&["0", "positive"][..], &["1", "negative"][..]));
    for (line, logits) in lines[1..].iter().zip(logits) {
        for (text, logit) in line[2..].iter().zip(logits) {
            assert!((text.parse::<f32>().unwrap() - logit).abs() < 1e-4, "{line:?} {logit}");
        }
    }
}

#[test]
fn the_last_epoch_is_kept_when_asked_for_and_frozen_layers_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (rte(folder.path()), folder.path().join("out"));
    let options = "--task rte --lr 1e-3 --epochs 2 --keep last --freeze 1 --layers 2";
    let report = run("bert", &data, &out, options);
    assert_eq!(report["teachers"][0]["kept_epoch"], 2);
    let tensors = |path: PathBuf| candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let (before, after) =
        (tensors(checkpoint("bert").join("model.safetensors")), tensors(out.join("lr-1e-3/model.safetensors")));
    let is_same = |name: &str| {
        let values = |of: &std::collections::HashMap<String, candle_core::Tensor>| {
            of[name].flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        values(&before) == values(&after)
    };
    assert!(is_same("bert.embeddings.word_embeddings.weight"));
    assert!(is_same("bert.encoder.layer.0.output.dense.weight"));
    assert!(!is_same("bert.encoder.layer.1.output.dense.weight"));
}

#[test]
fn a_regression_learns_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let header = "index\tgenre\tsentence1\tsentence2\tscore\n";
    let data = data(folder.path(), "PART.tsv", header, |idx| {
        let (text, is_cat) = text(idx);
        format!("{idx}\tnews\t{text}\tthe cat\t{}", if is_cat { "5.0" } else { "0.5" })
    });
    let out = folder.path().join("out");
    let report = run("distilbert", &data, &out, "--task stsb --lr 5e-3 --epochs 8");
    assert!(score(&report, 0, "dev", "pearson") > 0.9 && score(&report, 0, "test", "spearman") > 0.5, "{report}");
    let config = std::fs::read_to_string(out.join("lr-5e-3/config.json")).unwrap();
    assert!(config.contains("\"problem_type\": \"regression\""), "{config}");
}

#[test]
fn several_labels_are_learned_from_a_plain_table() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), "PART.csv", "kinds,comment\n", |idx| {
        let (text, is_cat) = text(idx);
        let kinds = if is_cat { "animal|soft" } else { "" };
        format!("{kinds},\"{text}, \"\"so\"\"\"")
    });
    let out = folder.path().join("out");
    let options = "--task kinds --text comment --label kinds --kind classes --separator | --lr 5e-3 --epochs 8";
    let report = run("distilbert", &data, &out, options);
    assert_eq!(report["run"]["classes"], serde_json::json!(["animal", "soft"]));
    assert!(score(&report, 0, "dev", "micro_f1") > 0.9, "{report}");
    let config = std::fs::read_to_string(out.join("lr-5e-3/config.json")).unwrap();
    assert!(config.contains("multi_label_classification"), "{config}");
}

#[test]
fn tags_are_learned_of_words() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for (name, rows) in [("eng.train", 0..40), ("eng.testa", 40..60), ("eng.testb", 60..70)] {
        let sentence = |idx: usize| -> String {
            let tag = |word: &str| if word == "cat" { "I-PET" } else { "O" };
            text(idx).0.split(' ').map(|word| format!("{word} {}\n", tag(word))).collect::<String>() + "\n"
        };
        std::fs::write(data.join(name), rows.map(sentence).collect::<String>()).unwrap();
    }
    let out = folder.path().join("out");
    let report = run("distilbert", &data, &out, "--task conll2003 --lr 5e-3 --epochs 20 --predict test");
    assert_eq!(report["run"]["classes"], serde_json::json!(["O", "B-PET", "I-PET"]));
    assert!(score(&report, 0, "dev", "span_f1") > 0.9, "{report}");
    let (teacher, _) = TokenTagger::load(&out.join("lr-5e-3"), &Device::Cpu).unwrap();
    assert_eq!(teacher.classes(), ["O", "B-PET", "I-PET"]);
    let predictions = std::fs::read_to_string(out.join("lr-5e-3.test.tsv")).unwrap();
    assert!(predictions.starts_with("index\tword\tprediction\tO\tB-PET\tI-PET\n0\tcat\tB-PET\t"), "{predictions}");
}

#[test]
fn intents_are_learned_from_folders() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for (name, rows) in [("train", 0..40), ("valid", 40..60), ("test", 60..70)] {
        std::fs::create_dir_all(data.join(name)).unwrap();
        let texts: Vec<_> = rows.map(text).collect();
        let words = |(text, _): &(String, bool)| format!("{text}\n");
        let tags = |(text, _): &(String, bool)| vec!["O"; text.split(' ').count()].join(" ") + "\n";
        let intent = |(_, is_cat): &(String, bool)| format!("{}\n", if *is_cat { "Pet" } else { "Clean" });
        std::fs::write(data.join(name).join("seq.in"), texts.iter().map(words).collect::<String>()).unwrap();
        std::fs::write(data.join(name).join("seq.out"), texts.iter().map(tags).collect::<String>()).unwrap();
        std::fs::write(data.join(name).join("label"), texts.iter().map(intent).collect::<String>()).unwrap();
    }
    let report = run("distilbert", &data, &folder.path().join("out"), "--task snips-intents --lr 5e-3 --epochs 8");
    assert_eq!(report["run"]["classes"], serde_json::json!(["Clean", "Pet"]));
    assert_eq!(score(&report, 0, "test", "accuracy"), 1.0);
}
