//! Networks from a file as their users have them: the same bytes however often a run is killed, tests, predictions,
//! distillation, and configurations that are wrong.

mod place;
mod runs;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use place::{PROGRAM, Place, fail, succeed};
use runs::{files, kill_until_done};
use serde_json::{Value, json};

/// A question, an answer, whether it fits, and a teacher's probability of that: it fits if both name the same thing.
fn pairs(n: usize, from: usize) -> String {
    let things = ["river", "stone", "cloud", "apple", "train"];
    let line = |at: usize| {
        let (asked, told) = ((at * 7 + at / 3) % 5, (at * 3 + at / 5) % 5);
        let label = usize::from(asked == told);
        let soft = if label == 1 { 0.9 } else { 0.1 };
        format!("where is the {} ?\tthe {} is number {}\t{label}\t{soft}\n", things[asked], things[told], at % 4)
    };
    (from..from + n).map(line).collect()
}

fn configuration() -> Value {
    json!({
        "tool_version": "1.1.0",
        "inputs": {
            "dataset_type": "classification",
            "file_header": {"question": 0, "answer": 1, "label": 2, "soft": 3},
            "predict_file_header": {"question": 0, "answer": 1},
            "model_inputs": {"q": ["question"], "a": ["answer"]},
            "target": ["label"]
        },
        "outputs": {
            "save_base_dir": "unused", "model_name": "model.nb", "predict_fields": ["prediction", "confidence@1"]
        },
        "training_params": {
            "vocabulary": {"min_word_frequency": 1},
            "optimizer": {"name": "Adam", "params": {"lr": 0.02}},
            "lr_decay": 0.9, "batch_size": 16, "max_epoch": 4, "steps_per_validation": 3, "use_gpu": false
        },
        "architecture": [
            {"layer": "Embedding", "conf": {"word": {"cols": ["question", "answer"], "dim": 12}}},
            {"layer_id": "q1", "layer": "BiLSTM", "conf": {"hidden_dim": 8, "dropout": 0.1}, "inputs": ["q"]},
            {"layer_id": "a1", "layer": "q1", "inputs": ["a"]},
            {"layer_id": "q2", "layer": "Pooling", "conf": {"pool_type": "max"}, "inputs": ["q1"]},
            {"layer_id": "a2", "layer": "Pooling", "conf": {"pool_type": "max"}, "inputs": ["a1"]},
            {"layer_id": "both", "layer": "Combination",
             "conf": {"operations": ["origin", "difference", "dot_multiply"]}, "inputs": ["q2", "a2"]},
            {"layer_id": "output", "layer": "Linear", "inputs": ["both"], "output_layer_flag": true,
             "conf": {"hidden_dim": [16, 2], "last_hidden_activation": false}}
        ],
        "loss": {"losses": [{"type": "CrossEntropyLoss", "conf": {}, "inputs": ["output", "label"]}]},
        "metrics": ["auc", "accuracy"]
    })
}

/// The files of `examples/models`, which name a checkpoint beside them.
#[test]
fn the_students_that_come_with_the_examples_have_no_warnings() {
    for name in ["word_tagger", "word_pair", "small_word_pair", "word_classifier", "encoder_pair"] {
        let mut check = Command::new(PROGRAM);
        check.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        check.args(["check", "--conf_path", &format!("examples/models/{name}.json")]);
        let output = check.output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
    }
}

