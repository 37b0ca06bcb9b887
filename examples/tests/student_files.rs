//! Networks from files as students of the other programs: they learn, killed runs end alike, `neuronblocks` answers what the program
//! answered, and what is wrong is named.

mod designs;
mod runs;
mod teachers;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use candle_core::Device;
use designs::{encoder_file, pair_file, tagger_file};
use runs::{files, kill_until_done};
use serde_json::{Value, json};
use teachers::{Teacher, animals, checkpoint, failure, of_three, of_two, pair, rte, success, without_clock};

const CLASSES: [&str; 2] = ["entailment", "not_entailment"];
const DEV: std::ops::Range<usize> = 100..140;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder with RTE's files and three teachers of them, as the tests of the programs have them.
struct Room {
    folder: tempfile::TempDir,
    data: PathBuf,
    teachers: String,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = rte(folder.path());
        let of = [("one", 3), ("two", 7), ("three", 5)].into_iter().zip(["1", "2", "3"]);
        let teachers = of.map(|((name, wrong_every), weights)| {
            let teacher = Teacher { name, weights, classes: &CLASSES, truth: of_two, wrong_every };
            teacher.file(folder.path(), 0..180).display().to_string()
        });
        let teachers = teachers.collect::<Vec<_>>().join(",");
        Self { data, teachers, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, file: &Value) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, file.to_string()).unwrap();
        path
    }

    /// `tmkd` or `rl_kd` on the task.
    fn command(&self, program: &str, student: &Path, out: &str, options: &str) -> Command {
        let rest = match program {
            "tmkd" => "--latency-seconds 0",
            _ => "--reward-least 12 --learn-every 2 --held-out-every 4 --timing-seconds 0",
        };
        let mut command = Command::new(match program {
            "tmkd" => env!("CARGO_BIN_EXE_tmkd"),
            _ => env!("CARGO_BIN_EXE_rl_kd"),
        });
        command.current_dir(root()).args(["--task", "rte", "--data"]).arg(&self.data);
        command.args(["--teacher", &self.teachers, "--out"]).arg(self.path(out)).arg("--student").arg(student);
        command.args("--device cpu --batch-size 8 --seeds 1 --hold-out 0.2".split(' ')).args(rest.split(' '));
        command.args(options.split_whitespace()).env("HF_HUB_OFFLINE", "1");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What `neuronblocks` says of dev with the network in `kept`: the probability of each class.
    fn asked(&self, kept: &Path) -> Vec<Vec<f32>> {
        let lines: String = DEV.map(pair).map(|(first, second)| format!("?\t{first}\t{second}\n")).collect();
        std::fs::write(self.path("dev.tsv"), lines).unwrap();
        let path = kept.join("configuration.json");
        let mut configuration: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(configuration["outputs"]["predict_fields"], json!(["prediction", "confidence"]));
        configuration["outputs"]["predict_fields"] = CLASSES.map(|class| format!("confidence@{class}")).to_vec().into();
        let asked = self.file("asked.json", &configuration);
        let mut command = Command::new(env!("CARGO_BIN_EXE_neuronblocks"));
        command.args(["predict", "--conf_path"]).arg(asked).arg("--previous_model_path").arg(kept);
        command.arg("--predict_data_path").arg(self.path("dev.tsv")).arg("--predict_output_path");
        command.arg(self.path("said.tsv")).args(["--disable_log_file", "--device", "cpu"]).env("HF_HUB_OFFLINE", "1");
        success(command);
        let said = std::fs::read_to_string(self.path("said.tsv")).unwrap();
        let probs = |line: &str| line.split('\t').skip(3).map(|value| value.parse().unwrap()).collect();
        said.lines().map(probs).collect()
    }
}

