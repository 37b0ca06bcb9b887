//! What the name of a blob says about its contents.
//!
//! The hub names a large file by the SHA-256 of its bytes and a small one, kept in git itself, by git's digest of a
//! blob: the SHA-1 of `blob SIZE\0` and the bytes. Both are the file's ETag, and its name in the cache.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// How many bytes are hashed, or fetched, at a time.
pub(super) const CHUNK: usize = 1 << 16;

/// A digest as the hub writes it: 64 hexadecimal digits of SHA-256, or 40 of git's SHA-1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checksum(String);

impl Checksum {
    /// The checksum that a blob's name or an ETag is; none if it is of another kind.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let name = name.strip_prefix("W/").unwrap_or(name).trim_matches('"');
        let hex = name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (hex && matches!(name.len(), 40 | 64)).then(|| Self(name.to_string()))
    }

    #[cfg(feature = "hub")]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// What to hash `size` bytes with.
    pub(super) fn hasher(&self, size: u64) -> Hasher {
        if self.0.len() == 64 {
            Hasher::Sha256(Sha256::new())
        } else {
            let mut hasher = Sha1::new();
            hasher.update(format!("blob {size}\0"));
            Hasher::Git(hasher)
        }
    }

    /// Hashes a file: nothing if it has this checksum, else the one it has.
    pub(super) fn mismatch(&self, path: &Path) -> std::io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let mut hasher = self.hasher(file.metadata()?.len());
        read_all(&mut file, &mut |bytes| hasher.update(bytes))?;
        let found = hasher.finish();
        Ok((found != *self).then_some(found))
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.0.len() == 64 { "sha256" } else { "git sha1" };
        write!(formatter, "{kind} {}", self.0)
    }
}

pub(super) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Checksum {
        Checksum(match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Git(hasher) => hex(&hasher.finalize()),
        })
    }
}

/// Hands all that comes to `take`, a piece at a time.
pub(super) fn read_all(from: &mut impl Read, take: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => take(&buffer[..read]),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, bytes: &[u8]) -> String {
        let mut hasher = Checksum::of_name(name).unwrap().hasher(bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish().0
    }

    #[test]
    fn a_blob_is_named_as_git_and_sha256sum_name_it() {
        // printf 'hello\n' | git hash-object --stdin; printf 'hello\n' | sha256sum
        assert_eq!(of(&"0".repeat(40), b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(of(&"0".repeat(64), b"hello\n"), "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
    }

    #[test]
    fn an_etag_is_a_checksum_or_nothing() {
        let digest = "ce013625030ba8dba906f756967f9e9ca394464a";
        for etag in [digest.to_string(), format!("\"{digest}\""), format!("W/\"{digest}\"")] {
            assert_eq!(Checksum::of_name(&etag), Some(Checksum(digest.to_string())));
        }
        for other in ["", "\"5d41402abc4b2a76b9719d911017c592\"", &digest.to_uppercase(), "../x"] {
            assert_eq!(Checksum::of_name(other), None, "{other}");
        }
    }
}
