//! The recipe as its users run it: same seed, same bytes, whatever the threads and however often it is killed.

mod runs;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use runs::{files, kill_until_done};

const PROGRAM: &str = env!("CARGO_BIN_EXE_compact_ner");

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A file of word vectors, of words that the data has and of one that it has not; written once for all tests.
fn vectors() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let line = |(row, word): (usize, &str)| {
            let value = |column: usize| format!("{:.2}", ((row * 37 + column * 11) % 100) as f64 / 100.0);
            format!("{word} {}\n", (0..100).map(value).collect::<Vec<_>>().join(" "))
        };
        let words = ["the", "to", "is", "building", "zyzzyva"];
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vectors.txt");
        std::fs::write(&path, words.into_iter().enumerate().map(line).collect::<String>()).unwrap();
        path
    })
}

/// A run on 20 labelled sentences with a teacher of two layers, in about a second.
fn command(out: &Path, threads: usize) -> Command {
    let data = file("kd-data/tests/data/wnut17.conll");
    let mut command = Command::new(PROGRAM);
    for part in ["--train", "--dev", "--test"] {
        command.arg(part).arg(&data);
    }
    command.arg("--teacher").arg(file("kd-teachers/tests/reference/bert")).arg("--out").arg(out);
    command.arg("--vectors").arg(vectors());
    let options = "--labels 20 --unlabelled 15 --seeds 1 --teacher-steps 40 --teacher-lr 1e-3 --steps 24 --evaluate-every 6 \
                   --checkpoint-every 3 --latency-seconds 0 --head crf --device cpu";
    command.args(options.split_whitespace()).env("RAYON_NUM_THREADS", threads.to_string()).env("HF_HUB_OFFLINE", "1");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn run(out: &Path, threads: usize) {
    let output = command(out, threads).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (files(a), files(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (path, bytes) in &a {
        assert!(*bytes == b[path], "{} differs", path.display());
    }
    let words = String::from_utf8_lossy(&a[Path::new("student/words.json")]);
    assert!(words.contains("zyzzyva"), "the student lacks a word of the vectors' file");
    assert!(a.contains_key(Path::new("student/model.safetensors")) && a.contains_key(Path::new("report.json")));
}

#[test]
fn one_and_two_threads_and_a_run_killed_again_and_again_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, killed] = ["one", "two", "killed"].map(|name| folder.path().join(name));
    run(&one, 1);
    run(&two, 2);
    assert_same(&one, &two);

    let kills = kill_until_done(|| command(&killed, 2));
    assert!(kills >= 5, "killed only {kills} times");
    assert_same(&one, &killed);
}

#[test]
fn ctrl_c_leaves_a_checkpoint_from_which_the_same_command_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, stopped] = ["whole", "stopped"].map(|name| folder.path().join(name));
    run(&whole, 1);
    let child = command(&stopped, 1).spawn().unwrap();
    // The teacher's first checkpoint shows that training has begun.
    while !stopped.join("labels-20/seed-1/teacher.checkpoint").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("the same command goes on from the checkpoint"), "{message}");
    assert!(!stopped.join("report.json").exists());
    run(&stopped, 1);
    assert_same(&whole, &stopped);
}

#[test]
fn bad_input_is_named_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let bad = folder.path().join("bad.conll");
    for (text, expected) in [
        ("EU\tB-org\nrejects\n", "bad.conll:2: expected 2 columns as on line 1, found 1 column"),
        ("EU\tX-org\n", "bad.conll:1:"),
        ("", "bad.conll"),
        ("EU\tB-nonsense\n", "bad.conll:1: expected one of the tags"),
    ] {
        std::fs::write(&bad, text).unwrap();
        // As --test; the last of the repeated options counts.
        let mut command = command(&out, 1);
        command.args(["--test".as_ref(), bad.as_os_str()]);
        let output = command.output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(expected), "{text:?}: {message}");
    }

    let teacher = folder.path().join("teacher");
    std::fs::create_dir(&teacher).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(file("kd-teachers/tests/reference/bert").join(name), teacher.join(name)).unwrap();
    }
    std::fs::write(teacher.join("pytorch_model.bin"), "").unwrap();
    let output = command(&out, 1).args(["--teacher".as_ref(), teacher.as_os_str()]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("or allow them with --pickle"), "{message}");
}

#[test]
fn another_run_in_the_same_folder_is_refused_and_the_difference_named() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 1);
    let output = command(folder.path(), 1).args(["--alpha", "0.9"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("`student.alpha`: expected 0.9, found 0.5"), "{message}");
}

#[test]
fn a_saved_student_tags_text_without_its_data() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 1);
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "\u{feff}Empire State Building is in NY 🎉\r\n\nAda").unwrap();
    let predict = |text: &Path| {
        let mut command = Command::new(PROGRAM);
        command.args(["predict".as_ref(), "--model".as_ref(), folder.path().join("student").as_os_str()]);
        command.arg("--input").arg(text).output().unwrap()
    };
    let output = predict(&text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["words"].as_array().unwrap().len(), 7);
    assert_eq!(lines[0]["tags"].as_array().unwrap().len(), 7);
    assert_eq!(lines[1]["words"].as_array().unwrap().len(), 0);
    assert_eq!(lines[2]["words"], serde_json::json!(["Ada"]));

    std::fs::write(&text, b"fine\nnot \xff fine\n").unwrap();
    let message = String::from_utf8(predict(&text).stderr).unwrap();
    assert!(message.contains("text.txt:2: expected UTF-8, found another byte at 4"), "{message}");
}