/// The files of a folder of runs, without what a clock said.
fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (files(a), files(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (path, bytes) in &a {
        let json = |bytes: &[u8]| serde_json::from_slice(bytes).ok().map(without_clock);
        let same = *bytes == b[path] || json(bytes).is_some_and(|json_of| Some(json_of) == json(&b[path]));
        assert!(same, "{} differs", path.display());
    }
}

fn rows(out: &Path) -> Vec<Value> {
    teachers::json(&out.join("rte.json"))["rows"].as_array().unwrap().clone()
}

/// A run that is killed again and again is the same as one that is not.
fn killed_as_whole(room: &Room, of: impl Fn(&str) -> Command) {
    success(of("whole"));
    let kills = kill_until_done(|| {
        let mut command = of("killed");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    });
    assert!(kills >= 2, "killed only {kills} times");
    assert_same(&room.path("whole"), &room.path("killed"));
}

/// The students that were kept: their folders say what the runs said.
fn check_kept(room: &Room, out: &str, heads: &[(&str, &[&str])]) {
    let mut found = 0;
    for entry in std::fs::read_dir(room.path(out).join("students")).unwrap() {
        let kept = entry.unwrap().path();
        let name = kept.file_name().unwrap().to_str().unwrap().to_string();
        let answers = room.path(out).join("runs").join(format!("{name}.answers"));
        let expected: Vec<Vec<f32>> =
            candle_core::safetensors::load(answers, &Device::Cpu).unwrap()["dev"].to_vec2().unwrap();
        let said = room.asked(&kept);
        assert_eq!(said.len(), expected.len());
        let worst = said.concat().iter().zip(expected.concat()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{name}: {worst}");
        let configuration = teachers::json(&kept.join("configuration.json"));
        let (_, heads) = heads.iter().find(|(way, _)| name.contains(way)).unwrap();
        assert_eq!(configuration["outputs"]["answer"], json!(heads), "{name}");
        found += 1;
    }
    assert_eq!(found, heads.len());
}

#[test]
fn tmkd_teaches_a_file_and_neuronblocks_answers_what_it_answered() {
    let room = Room::new();
    let student = room.file("pair.json", &pair_file());
    let options = "--method gold,m-o-1 --lr 1e-2 --epochs 10 --checkpoint-every 3 --save";
    killed_as_whole(&room, |out| room.command("tmkd", &student, out, options));
    let rows = rows(&room.path("whole"));
    for row in &rows {
        assert!(row["values"]["dev"]["accuracy"][0].as_f64().unwrap() >= 0.9, "{row}");
        assert_eq!(row["student"], "pair");
    }
    // A head of 2 · (2 · 16 + 16) weights and 2 biases for each of three teachers.
    let parameters = |row: &Value| row["parameters"].as_u64().unwrap();
    assert_eq!(parameters(&rows[1]) - parameters(&rows[0]), 3 * (2 * 48 + 2));
    let (one, all) = (["gold"], ["gold", "teacher_1", "teacher_2", "teacher_3"]);
    check_kept(&room, "whole", &[("-gold-", &one), ("-each-", &all)]);
}

#[test]
fn a_pretrained_encoder_in_a_file_is_timed_and_kept() {
    let room = Room::new();
    let file = encoder_file();
    let student = room.file("encoder.json", &file);
    let options = "--method 1avg-o-1 --alpha 1 --lr 3e-3 --epochs 4 --without-bias --latency-seconds 0.01 --save";
    success(room.command("tmkd", &student, "out", options));
    let row = &rows(&room.path("out"))[0];
    assert!(row["speed"]["batches"][1]["per_second"].as_f64().unwrap() > 0.0, "{row}");
    let record =
        files(&room.path("out/runs")).into_iter().find(|(path, _)| path.extension().unwrap() == "json").unwrap();
    let record: Value = serde_json::from_slice(&record.1).unwrap();
    let network = &record["decides"]["student"]["network"];
    assert_eq!(network["checkpoints"].as_array().unwrap().len(), 1, "{record}");
    assert_eq!((&network["architecture"], network.get("loss")), (&file["architecture"], None));
    check_kept(&room, "out", &[("-mean-", &["teacher_1"])]);
}

#[test]
fn rl_kd_teaches_a_file_and_mkdm_does() {
    let room = Room::new();
    let student = room.file("pair.json", &pair_file());
    let options = "--weighting uniform,rl-1 --lr 1e-2 --epochs 3 --warm-up 1 --checkpoint-every 3 --save";
    killed_as_whole(&room, |out| room.command("rl_kd", &student, out, options));
    assert_eq!(rows(&room.path("whole")).iter().filter(|row| row["student"] == "pair").count(), 2);
    for entry in std::fs::read_dir(room.path("whole/students")).unwrap() {
        let said = room.asked(&entry.unwrap().path());
        assert!(
            said.len() == DEV.len() && said.iter().all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5),
            "{said:?}"
        );
    }

    let of_animals = Teacher {
        name: "animals",
        weights: "1",
        classes: &["a-cat", "a-rug", "the-dog"],
        truth: of_three,
        wrong_every: 4,
    };
    let teacher = of_animals.file(room.folder.path(), 0..180);
    let mkdm = |out: &str, options: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mkdm"));
        command.arg("--set").arg(format!("rte=rte:{}:{}", room.data.display(), room.teachers));
        let data = animals(room.folder.path());
        command.arg("--set").arg(format!("animals=animals:{}:{}", data.display(), teacher.display()));
        command.args(
            "--text text --second other --label kind --device cpu --seeds 1 --epochs 1 --batch-size 8".split(' '),
        );
        command.arg("--student").arg(&student).arg("--out").arg(room.path(out)).args(options.split_whitespace());
        command
    };
    success(mkdm("mkdm", ""));
    let message = failure(mkdm("failed", "--save"));
    assert!(
        message.contains("--save: expected one data set, as a folder of") && message.contains("found 2"),
        "{message}"
    );
}

