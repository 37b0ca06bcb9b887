//! The cache's folders, as the Python library lays them out.
//!
//! ```text
//! <cache>/models--ORGANISATION--NAME/refs/REVISION            a commit, as text
//!                                    snapshots/COMMIT/FILE    a link to ../../blobs/CHECKSUM, or a copy of it
//!                                    blobs/CHECKSUM           the bytes
//!                                    blobs/CHECKSUM.incomplete  the first of them, while they come
//!                                    .no_exist/COMMIT/FILE    empty: the commit has no such file
//! <cache>/.locks/models--ORGANISATION--NAME/CHECKSUM.lock     held by who writes the blob
//! ```

use std::path::{Path, PathBuf};

use super::digest::Checksum;

/// One model's part of the cache.
pub(super) struct Repository {
    folder: PathBuf,
    #[cfg(feature = "hub")]
    locks: PathBuf,
}

impl Repository {
    pub(super) fn new(cache: &Path, id: &str) -> Self {
        let name = format!("models--{}", id.replace('/', "--"));
        Self {
            folder: cache.join(&name),
            #[cfg(feature = "hub")]
            locks: cache.join(".locks").join(&name),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The commit that a revision was when it was last asked for.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_string());
        }
        let text = std::fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_string())
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Whether the hub said that a commit has no such file.
    pub(super) fn is_absent(&self, commit: &str, file: &str) -> bool {
        self.folder.join(".no_exist").join(commit).join(file).is_file()
    }
}

pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The checksum that a snapshot's file should have: the name of the blob that it is a link to; none of a copy.
pub(super) fn checksum(file: &Path) -> Option<Checksum> {
    let blob = std::fs::read_link(file).ok()?;
    let in_blobs = blob.parent().and_then(Path::file_name).is_some_and(|folder| folder == "blobs");
    Checksum::of_name(blob.file_name().filter(|_| in_blobs)?.to_str()?)
}

#[cfg(feature = "hub")]
pub(super) use write::{remove, symlink};

#[cfg(feature = "hub")]
mod write {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Repository;
    use crate::hub::digest::Checksum;
    use crate::hub::failure::DownloadFailure;

    /// Held while a blob is written; other processes wait.
    pub(in crate::hub) struct Lock {
        _file: File,
        /// Whether the file system has locks at all.
        pub(in crate::hub) exclusive: bool,
    }

    impl Repository {
        pub(in crate::hub) fn blob(&self, checksum: &Checksum) -> PathBuf {
            self.folder.join("blobs").join(checksum.as_str())
        }

        /// Where a blob's first bytes are kept. Without locks every process has a file of its own.
        pub(in crate::hub) fn part(&self, checksum: &Checksum, lock: &Lock) -> PathBuf {
            let owner = if lock.exclusive { String::new() } else { format!(".{}", std::process::id()) };
            self.folder.join("blobs").join(format!("{}{owner}.incomplete", checksum.as_str()))
        }

        /// Waits until no other process writes this blob.
        pub(in crate::hub) fn lock(&self, checksum: &Checksum) -> Result<Lock, DownloadFailure> {
            make_folder(&self.locks)?;
            let path = self.locks.join(format!("{}.lock", checksum.as_str()));
            let file =
                File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| failed(&path, &e))?;
            match file.lock() {
                Ok(()) => Ok(Lock { _file: file, exclusive: true }),
                Err(source) if source.kind() == ErrorKind::Unsupported => Ok(Lock { _file: file, exclusive: false }),
                Err(source) => Err(failed(&path, &source)),
            }
        }

        pub(in crate::hub) fn make_blobs(&self) -> Result<(), DownloadFailure> {
            make_folder(&self.folder.join("blobs"))
        }

        /// Makes `file` of a commit the blob of `checksum`: a relative link, or a copy where `link` cannot make one.
        pub(in crate::hub) fn place(
            &self,
            commit: &str,
            file: &str,
            checksum: &Checksum,
            link: fn(&Path, &Path) -> std::io::Result<()>,
        ) -> Result<(), DownloadFailure> {
            let path = self.snapshot(commit).join(file);
            let target = Path::new("../../blobs").join(checksum.as_str());
            replace(&path, |new| match link(&target, new) {
                Ok(()) => Ok(()),
                Err(_) => fs::copy(self.blob(checksum), new).and_then(|_| File::open(new)?.sync_all()),
            })
        }

