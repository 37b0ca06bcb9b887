//! Saved students: what is read is what was written, what does not fit is named, and a killed write loses nothing.

mod fixture;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use candle_core::{DType, Device, Tensor, Var};
use fixture::{KINDS, all_words, batch, description, names, student, train, words_and_tags};
use kd_core::model::{Mode, Student};
use kd_core::variables::Variables;
use kd_students::bundle::{Bundle, BundleOptions, Description, bytes, copy, save};
use kd_students::predict::entities;

fn logits(student: &dyn Student, description: &Description) -> Vec<Vec<f32>> {
    student.forward(&batch(description).0, Mode::Eval).unwrap().logits().unwrap().to_vec2().unwrap()
}

fn load(dir: &Path) -> Bundle {
    Bundle::load(dir, &Device::Cpu).unwrap()
}

fn message(dir: &Path) -> String {
    Bundle::load(dir, &Device::Cpu).unwrap_err().to_string()
}

/// A folder with a new student in it.
fn saved(kind: &str, dir: &Path, seed: u64) -> Variables {
    let description = description(kind);
    let (_, variables) = student(&description, seed);
    save(dir, &description, &variables, BundleOptions::default()).unwrap();
    variables
}

fn entries(dir: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

#[test]
fn a_loaded_student_says_the_same_bytes() {
    let home = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let dir = home.path().join("deep/er").join(kind);
        let description = description(kind);
        let (student, variables) = student(&description, 7);
        let (tokens, labels) = batch(&description);
        train(&*student, &variables, &tokens, &labels, 5);
        let size = save(&dir, &description, &variables, BundleOptions::default()).unwrap();
        assert_eq!(entries(&dir), ["characters.json", "config.json", "model.safetensors", "words.json"]);
        assert_eq!(entries(dir.parent().unwrap()).iter().filter(|name| name.starts_with('.')).count(), 0);
        assert_eq!(size, bytes(&dir).unwrap());
        assert!(size > 4 * variables.parameter_count() as u64, "{size} bytes");

        let bundle = load(&dir);
        assert_eq!(bundle.description(), &description);
        assert_eq!(bundle.parameter_count(), variables.parameter_count());
        assert_eq!(logits(&bundle, &description), logits(&*student, &description), "{kind}");
    }
}

#[test]
fn half_precision_is_smaller_and_close() {
    let home = tempfile::tempdir().unwrap();
    let description = description("crf");
    let (student, variables) = student(&description, 7);
    let whole = save(&home.path().join("whole"), &description, &variables, BundleOptions::default()).unwrap();
    let half = BundleOptions { half_precision: true };
    let size = save(&home.path().join("half"), &description, &variables, half).unwrap();
    let table = variables.tensors()["encoder.words.weight"].elem_count() as u64;
    assert!(size <= whole - 2 * table + 16, "{size} of {whole} bytes, {table} values");
    let (found, expected) = (logits(&load(&home.path().join("half")), &description), logits(&*student, &description));
    assert_ne!(found, expected);
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-3, "{found} != {expected}");
    }
}