fn fresh(configuration: &Value) -> Place {
    Place::with(configuration, [pairs(96, 0), pairs(40, 96), pairs(30, 200)])
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (files(a), files(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (path, bytes) in &a {
        assert!(*bytes == b[path], "{} differs", path.display());
    }
}

#[test]
fn one_and_two_threads_and_a_run_killed_again_and_again_give_the_same_bytes() {
    let place = fresh(&configuration());
    succeed(place.train("one", 1));
    succeed(place.train("two", 2));
    assert_same(&place.at("one"), &place.at("two"));
    let kills = kill_until_done(|| place.train("killed", 2));
    assert!(kills >= 2, "killed only {kills} times");
    assert_same(&place.at("one"), &place.at("killed"));
    let report = place.json("one/report.json");
    assert!(report["test"]["auc"].as_f64().unwrap() > 0.8, "{report}");

    // The saved model says the same again, and of a file without labels too.
    let mut test = place.command("test");
    test.arg("--test_data_path").arg(place.at("test.tsv")).arg("--previous_model_path").arg(place.at("one/model.nb"));
    test.arg("--predict_output_path").arg(place.at("again.tsv")).arg("--log_dir").arg(place.at("logs"));
    succeed(test);
    assert_eq!(place.read("again.tsv"), place.read("one/predict.tsv"));
    let log = place.json("logs/test.log");
    assert_eq!(log["test"], report["test"]);

    let unlabelled: String =
        pairs(30, 200).lines().map(|line| line.splitn(3, '\t').take(2).collect::<Vec<_>>().join("\t") + "\n").collect();
    std::fs::write(place.at("unlabelled.tsv"), &unlabelled).unwrap();
    let mut predict = place.command("predict");
    predict.arg("--predict_data_path").arg(place.at("unlabelled.tsv"));
    predict.arg("--previous_model_path").arg(place.at("one/model.nb")).args(["--disable_log_file", "True"]);
    predict.arg("--predict_output_path").arg(place.at("predicted.tsv"));
    succeed(predict);
    let tail = |text: &str| {
        let last = |line: &str| line.rsplitn(3, '\t').take(2).map(str::to_string).collect::<Vec<_>>();
        text.lines().map(last).collect::<Vec<_>>()
    };
    assert_eq!(tail(&place.read("predicted.tsv")), tail(&place.read("one/predict.tsv")));

    let mut typed = place.command("predict");
    typed.args(["--predict_mode", "interactive"]).arg("--previous_model_path").arg(place.at("one/model.nb"));
    let mut child = typed.stdin(Stdio::piped()).spawn().unwrap();
    let first: Vec<&str> = unlabelled.lines().take(1).collect();
    writeln!(child.stdin.take().unwrap(), "too few columns\n{}\nexit\nnever read", first[0]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let mut expected = tail(&place.read("predicted.tsv"))[0].clone();
    expected.reverse();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), expected.join("\t"));
}

#[test]
fn a_folder_belongs_to_one_run_until_it_is_forced() {
    let mut short = configuration();
    short["training_params"]["max_epoch"] = json!(1);
    let place = fresh(&short);
    succeed(place.train("out", 2));
    let log = place.read("out/train.log");
    let said = String::from_utf8_lossy(&succeed(place.train("out", 2)).stdout).into_owned();
    assert!(said.starts_with("done before") && place.read("out/train.log") == log, "{said}");
    let mut other = place.train("out", 2);
    other.args(["--learning_rate", "0.5"]);
    let refused = other.output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("optimizer.lr") && message.contains("--force"), "{message}");
    let mut forced = place.train("out", 2);
    forced.args(["--learning_rate", "0.5", "--force"]);
    let before = std::fs::read(place.at("out/model.nb/model.safetensors")).unwrap();
    succeed(forced);
    assert_ne!(before, std::fs::read(place.at("out/model.nb/model.safetensors")).unwrap());
}

#[test]
fn a_teacher_in_columns_teaches_without_labels() {
    let mut taught = configuration();
    taught["distillation"] = json!({"alpha": 1.0, "teachers": [{"scores": "soft", "numbers": "probs"}]});
    let place = fresh(&taught);
    succeed(place.train("out", 2));
    let report = place.json("out/report.json");
    assert!(report["test"]["auc"].as_f64().unwrap() > 0.8, "{report}");
    // The labels say the opposite now, and are not looked at: who learned from them would be below 0.2.
    let train = pairs(96, 0);
    let turned = train.replace("\t1\t", "\tx\t").replace("\t0\t", "\t1\t").replace("\tx\t", "\t0\t");
    std::fs::write(place.at("train.tsv"), turned).unwrap();
    succeed(place.train("turned", 2));
    let turned = place.json("turned/report.json");
    assert!(turned["test"]["auc"].as_f64().unwrap() > 0.8, "{turned}");
}

