//! Several processes and one cache: the tests start this program again.

use std::env;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kd_teachers::hub::{HubEnvironment, ModelFiles};

use crate::server::{Fault, Server};
use crate::{Home, model, names, options, weights};

const CACHE: &str = "KD_TEST_HUB_CACHE";
const ENDPOINT: &str = "KD_TEST_HUB_ENDPOINT";

/// Runs the test of this name in a process of its own, where [`as_child`] is true.
fn child(test: &str, home: &Home, server: &Server) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test])
        .env(CACHE, &home.environment.cache)
        .env(ENDPOINT, &server.url)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// In a child: finds the model, and is done.
fn as_child() -> bool {
    let (Ok(cache), Ok(endpoint)) = (env::var(CACHE), env::var(ENDPOINT)) else { return false };
    let environment = HubEnvironment { cache: cache.into(), offline: false, endpoint: Some(endpoint), token: None };
    ModelFiles::find_with("org/name", "main", &environment, &options()).unwrap();
    true
}

#[test]
fn a_killed_process_leaves_what_the_next_one_continues() {
    if as_child() {
        return;
    }
    let server = model().start();
    let home = Home::new(&server);
    let weights_of = "GET /org/name/resolve/1111111111111111111111111111111111111111/model.safetensors";
    server.next(weights_of, Fault::Stall(200_000));
    let mut child = child("processes::a_killed_process_leaves_what_the_next_one_continues", &home, &server);
    let begun = Instant::now();
    while fs::metadata(home.part()).map_or(0, |part| part.len()) < 200_000 {
        assert!(begun.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(home.offline().is_err(), "half a model is none");
    assert!(!home.blob(&weights(), true).exists());
    let files = home.find("main").unwrap();
    assert_eq!(fs::read(&files.weights[0]).unwrap(), weights());
    let ranges: Vec<_> = server.seen(weights_of).iter().map(|seen| seen.header("range").map(String::from)).collect();
    assert_eq!(ranges, [None, Some("bytes=200000-".to_string())]);
    assert!(!home.part().exists());
}

#[test]
fn processes_fetch_a_file_once() {
    if as_child() {
        return;
    }
    let server = model().start();
    let home = Home::new(&server);
    let children: Vec<Child> =
        (0..3).map(|_| child("processes::processes_fetch_a_file_once", &home, &server)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(server.seen("GET /org/name/resolve").len(), 3, "one for each file");
    assert_eq!(names(&home.repository().join("blobs")).len(), 3);
    home.offline().unwrap();
}
