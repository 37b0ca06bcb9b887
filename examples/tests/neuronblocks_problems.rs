//! Networks from a file for every kind of problem as their users have them: which output answers, what it is compared with, what
//! teachers are asked, and what is refused before anything is trained.

mod place;

use candle_core::{Device, Tensor};
use kd_data::teacher_outputs::{About, Content, FloatType, TeacherOutputs};
use place::{Place, fail, succeed};
use serde_json::{Value, json};

const THINGS: [&str; 5] = ["river", "stone", "cloud", "apple", "train"];

/// Lines of examples 0 to 60, 60 to 90 and 90 to 120.
fn parts(line: impl Fn(usize) -> String) -> [String; 3] {
    [0..60, 60..90, 90..120].map(|part| part.map(&line).collect())
}

/// A configuration of these sections, trained for `epochs` on the CPU.
fn configuration(inputs: Value, epochs: usize, architecture: Value, losses: Value, metrics: Value) -> Value {
    let mut loss = json!({"losses": losses});
    if let Some(several) = losses.as_array().map(Vec::len).filter(|&losses| losses > 1) {
        loss["multi_loss_op"] = json!("weighted_sum");
        loss["weights"] = json!(vec![1.0; several]);
    }
    json!({
        "tool_version": "1.1.0", "inputs": inputs, "outputs": {"model_name": "model.nb", "predict_fields": ["prediction"]},
        "training_params": {
            "vocabulary": {"min_word_frequency": 1}, "optimizer": {"name": "Adam", "params": {"lr": 0.03}},
            "batch_size": 10, "max_epoch": epochs, "steps_per_validation": 6, "use_gpu": false
        },
        "architecture": architecture, "loss": loss, "metrics": metrics
    })
}

fn embedding(columns: &[&str]) -> Value {
    json!({"layer": "Embedding", "conf": {"word": {"cols": columns, "dim": 8}}})
}

fn linear(id: &str, inputs: &[&str], classes: i64) -> Value {
    let conf = json!({"hidden_dim": classes, "batch_norm": false, "activation": null, "last_hidden_activation": false});
    json!({"layer_id": id, "layer": "Linear", "conf": conf, "inputs": inputs, "output_layer_flag": true})
}

fn pooled(id: &str, input: &str) -> Value {
    json!({"layer_id": id, "layer": "Pooling", "conf": {"pool_type": "mean"}, "inputs": [input]})
}

/// The last column of a file.
fn last_column(text: &str) -> Vec<String> {
    text.lines().map(|line| line.rsplit('\t').next().unwrap().to_string()).collect()
}

fn column(text: &str, place: usize) -> Vec<String> {
    text.lines().map(|line| line.split('\t').nth(place).unwrap().to_string()).collect()
}

/// Text, rating, thing, group: two targets of classes, and a number that is read by a loss of its own.
fn two_outputs() -> Place {
    let line = |at: usize| {
        let (thing, group) = ((at * 7 + at / 3) % 5, (at * 3 + at / 7) % 3);
        let group_word = ["big", "small", "old"][group];
        format!("the {group_word} {}\t0.{}\t{}\tg{group}\n", THINGS[thing], at % 9, THINGS[thing])
    };
    let inputs = json!({
        "dataset_type": "classification", "file_header": {"text": 0, "rating": 1, "thing": 2, "group": 3},
        "model_inputs": {"t": ["text"]}, "target": ["rating", "group", "thing"], "positive_label": "g1"
    });
    let architecture = json!([
        embedding(&["text"]),
        pooled("mean", "t"),
        linear("of_thing", &["mean"], 5),
        linear("of_group", &["mean"], -1),
        linear("of_rating", &["mean"], 1)
    ]);
    let losses = json!([
        {"type": "CrossEntropyLoss", "conf": {}, "inputs": ["of_thing", "thing"]},
        {"type": "MSELoss", "conf": {}, "inputs": ["of_rating", "rating"]},
        {"type": "CrossEntropyLoss", "conf": {}, "inputs": ["of_group", "group"]}
    ]);
    let mut all = configuration(inputs, 12, architecture, losses, json!(["accuracy", "auc"]));
    // -1 is as many as the first target of classes has.
    all["architecture"][3]["conf"]["hidden_dim"] = json!(3);
    Place::with(&all, parts(line))
}