#[test]
fn a_configuration_is_checked_without_its_files() {
    let place = fresh(&configuration());
    let output = String::from_utf8_lossy(&succeed(place.command("check")).stdout).into_owned();
    for part in ["(batch, len, 16)", "those of q1", "12 x symbols of word", "target label: 2 classes"] {
        assert!(output.contains(part), "{part}: {output}");
    }
    let mut draw = place.command("draw");
    draw.arg("--graph_path").arg(place.at("graph.svg"));
    succeed(draw);
    assert!(place.read("graph.svg").contains("BiLSTM"));
    for (pointer, value, message) in [
        ("/architecture/1/conf/hiden_dim", json!(4), "architecture[1].conf.hiden_dim"),
        ("/architecture/1/layer", json!("BiLSMT"), "architecture[1].layer"),
        ("/architecture/5/inputs", json!(["q2", "a3"]), "architecture[5].inputs[1]"),
        ("/loss/losses/0/type", json!("CrossEntropy"), "loss.losses[0].type: unknown loss `CrossEntropy`"),
        ("/metrics", json!(["acuracy"]), "metrics[0]"),
        (
            "/distillation",
            json!({"teachers": [{"scores": "soft", "output": "q1"}]}),
            "distillation.teachers[0].output: expected an output layer (output), found `q1`",
        ),
        ("/training_params/batch_sise", json!(4), "training_params.batch_sise: unknown key"),
    ] {
        let mut wrong = configuration();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap()[key] = value;
        let output = fresh(&wrong).command("check").output().unwrap();
        let found = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && found.contains(message), "{pointer}: {found}");
    }
}

