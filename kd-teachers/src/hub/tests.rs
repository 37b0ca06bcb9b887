use safetensors::tensor::{Dtype, TensorView};

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

/// A safetensors file with a tensor of this name.
fn shard(tensor: &str) -> Vec<u8> {
    let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    safetensors::serialize([(tensor, view)], None).unwrap()
}

#[test]
fn shards_are_found_through_their_index() {
    let (folder, environment) = cache(&[CONFIG, TOKENIZER]);
    let snapshot = folder.path().join("models--org--name/snapshots").join(COMMIT);
    std::fs::write(snapshot.join("a.safetensors"), shard("y")).unwrap();
    std::fs::write(snapshot.join("b.safetensors"), shard("x")).unwrap();
    let index = |map: &str| write(&snapshot.join(INDEX), &format!("{{\"weight_map\": {map}}}"));
    index(r#"{"x": "b.safetensors", "y": "a.safetensors"}"#);
    let files = ModelFiles::find("org/name", "main", &environment).unwrap();
    assert_eq!(files.weights, [snapshot.join("a.safetensors"), snapshot.join("b.safetensors")]);
    let check = |map: &str, expected: &str| {
        index(map);
        let message = ModelFiles::find("org/name", "main", &environment).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(r#"{"x": "../../elsewhere.safetensors"}"#, "tensor `x`: expected the name of a *.safetensors file");
    check(r#"{"x": "b.bin"}"#, "tensor `x`: expected the name of a *.safetensors file");
    check("{}", "expected the names of tensors in `weight_map`, found none");
    check("[]", "expected `weight_map`");
    check(r#"{"x": "c.safetensors"}"#, "no c.safetensors, a shard of model.safetensors.index.json, in");
    check(r#"{"x": "a.safetensors"}"#, "a.safetensors: expected tensor `x`, as");
    std::fs::write(snapshot.join("a.safetensors"), "{}").unwrap();
    check(r#"{"x": "a.safetensors"}"#, "a.safetensors: ");
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
    for other in ["tf_model.h5", "flax_model.msgpack"] {
        let (_folder, environment) = cache(&[CONFIG, TOKENIZER, other]);
        let message = ModelFiles::find("org/name", "main", &environment).unwrap_err().to_string();
        assert!(message.contains(&format!("there is a {other}, convert it to safetensors")), "{message}");
    }
}

#[test]
fn one_file_of_weights_has_the_rest_beside_it_or_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for file in ["best.safetensors", "there/config.json", "there/vocab.txt", "weights.h5"] {
        write(&path(file), file);
    }
    let weights = path("best.safetensors");
    let of = |config: Option<&str>, tokenizer: Option<&str>| {
        let (config, tokenizer) = (config.map(path), tokenizer.map(path));
        ModelFiles::of_weights(&weights, config.as_deref(), tokenizer.as_deref(), &FindOptions::default())
    };
    let files = of(Some("there/config.json"), Some("there/vocab.txt")).unwrap();
    assert_eq!(files.weights.as_slice(), std::slice::from_ref(&weights));
    assert_eq!((files.config, files.tokenizer), (path("there/config.json"), path("there/vocab.txt")));
    assert!(files.revision.starts_with("sha256-"), "{}", files.revision);
    let check = |found: Result<ModelFiles>, expected: &str| {
        let message = found.unwrap_err().to_string();
        assert!(message.contains(expected), "`{expected}` is not in: {message}");
    };
    check(of(None, Some("there/vocab.txt")), "no config.json in");
    check(of(Some("there/config.json"), None), "no tokenizer.json, vocab.txt, or vocab.json with merges.txt, in");
    check(of(Some("none.json"), Some("there/vocab.txt")), "none.json");
    check(of(Some("there/config.json"), Some("none.txt")), "none.txt");
    let other = ModelFiles::of_weights(&path("weights.h5"), None, None, &FindOptions::default());
    check(other, "weights.h5: expected a *.safetensors file");
    check(ModelFiles::of_weights(&path("no.safetensors"), None, None, &FindOptions::default()), "no.safetensors");
    // By its path in place of an id, with the rest beside it.
    std::fs::copy(path("there/config.json"), path(CONFIG)).unwrap();
    write(&path("vocab.json"), "{}");
    write(&path("merges.txt"), "");
    let environment = HubEnvironment { cache: "/nowhere".into(), offline: true, endpoint: None, token: None };
    let files = ModelFiles::find(weights.to_str().unwrap(), "main", &environment).unwrap();
    assert_eq!((files.config, files.tokenizer), (path(CONFIG), path("vocab.json")));
}

#[test]
fn all_of_a_tokenizer_counts_in_a_folder_s_revision() {
    let folder = tempfile::tempdir().unwrap();
    let files = [CONFIG, WEIGHTS, "vocab.json", "merges.txt", TOKENIZER_CONFIG];
    for file in files {
        write(&folder.path().join(file), file);
    }
    let first = ModelFiles::in_folder(folder.path()).unwrap();
    assert_eq!(
        tokenizer_files(&first.tokenizer),
        ["vocab.json", "merges.txt", TOKENIZER_CONFIG].map(|name| folder.path().join(name))
    );
    for file in files {
        write(&folder.path().join(file), "other");
        assert_ne!(ModelFiles::in_folder(folder.path()).unwrap().revision, first.revision, "{file}");
        write(&folder.path().join(file), file);
    }
    // Nothing else is read, and a tokenizer.json says all.
    write(&folder.path().join("vocab.txt.old"), "");
    assert_eq!(ModelFiles::in_folder(folder.path()).unwrap(), first);
    write(&folder.path().join(TOKENIZER), "");
    assert_eq!(ModelFiles::in_folder(folder.path()).unwrap().tokenizer, folder.path().join(TOKENIZER));
    assert_eq!(tokenizer_files(&folder.path().join(TOKENIZER)).len(), 2);
}

#[cfg(unix)]
#[test]
fn a_damaged_file_is_found_offline() {
    // printf 'hello\n' | git hash-object --stdin; printf 'hello\n' | sha256sum
    for name in
        ["ce013625030ba8dba906f756967f9e9ca394464a", "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"]
    {
        let (folder, environment) = cache(&[CONFIG, TOKENIZER]);
        let repository = folder.path().join("models--org--name");
        let blob = repository.join("blobs").join(name);
        write(&blob, "hello\n");
        let link = repository.join("snapshots").join(COMMIT).join(WEIGHTS);
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), &link).unwrap();
        ModelFiles::find("org/name", "main", &environment).unwrap();
        write(&blob, "hellO\n");
        let message = ModelFiles::find("org/name", "main", &environment).unwrap_err().to_string();
        for part in
            ["`org/name`", "`main`", "model.safetensors is damaged", name, "delete it, then unset HF_HUB_OFFLINE"]
        {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
}
