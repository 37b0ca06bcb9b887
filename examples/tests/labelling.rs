//! Teachers of all kinds fill stores: with tokenizers of their own, killed, in parts, from files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use candle_core::{DType, Device};
use examples::labelling::{AskedTeacher, Compute, Keep, Share, contents, label, padded_to, read};
use kd_core::variables::Variables;
use kd_data::encode::{Encode, EncodedWords, WordPieces};
use kd_data::example::TextExample;
use kd_data::task::{Examples, Task};
use kd_data::teacher_outputs::{Content, FloatType, Store, TeacherOutputs};
use kd_teachers::config::{EncoderConfig, Family};
use kd_teachers::heads::{HeadOptions, SequenceClassifier, TokenTagger};
use kd_teachers::hub::ModelFiles;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kd-label");

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kd-data/tests/data").join(path)
}

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

/// A tokenizer that keeps case and cuts words into characters, where the other folds case and knows whole words.
fn cased_tokenizer(folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(file("tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["normalizer"]["lowercase"] = false.into();
    let vocabulary = json["model"]["vocab"].as_object().unwrap();
    let special = vocabulary.keys().filter(|piece| piece.starts_with('[') && piece.len() > 2).cloned();
    let characters = ('!'..='~').flat_map(|character| [character.to_string(), format!("##{character}")]);
    let mut old: Vec<(String, u64)> =
        vocabulary.iter().map(|(piece, id)| (piece.clone(), id.as_u64().unwrap())).collect();
    old.retain(|(piece, _)| special.clone().any(|special| special == *piece));
    let first = old.iter().map(|(_, id)| id + 1).max().unwrap();
    let new = characters.zip(first..).chain(old).map(|(piece, id)| (piece, id.into())).collect();
    json["model"]["vocab"] = serde_json::Value::Object(new);
    let path = folder.join("cased.json");
    std::fs::write(&path, json.to_string()).unwrap();
    path
}

fn config() -> EncoderConfig {
    EncoderConfig {
        vocabulary: 2000,
        hidden: 16,
        layers: 2,
        heads: 2,
        intermediate: 32,
        max_positions: 40,
        ..EncoderConfig::base(Family::Bert)
    }
}

/// A teacher of random weights in a folder.
fn tagger(folder: &Path, name: &str, seed: u64, tokenizer: &Path) -> ModelFiles {
    let variables = Variables::new(seed, DType::F32, &Device::Cpu);
    let tagger = TokenTagger::new(&config(), &names("O B I"), &variables, &HeadOptions::default()).unwrap();
    tagger.save(&variables, tokenizer, &folder.join(name)).unwrap();
    ModelFiles::in_folder(&folder.join(name)).unwrap()
}

fn classifier(folder: &Path, name: &str, seed: u64, tokenizer: &Path) -> ModelFiles {
    let variables = Variables::new(seed, DType::F32, &Device::Cpu);
    let model = SequenceClassifier::new(&config(), &names("no yes"), &variables, &HeadOptions::default()).unwrap();
    model.save(&variables, tokenizer, &folder.join(name)).unwrap();
    ModelFiles::in_folder(&folder.join(name)).unwrap()
}

fn load(files: &ModelFiles, keep: &Keep) -> AskedTeacher {
    AskedTeacher::load(files, None, Compute::F32, keep, &Device::Cpu).unwrap()
}

fn sentences() -> Vec<Examples> {
    read(&Task::named("wnut17").unwrap(), &[file("wnut17.conll")], Share::ALL).unwrap()
}

fn close(a: &[Vec<f32>], b: &[Vec<f32>]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.concat().iter().zip(b.concat()) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn taggers_with_tokenizers_of_their_own_have_a_row_for_every_word() {
    let folder = tempfile::tempdir().unwrap();
    let cased = cased_tokenizer(folder.path());
    let teachers =
        [tagger(folder.path(), "uncased", 1, &file("tokenizer.json")), tagger(folder.path(), "cased", 2, &cased)];
    let store = Store::open(folder.path().join("store")).unwrap();
    let files = sentences();
    let all = contents(&files);
    // The student's pieces are the uncased ones; its rows are the words.
    let pieces = WordPieces::from_file(file("tokenizer.json")).unwrap();
    let words = all.iter().map(|content| match content {
        Content::Words(words) => *words,
        other => panic!("{other:?}"),
    });
    let student = EncodedWords::new(&pieces, words, 64, &Device::Cpu).unwrap();
    let mut lengths = Vec::new();
    for files in &teachers {
        let teacher = load(files, &Keep::default());
        let mut outputs = store.teacher(teacher.about()).unwrap();
        assert_eq!(label(&teacher, &all, 200, &mut outputs).unwrap(), 60);
        assert_eq!(label(&teacher, &all, 200, &mut outputs).unwrap(), 0, "nothing is asked twice");
        let joined = outputs.join(all.iter().copied()).unwrap();
        joined.check_rows(student.rows()).unwrap();
        let encoded = teacher.encode(&all).unwrap();
        for example in [0, 7, 59] {
            let alone = teacher.ask(&encoded.collate(&[example]).unwrap()).unwrap();
            close(&joined.logits(example).unwrap().to_vec2().unwrap(), &alone.logits().unwrap().to_vec2().unwrap());
        }
        lengths.push(encoded.lengths().to_vec());
        // In the order of the student's classes.
        let batch = joined.collate(&[3], &names("I O B"), &Device::Cpu).unwrap();
        let (own, moved) = (joined.logits(3).unwrap(), batch.logits().unwrap().clone());
        let (own, moved): (Vec<Vec<f32>>, Vec<Vec<f32>>) = (own.to_vec2().unwrap(), moved.to_vec2().unwrap());
        assert_eq!((own[0][2], own[0][0]), (moved[0][0], moved[0][1]));
    }
    assert_ne!(lengths[0], lengths[1], "the tokenizers differ");
}

#[test]
fn classifiers_of_other_casing_meet_on_the_raw_text() {
    let folder = tempfile::tempdir().unwrap();
    let cased = cased_tokenizer(folder.path());
    let teachers = [
        classifier(folder.path(), "uncased", 1, &file("tokenizer.json")),
        classifier(folder.path(), "cased", 2, &cased),
    ];
    let pairs: [Content<'_>; 3] =
        [("The Party", "tonight").into(), ("the party", "tonight").into(), ("a", "much longer second text").into()];
    for (files, folds) in teachers.iter().zip([true, false]) {
        let keep = Keep { hidden: Some(FloatType::F16), attention: Some(FloatType::F32), ..Keep::default() };
        let teacher = load(files, &keep);
        let mut outputs = TeacherOutputs::in_memory(teacher.about().clone()).unwrap();
        assert_eq!(label(&teacher, &pairs, 1000, &mut outputs).unwrap(), 3);
        let joined = outputs.join(pairs).unwrap();
        let logits = |example: usize| -> Vec<Vec<f32>> { joined.logits(example).unwrap().to_vec2().unwrap() };
        assert_eq!(logits(0) == logits(1), folds, "two texts, which one of the teachers reads alike");
        let batch = joined.collate(&[0, 2], &names("no yes"), &Device::Cpu).unwrap();
        let len = teacher.encode(&pairs).unwrap().lengths().iter().copied().max().unwrap();
        assert_eq!((batch.hidden.len(), batch.hidden[2].dims()), (3, &[2, len, 16][..]));
        assert_eq!((batch.attention.len(), batch.attention[0].dims()), (2, &[2, 2, len, len][..]));
    }
    let message = load(&teachers[0], &Keep::default()).encode(&contents(&sentences())).err().unwrap().to_string();
    assert!(message.ends_with("expected texts, which it labels, found sentences of words"), "{message}");
}

#[test]
fn padding_to_the_longest_changes_no_logits() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = load(&classifier(folder.path(), "t", 1, &file("tokenizer.json")), &Keep::default());
    let pairs: [Content<'_>; 2] = [("the party", "tonight").into(), ("a", "b").into()];
    let tokens = teacher.encode(&pairs).unwrap().collate(&[0, 1]).unwrap();
    let padded = padded_to(&tokens, 40).unwrap();
    assert_eq!(padded.first.ids.dims(), [2, 40]);
    let logits = |tokens| teacher.ask(tokens).unwrap().logits().unwrap().to_vec2::<f32>().unwrap();
    close(&logits(&tokens), &logits(&padded));
    assert!(padded_to(&tokens, 3).is_err());
}

fn command(folder: &Path, store: &str, more: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--teacher").arg(folder.join("teacher")).arg("--store").arg(folder.join(store));
    command
        .args(["--task", "wnut17", "--device", "cpu", "--batch-tokens", "1"])
        .arg("--data")
        .arg(file("wnut17.conll"));
    command.args(more.split_whitespace()).env("RAYON_NUM_THREADS", "1").env("HF_HUB_OFFLINE", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The logits of every sentence in a store.
fn logits(folder: &Path, store: &str) -> Vec<Vec<Vec<f32>>> {
    let store = Store::open(folder.join(store)).unwrap();
    let outputs = store.find(&folder.join("teacher").display().to_string()).unwrap();
    let joined = outputs.join(contents(&sentences())).unwrap();
    (0..joined.len()).map(|example| joined.logits(example).unwrap().to_vec2().unwrap()).collect()
}

#[test]
fn a_program_killed_again_and_again_fills_the_store_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    tagger(folder.path(), "teacher", 1, &file("tokenizer.json"));
    assert!(run(&mut command(folder.path(), "whole", "")).starts_with("60 examples, 60 of them asked now\n"));
    assert!(run(&mut command(folder.path(), "whole", "")).starts_with("60 examples, 0 of them asked now\n"));
    let mut kills = 0;
    for milliseconds in (4..).step_by(4) {
        let mut child = command(folder.path(), "killed", "").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        kills += 1;
    }
    assert!(kills > 0);
    assert_eq!(logits(folder.path(), "whole"), logits(folder.path(), "killed"));
}

#[test]
fn shares_and_two_programs_at_once_give_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    tagger(folder.path(), "teacher", 1, &file("tokenizer.json"));
    run(&mut command(folder.path(), "whole", ""));
    let both =
        [command(folder.path(), "both", "").spawn().unwrap(), command(folder.path(), "both", "").spawn().unwrap()];
    for child in both {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(logits(folder.path(), "whole"), logits(folder.path(), "both"));

    // Three machines; the folder of the teacher is copied from each into one.
    for share in ["0/3", "1/3", "2/3"] {
        let store = format!("share-{}", &share[..1]);
        run(&mut command(folder.path(), &store, &format!("--shard {share}")));
        for teacher in std::fs::read_dir(folder.path().join(&store)).unwrap() {
            let teacher = teacher.unwrap();
            let merged = folder.path().join("merged").join(teacher.file_name());
            std::fs::create_dir_all(&merged).unwrap();
            for file in std::fs::read_dir(teacher.path()).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), merged.join(file.file_name())).unwrap();
            }
        }
    }
    assert_eq!(logits(folder.path(), "whole"), logits(folder.path(), "merged"));

    let exported = folder.path().join("wnut.shard");
    run(command(folder.path(), "merged", "--export-type f16 --export").arg(&exported));
    let exported = TeacherOutputs::open_file(&exported).unwrap().join(contents(&sentences())).unwrap();
    let whole = logits(folder.path(), "whole");
    for (example, whole) in whole.iter().enumerate() {
        let short: Vec<Vec<f32>> = exported.logits(example).unwrap().to_vec2().unwrap();
        for (a, b) in whole.concat().iter().zip(short.concat()) {
            assert!((a - b).abs() <= a.abs() / 1024.0 + 1e-6, "{a} {b}");
        }
    }
}

#[test]
fn answers_of_a_teacher_elsewhere_are_imported() {
    let folder = tempfile::tempdir().unwrap();
    let scores = folder.path().join("scores.tsv");
    std::fs::write(&scores, "first text\t0.25\nsecond text\t0.5\n").unwrap();
    let store = folder.path().join("store");
    let mut command = Command::new(PROGRAM);
    command.args("--teacher elsewhere --weights 1 --classes no,yes --numbers probs --text 1 --scores 2".split(' '));
    command.arg("--import").arg(&scores).arg("--store").arg(&store);
    run(&mut command);
    let outputs = Store::open(&store).unwrap().find("elsewhere").unwrap();
    let example = TextExample { first: "first text".into(), ..TextExample::default() };
    let joined = outputs.join([&example]).unwrap();
    assert_eq!(joined.logits(0).unwrap().to_vec2::<f32>().unwrap(), [[0.75f32.ln(), 0.25f32.ln()]]);
}
