//! Which of a model's files are fetched.

use std::collections::BTreeMap;
use std::fs;

use kd_teachers::hub::{FindOptions, ModelFiles};
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::server::{MAIN, Model, name_of};
use crate::{CONFIG, Home, TOKENIZER, failure, names, options};

const INDEX: &str = "model.safetensors.index.json";

/// `org/name` with these files, the large ones marked.
fn with(files: &[(&str, &[u8], bool)]) -> Model {
    let files = files.iter().map(|(name, contents, large)| (name.to_string(), (contents.to_vec(), *large)));
    Model {
        commits: BTreeMap::from([(MAIN, files.collect())]),
        revisions: BTreeMap::from([("main", MAIN)]),
        ..Model::default()
    }
}

/// A safetensors file with a tensor of this name.
fn shard(tensor: &str) -> Vec<u8> {
    let view = TensorView::new(Dtype::F32, vec![1], &[0, 0, 128, 63]).unwrap();
    serialize([(tensor, view)], None).unwrap()
}

#[test]
fn shards_are_fetched_as_the_index_names_them() {
    let index = br#"{"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}"#;
    let (a, b) = (shard("y"), shard("x"));
    let other = shard("z");
    let files: [(&str, &[u8], bool); 6] = [
        ("config.json", CONFIG, false),
        ("tokenizer.json", TOKENIZER, false),
        (INDEX, index, false),
        ("a.safetensors", &a, true),
        ("b.safetensors", &b, true),
        ("c.safetensors", &other, true),
    ];
    let home = Home::new(&with(&files).start());
    let found = home.find("main").unwrap();
    let snapshot = home.repository().join("snapshots").join(MAIN);
    assert_eq!(found.weights, [snapshot.join("a.safetensors"), snapshot.join("b.safetensors")]);
    assert!(!snapshot.join("c.safetensors").exists());
    assert_eq!(home.offline().unwrap(), found);
    // The index is checked like every other file.
    fs::write(home.blob(index, false), "{}").unwrap();
    assert!(home.offline().unwrap_err().to_string().contains(&format!("{INDEX} is damaged")));

    let home = Home::new(&with(&files[..4]).start());
    let message = home.find("main").unwrap_err().to_string();
    for part in ["`org/name`", "no b.safetensors, a shard of model.safetensors.index.json,", MAIN] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    let mut wrong = files;
    wrong[4] = ("b.safetensors", &other, true);
    let home = Home::new(&with(&wrong).start());
    let message = home.find("main").unwrap_err().to_string();
    assert!(message.contains("b.safetensors: expected tensor `x`"), "{message}");
}

#[test]
fn pickled_weights_are_fetched_only_if_they_are_allowed() {
    let files: [(&str, &[u8], bool); 3] =
        [("config.json", CONFIG, false), ("tokenizer.json", TOKENIZER, false), ("pytorch_model.bin", b"PK", true)];
    let server = with(&files).start();
    let home = Home::new(&server);
    let message = home.find("main").unwrap_err().to_string();
    for part in ["`org/name`", "no model.safetensors in", "only pickled weights, pytorch_model.bin", "pickle: true"] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert_eq!(server.seen("").len(), 1, "nothing is fetched in vain");
    let allowed = FindOptions { pickle: true, ..options() };
    let found = ModelFiles::find_with("org/name", "main", &home.environment, &allowed).unwrap();
    assert!(found.pickle && found.weights[0].ends_with("pytorch_model.bin"), "{found:?}");
    // Allowed once is not allowed for ever.
    assert!(home.find("main").is_err());
}

