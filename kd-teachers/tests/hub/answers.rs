//! What the hub may answer, and what is made of it.

use std::net::TcpListener;

use kd_teachers::hub::{DownloadFailure, HubEnvironment};

use crate::server::{Fault, MAIN, Model, Reply, Server};
use crate::{Home, failure, model};

#[test]
fn who_may_not_read_is_told_about_the_token() {
    let private = Model { token: Some("hf_right"), ..model() }.start();
    let without = Home::new(&private).find("main").unwrap_err();
    let parts = ["`main`", "its list of files", "answered 401", "private or gated", "set HF_TOKEN", &private.url];
    assert!(matches!(failure(without, &parts), DownloadFailure::Unauthorized { token: false, .. }));
    let wrong = Home::new(&private).with_token("hf_wrong").find("main").unwrap_err();
    assert!(!wrong.to_string().contains("hf_wrong"), "{wrong}");
    let parts = ["401: Invalid credentials", "does not accept the token in HF_TOKEN"];
    assert!(matches!(failure(wrong, &parts), DownloadFailure::Unauthorized { token: true, .. }));
    Home::new(&private).with_token("hf_right").find("main").unwrap();
    // Nothing of this passes with time: each was asked once.
    assert_eq!(private.seen("/api/models/org/name/revision/main").len(), 3);
}

#[test]
fn a_gated_model_says_whose_access_is_missing() {
    let server = model().start();
    let gated = |status| Fault::Instead(Reply::new(status).header("X-Error-Code", "GatedRepo"));
    server.next("HEAD", gated(401));
    let error = Home::new(&server).find("main").unwrap_err();
    assert!(matches!(
        failure(error, &["cannot fetch config.json", "answered 401", "accept its conditions", "HF_TOKEN"]),
        DownloadFailure::Forbidden { token: false, status: 401, .. }
    ));
    server.next("HEAD", gated(403));
    let error = Home::new(&server).with_token("hf_other").find("main").unwrap_err();
    assert!(matches!(
        failure(error, &["answered 403", "the account of the token in HF_TOKEN has no access"]),
        DownloadFailure::Forbidden { token: true, status: 403, .. }
    ));
}

#[test]
fn what_is_not_there_is_told_apart() {
    let server = model().start();
    let home = Home::new(&server);
    let error = kd_teachers::hub::ModelFiles::find("org/other", "main", &home.environment).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`org/other`") && message.contains("has no model of this id: Repository not found"),
        "{message}"
    );
    let failed = failure(home.find("v2").unwrap_err(), &["`v2`", "no branch, tag or commit", &server.url]);
    assert!(matches!(failed, DownloadFailure::NoRevision { .. }));
    let no_file = || Fault::Instead(Reply::new(404).header("X-Error-Code", "EntryNotFound"));
    server.next("HEAD", no_file());
    let failed = failure(home.find("main").unwrap_err(), &["`main`", "config.json", "has no such file"]);
    assert!(matches!(failed, DownloadFailure::NoFile { .. }));
    // A server that does not say which of them is missing.
    server.next("HEAD", Fault::Instead(Reply::new(404)));
    assert!(matches!(failure(home.find("main").unwrap_err(), &[]), DownloadFailure::NoFile { .. }));
    server.next("/api/", Fault::Instead(Reply::new(404)));
    assert!(matches!(failure(home.find("main").unwrap_err(), &[]), DownloadFailure::NoModel { .. }));
}

#[test]
fn what_passes_is_waited_for() {
    let server = model().start();
    let home = Home::new(&server);
    server.next("/api/", Fault::Instead(Reply::new(429).header("Retry-After", "0")));
    server.next("/api/", Fault::Instead(Reply::new(503)));
    server.next("HEAD", Fault::Instead(Reply::new(500)));
    server.next("GET /org", Fault::Instead(Reply::new(502)));
    server.next("GET /org", Fault::Cut(0));
    home.find("main").unwrap();
    assert_eq!(server.seen("/api/").len(), 3);
}

#[test]
fn what_does_not_pass_is_named() {
    let server = model().start();
    let home = Home::new(&server);
    for _ in 0..3 {
        server.next("/api/", Fault::Instead(Reply::new(500).header("X-Error-Message", "Internal Error.")));
    }
    let parts = ["its list of files", "/api/models/org/name/revision/main answered 500: Internal Error in 3 attempts"];
    let failed = failure(home.find("main").unwrap_err(), &parts);
    assert!(matches!(failed, DownloadFailure::Status { status: 500, attempts: 3, .. }), "{failed:?}");
    // Longer than anyone would wait.
    server.next("HEAD", Fault::Instead(Reply::new(429).header("Retry-After", "300")));
    let failed = failure(home.find("main").unwrap_err(), &["config.json", "429", "in 1 attempts", "HF_TOKEN"]);
    assert!(matches!(failed, DownloadFailure::Status { status: 429, .. }), "{failed:?}");
    server.next("HEAD", Fault::Instead(Reply::new(400)));
    failure(home.find("main").unwrap_err(), &["config.json", "answered 400"]);
}

#[test]
fn no_answer_is_named() {
    // A port that nobody listens on.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = model().start();
    let mut home = Home::new(&server);
    home.environment.endpoint = Some(format!("http://127.0.0.1:{port}"));
    let parts =
        [&format!("no answer from http://127.0.0.1:{port}/api/models/org/name"), "HF_ENDPOINT", "HF_HUB_OFFLINE=1"];
    let failed = failure(home.find("main").unwrap_err(), &parts);
    assert!(matches!(failed, DownloadFailure::NoAnswer { attempts: 3, .. }), "{failed:?}");
}

#[test]
fn another_server_is_not_taken_for_a_hub() {
    let check = |url: &str, part: &str| {
        let mut home = Home::new(&model().start());
        home.environment.endpoint = Some(url.to_string());
        let failed = failure(home.find("main").unwrap_err(), &[part, "does HF_ENDPOINT name a hub?"]);
        assert!(matches!(failed, DownloadFailure::NotAHub { .. }), "{failed:?}");
    };
    check(&Server::start(|_| Reply::new(200).body("<html>")).url, "expected JSON");
    check(&Server::start(|_| Reply::new(200).body("{}")).url, "expected a commit in `sha`");
    let sha = format!("{{\"sha\": \"{MAIN}\"}}");
    check(&Server::start(move |_| Reply::new(200).body(sha.clone())).url, "expected a list of files in `siblings`");
    check("no url", "is no URL");
    // Files without a checksum could be anything.
    let plain = Server::start(|seen| match seen.path.contains("/resolve/") {
        true => Reply::new(200).header("ETag", "\"5d41402abc4b2a76b9719d911017c592\"").body("{}"),
        false => model().answer(seen),
    });
    check(&plain.url, "expected a sha256 or a git sha1");
}

#[test]
fn offline_nothing_is_asked() {
    let server = model().start();
    let mut home = Home::new(&server);
    home.environment.offline = true;
    let message = home.find("main").unwrap_err().to_string();
    for part in ["`org/name`", "`main`", "models--org--name", "unset HF_HUB_OFFLINE", "hf download org/name"] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert_eq!(server.seen("").len(), 0);
    let online = HubEnvironment { offline: false, ..home.environment.clone() };
    let files = kd_teachers::hub::ModelFiles::find("org/name", "main", &online).unwrap();
    let asked = server.seen("").len();
    assert_eq!(home.find("main").unwrap(), files);
    assert_eq!(server.seen("").len(), asked);
}