#[test]
fn the_first_target_of_classes_is_answered_by_the_output_whose_loss_reads_it() {
    let place = two_outputs();
    succeed(place.train("out", 2));
    let report = place.json("out/report.json");
    assert!(report["test"]["accuracy"].as_f64().unwrap() > 0.9, "{report}");
    let predictions = place.read("out/predict.tsv");
    let wrong =
        column(&predictions, 3).iter().zip(&last_column(&predictions)).filter(|(gold, said)| gold != said).count();
    assert!(wrong <= 3, "{predictions}");
    succeed(place.test("out"));
    assert_eq!(place.read("again.tsv"), predictions);
    // A model is asked as it was trained.
    let mut other = place.json("conf.json");
    other["training_params"]["max_lengths"] = json!({"t": 2});
    other["inputs"]["add_start_end_for_seq"] = json!(true);
    place.configure(&other);
    let message = fail(place.test("out"));
    for part in ["expected the model's own network and reading", "max_lengths", "add_start_end_for_seq"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn what_cannot_be_had_of_the_answers_is_said_before_training() {
    let place = two_outputs();
    let right = place.json("conf.json");
    for (pointer, value, message) in [
        ("/outputs/predict_fields", json!(["confidence@zz"]), "expected confidence@ of g0, g1, g2, found `zz`"),
        ("/metrics", json!(["accuracy", "auc@zz"]), "positive class: expected `g0`, `g1`, `g2`, found `zz`"),
        (
            "/outputs/answer",
            json!(["of_group", "of_thing"]),
            "outputs.answer: expected outputs that are compared with one",
        ),
    ] {
        let mut wrong = right.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap()[key] = value;
        place.configure(&wrong);
        let found = fail(place.train("out", 2));
        assert!(found.contains(message), "{found}");
        assert!(!place.at("out/settings.json").exists(), "a run that did not begin has no folder");
    }
    // All labels of the validation set the same: an area is undefined, whatever the network says.
    let mut undefined = right.clone();
    undefined["metrics"] = json!(["auc", "accuracy"]);
    place.configure(&undefined);
    std::fs::write(place.at("valid.tsv"), "the old river\t0.1\triver\tg2\nan old cloud\t0.1\tcloud\tg2\n").unwrap();
    let found = fail(place.train("out", 2));
    assert!(found.contains("metrics[0]: expected one that chooses a model, found auc, which is undefined"), "{found}");
    let mut numbers = right;
    numbers["inputs"]["target"] = json!(["rating"]);
    numbers["architecture"] = json!([embedding(&["text"]), pooled("mean", "t"), linear("of_rating", &["mean"], 1)]);
    numbers["loss"] = json!({"losses": [{"type": "BCEWithLogitsLoss", "conf": {}, "inputs": ["of_rating", "rating"]}]});
    place.configure(&numbers);
    let found = fail(place.command("check"));
    assert!(found.contains("inputs.target: expected a column of classes"), "{found}");
}

/// A passage, and where the answer starts and ends in it: two words, so that start and end differ.
fn passages() -> Place {
    let line = |at: usize| {
        let (shade, thing) = (["deep", "pale", "dark"][at % 3], THINGS[(at * 3 + at / 5) % 5]);
        let colour = ["blue", "red"][at / 2 % 2];
        let before = format!("the {thing} {} ", if at.is_multiple_of(2) { "of today" } else { "is" });
        let answer = format!("{shade} {colour}");
        format!("{before}{answer} again\t{}\t{}\n", before.len(), before.len() + answer.len())
    };
    let inputs = json!({
        "dataset_type": "mrc", "file_header": {"passage_text": 0, "from": 1, "to": 2},
        "model_inputs": {"passage": ["passage_text"]}, "target": ["from", "to"], "add_start_end_for_seq": true
    });
    // The end stands first.
    let architecture = json!([
        embedding(&["passage_text"]),
        {"layer_id": "states", "layer": "BiLSTM", "conf": {"hidden_dim": 6}, "inputs": ["passage"]},
        linear("end", &["states"], 1), linear("start", &["states"], 1)
    ]);
    let losses = json!([
        {"type": "CrossEntropyLoss", "conf": {}, "inputs": ["start", "from"]},
        {"type": "CrossEntropyLoss", "conf": {}, "inputs": ["end", "to"]}
    ]);
    Place::with(&configuration(inputs, 12, architecture, losses, json!(["em", "f1"])), parts(line))
}

#[test]
fn an_answer_is_from_the_output_of_its_start_to_that_of_its_end() {
    let place = passages();
    let output = succeed(place.train("out", 2));
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warnings.contains("inputs.add_start_end_for_seq: has no effect in mrc"), "{warnings}");
    let report = place.json("out/report.json");
    assert!(report["test"]["em"].as_f64().unwrap() > 0.9, "{report}");
}

/// A number of a text with the parts of speech of its words: the sum of what its two things weigh.
fn weights(extra: &[(&str, Value)]) -> Place {
    let line = |at: usize| {
        let things = [at % 5, (at * 3 + at / 5) % 5];
        let weight = things.iter().sum::<usize>() as f64 / 8.0;
        format!("NN CC NN\t{} and {}\t{weight}\t{}\n", THINGS[things[0]], THINGS[things[1]], 1.0 - weight)
    };
    let inputs = json!({
        "dataset_type": "regression", "file_header": {"tags": 0, "text": 1, "weight": 2, "other": 3},
        "model_inputs": {"t": ["tags", "text"]}, "target": ["weight"]
    });
    let mut embedding = embedding(&["text"]);
    embedding["conf"]["postag"] = json!({"cols": ["tags"], "dim": 2});
    let architecture = json!([embedding, pooled("mean", "t"), linear("weight_of", &["mean"], 1)]);
    let losses = json!([{"type": "MSELoss", "conf": {}, "inputs": ["weight_of", "weight"]}]);
    let mut all = configuration(inputs, 15, architecture, losses, json!(["RMSE", "pearsonr"]));
    for (key, value) in extra {
        all[*key] = value.clone();
    }
    Place::with(&all, parts(line))
}

/// Stored outputs of a teacher with these classes about the texts of the training set.
fn teacher(place: &Place, name: &str, classes: &[&str], say: impl Fn(&str) -> Vec<f32>) {
    let texts = column(&place.read("train.tsv"), 1);
    let classes = classes.iter().map(|class| class.to_string()).collect();
    let logits: Vec<Vec<f32>> = texts.iter().map(|text| say(text)).collect();
    let contents: Vec<Content<'_>> = texts.iter().map(|text| Content::from(text.as_str())).collect();
    let mut outputs = TeacherOutputs::in_memory(About::named(name, "1", classes)).unwrap();
    let logits = Tensor::new(logits, &Device::Cpu).unwrap();
    outputs.append(&contents, &vec![1; contents.len()], &logits).unwrap();
    outputs.export(place.at(name), contents, FloatType::F32).unwrap();
}

#[test]
fn a_regression_learns_from_numbers_and_from_a_teacher_of_one_number() {
    let place = weights(&[]);
    succeed(place.train("out", 2));
    let report = place.json("out/report.json");
    assert!(report["test"]["pearsonr"].as_f64().unwrap() > 0.9, "{report}");

    // The teacher is asked about the text, and not about what else is known of its words; it says the opposite.
    let of =
        |text: &str| text.split(' ').filter_map(|word| THINGS.iter().position(|thing| *thing == word)).sum::<usize>();
    teacher(&place, "opposite.shard", &["weight"], |text| vec![1.0 - of(text) as f32 / 8.0]);
    teacher(&place, "classes.shard", &["0", "1"], |_| vec![0.0, 1.0]);
    let mut taught = place.json("conf.json");
    taught["distillation"] = json!({"alpha": 1.0, "teachers": [{"file": place.at("opposite.shard")}]});
    place.configure(&taught);
    succeed(place.train("taught", 2));
    let report = place.json("taught/report.json");
    // The labels choose the step that learned least of it.
    assert!(report["test"]["pearsonr"].as_f64().unwrap() < -0.5, "{report}");

    taught["distillation"]["teachers"][0]["file"] = json!(place.at("classes.shard"));
    place.configure(&taught);
    let message = fail(place.train("refused", 2));
    assert!(message.contains("expected a teacher of one number, found one of the classes 0, 1"), "{message}");
    // Another file under the same name is another run.
    taught["distillation"]["teachers"][0]["file"] = json!(place.at("opposite.shard"));
    place.configure(&taught);
    teacher(&place, "opposite.shard", &["weight"], |text| vec![of(text) as f32 / 8.0]);
    let message = fail(place.train("taught", 2));
    assert!(message.contains("teachers") && message.contains("--force"), "{message}");
}

/// Sentences with places in them, their characters, and parts of speech before them.
fn sentences() -> Place {
    let line = |at: usize| {
        let (first, second) = (THINGS[at % 5], ["Rome", "Oslo", "Kyiv", "New York"][(at + at / 4) % 4]);
        let (tags, speech) =
            if second.contains(' ') { ("O O B-LOC E-LOC", "NN IN NNP NNP") } else { ("O O S-LOC", "NN IN NNP") };
        format!("{speech}\t{first} in {second}\t{tags}\n")
    };
    let inputs = json!({
        "dataset_type": "sequence_tagging", "tagging_scheme": "BIO",
        "file_header": {"speech": 0, "word": 1, "tag": 2}, "model_inputs": {"words": ["speech", "word", "word_char"]},
        "target": ["tag"]
    });
    // As published files have it, with keys that were never read.
    let architecture = json!([
        {"layer": "Embedding", "conf": {
            "word": {"cols": ["word"], "dim": 8, "fix_weight": false}, "postag": {"cols": ["speech"], "dim": 2},
            "char": {"cols": ["word_char"], "type": "CNNCharEmbedding", "dim": 4, "embedding_matrix_dim": 4, "stride": 1,
                     "window_size": 3, "activation": null, "dropout": 0.1}
        }},
        {"layer_id": "states", "layer": "BiLSTM", "conf": {"hidden_dim": 6, "dropout": 0.1, "num_layers": 1}, "inputs": ["words"]},
        {"layer_id": "emissions", "layer": "Linear",
         "conf": {"hidden_dim": -1, "batch_norm": false, "last_hidden_activation": false}, "inputs": ["states"]},
        {"layer_id": "output", "layer": "CRF", "conf": {}, "inputs": ["emissions"], "output_layer_flag": true}
    ]);
    let losses = json!([{"type": "CRFLoss", "conf": {}, "inputs": ["output", "tag"]}]);
    Place::with(
        &configuration(inputs, 10, architecture, losses, json!(["seq_tag_f1", "seq_tag_accuracy"])),
        parts(line),
    )
}

#[test]
fn words_are_tagged_by_a_network_of_the_published_kind() {
    let place = sentences();
    let checked = succeed(place.command("check"));
    let printed = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(printed.contains("target tag: as many classes as the data has"), "{printed}");
    let output = succeed(place.train("out", 2));
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warnings.contains("inputs.tagging_scheme: expected BIO, found tags like `"), "{warnings}");
    let report = place.json("out/report.json");
    assert!(report["test"]["seq_tag_f1"].as_f64().unwrap() > 0.9, "{report}");
    let predictions = place.read("out/predict.tsv");
    let count = |text: &String| text.split(' ').count();
    let words: Vec<usize> = column(&predictions, 1).iter().map(count).collect();
    assert_eq!(last_column(&predictions).iter().map(count).collect::<Vec<_>>(), words);
    // Pieces of words have no tags.
    let mut encoder = place.json("conf.json");
    encoder["inputs"]["model_inputs"] = json!({"words": ["word"]});
    let checkpoint = concat!(env!("CARGO_MANIFEST_DIR"), "/../kd-teachers/tests/reference/bert");
    encoder["architecture"][1] = json!({"layer_id": "states", "layer": "Encoder", "conf": {"model": checkpoint, "max_len": 24}, "inputs": ["words"]});
    encoder["architecture"].as_array_mut().unwrap().remove(0);
    place.configure(&encoder);
    let message = fail(place.command("check"));
    assert!(
        message.contains("architecture[0].inputs[0]: expected no Encoder of `words`, whose words have tags"),
        "{message}"
    );
}

