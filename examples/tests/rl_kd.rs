//! Reinforced selection of teachers and its rivals as their users run them: every weighting, killed runs, settings of the policy, and
//! what is wrong.

mod runs;
mod teachers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use runs::{files, kill_until_done};
use serde_json::Value;
use teachers::{Teacher, animals, checkpoint, failure, json, of_three, of_two, rte, success, without_clock};

const PROGRAM: &str = env!("CARGO_BIN_EXE_rl_kd");
const CLASSES: [&str; 2] = ["entailment", "not_entailment"];

/// A folder with the task and three teachers of it, wrong about every second, seventh and fifth example.
struct Room {
    folder: tempfile::TempDir,
    data: PathBuf,
    teachers: Vec<PathBuf>,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = rte(folder.path());
        let of = [("poor", 2), ("good", 7), ("fair", 5)].into_iter().zip(["1", "2", "3"]);
        let teachers = of.map(|((name, wrong_every), weights)| {
            Teacher { name, weights, classes: &CLASSES, truth: of_two, wrong_every }.file(folder.path(), 0..180)
        });
        let teachers = teachers.collect();
        Self { data, teachers, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, out: &str, options: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["--task", "rte", "--data"]).arg(&self.data).arg("--out").arg(self.path(out));
        let teachers: Vec<String> = self.teachers.iter().map(|path| path.display().to_string()).collect();
        command.args(["--teacher", &teachers.join(",")]);
        command.args(
            "--device cpu --max-len 14 --batch-size 8 --hold-out 0.2 --reward-least 12 --learn-every 2 --held-out-every 4"
                .split_whitespace(),
        );
        if !options.contains("--student") {
            command.arg("--student").arg(checkpoint("bert")).args(["--layers", "1", "--lr", "3e-3"]);
        }
        for (option, value) in [("--seeds", "1"), ("--epochs", "3"), ("--timing-seconds", "0")] {
            if !options.contains(option) {
                command.args([option, value]);
            }
        }
        command.args(options.split_whitespace()).env("HF_HUB_OFFLINE", "1");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, out: &str, options: &str) -> String {
        success(self.command(out, options))
    }

    fn rows(&self, out: &str) -> Vec<Value> {
        json(&self.path(out).join("rte.json"))["rows"].as_array().unwrap().clone()
    }

    /// The records of a folder of results by their way.
    fn records(&self, out: &str) -> BTreeMap<String, Value> {
        let records = files(&self.path(out).join("runs"));
        let records = records.values().map(|bytes| serde_json::from_slice::<Value>(bytes).unwrap());
        records.map(|record| (record["decides"]["way"].as_str().unwrap().to_string(), record)).collect()
    }
}

