//! How bytes come into the cache.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use kd_teachers::hub::{DownloadFailure, FindOptions, HubEnvironment, ModelFiles, Progress, ShowProgress};

use crate::server::{Fault, LATER, MAIN, Model, Reply, Server};
use crate::{CONFIG, Home, TOKENIZER, failure, model, names, options, weights};

#[test]
fn a_model_is_fetched_once_and_lies_as_the_python_library_lays_it() {
    let server = model().start();
    let home = Home::new(&server);
    let files = home.find("main").unwrap();
    assert_eq!((files.id.as_str(), files.revision.as_str(), files.pickle), ("org/name", MAIN, false));
    let snapshot = home.repository().join("snapshots").join(MAIN);
    assert_eq!(names(&snapshot), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(files.weights, [snapshot.join("model.safetensors")]);
    for (name, contents, large) in
        [("config.json", CONFIG, false), ("tokenizer.json", TOKENIZER, false), ("model.safetensors", &weights(), true)]
    {
        let blob = home.blob(contents, large);
        assert_eq!(fs::read(&blob).unwrap(), contents, "{name}");
        let link = Path::new("../../blobs").join(blob.file_name().unwrap());
        assert_eq!(fs::read_link(snapshot.join(name)).unwrap(), link, "{name}");
    }
    assert_eq!(names(&home.repository().join("blobs")).len(), 3);
    assert_eq!(names(&home.repository().join("refs")), ["main"]);
    assert_eq!(fs::read_to_string(home.repository().join("refs/main")).unwrap(), MAIN);
    // The list once, then a HEAD and a GET for each of the three.
    assert_eq!(server.seen("").len(), 7);
    assert_eq!(home.find("main").unwrap(), files);
    assert_eq!(home.find(MAIN).unwrap(), files);
    assert_eq!(home.offline().unwrap(), files);
    assert_eq!(server.seen("").len(), 7, "a hit asks for nothing");
}

#[test]
fn any_name_of_a_commit_can_be_asked_for() {
    let server = model().start();
    for revision in ["v1", MAIN, "refs/pr/1"] {
        let home = Home::new(&server);
        let files = home.find(revision).unwrap();
        assert_eq!(files.revision, MAIN);
        let reference = home.repository().join("refs").join(revision);
        assert_eq!(reference.is_file(), revision != MAIN, "{revision}");
        assert_eq!(home.find(revision).unwrap(), files);
    }
    assert_eq!(server.seen("/api/models/org/name/revision/refs%2Fpr%2F1").len(), 1);
}

#[test]
fn a_cut_connection_is_continued_where_it_ended() {
    let server = model().start();
    let home = Home::new(&server);
    // More cuts than attempts: each of them brought something.
    for len in [100_000, 70_000, 1, 50_000] {
        server
            .next("GET /org/name/resolve/1111111111111111111111111111111111111111/model.safetensors", Fault::Cut(len));
    }
    home.find("main").unwrap();
    assert_eq!(fs::read(home.blob(&weights(), true)).unwrap(), weights());
    let ranges: Vec<_> = server
        .seen("GET /org/name/resolve")
        .into_iter()
        .filter(|seen| seen.path.ends_with("model.safetensors"))
        .collect();
    let ranges: Vec<_> = ranges.iter().map(|seen| seen.header("range")).collect();
    let rest = [None, Some("bytes=100000-"), Some("bytes=170000-"), Some("bytes=170001-"), Some("bytes=220001-")];
    assert_eq!(ranges, rest);
    assert!(!home.part().exists());
}

#[test]
fn what_a_killed_process_left_is_continued() {
    let server = model().start();
    let home = Home::new(&server);
    fs::create_dir_all(home.part().parent().unwrap()).unwrap();
    fs::write(home.part(), &weights()[..250_000]).unwrap();
    home.find("main").unwrap();
    let seen = server.seen("GET /org/name/resolve/1111111111111111111111111111111111111111/model.safetensors");
    assert_eq!(seen.iter().map(|seen| seen.header("range")).collect::<Vec<_>>(), [Some("bytes=250000-")]);
    assert_eq!(fs::read(home.blob(&weights(), true)).unwrap(), weights());

    // Killed between the last byte and the new name: there is nothing left to ask for.
    let home = Home::new(&server);
    fs::create_dir_all(home.part().parent().unwrap()).unwrap();
    fs::write(home.part(), weights()).unwrap();
    let before = server.seen("GET").len();
    home.find("main").unwrap();
    assert_eq!(server.seen("GET").len(), before + 3, "the list and two small files");
    assert!(home.blob(&weights(), true).is_file() && !home.part().exists());
}

#[test]
fn what_a_killed_process_left_is_not_believed() {
    let server = model().start();
    let lengths = [1000, 300_000, 300_001];
    for left in lengths {
        let home = Home::new(&server);
        fs::create_dir_all(home.part().parent().unwrap()).unwrap();
        fs::write(home.part(), vec![0; left]).unwrap();
        let files = home.find("main").unwrap();
        assert_eq!(fs::read(&files.weights[0]).unwrap(), weights(), "{left}");
    }
}

#[test]
fn wrong_bytes_are_thrown_away_and_named() {
    let server = model().start();
    let home = Home::new(&server);
    server.next("GET /org/name/resolve/1111111111111111111111111111111111111111/model.safetensors", Fault::Wrong);
    let error = home.find("main").unwrap_err();
    let expected = home.blob(&weights(), true).file_name().unwrap().to_str().unwrap().to_string();
    let failure = failure(error, &["`main`", "cannot fetch model.safetensors", "sha256", &expected, "thrown away"]);
    assert!(matches!(failure, DownloadFailure::Checksum { .. }), "{failure:?}");
    assert!(!home.blob(&weights(), true).exists() && !home.part().exists());
    assert!(!home.repository().join("refs/main").exists(), "half a model has no name");
    // A small file's checksum is git's.
    let home = Home::new(&server);
    server.next("GET /org/name/resolve/1111111111111111111111111111111111111111/config.json", Fault::Wrong);
    crate::failure(home.find("main").unwrap_err(), &["config.json", "git sha1"]);
    assert_eq!(names(&home.repository().join("blobs")), [""; 0]);
    home.find("main").unwrap();
}

#[test]
fn more_bytes_than_were_announced_are_not_taken() {
    let server = model().start();
    let home = Home::new(&server);
    let more = Reply::new(200).body([CONFIG, b" "].concat());
    server.next("GET /org/name/resolve/1111111111111111111111111111111111111111/config.json", Fault::Instead(more));
    failure(home.find("main").unwrap_err(), &["config.json", "expected 22 bytes, found more"]);
    assert_eq!(names(&home.repository().join("blobs")), [""; 0]);
}

#[test]
fn a_connection_that_brings_nothing_new_is_given_up_and_continued_next_time() {
    let server = model().start();
    let home = Home::new(&server);
    let weights_of = "GET /org/name/resolve/1111111111111111111111111111111111111111/model.safetensors";
    for len in [120_000, 0, 0, 0] {
        server.next(weights_of, Fault::Cut(len));
    }
    let failure =
        failure(home.find("main").unwrap_err(), &["model.safetensors", "120000 of 300000 bytes", "3 attempts"]);
    assert!(matches!(failure, DownloadFailure::Truncated { received: 120_000, .. }), "{failure:?}");
    assert_eq!(fs::read(home.part()).unwrap(), &weights()[..120_000]);
    home.find("main").unwrap();
    let last = server.seen(weights_of).pop().unwrap();
    assert_eq!(last.header("range"), Some("bytes=120000-"));
    assert_eq!(server.seen("GET /org/name/resolve/1111111111111111111111111111111111111111/config.json").len(), 1);
}

#[test]
fn a_server_without_ranges_sends_everything_again() {
    let server = Model { ignores_ranges: true, ..model() }.start();
    let home = Home::new(&server);
    let weights_of = "GET /org/name/resolve/1111111111111111111111111111111111111111/model.safetensors";
    server.next(weights_of, Fault::Cut(100_000));
    let files = home.find("main").unwrap();
    assert_eq!(fs::read(&files.weights[0]).unwrap(), weights());
    assert_eq!(server.seen(weights_of).len(), 2);
    // Cut at the same place every time, it never comes further.
    let home = Home::new(&server);
    for _ in 0..4 {
        server.next(weights_of, Fault::Cut(100_000));
    }
    failure(home.find("main").unwrap_err(), &["100000 of 300000 bytes"]);
    assert_eq!(server.seen(weights_of).len(), 2 + 4);
}

#[test]
fn a_range_that_was_not_asked_for_is_not_taken() {
    let server = model().start();
    let home = Home::new(&server);
    let weights_of = "GET /org/name/resolve/1111111111111111111111111111111111111111/model.safetensors";
    server.next(weights_of, Fault::Cut(100_000));
    let other = Reply::new(206).header("Content-Range", "bytes 0-299999/300000").body(weights());
    let elsewhere = Reply::new(206).header("Content-Range", "bytes 7-299999/300000").body(&weights()[7..]);
    server.next(weights_of, Fault::Instead(elsewhere));
    server.next(weights_of, Fault::Instead(other));
    let files = home.find("main").unwrap();
    assert_eq!(fs::read(&files.weights[0]).unwrap(), weights());
}

#[test]
fn large_files_come_from_elsewhere_and_the_token_stays() {
    let storage = model().storage();
    let server = Model { storage: Some(storage.url.clone()), token: Some("hf_right"), ..model() }.start();
    let home = Home::new(&server).with_token("hf_right");
    // An address that has expired is asked for anew.
    storage.next("GET", Fault::Instead(Reply::new(403)));
    storage.next("GET", Fault::Cut(10));
    home.find("main").unwrap();
    assert_eq!(fs::read(home.blob(&weights(), true)).unwrap(), weights());
    let there = storage.seen("");
    assert_eq!(there.iter().map(|seen| seen.header("range")).collect::<Vec<_>>(), [None, None, Some("bytes=10-")]);
    assert!(there.iter().all(|seen| seen.header("authorization").is_none()), "{there:?}");
    let here = server.seen("");
    assert!(here.iter().all(|seen| seen.header("authorization") == Some("Bearer hf_right")), "{here:?}");
}

#[test]
fn a_redirect_within_the_hub_keeps_the_token() {
    let model = Model { token: Some("hf_right"), ..model() };
    let server = Server::start(move |seen| match seen.path.strip_prefix("/moved") {
        Some(path) => model.answer(&crate::server::Seen { path: path.to_string(), ..seen.clone() }),
        None => Reply::new(307).header("Location", format!("/moved{}", seen.path)),
    });
    Home::new(&server).with_token("hf_right").find("main").unwrap();
    let around = Server::start(|_| Reply::new(302).header("Location", "/again"));
    failure(Home::new(&around).find("main").unwrap_err(), &["its list of files", "more than 10 redirects"]);
}

#[test]
fn two_at_once_fetch_a_file_once() {
    let server = model().start();
    let home = Home::new(&server);
    let found: Vec<ModelFiles> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| home.find("main").unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.iter().all(|files| *files == found[0]));
    let fetched = server.seen("GET /org/name/resolve");
    assert_eq!(fetched.len(), 3, "{fetched:?}");
    assert_eq!(names(&home.repository().join("blobs")).len(), 3);
    assert_eq!(names(&home.repository().join("refs")), ["main"]);
    assert_eq!(names(&home.repository().join("snapshots").join(MAIN)).len(), 3);
}