#[test]
fn vectors_start_the_words_of_a_file() {
    let room = Room::new();
    let vectors = room.path("vectors.txt");
    let line = |word: &str| {
        format!("{word} {}\n", (0..12).map(|at| (at as f64 / 10.0).to_string()).collect::<Vec<_>>().join(" "))
    };
    std::fs::write(&vectors, ["zyzzyva", "cat", "extra"].map(line).concat()).unwrap();
    let kept_words = |student: &Path, out: &str, options: &str| {
        let options = format!("--method gold --epochs 1 --lr 1e-3 --save {options}");
        success(room.command("tmkd", student, out, &options));
        let kept = std::fs::read_dir(room.path(out).join("students")).unwrap().next().unwrap().unwrap().path();
        let words = teachers::json(&kept.join("dictionaries.json"))["clusters"][0][1].clone();
        words.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let student = room.file("pair.json", &pair_file());
    let plain = kept_words(&student, "plain", "");
    assert!(plain.len() == 9 && plain.contains(&"cat".to_string()), "{plain:?}"); // seven words and two quotation marks
    let of =
        |options: &str, out: &str| kept_words(&student, out, &format!("--vectors {} {options}", vectors.display()));
    assert_eq!(of("--words 1", "one")[9..], ["zyzzyva"]);
    assert_eq!(of("", "all")[9..], ["zyzzyva", "extra"]);
    assert_eq!(kept_words(&student, "fewer", "--words 3"), plain[..3]);
    // The file's own vectors add no words, unless it says so.
    let mut file = pair_file();
    file["inputs"]["data_paths"] = json!({"pre_trained_emb": vectors});
    file["architecture"][0]["conf"]["word"]["fix_weight"] = json!(true);
    assert_eq!(kept_words(&room.file("own.json", &file), "own", ""), plain);
    // A table that is fixed starts and ends as the vectors.
    let kept = std::fs::read_dir(room.path("own/students")).unwrap().next().unwrap().unwrap().path();
    let table =
        &candle_core::safetensors::load(kept.join("model.safetensors"), &Device::Cpu).unwrap()["embedding.word.weight"];
    let cat = 2 + plain.iter().position(|word| word == "cat").unwrap();
    let row = table.get(cat).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(row, (0..12).map(|at| at as f32 / 10.0).collect::<Vec<_>>());
    file["inputs"]["involve_all_words_in_pretrained_emb"] = json!(true);
    assert_eq!(kept_words(&room.file("involved.json", &file), "involved", "").len(), 11);
}

fn compact_ner(out: &Path, student: &Path, options: &str) -> Command {
    let data = root().join("kd-data/tests/data/wnut17.conll");
    let mut command = Command::new(env!("CARGO_BIN_EXE_compact_ner"));
    command.current_dir(root());
    for part in ["--train", "--dev", "--test"] {
        command.arg(part).arg(&data);
    }
    command.arg("--teacher").arg(checkpoint("bert")).arg("--out").arg(out).arg("--student").arg(student);
    command.args("--labels 20 --unlabelled 15 --seeds 1 --teacher-steps 40 --teacher-lr 1e-3 --steps 24".split(' '));
    command.args("--evaluate-every 6 --checkpoint-every 3 --latency-seconds 0 --device cpu".split(' '));
    command.args(options.split_whitespace()).env("HF_HUB_OFFLINE", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn compact_ner_teaches_a_file_and_neuronblocks_reads_its_student() {
    let room = Room::new();
    let vectors = room.path("vectors.txt");
    let line = |word: &str| format!("{word} {}\n", ["0.5"; 10].join(" "));
    std::fs::write(&vectors, ["the", "zyzzyva", "building"].map(line).concat()).unwrap();
    let student = room.file("tagger.json", &tagger_file("crf"));
    let options = format!("--vectors {} --vector-rows 2", vectors.display());
    killed_as_whole(&room, |out| compact_ner(&room.path(out), &student, &options));
    let report = teachers::json(&room.path("whole/report.json"));
    assert_eq!(report["settings"]["student"].get("head"), None);
    assert_eq!(report["settings"]["network"]["architecture"], tagger_file("crf")["architecture"]);
    let kept = room.path("whole/student");
    let words = teachers::json(&kept.join("dictionaries.json"))["clusters"][0][1].clone();
    assert_eq!(words.as_array().unwrap().iter().filter(|word| *word == "zyzzyva").count(), 1);
    // The largest of the four students' folders is as large as the report says.
    let bytes = files(&kept).values().map(Vec::len).sum::<usize>() as u64;
    assert_eq!(report["rows"][4]["bytes"].as_u64().unwrap(), bytes);

    let text = room.path("text.tsv");
    std::fs::write(&text, "Empire State Building\nAda\n").unwrap();
    let mut predict = Command::new(env!("CARGO_BIN_EXE_neuronblocks"));
    predict
        .args(["predict", "--conf_path"])
        .arg(kept.join("configuration.json"))
        .arg("--previous_model_path")
        .arg(&kept);
    predict.arg("--predict_data_path").arg(&text).arg("--predict_output_path").arg(room.path("tags.tsv"));
    predict.args(["--disable_log_file", "--device", "cpu"]);
    success(predict);
    let tags = std::fs::read_to_string(room.path("tags.tsv")).unwrap();
    let numbers: Vec<usize> = tags.lines().map(|line| line.split('\t').nth(1).unwrap().split(' ').count()).collect();
    assert_eq!(numbers, [3, 1], "{tags}");
    let mut predict = Command::new(env!("CARGO_BIN_EXE_compact_ner"));
    predict.args(["predict", "--model"]).arg(&kept).stdin(Stdio::null());
    let message = failure(predict);
    let expected = format!(
        "neuronblocks predict --conf_path {0}/configuration.json --previous_model_path {0} asks it",
        kept.display()
    );
    assert!(message.contains(&expected), "{message}");
}

#[test]
fn a_tagger_without_a_crf_learns_what_a_teacher_says_of_each_word() {
    let room = Room::new();
    let student = room.file("tagger.json", &tagger_file("tags"));
    success(compact_ner(&room.path("out"), &student, "--alpha 0.1 --temperature 2"));
    let rows = teachers::json(&room.path("out/report.json"))["rows"].clone();
    let names: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["teacher", "gold", "distilled", "pseudo", "both"]);
    let weights =
        |way: &str| std::fs::read(room.path("out/labels-20/seed-1").join(way).join("model.safetensors")).unwrap();
    assert!(weights("gold") != weights("distilled") && weights("pseudo") != weights("both"));
}

#[test]
fn the_files_of_the_examples_are_students() {
    let room = Room::new();
    let options = "--epochs 1 --limit-train 40";
    for name in ["word_pair", "small_word_pair", "encoder_pair"] {
        let student = Path::new("examples/models").join(format!("{name}.json"));
        success(room.command("tmkd", &student, name, &format!("{options} --method m-o-1 --save")));
        let out = format!("{name}-rl");
        success(room.command("rl_kd", &student, &out, &format!("{options} --weighting uniform")));
    }
    // One text each, which has classes of its own.
    let mut command = Command::new(env!("CARGO_BIN_EXE_tmkd"));
    command.current_dir(root()).args(["--task", "animals", "--text", "text", "--label", "kind", "--method", "gold"]);
    command.arg("--data").arg(animals(room.folder.path())).arg("--out").arg(room.path("word_classifier"));
    command.args(["--student", "examples/models/word_classifier.json", "--save", "--latency-seconds", "0"]);
    command.args("--device cpu --seeds 1".split(' ')).args(options.split(' '));
    success(command);
    let student = Path::new("examples/models/word_tagger.json");
    success(compact_ner(&room.path("tagger"), student, "--steps 2 --evaluate-every 2"));
}

#[test]
fn every_part_of_what_is_wrong_is_named() {
    let room = Room::new();
    type Change = fn(&mut Value);
    let nothing: Change = |_| {};
    let cases: [(Change, &str, &str); 16] = [
        (nothing, "--layers 2", "--layers: expected an encoder as --student, found"),
        (nothing, "--bf16", "--bf16: expected an encoder as --student, found"),
        (nothing, "--pooling cls", "--pooling: expected an encoder as --student, found"),
        (nothing, "--combination concat", "--combination: expected bilstm as --student, found"),
        (nothing, "--max-len 14", "--max-len: expected the lengths of"),
        (
            |file| file["inputs"]["model_inputs"] = json!({"q": ["question"], "a": ["question"]}),
            "",
            "train.tsv:2: expected 1 text, which",
        ),
        (
            |file| {
                file["inputs"]["dataset_type"] = json!("regression");
                file["outputs"]["predict_fields"] = json!(["prediction"]);
            },
            "",
            "inputs.dataset_type: expected classification, found regression",
        ),
        (|file| file["architecture"][6]["layer_id"] = json!("x"), "", "loss.losses[0].inputs[0]"),
        (
            |file| file["architecture"][5]["layer_id"] = json!("heads"),
            "",
            "architecture[6].inputs[0]: expected a layer_id or a branch (q, a), found `both`",
        ),
        (
            |file| {
                file["architecture"][5]["layer_id"] = json!("heads");
                file["architecture"][6]["inputs"] = json!(["heads"]);
            },
            "",
            "architecture[5].layer_id: expected another name, which the student's own heads have, found `heads`",
        ),
        (
            |file| file["architecture"][1]["conf"]["hidden_dim"] = json!("many"),
            "",
            "architecture[1].conf.hidden_dim: invalid type",
        ),
        (
            |file| {
                file["architecture"][6]["conf"]["hidden_dim"] = json!(-1);
                file["architecture"][6]["output_layer_flag"] = json!(false);
                let out = json!({"layer_id": "out", "layer": "Linear", "inputs": ["gold"], "output_layer_flag": true,
                                 "conf": {"hidden_dim": 2, "activation": null}});
                file["architecture"].as_array_mut().unwrap().push(out);
                file["loss"]["losses"][0]["inputs"] = json!(["out", "label"]);
            },
            "",
            "architecture[6]: expected a layer below the outputs of one width, found that of the classes",
        ),
        (
            |file| {
                file["inputs"]["file_header"]["pos"] = json!(3);
                file["inputs"]["model_inputs"]["q"] = json!(["question", "pos"]);
                file["architecture"][0]["conf"]["pos"] = json!({"cols": ["pos"], "dim": 2});
                file["architecture"][2] =
                    json!({"layer_id": "a1", "layer": "BiLSTM", "conf": {"hidden_dim": 8}, "inputs": ["a"]});
            },
            "",
            "inputs.file_header.pos: expected columns of text, found one of the cluster `pos`",
        ),
        (nothing, "--vectors missing.txt", "missing.txt"),
        (
            |file| file["outputs"]["answer"] = json!(["silver"]),
            "",
            "outputs.answer[0]: expected an output layer (gold), found `silver`",
        ),
        (|file| file["inputs"]["colour"] = json!(1), "", "inputs.colour: unknown key"),
    ];
    for (change, options, expected) in cases {
        let mut file = pair_file();
        change(&mut file);
        let student = room.file("wrong.json", &file);
        let message = failure(room.command("tmkd", &student, "failed", &format!("--method gold {options}")));
        assert!(
            message.contains(expected) && message.contains("wrong.json") | options.contains("missing"),
            "{expected}: {message}"
        );
    }
    let encoder = room.file("encoder.json", &encoder_file());
    let message = failure(room.command("tmkd", &encoder, "failed", "--vectors v.txt"));
    assert!(message.contains("--vectors: expected a table of words in"), "{message}");
    let pair_of = room.file("pair.json", &pair_file());
    let message = failure(room.command(
        "rl_kd",
        &checkpoint("bert"),
        "failed",
        &format!("--layers 1 --max-len 14 --instances {}", pair_of.display()),
    ));
    assert!(message.contains("--instances: expected a pretrained encoder, found"), "{message}");
    let message = failure(room.command("tmkd", &checkpoint("bert"), "failed", "--words 9"));
    assert!(message.contains("--words: expected bilstm or FILE.json as --student, found"), "{message}");

    let cases: [(Change, &str, &str); 6] = [
        (nothing, "--head crf", "cannot be used with"),
        (|file| *file = pair_file(), "", "inputs.dataset_type: expected sequence_tagging, found classification"),
        (|file| file["inputs"]["tagging_scheme"] = json!("BIOES"), "", "inputs.tagging_scheme: expected BIO"),
        (
            |file| file["architecture"][2]["conf"]["last_hidden_softmax"] = json!(true),
            "",
            "architecture[2].conf.last_hidden_softmax: expected false",
        ),
        (
            |file| file["architecture"][2]["conf"]["hidden_dim"] = json!(4),
            "",
            "expected an output of the 13 classes of `tag`",
        ),
        (nothing, "--vectors missing.txt", "missing.txt"),
    ];
    for (change, options, expected) in cases {
        let mut file = tagger_file("tags");
        change(&mut file);
        let student = room.file("wrong.json", &file);
        let message = failure(compact_ner(&room.path("failed"), &student, options));
        assert!(message.contains(expected), "{expected}: {message}");
        assert!(!room.path("failed/labels-20").exists(), "{expected}: the teacher was trained before the error");
    }
}
