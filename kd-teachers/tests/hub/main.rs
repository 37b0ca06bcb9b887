//! Downloads from a small server in this process that speaks the hub's API, faults included.
#![cfg(feature = "hub")]

mod server;

mod answers;
mod downloads;
mod processes;
mod sources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kd_teachers::Error;
use kd_teachers::hub::{DownloadFailure, FindOptions, HubEnvironment, ModelFiles, Patience, ShowProgress, Token};

use server::{MAIN, Model, Server, name_of};

const CONFIG: &[u8] = b"{\"model_type\": \"bert\"}";
const TOKENIZER: &[u8] = b"{\"version\": \"1.0\"}";

/// Bytes that are no repetition of one another, several of the pieces that a download is read in.
fn weights() -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(300_000).collect()
}

/// `org/name` with these small files and, outside git, its weights.
fn model() -> Model {
    let files = BTreeMap::from([
        ("README.md".to_string(), (b"not needed".to_vec(), false)),
        ("config.json".to_string(), (CONFIG.to_vec(), false)),
        ("tokenizer.json".to_string(), (TOKENIZER.to_vec(), false)),
        ("model.safetensors".to_string(), (weights(), true)),
    ]);
    Model {
        commits: BTreeMap::from([(MAIN, files)]),
        revisions: BTreeMap::from([("main", MAIN), ("v1", MAIN), ("refs/pr/1", MAIN)]),
        ..Model::default()
    }
}

fn options() -> FindOptions<'static> {
    let patience = Patience { attempts: 3, first_wait: Duration::from_millis(1), longest_wait: Duration::from_secs(1) };
    FindOptions { patience, progress: ShowProgress::Silent, ..FindOptions::default() }
}

/// An empty cache, and who asks.
struct Home {
    folder: tempfile::TempDir,
    environment: HubEnvironment,
}

impl Home {
    fn new(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("hub");
        let environment = HubEnvironment { cache, offline: false, endpoint: Some(server.url.clone()), token: None };
        Self { folder, environment }
    }

    fn with_token(mut self, token: &str) -> Self {
        self.environment.token = Token::new(token);
        self
    }

    fn find(&self, revision: &str) -> Result<ModelFiles, Error> {
        ModelFiles::find_with("org/name", revision, &self.environment, &options())
    }

    fn offline(&self) -> Result<ModelFiles, Error> {
        let environment = HubEnvironment { offline: true, ..self.environment.clone() };
        ModelFiles::find_with("org/name", "main", &environment, &options())
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("hub/models--org--name")
    }

    fn blob(&self, contents: &[u8], large: bool) -> PathBuf {
        self.repository().join("blobs").join(name_of(contents, large))
    }

    /// Where the weights' first bytes are kept.
    fn part(&self) -> PathBuf {
        self.blob(&weights(), true).with_extension("incomplete")
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Why a download failed, after the message is found to name model, revision and `parts`.
#[track_caller]
fn failure(error: Error, parts: &[&str]) -> DownloadFailure {
    let message = error.to_string();
    for part in ["`org/name`"].iter().chain(parts) {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    match error {
        Error::Download(download) => download.failure,
        other => panic!("{other}"),
    }
}
