//! What the tests of programs share: the bytes that a run leaves, and a run that is killed again and again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Every file below `folder` and its bytes.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Starts the command and kills it, over and over, until it comes to its end; how many times it was killed.
pub(crate) fn kill_until_done(command: impl Fn() -> Command) -> usize {
    let (mut kills, mut patience) = (0, Duration::from_millis(10));
    loop {
        let mut child = command().spawn().unwrap();
        std::thread::sleep(patience);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return kills;
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        kills += 1;
        // Every run gets a little further than the last, so that kills fall everywhere and the end is reached.
        patience += Duration::from_millis(5) + patience / 4;
    }
}