#[test]
fn a_damaged_blob_is_fetched_again_or_named() {
    let server = model().start();
    let home = Home::new(&server);
    let files = home.find("main").unwrap();
    for (contents, large) in [(CONFIG, false), (&weights()[..], true)] {
        let mut damaged = contents.to_vec();
        damaged[10] ^= 1;
        fs::write(home.blob(contents, large), &damaged).unwrap();
        let message = home.offline().unwrap_err().to_string();
        let blob = fs::canonicalize(home.blob(contents, large)).unwrap();
        for part in ["`org/name`", "`main`", "is damaged", blob.to_str().unwrap(), "unset HF_HUB_OFFLINE"] {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        assert_eq!(home.find("main").unwrap(), files);
        assert_eq!(fs::read(home.blob(contents, large)).unwrap(), contents);
    }
    // Cut short by a full disk, or not there at all.
    fs::write(home.blob(TOKENIZER, false), &TOKENIZER[..5]).unwrap();
    fs::remove_file(home.blob(&weights(), true)).unwrap();
    assert!(home.offline().is_err());
    assert_eq!(home.find("main").unwrap(), files);
    assert_eq!(home.offline().unwrap(), files);
}

#[test]
fn a_branch_stays_until_news_are_asked_for() {
    let mut two = model();
    two.commits.insert(LATER, two.commits[MAIN].clone());
    two.commits.get_mut(LATER).unwrap().insert("config.json".into(), (b"{}".to_vec(), false));
    two.revisions = [("main", LATER)].into();
    let (first, second) = (model().start(), two.start());
    let mut home = Home::new(&first);
    home.find("main").unwrap();
    home.environment.endpoint = Some(second.url.clone());
    assert_eq!(home.find("main").unwrap().revision, MAIN);
    assert_eq!(second.seen("").len(), 0);
    let refresh = FindOptions { refresh: true, ..options() };
    let find = |environment: &HubEnvironment| ModelFiles::find_with("org/name", "main", environment, &refresh);
    assert_eq!(find(&home.environment).unwrap().revision, LATER);
    // The weights are the same blob.
    assert_eq!(second.seen("GET /org/name/resolve").len(), 1);
    assert_eq!(home.find("main").unwrap().revision, LATER);
    assert_eq!(home.find(MAIN).unwrap().revision, MAIN, "the commit before is still there");
    let offline = HubEnvironment { offline: true, ..home.environment.clone() };
    let message = find(&offline).unwrap_err().to_string();
    assert!(message.contains("cannot ask the hub for news of `main`: HF_HUB_OFFLINE is set"), "{message}");
}

#[test]
fn progress_is_told_from_the_first_byte_to_the_last() {
    let server = model().start();
    let home = Home::new(&server);
    let told = Mutex::new(Vec::new());
    let tell = |at: Progress<'_>| {
        if at.file == "model.safetensors" {
            told.lock().unwrap().push((at.done, at.total));
        }
    };
    let options = FindOptions { progress: ShowProgress::Call(&tell), ..options() };
    ModelFiles::find_with("org/name", "main", &home.environment, &options).unwrap();
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted() && told.len() > 3, "{told:?}");
    assert_eq!((told[0], *told.last().unwrap()), ((0, 300_000), (300_000, 300_000)));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    let server = model().start();
    let home = Home::new(&server);
    fs::create_dir_all(home.part().parent().unwrap()).unwrap();
    // Every write to this device fails for want of space.
    std::os::unix::fs::symlink("/dev/full", home.part()).unwrap();
    let part = home.part();
    let failure =
        failure(home.find("main").unwrap_err(), &["model.safetensors", part.to_str().unwrap(), "No space left"]);
    assert!(matches!(failure, DownloadFailure::Disk { .. }), "{failure:?}");
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let server = model().start();
    let home = Home::new(&server);
    fs::create_dir_all(home.repository()).unwrap();
    fs::write(home.repository().join("blobs"), "a file").unwrap();
    let failure = failure(home.find("main").unwrap_err(), &["config.json", "models--org--name/blobs", "HF_HUB_CACHE"]);
    assert!(matches!(failure, DownloadFailure::Disk { .. }), "{failure:?}");
}