#[test]
fn a_network_starts_from_vectors_or_from_another_and_an_empty_column_stays_one() {
    // The remark stands last, and is mostly empty.
    let line = |at: usize| format!("THE {}\t{}\t\n", THINGS[at * 3 % 5], THINGS[at * 3 % 5]);
    let vectors: String = THINGS.iter().enumerate().map(|(at, thing)| format!("{thing} {at} 1 0\n")).collect();
    let inputs = json!({
        "dataset_type": "classification", "file_header": {"text": 0, "thing": 1, "remark": 2}, "model_inputs": {"t": ["text"]},
        "target": ["thing"]
    });
    let mut embedding = embedding(&["text"]);
    embedding["conf"]["word"]["dim"] = json!(3);
    let architecture = json!([embedding, pooled("mean", "t"), linear("output", &["mean"], -1)]);
    let losses = json!([{"type": "CrossEntropyLoss", "conf": {}, "inputs": ["output", "thing"]}]);
    let place = Place::with(&configuration(inputs, 10, architecture, losses, json!(["accuracy"])), parts(line));
    std::fs::write(place.at("vectors.txt"), vectors).unwrap();
    let with = |out: &str, flags: &[&str]| {
        let mut train = place.train(out, 2);
        train.arg("--pretrained_emb_path").arg(place.at("vectors.txt")).args(flags);
        train
    };
    succeed(with("first", &[]));
    let report = place.json("first/report.json");
    assert_eq!(report["words_with_vectors"], 5, "{report}");
    assert!(report["test"]["accuracy"].as_f64().unwrap() > 0.9, "{report}");
    let message = fail(with("first", &["--pretrained_emb_type", "fasttext"]));
    assert!(message.contains("vectors_are") && message.contains("--force"), "{message}");
    let predictions = place.read("first/predict.tsv");
    assert!(
        predictions.lines().all(|line| line.split('\t').nth(2) == Some("") && line.split('\t').count() == 4),
        "{predictions}"
    );

    // Fine-tuned by nothing, the network says what it said; vectors have no effect, which is said.
    let model = place.at("first/model.nb");
    let output = succeed(with("second", &["--pretrained_model_path", model.to_str().unwrap(), "--learning_rate", "0"]));
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warnings.contains("pre_trained_emb: has no effect, the words of pretrained_model_path"), "{warnings}");
    assert_eq!(place.read("second/predict.tsv"), predictions);

    // Without a file to predict, the test set is predicted; where to is asked first.
    let mut conf = place.json("conf.json");
    conf["inputs"]["data_paths"] = json!({"test_data_path": place.at("test.tsv")});
    place.configure(&conf);
    let predict = || {
        let mut predict = place.command("predict");
        predict.arg("--previous_model_path").arg(&model).args(["--disable_log_file", "--debug"]);
        predict
    };
    let message = fail(predict());
    assert!(message.contains("outputs.save_base_dir: expected a folder, there or --predict_output_path"), "{message}");
    let mut predict = predict();
    predict.arg("--predict_output_path").arg(place.at("predicted.tsv"));
    let warnings = String::from_utf8_lossy(&succeed(predict).stderr).into_owned();
    assert!(warnings.contains("--debug: has no effect here"), "{warnings}");
    assert_eq!(place.read("predicted.tsv"), predictions);
}
