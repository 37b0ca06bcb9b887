//! Two-stage distillation of several teachers as its users run it: every method, killed runs, shared folders, plans, and what
//! is wrong.

mod mkdm;
mod runs;
mod teachers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use candle_core::Device;
use kd_core::model::{Mode, Student};
use kd_core::ops::packed::Precision;
use kd_core::trainer::Saved;
use kd_data::encode::{Encode, EncodedTexts, WordPieces};
use kd_students::bundle::PairBundle;
use kd_students::split_words;
use kd_teachers::distilled;
use runs::{files, kill_until_done};
use serde_json::Value;
use teachers::{Teacher, animals, checkpoint, failure, json, of_two, rte, success, without_clock};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tmkd");
const CLASSES: [&str; 2] = ["entailment", "not_entailment"];
const ALL: std::ops::Range<usize> = 0..180;

/// A folder with the task, three teachers of it, and the same three asked about pairs without labels.
struct Room {
    folder: tempfile::TempDir,
    data: PathBuf,
    teachers: Vec<PathBuf>,
}

/// Wrong about every third, seventh and fifth example; the last has its columns in another order.
fn teacher(idx: usize, name: &str) -> Teacher<'_> {
    const OTHER_ORDER: [&str; 2] = ["not_entailment", "entailment"];
    let (classes, truth): (&[&str], fn(usize) -> usize) =
        if idx == 2 { (&OTHER_ORDER, |idx| 1 - of_two(idx)) } else { (&CLASSES, of_two) };
    Teacher { name, weights: ["1", "2", "3"][idx], classes, truth, wrong_every: [3, 7, 5][idx] }
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = rte(folder.path());
        let teachers = ["one", "two", "three"].iter().enumerate();
        let teachers = teachers.map(|(idx, name)| teacher(idx, name).file(folder.path(), ALL)).collect();
        Self { data, teachers, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Pairs without labels, and what the three teachers said of them.
    fn stage_1(&self) -> Vec<String> {
        let row = |idx: usize| format!("{}\t{}\n", teachers::pair(idx).0, teachers::pair(idx).1);
        let data = self.path("unlabelled.tsv");
        std::fs::write(&data, format!("question\tpassage\n{}", (200..224).map(row).collect::<String>())).unwrap();
        let names = ["one-u", "two-u", "three-u"].iter().enumerate();
        let files = names.map(|(idx, name)| teacher(idx, name).file(self.folder.path(), 200..224));
        let files: Vec<String> = files.map(|path| path.display().to_string()).collect();
        ["--stage1-data", &data.display().to_string(), "--stage1-teacher", &files.join(",")].map(String::from).to_vec()
    }

    fn command(&self, out: &str, options: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["--task", "rte", "--data"]).arg(&self.data);
        command.arg("--student").arg(checkpoint("bert")).arg("--out").arg(self.path(out));
        let teachers: Vec<String> = self.teachers.iter().map(|path| path.display().to_string()).collect();
        command.args(["--teacher", &teachers.join(",")]);
        command.args(
            "--device cpu --max-len 14 --batch-size 8 --epochs 2 --lr 3e-3 --hold-out 0.2 --latency-seconds 0"
                .split_whitespace(),
        );
        for (list, value) in [("--layers", "1"), ("--seeds", "1")] {
            if !options.contains(list) {
                command.args([list, value]);
            }
        }
        command.args(options.split_whitespace()).env("HF_HUB_OFFLINE", "1");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, out: &str, options: &str) -> String {
        success(self.command(out, options))
    }

    fn failure(&self, options: &str) -> String {
        failure(self.command("failed", options))
    }

    fn rows(&self, out: &str) -> Vec<Value> {
        json(&self.path(out).join("rte.json"))["rows"].as_array().unwrap().clone()
    }
}

fn row<'a>(rows: &'a [Value], method: &str) -> &'a Value {
    rows.iter().find(|row| row["method"] == method).unwrap_or_else(|| panic!("no row {method}"))
}

fn accuracy(row: &Value) -> f64 {
    row["values"]["dev"]["accuracy"][0].as_f64().unwrap()
}

/// The records of a folder of results.
fn records(folder: &Path) -> Vec<Value> {
    files(folder)
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|end| end == "json"))
        .map(|(_, bytes)| serde_json::from_slice(&bytes).unwrap())
        .collect()
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

