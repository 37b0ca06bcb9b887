//! Names for contents: SHA-256 in lower-case hexadecimal digits.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The digest of bytes.
///
/// ```
/// let digest = kd_data::digest::of_bytes(b"abc");
/// assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// ```
pub fn of_bytes(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes.as_ref()))
}

/// The digest of a file's bytes, read in pieces.
///
/// # Errors
/// If the file cannot be read.
pub fn of_file(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0u8; 1 << 16]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(hasher.finalize())),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
}

/// The digest of a list of texts; `["ab", "c"]` and `["a", "bc"]` differ.
pub fn of_parts(parts: impl IntoIterator<Item: AsRef<str>>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        update(&mut hasher, part.as_ref());
    }
    hex(hasher.finalize())
}

/// Adds a text with its length before it, so that no two lists of texts look alike.
fn update(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_digest_of_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i * 7) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(of_file(&path).unwrap(), of_bytes(&bytes));
        let message = of_file(folder.path().join("none")).unwrap_err().to_string();
        assert!(message.contains("none: "), "{message}");
    }

    #[test]
    fn borders_count() {
        assert_ne!(of_parts(["ab", "c"]), of_parts(["a", "bc"]));
        assert_ne!(of_parts(["a"]), of_parts(["a", ""]));
    }
}