#[test]
fn a_loaded_tagger_tags() {
    let home = tempfile::tempdir().unwrap();
    for kind in ["softmax", "crf"] {
        let dir = home.path().join(kind);
        let description = description(kind);
        let (student, variables) = student(&description, 5);
        let (tokens, labels) = batch(&description);
        train(&*student, &variables, &tokens, &labels, 120);
        save(&dir, &description, &variables, BundleOptions::default()).unwrap();

        let bundle = load(&dir);
        let mut sentences = all_words();
        sentences.insert(3, vec![]);
        let mut tagged = bundle.tag(&sentences).unwrap();
        assert!(tagged.remove(3).is_empty());
        for (idx, tagged) in tagged.iter().enumerate() {
            let (words, tags) = words_and_tags(idx);
            assert_eq!(tagged.iter().map(|word| word.word.clone()).collect::<Vec<_>>(), words);
            let found: Vec<_> = tagged.iter().map(|word| word.tag.as_str()).collect();
            assert_eq!(found, tags.iter().map(|&tag| fixture::TAGS[tag as usize]).collect::<Vec<_>>(), "{kind}");
            assert!(tagged.iter().all(|word| (0.5..=1.0).contains(&word.probability)), "{tagged:?}");
        }
        let found = entities(&tagged[4]).unwrap();
        let spans: Vec<_> =
            found.iter().map(|entity| (entity.kind.as_str(), entity.start, entity.text.as_str())).collect();
        assert_eq!(spans, [("PER", 0, "Green"), ("LOC", 4, "New York"), ("LOC", 8, "Paris")]);
        assert_eq!(bundle.tag(&[]).unwrap(), Vec::<Vec<_>>::new());
        let refused = bundle.classify(&sentences).unwrap_err().to_string();
        assert_eq!(refused, "expected a classifier, the saved student is a tagger");
    }
}

#[test]
fn a_loaded_classifier_classifies() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("classifier");
    let description = description("classifier");
    let (student, variables) = student(&description, 5);
    let (tokens, labels) = batch(&description);
    train(&*student, &variables, &tokens, &labels, 120);
    save(&dir, &description, &variables, BundleOptions::default()).unwrap();
    let bundle = load(&dir);
    let mut texts = all_words();
    texts.push(vec![]);
    let found = bundle.classify(&texts).unwrap();
    assert!(found[8].is_none());
    for (found, (_, topic)) in found.iter().zip(fixture::SENTENCES) {
        let found = found.as_ref().unwrap();
        assert!(found.class == topic && (0.5..=1.0).contains(&found.probability), "{found:?}, expected {topic}");
    }
    assert_eq!(bundle.tag(&texts).unwrap_err().to_string(), "expected a tagger, the saved student is a classifier");
}

#[test]
fn a_file_that_does_not_fit_is_named() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("student");
    assert!(message(&dir).contains("config.json: cannot read: "), "{}", message(&dir));
    let replace_in = |file: &str, from: &str, to: &str| {
        let text = fs::read_to_string(dir.join(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(dir.join(file), text.replacen(from, to, 1)).unwrap();
    };
    for (file, from, to, expected) in [
        ("config.json", "{", "", "config.json: trailing characters at line 2 column 11"),
        (
            "config.json",
            "kd-student",
            "kd-teacher",
            "config.json: expected `format` \"kd-student\", found \"kd-teacher\"",
        ),
        ("config.json", "\"version\": 1", "\"version\": 2", "config.json: expected `version` 1, found 2"),
        ("config.json", "\"version\": 1,", "", "config.json: expected `version` 1, found null"),
        ("config.json", "hidden", "hiden", "config.json: unknown field `hiden`"),
        ("config.json", "\"hidden\": 8", "\"hidden\": 0", "config.json: encoder.hidden: expected at least 1, found 0"),
        ("config.json", "crf", "mlp", "config.json: unknown variant `mlp`"),
        (
            "config.json",
            "\"O\"",
            "\"B-PER\"",
            "config.json: classes: expected every entry once, found `B-PER` at positions [0, 1]",
        ),
        ("config.json", "\"O\",", "", "model.safetensors: the tensors do not fit the model: "),
        (
            "words.json",
            "\"ada\",",
            "",
            "words.json: words: expected 31 entries for 33 rows with padding and unknown, found 30",
        ),
        ("words.json", "\"ada\"", "\"blue\"", "words.json: words: expected every entry once, found `blue`"),
        ("words.json", "[", "", "words.json: "),
        (
            "characters.json",
            "\"B\"",
            "\"Bc\"",
            "characters.json: invalid value: string \"Bc\", expected a character at line",
        ),
        ("characters.json", "\"B\",", "", "characters.json: characters: expected"),
    ] {
        saved("crf", &dir, 1);
        replace_in(file, from, to);
        let found = message(&dir);
        assert!(found.starts_with(dir.to_str().unwrap()) && found.contains(expected), "{found}\nexpected: {expected}");
        fs::remove_dir_all(&dir).unwrap();
    }
    for file in ["config.json", "words.json", "characters.json", "model.safetensors"] {
        saved("crf", &dir, 1);
        fs::remove_file(dir.join(file)).unwrap();
        assert!(message(&dir).contains(&format!("{file}: cannot read: ")), "{}", message(&dir));
        fs::remove_dir_all(&dir).unwrap();
    }
    saved("crf", &dir, 1);
    fs::write(dir.join("words.json"), [b'[', b'"', 0xff]).unwrap();
    assert!(message(&dir).contains("words.json: cannot read: "), "{}", message(&dir));
}

#[test]
fn tensors_that_do_not_fit_are_all_named() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("student");
    let variables = saved("crf", &dir, 1);
    let path = dir.join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(message(&dir).contains("model.safetensors: expected a safetensors file, found "), "{}", message(&dir));

    let mut tensors: HashMap<String, Tensor> = variables.tensors().into_iter().collect();
    tensors.remove("encoder.words.weight").unwrap();
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    tensors.insert("out.bias".to_string(), zeros(&[3], DType::F32));
    tensors.insert("out.weight".to_string(), zeros(&[7, 16], DType::I64));
    tensors.insert("extra".to_string(), zeros(&[1], DType::F32));
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let found = message(&dir);
    for expected in [
        "model.safetensors: the tensors do not fit the model: ",
        "`encoder.words.weight` is missing, expected shape [33, 12]",
        "`out.bias` has shape [3], expected [7]",
        "`out.weight` has dtype I64, expected a float",
        "`extra` belongs to no variable",
    ] {
        assert!(found.contains(expected), "{found}\nexpected: {expected}");
    }
}