#[test]
fn what_nothing_trains_is_found_before_there_is_data() {
    let check = |change: &dyn Fn(&mut Value)| {
        let mut changed = configuration();
        change(&mut changed);
        let output = fresh(&changed).command("check").output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let second = |changed: &mut Value| {
        let second = json!({"layer_id": "second", "layer": "Linear", "conf": {"hidden_dim": 2}, "inputs": ["both"],
                            "output_layer_flag": true});
        changed["architecture"].as_array_mut().unwrap().push(second);
    };
    let expected =
        "loss.losses: expected a loss of each output whose layers learn, found none that `second` has a part in";
    let (passes, found) = check(&second);
    assert!(!passes && found.contains(expected), "{found}");
    let with_loss = |changed: &mut Value, weight: f64| {
        second(changed);
        let loss = json!({"type": "CrossEntropyLoss", "conf": {}, "inputs": ["second", "label"]});
        changed["loss"]["losses"].as_array_mut().unwrap().push(loss);
        (changed["loss"]["multi_loss_op"], changed["loss"]["weights"]) = (json!("weighted_sum"), json!([1.0, weight]));
    };
    let (passes, found) = check(&|changed| with_loss(changed, 0.0));
    assert!(!passes && found.contains(expected), "{found}");
    let (passes, found) = check(&|changed| with_loss(changed, 0.5));
    assert!(passes, "{found}");
    let (passes, found) = check(&|changed| {
        second(changed);
        changed["distillation"] = json!({"teachers": [{"scores": "soft", "numbers": "probs", "output": "second"}]});
    });
    assert!(passes, "{found}");
    // A column of numbers is one number of each example.
    let (passes, found) = check(&|changed| {
        (changed["inputs"]["dataset_type"], changed["inputs"]["target"]) = (json!("regression"), json!(["soft"]));
        (changed["metrics"], changed["outputs"]["predict_fields"]) = (json!(["MSE"]), json!(["prediction"]));
        changed["loss"]["losses"] = json!([{"type": "MSELoss", "conf": {}, "inputs": ["output", "soft"]}]);
    });
    let expected = "loss.losses[0].inputs[0]: expected one number for that of `soft`, (batch, 1), found (batch, 2)";
    assert!(!passes && found.contains(expected), "{found}");
}

#[test]
fn classes_are_counted_where_the_file_says_how_many() {
    let mut weighted = configuration();
    weighted["architecture"][6]["conf"]["hidden_dim"] = json!([16, -1]);
    weighted["loss"]["losses"][0]["conf"]["weight"] = json!([1.0, 2.0, 1.0, 0.5]);
    let output = String::from_utf8_lossy(&succeed(fresh(&weighted).command("check")).stdout).into_owned();
    assert!(output.contains("target label: 4 classes"), "{output}");
    let mut tagger = configuration();
    tagger["inputs"]["dataset_type"] = json!("sequence_tagging");
    tagger["inputs"]["tagging_scheme"] = json!("BIO");
    tagger["inputs"]["model_inputs"] = json!({"q": ["question"]});
    tagger["inputs"]["file_header"] = json!({"question": 0, "label": 1});
    tagger["inputs"]["predict_file_header"] = json!({"question": 0});
    tagger["architecture"] = json!([
        {"layer": "Embedding", "conf": {"word": {"cols": ["question"], "dim": 4}}},
        {"layer_id": "tags", "layer": "Linear", "conf": {"hidden_dim": [9], "activation": null}, "inputs": ["q"]},
        {"layer_id": "output", "layer": "CRF", "conf": {}, "inputs": ["tags"], "output_layer_flag": true}
    ]);
    tagger["loss"]["losses"][0]["type"] = json!("CRFLoss");
    (tagger["metrics"], tagger["outputs"]["predict_fields"]) = (json!(["seq_tag_f1"]), json!(["prediction"]));
    let output = String::from_utf8_lossy(&succeed(fresh(&tagger).command("check")).stdout).into_owned();
    assert!(output.contains("target label: 9 classes"), "{output}");
}

#[test]
fn the_first_layers_of_a_checkpoint_read_a_pair_in_its_own_pieces() {
    let checkpoint = tempfile::tempdir().unwrap();
    for (name, bytes) in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../kd-teachers/tests/reference/bert")) {
        std::fs::create_dir_all(checkpoint.path().join(&name).parent().unwrap()).unwrap();
        std::fs::write(checkpoint.path().join(name), bytes).unwrap();
    }
    let mut encoder = configuration();
    encoder["inputs"]["model_inputs"] = json!({"pair": ["question", "answer"]});
    encoder["training_params"]["max_epoch"] = json!(1);
    encoder["training_params"]["optimizer"]["params"]["lr"] = json!(0.001);
    encoder["architecture"] = json!([
        {"layer_id": "bert", "layer": "Encoder", "conf": {"model": checkpoint.path(), "layers": 1, "max_len": 24}, "inputs": ["pair"]},
        {"layer_id": "mean", "layer": "Pooling", "conf": {"pool_type": "mean"}, "inputs": ["bert"]},
        {"layer_id": "output", "layer": "Linear", "conf": {"hidden_dim": -1, "batch_norm": false, "last_hidden_activation": false},
         "inputs": ["mean"], "output_layer_flag": true}
    ]);
    let place = fresh(&encoder);
    succeed(place.train("one", 1));
    succeed(place.train("two", 2));
    assert_same(&place.at("one"), &place.at("two"));
    let wrong = |architecture: Value, message: &str| {
        let wrong = json!({"architecture": architecture});
        let wrong: serde_json::Map<_, _> =
            encoder.as_object().unwrap().clone().into_iter().chain(wrong.as_object().unwrap().clone()).collect();
        let found = fail(fresh(&json!(wrong)).command("check"));
        assert!(found.contains(message), "{found}");
    };
    let [bert, mean, output] = [0, 1, 2].map(|idx| encoder["architecture"][idx].clone());
    let with = |layer: &Value, key: &str, value: Value| {
        let mut layer = layer.clone();
        layer[key] = value;
        layer
    };
    let deep = with(&bert, "conf", json!({"model": checkpoint.path(), "layers": 99}));
    wrong(json!([deep, mean, output]), "architecture[0].conf.layers: expected 1 to");
    let (again, last) = (with(&bert, "layer_id", json!("again")), with(&output, "inputs", json!(["both"])));
    let second = with(&with(&mean, "layer_id", json!("second")), "inputs", json!(["again"]));
    let both = json!({"layer_id": "both", "layer": "Combination", "conf": {}, "inputs": ["mean", "second"]});
    let message =
        "architecture[1].inputs[0]: expected a branch that no other Encoder reads, found `pair`, which `bert`";
    wrong(json!([bert, again, mean, second, both, last]), message);

    // The saved model has all that it needs, in one folder.
    drop(checkpoint);
    succeed(place.test("one"));
    assert_eq!(place.read("again.tsv"), place.read("one/predict.tsv"));
}