        /// Notes which commit a revision is now.
        pub(in crate::hub) fn note(&self, revision: &str, commit: &str) -> Result<(), DownloadFailure> {
            if self.commit(revision).as_deref() == Some(commit) {
                return Ok(());
            }
            replace(&self.folder.join("refs").join(revision), |new| fs::write(new, commit))
        }

        /// Notes that a commit has no such file.
        pub(in crate::hub) fn note_absent(&self, commit: &str, file: &str) -> Result<(), DownloadFailure> {
            replace(&self.folder.join(".no_exist").join(commit).join(file), |new| fs::write(new, ""))
        }
    }

    /// Makes a link at `new` that says `target`.
    pub(in crate::hub) fn symlink(target: &Path, new: &Path) -> std::io::Result<()> {
        #[cfg(unix)]
        return std::os::unix::fs::symlink(target, new);
        #[cfg(windows)]
        return std::os::windows::fs::symlink_file(target, new);
        #[cfg(not(any(unix, windows)))]
        return Err(ErrorKind::Unsupported.into());
    }

    /// Removes a file; one that is not there is no failure.
    pub(in crate::hub) fn remove(path: &Path) -> Result<(), DownloadFailure> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(failed(path, &source)),
            _ => Ok(()),
        }
    }

    /// Makes a file beside its place under a name that nobody else uses, and renames it.
    fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), DownloadFailure> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = path.parent().unwrap_or(Path::new("."));
        make_folder(folder)?;
        let unique = format!("{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{unique}"));
        let new = path.with_file_name(name);
        make(&new).and_then(|()| fs::rename(&new, path)).map_err(|source| {
            // The first error is the one to report.
            let _ = fs::remove_file(&new);
            failed(path, &source)
        })
    }

    fn make_folder(folder: &Path) -> Result<(), DownloadFailure> {
        fs::create_dir_all(folder).map_err(|source| failed(folder, &source))
    }

    fn failed(path: &Path, source: &std::io::Error) -> DownloadFailure {
        DownloadFailure::Disk { path: path.to_path_buf(), message: source.to_string() }
    }
}

#[cfg(all(test, feature = "hub"))]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const HELLO: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    fn check(link: fn(&Path, &Path) -> std::io::Result<()>) -> Option<Checksum> {
        let cache = tempfile::tempdir().unwrap();
        let repository = Repository::new(cache.path(), "org/name");
        let hello = Checksum::of_name(HELLO).unwrap();
        repository.make_blobs().unwrap();
        std::fs::write(repository.blob(&hello), "hello\n").unwrap();
        let path = repository.snapshot(COMMIT).join("file");
        // What is there already, a link to nowhere even, is replaced.
        std::fs::create_dir_all(repository.snapshot(COMMIT)).unwrap();
        let _ = symlink(Path::new("../../blobs/none"), &path);
        repository.place(COMMIT, "file", &hello, link).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello\n");
        assert_eq!(std::fs::read_dir(repository.snapshot(COMMIT)).unwrap().count(), 1);
        checksum(&path)
    }

    #[test]
    fn where_there_are_no_links_there_are_copies() {
        assert_eq!(check(|_, _| Err(std::io::ErrorKind::Unsupported.into())), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_says_what_its_file_should_be() {
        assert_eq!(check(symlink), Checksum::of_name(HELLO));
    }

    #[test]
    fn without_locks_every_process_has_a_part_of_its_own() {
        let cache = tempfile::tempdir().unwrap();
        let repository = Repository::new(cache.path(), "org/name");
        let hello = Checksum::of_name(HELLO).unwrap();
        let mut lock = repository.lock(&hello).unwrap();
        assert!(repository.part(&hello, &lock).ends_with(format!("{HELLO}.incomplete")));
        lock.exclusive = false;
        assert!(repository.part(&hello, &lock).ends_with(format!("{HELLO}.{}.incomplete", std::process::id())));
    }
}