#[test]
fn what_could_not_be_loaded_is_not_written() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("student");
    let (_, variables) = student(&description("crf"), 1);
    let check = |change: fn(&mut Description), expected: &str| {
        let mut description = description("crf");
        change(&mut description);
        let found = save(&dir, &description, &variables, BundleOptions::default()).unwrap_err().to_string();
        assert!(found.contains(expected), "{found}\nexpected: {expected}");
        assert_eq!(entries(home.path()), Vec::<String>::new());
    };
    check(|d| d.classes = names(&["O"]), "`out.bias` has shape [7], expected [1]");
    check(|d| d.classes.clear(), "classes: expected at least 1, found 0");
    check(
        |d| d.words.push("newer".into()),
        "words: expected 31 entries for 33 rows with padding and unknown, found 32",
    );
    check(|d| d.characters[1] = d.characters[0], "characters: expected every entry once");
    check(|d| d.student = description("softmax").student, "`crf.transitions` belongs to no variable");
}

#[test]
fn a_failed_save_keeps_the_old_student_and_foreign_folders_are_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("student");
    let old = saved("crf", &dir, 1);
    let expected = logits(&load(&dir), &description("crf"));

    let (_, variables) = student(&description("crf"), 2);
    let table: Vec<(String, Var)> =
        variables.named().into_iter().filter(|(name, _)| name.ends_with("words.weight")).collect();
    table[0].1.set(&table[0].1.affine(1e6, 0.0).unwrap()).unwrap();
    let found = save(&dir, &description("crf"), &variables, BundleOptions { half_precision: true }).unwrap_err();
    assert!(found.to_string().contains("expected at most 65504 for half precision"), "{found}");
    assert_eq!(logits(&load(&dir), &description("crf")), expected);
    assert_eq!(entries(home.path()), ["student"]);

    let save_old = |dir: &Path| save(dir, &description("crf"), &old, BundleOptions::default());
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    let found = save_old(&dir).unwrap_err().to_string();
    assert!(found.contains("a saved student to replace, found a folder with `notes.txt` in it"), "{found}");
    assert_eq!(fs::read_to_string(dir.join("notes.txt")).unwrap(), "mine");

    let foreign = home.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("config.json"), "{}").unwrap();
    let found = save_old(&foreign).unwrap_err().to_string();
    assert!(found.contains("found a folder with `config.json` and no `config.json` of a student"), "{found}");
    fs::remove_file(foreign.join("config.json")).unwrap();
    save_old(&foreign).unwrap();
    assert_eq!(logits(&load(&foreign), &description("crf")), expected);

    let file = home.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(save_old(&file).unwrap_err().to_string().contains("found a file"));
}

