//! One student of several data sets as its users train it.

use std::process::{Command, Stdio};

use crate::runs::files;
use crate::teachers::{Teacher, animals, checkpoint, failure, json, of_three, of_two, rte, success};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mkdm");

/// Two data sets, of two classes and of three, with two teachers and one.
struct Room {
    folder: tempfile::TempDir,
    sets: [String; 2],
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let two = |name, weights, wrong_every| {
            let classes = &["entailment", "not_entailment"];
            Teacher { name, weights, classes, truth: of_two, wrong_every }.file(path, 0..180)
        };
        let classes = &["the-dog", "a-cat", "a-rug"]; // not the order of the student
        let truth = |idx| (of_three(idx) + 1) % 3;
        let three = Teacher { name: "three", weights: "3", classes, truth, wrong_every: 7 }.file(path, 0..180);
        let sets = [
            format!(
                "rte=rte:{}:{},{}",
                rte(path).display(),
                two("one", "1", 5).display(),
                two("two", "2", 7).display()
            ),
            format!("animals=kinds:{}:{}", animals(path).display(), three.display()),
        ];
        Self { sets, folder }
    }

    fn command(&self, options: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["--set", &self.sets[0], "--set", &self.sets[1]]);
        command.args("--text text --second other --label kind --device cpu --max-len 14".split_whitespace());
        command.args("--batch-size 8 --lr 3e-3 --seeds 1 --epochs 10 --hold-out 0.2".split_whitespace());
        if !options.contains("--layers") {
            command.args(["--layers", "1"]);
        }
        command.arg("--student").arg(checkpoint("bert")).arg("--out").arg(self.folder.path().join("out"));
        command.args(options.split_whitespace()).env("HF_HUB_OFFLINE", "1");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

#[test]
fn two_data_sets_of_other_classes_share_an_encoder() {
    let room = Room::new();
    let plan = success(room.command("--plan"));
    assert!(plan.contains("3 of 3 runs left") && plan.contains("rte-animals-1-layer"), "{plan}");
    let said = success(room.command(""));
    assert_eq!(said.matches("steps in").count(), 3, "{said}");
    let out = room.folder.path().join("out");
    let report = json(&out.join("mkdm.json"));
    let rows = report["rows"].as_array().unwrap();
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (row["set"].as_str().unwrap(), row["part"].as_str().unwrap(), row["classes"].as_u64().unwrap()))
        .collect();
    assert_eq!(shown, [("rte", "dev", 2), ("animals", "dev", 3), ("animals", "test", 3)]);
    for row in rows {
        // 80 of 100 examples in batches of 8, ten times, and all 100.
        assert_eq!(row["steps"], if row["set"] == "rte" { 100 } else { 130 });
        for values in [&row["alone"], &row["together"]] {
            assert!(values[0].as_f64().unwrap() >= 0.9, "{row}");
        }
    }
    // One encoder; the heads of the other data set are 2 · (3 · 32 + 3) numbers more than a student of RTE has.
    let alone = rows[0]["parameters_alone"].as_u64().unwrap();
    assert_eq!(report["parameters"].as_u64().unwrap() - alone, 198);

    let before = files(&out);
    let said = success(room.command(""));
    assert!(!said.contains("steps in"), "trained again: {said}");
    assert_eq!(before, files(&out));
}

#[test]
fn shares_follow_the_temperature_and_a_student_alone_makes_as_many_updates() {
    let room = Room::new();
    let options = "--limit-train 40 --epochs 2 --sampling-temperature inf --drawn --keep last";
    success(room.command(options));
    let out = room.folder.path().join("out");
    let report = json(&out.join("mkdm.json"));
    let rows = report["rows"].as_array().unwrap();
    let steps: Vec<u64> = [0, 1].map(|idx| rows[idx]["steps"].as_u64().unwrap()).to_vec();
    assert_eq!(steps.iter().sum::<u64>(), 20);
    let alone: Vec<u64> = files(&out.join("runs"))
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|end| end == "json"))
        .map(|(_, bytes)| serde_json::from_slice::<serde_json::Value>(bytes).unwrap()["steps"].as_u64().unwrap())
        .collect();
    let mut expected = [steps, vec![20]].concat();
    expected.sort_unstable();
    let mut found = alone.clone();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn every_part_of_what_is_wrong_is_named() {
    let room = Room::new();
    for (options, expected) in [
        ("--set rte", "expected NAME=TASK:DIR:TEACHER,TEACHER..., found `rte`"),
        ("--layers 1,2", "--layers: expected one number of layers, found several"),
        ("--layers 3", "--layers: expected 1 to 2"),
        ("--alpha 0", "--alpha: expected weights above 0"),
        ("--sampling-temperature 0", "temperature: expected a number above 0, found 0"),
    ] {
        let message = failure(room.command(options));
        assert!(message.contains(expected), "{options}: {message}");
    }
    let mut twice = room.command("");
    twice.args(["--set", &room.sets[0]]);
    let message = failure(twice);
    assert!(message.contains("--set: expected data sets of different names, found `rte` twice"), "{message}");
}