#[test]
fn the_best_tokenizer_is_fetched_with_what_belongs_to_it() {
    let check = |there: &[&str], fetched: &[&str], tokenizer: &str| {
        let mut files: Vec<(&str, &[u8], bool)> =
            vec![("config.json", CONFIG, false), ("model.safetensors", b"w", true)];
        files.extend(there.iter().map(|name| (*name, name.as_bytes(), false)));
        let server = with(&files).start();
        let home = Home::new(&server);
        let found = home.find("main").unwrap();
        let snapshot = home.repository().join("snapshots").join(MAIN);
        assert_eq!(found.tokenizer, snapshot.join(tokenizer));
        let mut expected = [&["config.json", "model.safetensors"], fetched].concat();
        expected.sort_unstable();
        assert_eq!(names(&snapshot), expected);
        // All there is to know is known now, also of what is not there.
        let asked = server.seen("").len();
        assert_eq!(home.find("main").unwrap(), found);
        assert_eq!(server.seen("").len(), asked);
    };
    check(
        &["tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"],
        &["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"],
        "tokenizer.json",
    );
    check(&["vocab.txt", "tokenizer_config.json"], &["vocab.txt", "tokenizer_config.json"], "vocab.txt");
    check(&["vocab.txt"], &["vocab.txt"], "vocab.txt");
    check(&["vocab.json", "merges.txt"], &["vocab.json", "merges.txt"], "vocab.json");
    check(&["vocab.json", "vocab.txt"], &["vocab.txt"], "vocab.txt");
    let none: [(&str, &[u8], bool); 4] = [
        ("config.json", CONFIG, false),
        ("model.safetensors", b"w", true),
        ("vocab.json", b"{}", false),
        ("spiece.model", b"s", true),
    ];
    let message = Home::new(&with(&none).start()).find("main").unwrap_err().to_string();
    assert!(message.contains("no tokenizer.json, vocab.txt, or vocab.json with merges.txt, in"), "{message}");
    assert!(message.contains("there is a spiece.model: AutoTokenizer"), "{message}");
}

#[test]
fn a_vocabulary_without_its_configuration_is_asked_about_once() {
    let files: [(&str, &[u8], bool); 4] = [
        ("config.json", CONFIG, false),
        ("model.safetensors", b"w", true),
        ("vocab.txt", b"[PAD]", false),
        ("tokenizer_config.json", b"{\"do_lower_case\": false}", false),
    ];
    let server = with(&files).start();
    let home = Home::new(&server);
    home.find("main").unwrap();
    // As another program may leave it, that fetched only what it knew.
    let configuration = home.repository().join("snapshots").join(MAIN).join("tokenizer_config.json");
    fs::remove_file(&configuration).unwrap();
    assert!(home.offline().is_ok(), "there is no way to know better");
    let asked = server.seen("").len();
    home.find("main").unwrap();
    assert!(configuration.is_file());
    assert!(server.seen("").len() > asked);
}

#[test]
fn a_model_without_configuration_is_none() {
    let server = with(&[("model.safetensors", b"w", true)]).start();
    let home = Home::new(&server);
    let message = home.find("main").unwrap_err().to_string();
    assert!(message.contains("no config.json in") && message.contains(&server.url), "{message}");
    assert!(!home.repository().join("refs").exists());
}

#[test]
fn files_of_another_commit_are_not_mixed_in() {
    let old: [(&str, &[u8], bool); 3] =
        [("config.json", CONFIG, false), ("tokenizer.json", TOKENIZER, false), ("model.safetensors", b"old", true)];
    let mut model = with(&old);
    let mut new = model.commits[MAIN].clone();
    new.insert("model.safetensors".into(), (b"new".to_vec(), true));
    model.commits.insert(crate::server::LATER, new);
    model.revisions = [("main", crate::server::LATER)].into();
    let home = Home::new(&model.start());
    // The cache has an old commit of the branch, without its weights.
    let snapshot = home.repository().join("snapshots").join(MAIN);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(home.repository().join("refs")).unwrap();
    fs::write(home.repository().join("refs/main"), MAIN).unwrap();
    fs::write(snapshot.join("config.json"), "{\"old\": true}").unwrap();
    let found = home.find("main").unwrap();
    assert_eq!(found.revision, crate::server::LATER);
    assert_eq!(fs::read(&found.config).unwrap(), CONFIG);
    assert_eq!(fs::read(&found.weights[0]).unwrap(), b"new");
    assert_eq!(names(&home.repository().join("blobs")).len(), 3);
    assert!(home.blob(b"new", true).ends_with(name_of(b"new", true)));
    // The commit itself can still be had whole.
    let old = home.find(MAIN).unwrap();
    assert_eq!(fs::read(&old.weights[0]).unwrap(), b"old");
    failure(home.find(&"3".repeat(40)).unwrap_err(), &["no branch, tag or commit"]);
}