fn row<'a>(rows: &'a [Value], way: &str) -> &'a Value {
    rows.iter().find(|row| row["way"] == way).unwrap_or_else(|| panic!("no row {way}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

/// Mean over groups of what each teacher got in a pass.
fn mean(groups: &Value) -> Vec<f64> {
    let groups: Vec<Vec<f64>> = groups.as_array().unwrap().iter().map(numbers).collect();
    (0..groups[0].len()).map(|k| groups.iter().map(|group| group[k]).sum::<f64>() / groups.len() as f64).collect()
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (files(a), files(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (path, bytes) in &a {
        let json = |bytes: &[u8]| serde_json::from_slice(bytes).ok().map(without_clock);
        let same = *bytes == b[path] || json(bytes).is_some_and(|json_of| Some(json_of) == json(&b[path]));
        assert!(same, "{} differs", path.display());
    }
}

#[test]
fn every_weighting_runs_once_and_a_second_time_not_at_all() {
    let room = Room::new();
    let options = "--epochs 12 --warm-up 1 --timing-seconds 0.01";
    let mut command = room.command("out", options);
    command.arg("--instances").arg(checkpoint("bert"));
    let said = success(command);
    // Of 100 training examples 20 choose and 12 are the reward's; of 40 dev examples 10 fit weights.
    assert!(said.contains("68 examples of 2 classes to learn from; the epoch is chosen on 20 held-out"), "{said}");
    assert!(
        said.contains("reported: dev (30); reward 3 on 12 other training examples, weights fitted on 10"),
        "{said}"
    );

    let rows = room.rows("out");
    let ways: Vec<&str> = rows.iter().map(|row| row["way"].as_str().unwrap()).collect();
    assert_eq!(ways[..4], ["teacher poor", "teacher good", "teacher fair", "all teachers"]);
    assert_eq!(ways[4..9], ["gold", "single poor", "single good", "single fair", "uniform"]);
    assert_eq!(ways.len(), 4 + 15 + 3);
    assert!(row(&rows, "uniform")["over_uniform"].is_null());
    for row in &rows[4..] {
        let (name, chosen) = (&row["way"], numbers(&row["chosen"])[0]);
        assert!((0.0..=1.0).contains(&chosen), "{row}");
        assert_eq!(row["values"]["dev"]["accuracy"].as_array().unwrap().len(), 1, "{name}");
        if *name != "uniform" {
            assert_eq!(row["over_uniform"]["pairs"], 1, "{name}");
        }
    }
    // The words tell the class, and half wrong labels are not in the words.
    let best = row(&rows, "best-single");
    assert!(numbers(&best["values"]["dev"]["accuracy"])[0] >= 0.9, "{best}");

    let records = room.records("out");
    let lineages = json(&room.path("out/rte.json"))["lineages"].as_array().unwrap().clone();
    let order: Vec<&str> = lineages.iter().map(|lineage| lineage["teacher"].as_str().unwrap()).collect();
    assert_eq!(order, ["poor", "fair", "good"], "the weakest first");
    for way in ["w-dev", "lr-train", "lr-dev", "covariance"] {
        let weights = numbers(&records[way]["weights"]);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{way}: {weights:?}");
        // Ten examples of dev are too few to tell the teachers apart.
        assert!(way != "lr-train" || weights[0] < weights[1].min(weights[2]), "{way}: {weights:?}");
    }
    // Weights of the passes sum to 1, uniform's are alike; a policy's first pass is its warm-up and it has drawn since.
    for (way, record) in records.iter().filter(|(_, record)| !record["passes"].as_array().unwrap().is_empty()) {
        let passes = record["passes"].as_array().unwrap();
        let steps: Vec<u64> = passes.iter().map(|pass| pass["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, (1..=12).map(|pass| 9 * pass).collect::<Vec<_>>(), "{way}");
        for pass in passes {
            let weights = mean(&pass["weights"]);
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{way}: {weights:?}");
        }
        let first = mean(&passes[0]["weights"]);
        let is_alike = first.iter().all(|weight| (weight - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(is_alike, way == "uniform" || way.starts_with("rl-"), "{way}: {first:?}");
        assert_eq!(passes[1].get("probs").is_some(), way.starts_with("rl-"), "{way}");
    }
    for (way, expected) in [("rl-1", 49), ("rl-2", 49), ("rl-3", 48)] {
        let policy = &records[way]["policy"];
        // Of the batches after the warm-up, 9 to 107, every second; the accuracy is measured last after batch 104.
        let updates = policy["updates"].as_u64();
        let rewards = policy["rewards"].as_array().map(|rewards| rewards.len() as u64);
        assert_eq!((updates, rewards), (Some(expected), Some(expected)), "{way}");
        assert_eq!(row(&rows, way)["updates"], serde_json::json!([expected]), "{way}");
        assert!(records[way]["decides"]["own"]["instances"].is_string(), "{way}");
        for plot in ["time", "difficulty"] {
            let svg = std::fs::read_to_string(room.path("out").join(format!("rte-1-layer-{way}-{plot}.svg"))).unwrap();
            assert!(["poor", "good", "fair"].iter().all(|teacher| svg.contains(teacher)), "{way} {plot}");
        }
    }
    let overheads = json(&room.path("out/rte.json"))["overheads"].as_array().unwrap().clone();
    assert_eq!(overheads.len(), 4, "three policies and a bandit");
    assert!(overheads.iter().all(|overhead| overhead["ms"].as_f64().unwrap() > 0.0), "{overheads:?}");
    // A policy draws and learns while it is timed: in each of five blocks at least, the first of them included.
    for overhead in &overheads {
        let is_policy = overhead["way"] != "lin-ucb";
        assert_eq!(overhead["updates"].as_u64().is_some_and(|updates| updates >= 5), is_policy, "{overhead}");
    }

    assert_eq!(files(&room.path("out/overhead")).len(), 4);

    let before = files(&room.path("out"));
    let mut command = room.command("out", options);
    command.arg("--instances").arg(checkpoint("bert"));
    let said = success(command);
    assert!(!said.contains("steps in"), "trained again: {said}");
    assert_eq!(before, files(&room.path("out")));
    let mut command = room.command("out", &format!("{options} --plan"));
    command.arg("--instances").arg(checkpoint("bert"));
    assert!(success(command).contains("0 of 18 runs left"));
}

#[test]
fn a_run_killed_again_and_again_ends_in_the_same_bytes() {
    let room = Room::new();
    let of = |out: &str| {
        let mut command = room.command(
            out,
            "--weighting uniform,rl-2,rl-3,lin-ucb --epochs 24 --warm-up 1 --update-every 3 --samples 2 --checkpoint-every 7 --seeds 1,2",
        );
        command.arg("--instances").arg(checkpoint("bert"));
        command
    };
    success(of("whole"));
    let kills = kill_until_done(|| {
        let mut command = of("killed");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    });
    assert!(kills >= 3, "killed only {kills} times");
    assert_same(&room.path("whole"), &room.path("killed"));
}

#[test]
fn settings_of_a_policy_are_runs_of_their_own_beside_the_same_others() {
    let room = Room::new();
    let options = "--weighting gold,uniform,rl-1 --student bilstm";
    room.run("out", options);
    let plan = |more: &str| room.run("out", &format!("{options} {more} --plan"));
    assert!(plan("").contains("0 of 3 runs left"));
    // What rl-1 does not read makes no run of its own.
    assert!(plan("--held-out-every 8").contains("0 of 3 runs left"));
    for more in
        ["--policy-lr 0.01", "--baseline learned", "--without-labels", "--policy-choice weights", "--update-per-pass"]
    {
        assert!(plan(more).contains("1 of 3 runs left"), "{more}");
    }
    assert!(plan("--combination concat").contains("3 of 3 runs left"));
    // Of labels alone neither weight nor temperature decides anything.
    assert!(plan("--alpha 0.3").contains("2 of 3 runs left"));
    assert!(plan("--temperature 2").contains("2 of 3 runs left"));
    let every =
        "--baseline standardised --policy-hidden 4 --policy-scope per-teacher --policy-choice one --entropy 0.01";
    room.run("out", &format!("{options} {every} --name other"));
    let rows = json(&room.path("out/other.json"))["rows"].as_array().unwrap().clone();
    assert_eq!(row(&rows, "gold"), row(&room.rows("out"), "gold"));
    assert_eq!(rows.len(), 3 + 4);
}

#[test]
fn a_policy_that_never_chose_is_no_difference_to_uniform_and_said_to_be() {
    let room = Room::new();
    let said = room.run("out", "--weighting uniform,rl-1,lin-ucb --warm-up 2 --epochs 2 --seeds 1,2 --save");
    let rows = room.rows("out");
    assert_eq!((&row(&rows, "rl-1")["unchosen"], &row(&rows, "uniform")["unchosen"]), (&2.into(), &0.into()));
    assert_eq!(row(&rows, "rl-1")["over_uniform"]["mean"], 0.0);
    assert!(said.contains("rl-1 (2 kept of the warm-up)"), "{said}");
    assert!(
        said.contains("A policy learns from one batch in 2 after a warm-up of 2 passes, lin-ucb from every"),
        "{said}"
    );
    // Students are kept where that is asked for.
    let students = std::fs::read_dir(room.path("out/students")).unwrap().count();
    assert_eq!(students, 6);

    // A search shows what chooses, and nothing of what is reported.
    let said = room.run("out", "--weighting uniform,rl-1 --warm-up 0 --epochs 2 --seeds 1,2 --search --name search");
    assert!(said.contains("held-out (chose)") && !said.contains("dev accuracy"), "{said}");
    let report = json(&room.path("out/search.json"));
    let rows = report["rows"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["student"].is_string() && row["values"] == serde_json::json!({})), "{rows:?}");
    assert_eq!(row(rows, "rl-1")["chosen_over_uniform"]["pairs"], 2);
    assert!(row(rows, "rl-1")["over_uniform"].is_null());
}

#[test]
fn where_test_has_labels_dev_chooses_and_lends_a_slice_to_fit_on() {
    let folder = tempfile::tempdir().unwrap();
    let of = [("one", 3), ("two", 5)].into_iter().zip(["1", "2"]);
    let teachers = of.map(|((name, wrong_every), weights)| {
        let classes = &["a-cat", "a-rug", "the-dog"];
        let teacher = Teacher { name, weights, classes, truth: of_three, wrong_every };
        teacher.file(folder.path(), 0..180).display().to_string()
    });
    let teachers = teachers.collect::<Vec<_>>().join(",");
    let mut command = Command::new(PROGRAM);
    command.args(["--task", "animals", "--text", "text", "--second", "other", "--label", "kind", "--data"]);
    command.arg(animals(folder.path())).args(["--teacher", &teachers]).arg("--student").arg(checkpoint("distilbert"));
    command.args("--layers 1,2 --weighting single,uniform,w-dev,rl-3 --seeds 1,2 --epochs 2 --batch-size 8".split(' '));
    command.args("--max-len 14 --device cpu --reward-least 12 --timing-seconds 0 --out".split(' '));
    command.arg(folder.path().join("out"));
    let said = success(command);
    let expected = "88 examples of 3 classes to learn from; the epoch is chosen on dev (30), whose own scores are therefore too good; \
                    reported: dev (30), test (40); reward 3 on 12 other";
    assert!(said.contains(expected), "{said}");
    let report = json(&folder.path().join("out/animals.json"));
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3 + 2 * 5);
    let difference = &row(rows, "rl-3")["over_uniform"];
    let of = |way| numbers(&row(rows, way)["values"]["test"]["accuracy"]);
    let by_hand: Vec<f64> = of("rl-3").iter().zip(of("uniform")).map(|(a, b)| a - b).collect();
    assert!((difference["mean"].as_f64().unwrap() - (by_hand[0] + by_hand[1]) / 2.0).abs() < 1e-12, "{difference}");
    assert!(difference["half_width"].is_number() && difference["pairs"] == 2, "{difference}");
    // For each depth the weaker teacher first, and the students of the other compared with its.
    let lineages = report["lineages"].as_array().unwrap();
    let of = |lineage: &Value| {
        (
            lineage["student"].as_str().unwrap().to_string(),
            lineage["teacher"].as_str().unwrap().to_string(),
            lineage["over_weaker"].is_null(),
        )
    };
    let expected = ["1-layer", "2-layers"].map(|student| {
        [("one", true), ("two", false)].map(|(teacher, is_first)| (student.to_string(), teacher.to_string(), is_first))
    });
    assert_eq!(lineages.iter().map(of).collect::<Vec<_>>(), expected.concat());
}

#[test]
fn every_part_of_what_is_wrong_is_named() {
    let room = Room::new();
    for (options, expected) in [
        ("--weighting rl-4", "expected all, single or some of gold, uniform,"),
        ("--alpha 1", "--alpha: expected a weight above 0 and below 1, found 1"),
        ("--soft logit-mse", "--soft: expected kl, under which teachers share a head, found logit-mse"),
        ("--soft jensen-shannon", "--soft: expected kl, under which teachers share a head, found jensen-shannon"),
        ("--temperature 0", "--temperature: expected a number above 0, found 0"),
        ("--reward-least 80", "of 80 rows 80 would be held out"),
        ("--fit-share 1", "--fit-share: expected a share above 0 and below 1, found 1"),
        (
            "--weighting uniform,rl-3 --held-out-every 3",
            "rl-3 (leave it out of --weighting, or change the setting): `held_out_every`: expected a multiple of `learn_every`, 2, found 3",
        ),
        (
            "--weighting all --samples 2",
            "rl-1 (leave it out of --weighting, or change the setting): `samples`: expected 1",
        ),
        ("--weighting all --baseline leave-one-out", "rl-1 (leave it out of"),
        (
            "--weighting all --reward-timing next",
            "`learn_every`: expected 1 where the next batch's loss is the reward, found 2",
        ),
        ("--weighting uniform,rl-3 --baseline standardised", "`baseline`: expected one that compares batches"),
        ("--centre", "--centre: expected nothing"),
        ("--search --keep last", "--search: expected scores on what chooses"),
        ("--learn-every 0", "`learn_every`: expected at least 1, found 0"),
        ("--policy-floor 0.6", "`floor`: expected a number in [0, 0.5), found 0.6"),
        ("--seeds 1,1", "--seeds: expected each once, found 1 twice"),
        ("--update-every 2 --update-per-pass", "cannot be used with"),
        ("--student bilstm --instances bilstm", "--instances: expected a pretrained encoder, found bilstm"),
    ] {
        let options =
            if options.contains("--weighting") { options.to_string() } else { format!("--weighting rl-1 {options}") };
        let message = failure(room.command("failed", &options));
        let message = message.replace("\n\nCaused by:\n    ", ": ");
        assert!(message.contains(expected), "{options}: {message}");
        assert!(
            !room.path("failed/runs").exists() || files(&room.path("failed/runs")).is_empty(),
            "{options}: trained first"
        );
    }
}