/// The name and the folder of the student in `out`.
fn only_student(out: &Path) -> (String, PathBuf) {
    let kept: Vec<_> = std::fs::read_dir(out.join("students")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    (kept[0].file_name().unwrap().to_str().unwrap().to_string(), kept[0].clone())
}

/// The probabilities that were kept of a run.
fn answers(out: &Path, name: &str, part: &str) -> Vec<Vec<f32>> {
    let path = out.join("runs").join(format!("{name}.answers"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()[part].to_vec2().unwrap()
}

fn assert_close(a: &[Vec<f32>], b: &[Vec<f32>]) {
    assert_eq!(a.len(), b.len());
    let worst = a.concat().iter().zip(b.concat()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn every_method_runs_once_in_two_stages_and_a_second_time_not_at_all() {
    let room = Room::new();
    let mut command = room.command("out", "--epochs 10 --stage1-epochs 4 --latency-seconds 0.01");
    command.args(room.stage_1()).arg("--teacher-encoder").arg(checkpoint("bert"));
    let said = success(command);
    assert!(said.contains("80 examples of 2 classes to learn from; the epoch is chosen on 20 held-out"), "{said}");
    assert!(said.contains("the best teacher on dev: two"), "{said}");

    let rows = room.rows("out");
    let methods: Vec<&str> = rows.iter().map(|row| row["method"].as_str().unwrap()).collect();
    let students = ["gold", "1-o-1", "1avg-o-1", "m-o-m", "m-o-1", "tkd", "tkd-avg", "tmkd"];
    assert_eq!(methods[..4], ["teacher one", "teacher two", "teacher three", "teacher-ensemble"]);
    assert_eq!(methods[4..], students);
    // Of 100 to 139 the first is wrong about 101, 104, ... 137, the second about 104, 111, ... 139 and the third about 104, 109, ...
    // 139; two of three are about 104, 119, 125, 134 and 139.
    let of_teachers: Vec<f64> = rows[..4].iter().map(accuracy).collect();
    assert_eq!(of_teachers, [27.0 / 40.0, 34.0 / 40.0, 32.0 / 40.0, 35.0 / 40.0]);
    for name in students {
        // The words tell the class, and noise of teachers is not in the words.
        assert!(accuracy(row(&rows, name)) >= 0.9, "{name}: {}", row(&rows, name));
    }
    assert_eq!(row(&rows, "m-o-m")["models"], 3);
    assert!(row(&rows, "tmkd")["over_gold"]["mean"].is_number() && row(&rows, "tmkd")["over_mean"]["mean"].is_number());
    assert!(row(&rows, "gold")["over_gold"].is_null());
    // A head is 2 · 32 weights and 2 biases.
    let parameters = |name: &str| row(&rows, name)["parameters"].as_u64().unwrap();
    assert_eq!(parameters("m-o-1") - parameters("gold"), 3 * 66);
    assert!(parameters("teacher one") > parameters("gold"), "two layers against one");
    assert!(row(&rows, "gold")["speed"]["batches"][1]["per_second"].as_f64().unwrap() > 0.0);

    // gold, a student for each teacher (one of them is 1-o-1), their mean, a head for each, and three after a first stage.
    let runs = records(&room.path("out/runs"));
    assert_eq!(runs.len(), 9);
    assert!(runs.iter().all(|run| run["steps"] == 100), "every student makes as many updates");
    let heads: BTreeMap<String, usize> = runs
        .iter()
        .filter(|run| !run["decides"]["stage_1"].is_null())
        .map(|run| {
            let kept = run.get("heads_of_stage_1").and_then(Value::as_array).map_or(0, Vec::len);
            (run["decides"]["soft"].as_str().unwrap().to_string(), kept)
        })
        .collect();
    // The same teachers with the same classes: their heads go on.
    assert_eq!(heads, BTreeMap::from([("each".into(), 3), ("mean".into(), 1), ("teacher-2".into(), 1)]));
    assert_eq!(records(&room.path("out/stage-1")).len(), 3);
    for path in files(&room.path("out")).keys() {
        let end = path.extension().unwrap().to_str().unwrap();
        assert!(["json", "md", "answers", "student"].contains(&end), "{} was left", path.display());
    }
    let answers = files(&room.path("out/runs"));
    for (path, bytes) in answers.iter().filter(|(path, _)| path.extension().unwrap() == "answers") {
        let probs = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap()["dev"].clone();
        assert_eq!(probs.dims(), [40, 2]);
        for row in probs.to_vec2::<f32>().unwrap() {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{}: {row:?}", path.display());
        }
    }

    let before = files(&room.path("out"));
    let mut command = room.command("out", "--epochs 10 --stage1-epochs 4 --latency-seconds 0.01 --latency-device cpu");
    command.args(room.stage_1()).arg("--teacher-encoder").arg(checkpoint("bert"));
    let said = success(command);
    assert!(!said.contains("steps in"), "trained again: {said}");
    assert_eq!(before, files(&room.path("out")));
    let mut command = room.command("out", "--epochs 10 --stage1-epochs 4 --plan");
    command.args(room.stage_1());
    let said = success(command);
    assert!(said.contains("0 of 12 runs left, about 0 s in one process"), "{said}");
}

#[test]
fn a_run_killed_again_and_again_and_one_in_two_processes_give_the_same_bytes() {
    let room = Room::new();
    let stage_1 = room.stage_1();
    let of = |out: &str| {
        let mut command = room.command(out, "--method gold,m-o-1,tmkd --epochs 20 --stage1-epochs 40 --seeds 1,2");
        command.args(["--checkpoint-every", "7"]).args(&stage_1);
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

    let [first, second] = [of("shared"), of("shared")].map(|mut command| command.spawn().unwrap());
    let mut trained = 0;
    for process in [first, second] {
        let output = process.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        trained += said.matches("steps in").count();
    }
    // Two seeds of three students and a first stage: each by one of the processes.
    assert_eq!(trained, 8);
    assert_same(&room.path("whole"), &room.path("shared"));
}

#[test]
fn weights_and_depths_are_swept_and_what_does_not_depend_on_them_is_made_once() {
    let room = Room::new();
    let options = "--method gold,m-o-1 --alpha 0.5,1 --layers 1,2 --keep last";
    let plan = room.run("out", &format!("{options} --plan"));
    assert!(plan.contains("6 of 6 runs left") && plan.contains("a probe"), "{plan}");
    assert!(!room.path("out/rte.json").exists());
    room.run("out", options);
    let rows = room.rows("out");
    let shown: Vec<(&str, &str, Option<f64>)> = rows
        .iter()
        .map(|row| (row["method"].as_str().unwrap(), row["student"].as_str().unwrap(), row["alpha"].as_f64()))
        .collect();
    let of = |student| [("gold", student, None), ("m-o-1", student, Some(0.5)), ("m-o-1", student, Some(1.0))];
    assert_eq!(shown, [of("1-layer"), of("2-layers")].concat());
    // With all weight on the teachers there is no gold head.
    let parameters = |idx: usize| rows[idx]["parameters"].as_u64().unwrap();
    assert_eq!(parameters(1) - parameters(2), 66);
    let plan = room.run("out", &format!("{options} --seeds 1,2 --plan"));
    assert!(plan.contains("6 of 12 runs left") && plan.contains("done runs") && !plan.contains("a probe"), "{plan}");
}

#[test]
fn every_divergence_draws_heads_to_their_teachers() {
    let room = Room::new();
    for soft in ["kl", "reverse-kl", "jensen-shannon"] {
        let options = format!("--method gold,m-o-1 --alpha 0.9 --epochs 8 --soft {soft} --temperature 2 --keep last");
        room.run(soft, &options);
        let rows = room.rows(soft);
        // The teachers are right about most examples, and the student learns of them what it learns of the labels.
        assert!(accuracy(row(&rows, "m-o-1")) > 0.6, "{soft}: {rows:?}");
        let key = soft.replace('-', "_");
        for record in records(&room.path(soft).join("runs")) {
            assert_eq!(record["decides"]["settings"]["soft"][&key]["temperature"], 2.0, "{record}");
        }
    }
    let answers = |soft: &str| -> Vec<Vec<u8>> {
        let runs = files(&room.path(soft).join("runs")).into_iter();
        runs.filter(|(path, _)| path.extension().is_some_and(|end| end == "answers")).map(|(_, bytes)| bytes).collect()
    };
    for other in ["reverse-kl", "jensen-shannon"] {
        assert!(answers("kl").iter().zip(answers(other)).any(|(a, b)| *a != b), "kl and {other} taught the same");
    }
}

#[test]
fn the_plan_of_a_run_that_was_killed_is_what_is_left_of_it() {
    let room = Room::new();
    // 80 of 100 examples are learned, in 10 steps an epoch.
    let options = "--method gold --epochs 400 --checkpoint-every 20";
    let mut child = room.command("out", options).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let checkpoint = || {
        let runs = std::fs::read_dir(room.path("out/runs")).ok()?;
        runs.filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|end| end == "checkpoint"))
    };
    while checkpoint().is_none() {
        assert!(child.try_wait().unwrap().is_none(), "it was done before it was killed");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let made = Saved::read(&checkpoint().unwrap()).unwrap().step;
    assert!(made >= 20 && made.is_multiple_of(20), "{made}");
    let plan = room.run("out", &format!("{options} --plan"));
    let cells: Vec<&str> = plan.lines().find(|line| line.contains("begun")).unwrap().split_whitespace().collect();
    let left = (4000 - made).to_string();
    assert!(cells.windows(3).any(|cells| cells == ["begun", "4000", left.as_str()]), "{plan}");
    assert!(plan.contains("1 of 1 runs left"), "{plan}");
}

#[test]
fn a_bilstm_learns_pairs_and_keeps_no_head_of_other_teachers() {
    let room = Room::new();
    let vectors = room.path("vectors.txt");
    let line = |(idx, word): (usize, &str)| format!("{word} {} {} 0.5\n", idx as f64 - 2.0, 1.0 / (1.0 + idx as f64));
    let words = ["the", "cat", "rug", "dog", "ran", "mat", "big", "\""];
    std::fs::write(&vectors, words.into_iter().enumerate().map(line).collect::<String>()).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["--task", "rte", "--data"]).arg(&room.data).args(["--student", "bilstm", "--vectors"]).arg(&vectors);
    command.arg("--out").arg(room.path("out")).arg("--teacher").arg(&room.teachers[0]);
    command.args("--device cpu --max-len 8 --batch-size 8 --seeds 1 --epochs 2 --latency-seconds 0".split_whitespace());
    command.args(["--method", "tkd", "--best-teacher", "one", "--save"]);
    let stage_1 = room.stage_1();
    let other = teacher(1, "two-u").file(room.folder.path(), 200..224);
    command.args(&stage_1[..2]).arg("--stage1-teacher").arg(other);
    success(command);
    let run = &records(&room.path("out/runs"))[0];
    assert!(run.get("heads_of_stage_1").is_none(), "{run}");
    assert_eq!(run["decides"]["student"]["bilstm"]["word_width"], 3);
    assert_eq!(room.rows("out")[0]["student"], "bilstm");

    let (name, kept) = only_student(&room.path("out"));
    let bundle = PairBundle::load(&kept, &Device::Cpu, Precision::F32).unwrap();
    let words = |text: String| split_words(&text).into_iter().map(str::to_string).collect::<Vec<_>>();
    let pairs: Vec<_> = (100..140).map(teachers::pair).map(|(a, b)| (words(a), words(b))).collect();
    let probs = bundle.probabilities(0, &pairs).unwrap();
    let probs: Vec<Vec<f32>> = probs.iter().map(|row| row.iter().map(|&p| p as f32).collect()).collect();
    assert_close(&probs, &answers(&room.path("out"), &name, "dev"));
}

#[test]
fn every_part_of_what_is_wrong_is_named() {
    let room = Room::new();
    for (options, expected) in [
        ("--layers 3", "--layers: expected 1 to 2, the layers of"),
        ("--method tmkd", "--method tmkd: expected --stage1-data and --stage1-teacher, found none"),
        ("--method m-o-2", "expected all or some of teacher, teacher-ensemble, gold,"),
        ("--alpha 0.5,1.5", "--alpha: expected weights above 0 and at most 1, found 1.5"),
        ("--seeds 1,2,1", "--seeds: expected each once, found 1 twice"),
        ("--epochs 0", "--epochs: expected at least 1, found 0"),
        ("--max-len 99", "--max-len: expected at most 40"),
        ("--hold-out 1", "--hold-out: expected a share from 0 to below 1, found 1"),
        ("--best-teacher four", "--best-teacher: expected one of one, two, three, found `four`"),
        ("--checkpoint-every 0", "--checkpoint-every: expected at least 1, found 0"),
        ("--temperature 0", "--temperature: expected a number above 0, found 0"),
    ] {
        let message = room.failure(options);
        assert!(message.contains(expected), "{options}: {message}");
    }

    let with = |teacher: &Teacher<'_>, examples: std::ops::Range<usize>| {
        let file = teacher.file(room.folder.path(), examples);
        let mut command = Command::new(PROGRAM);
        command.args(["--task", "rte", "--data"]).arg(&room.data).arg("--student").arg(checkpoint("bert"));
        command.args(["--layers", "1", "--max-len", "14", "--device", "cpu", "--out"]).arg(room.path("failed"));
        command.arg("--teacher").arg(file);
        failure(command)
    };
    let other = Teacher { classes: &["entailment", "neutral"], ..teacher(0, "other-classes") };
    let message = with(&other, ALL);
    assert!(
        message.contains("teacher other-classes") && message.contains("only the teacher has [\"neutral\"]"),
        "{message}"
    );
    let message = with(&teacher(0, "without-a-row"), 1..180);
    let expected = format!("`{} | the \"mat\"`", teachers::pair(0).0);
    let parts = ["teacher without-a-row", "teacher outputs of example", &expected];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn what_a_gpu_made_in_tf32_is_put_into_a_table_without_one() {
    let room = Room::new();
    room.run("out", "--method gold");
    let runs = room.path("out").join("runs");
    let made = records(&runs)[0]["name"].as_str().unwrap().to_string();
    // A run in TF32 cannot be made here, so the run above stands for it.
    let message = failure(room.command("out", "--method gold --tf32"));
    let (_, after) =
        message.split_once("--tf32: expected a CUDA device to train ").unwrap_or_else(|| panic!("{message}"));
    let (in_tf32, _) = after.split_once(", found the CPU").unwrap();
    assert_ne!(in_tf32, made);
    for end in ["json", "answers"] {
        std::fs::copy(runs.join(format!("{made}.{end}")), runs.join(format!("{in_tf32}.{end}"))).unwrap();
    }
    room.run("out", "--method gold --tf32");
    assert_eq!(json(&room.path("out").join("rte.json"))["settings"]["tf32"], true);
    let message = failure(room.command("out", "--method gold,1-o-1 --tf32"));
    assert!(message.contains("--tf32: expected a CUDA device to train rte-1-layer-teacher-"), "{message}");
}

#[test]
fn tables_with_a_labelled_test_part_let_dev_choose() {
    let room = Room::new();
    let mut command = Command::new(PROGRAM);
    command.args(["--task", "animals", "--text", "text", "--second", "other", "--label", "kind", "--data"]);
    command.arg(animals(room.folder.path())).arg("--student").arg(checkpoint("distilbert"));
    command
        .arg("--out")
        .arg(room.path("out"))
        .args(["--method", "gold", "--layers", "2", "--seeds", "1", "--epochs", "8", "--save"]);
    command.args("--device cpu --max-len 14 --batch-size 8 --lr 5e-3 --latency-seconds 0".split_whitespace());
    let said = success(command);
    assert!(said.contains("chosen on dev (40)") && said.contains("reported: dev (40), test (40)"), "{said}");
    let rows = &json(&room.path("out/animals.json"))["rows"];
    assert!(rows[0]["values"]["test"]["accuracy"][0].as_f64().unwrap() >= 0.9, "{rows}");

    // The student that was kept says again what it said.
    let (name, kept) = only_student(&room.path("out"));
    let (student, classes, _) = distilled::load(&kept, &Device::Cpu).unwrap();
    assert_eq!(classes, [["a-cat", "a-rug", "the-dog"]]);
    let pieces = WordPieces::from_file(kept.join("tokenizer.json")).unwrap();
    let encoded = EncodedTexts::pairs(&pieces, (140..180).map(teachers::pair), 14, &Device::Cpu).unwrap();
    let output = student.forward(&encoded.collate(&(0..40).collect::<Vec<_>>()).unwrap(), Mode::Eval).unwrap();
    let probs = student.probabilities(&output).unwrap().to_vec2::<f32>().unwrap();
    assert_close(&probs, &answers(&room.path("out"), &name, "test"));
}
