use super::*;

const TOKENIZER: &str = layout::TOKENIZER;
const WEIGHTS: &str = layout::SAFETENSORS;
const INDEX: &str = "model.safetensors.index.json";

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A cache with one model, `org/name`, whose branch `main` is [`COMMIT`].
fn cache(files: &[&str]) -> (tempfile::TempDir, HubEnvironment) {
    let folder = tempfile::tempdir().unwrap();
    let environment = HubEnvironment { cache: folder.path().to_path_buf(), offline: true, endpoint: None, token: None };
    let repository = folder.path().join("models--org--name");
    write(&repository.join("refs/main"), COMMIT);
    for file in files {
        write(&repository.join("snapshots").join(COMMIT).join(file), file);
    }
    (folder, environment)
}

#[test]
fn a_branch_and_a_commit_name_the_same_files() {
    let (folder, environment) = cache(&[CONFIG, TOKENIZER, WEIGHTS]);
    let snapshot = folder.path().join("models--org--name/snapshots").join(COMMIT);
    for revision in ["main", COMMIT] {
        let files = ModelFiles::find("org/name", revision, &environment).unwrap();
        assert_eq!(files.config, snapshot.join(CONFIG));
        assert_eq!(files.tokenizer, snapshot.join(TOKENIZER));
        assert_eq!(files.weights, [snapshot.join(WEIGHTS)]);
        assert_eq!((files.id.as_str(), files.revision.as_str()), ("org/name", COMMIT));
    }
}

#[test]
fn shards_are_found_through_their_index() {
    let (folder, environment) = cache(&[CONFIG, TOKENIZER, "b.safetensors", "a.safetensors"]);
    let snapshot = folder.path().join("models--org--name/snapshots").join(COMMIT);
    let index = |map: &str| write(&snapshot.join(INDEX), &format!("{{\"weight_map\": {map}}}"));
    index(r#"{"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}"#);
    let files = ModelFiles::find("org/name", "main", &environment).unwrap();
    assert_eq!(files.weights, [snapshot.join("a.safetensors"), snapshot.join("b.safetensors")]);
    index(r#"{"x": "../../elsewhere.safetensors"}"#);
    let message = ModelFiles::find("org/name", "main", &environment).unwrap_err().to_string();
    assert!(message.contains("tensor `x`: expected the name of a safetensors file"), "{message}");
}

#[test]
fn an_offline_miss_names_model_revision_folder_and_remedy() {
    let (folder, environment) = cache(&[CONFIG, TOKENIZER]);
    let check = |id: &str, revision: &str, parts: &[&str]| {
        let message = ModelFiles::find(id, revision, &environment).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    };
    let cache = folder.path().display().to_string();
    check("org/other", "main", &["`org/other`", "`main`", &cache, "models--org--other", "unset HF_HUB_OFFLINE"]);
    check("org/name", "v2", &["`org/name`", "`v2`", "models--org--name", "hf download org/name --revision v2"]);
    check("org/name", "main", &["no model.safetensors in", COMMIT]);
    check("/no/such/folder", "main", &["`/no/such/folder`", "no such folder"]);
    check("org/../name", "main", &["no such folder"]);
    check("org/name", "../../x", &["`../../x` is not a branch"]);
}

#[test]
fn a_folder_works_in_place_of_an_id_and_its_revision_is_its_contents() {
    let folder = tempfile::tempdir().unwrap();
    for file in [CONFIG, TOKENIZER, WEIGHTS] {
        write(&folder.path().join(file), file);
    }
    let environment = HubEnvironment { cache: "/nowhere".into(), offline: true, endpoint: None, token: None };
    let find = || ModelFiles::find(folder.path().to_str().unwrap(), "main", &environment).unwrap();
    let first = find();
    assert_eq!(first.weights, [folder.path().join(WEIGHTS)]);
    assert!(first.revision.starts_with("sha256-") && first.revision.len() == 7 + 64, "{}", first.revision);
    assert_eq!(first, find());
    write(&folder.path().join(WEIGHTS), "other");
    assert_ne!(first.revision, find().revision);
}

#[test]
fn weights_in_another_format_are_named() {
    let (_folder, environment) = cache(&[CONFIG, TOKENIZER, "pytorch_model.bin"]);
    let message = ModelFiles::find("org/name", "main", &environment).unwrap_err().to_string();
    assert!(message.contains("there is a pytorch_model.bin, convert it to safetensors"), "{message}");
}