#[test]
fn a_copy_replaces_a_student_or_leaves_it() {
    let home = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| home.path().join(name));
    saved("crf", &from, 1);
    saved("crf", &to, 2);
    copy(&from, &to).unwrap();
    let read = |dir: &Path| entries(dir).iter().map(|name| fs::read(dir.join(name)).unwrap()).collect::<Vec<_>>();
    assert_eq!(read(&from), read(&to));
    fs::remove_file(from.join("words.json")).unwrap();
    let found = copy(&from, &to).unwrap_err().to_string();
    assert!(found.contains("words.json: cannot copy: "), "{found}");
    assert_eq!(
        logits(&load(&to), &description("crf")),
        logits(&*student(&description("crf"), 1).0, &description("crf"))
    );
    assert_eq!(entries(home.path()), ["from", "to"]);
}

#[test]
fn every_state_that_a_killed_save_leaves_is_read_and_cleaned_up() {
    let home = tempfile::tempdir().unwrap();
    let [dir, new, old] = ["student", ".student.new", ".student.old"].map(|name| home.path().join(name));
    let kind = description("softmax");
    let seeded = |seed| logits(&*student(&kind, seed).0, &kind);
    let half_written = |at: &Path| {
        fs::create_dir(at).unwrap();
        fs::write(at.join("config.json"), "{").unwrap();
    };
    let finish = || {
        saved("softmax", &dir, 9);
        assert_eq!(entries(home.path()), ["student"]);
        assert_eq!(logits(&load(&dir), &kind), seeded(9));
        fs::remove_dir_all(&dir).unwrap();
    };

    // Killed while the first student was written: there is none.
    half_written(&new);
    assert!(message(&dir).contains("config.json: cannot read"));
    finish();

    // Killed while a second one was written.
    saved("softmax", &dir, 1);
    half_written(&new);
    assert_eq!(logits(&load(&dir), &kind), seeded(1));
    finish();

    // Killed between the two renames: the new one is complete.
    saved("softmax", &old, 1);
    saved("softmax", &new, 2);
    assert_eq!(logits(&load(&dir), &kind), seeded(2));
    finish();

    // Killed before the old one was removed.
    saved("softmax", &dir, 2);
    saved("softmax", &old, 1);
    assert_eq!(logits(&load(&dir), &kind), seeded(2));
    finish();

    // The new one was lost some other way.
    saved("softmax", &old, 1);
    assert_eq!(logits(&load(&dir), &kind), seeded(1));
    finish();
}

#[test]
fn a_killed_process_leaves_the_old_student_or_the_new_one() {
    const PLACE: &str = "KD_STUDENTS_TEST_SAVE_TO";
    if let Ok(dir) = std::env::var(PLACE) {
        for seed in (0..2).cycle() {
            saved("classifier", Path::new(&dir), seed);
            println!("saved");
        }
    }
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("student");
    let kind = description("classifier");
    let students = [0, 1].map(|seed| logits(&*student(&kind, seed).0, &kind));
    for round in 0..12 {
        let name = "a_killed_process_leaves_the_old_student_or_the_new_one";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(PLACE, &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let count = lines.filter(|line| line.ends_with("saved")).take(1 + round % 5).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(count, 1 + round % 5, "the child ended by itself");
        assert!(students.contains(&logits(&load(&dir), &kind)), "round {round}");
    }
}
