//! What can go wrong between the hub and the cache.

use std::path::PathBuf;

/// A file of a model that could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model `{id}`, revision `{revision}`: cannot fetch {file}: {failure}")]
pub struct Download {
    /// The model's id.
    pub id: String,
    /// The revision that was asked for.
    pub revision: String,
    /// The file, or `its list of files`.
    pub file: String,
    /// Why not.
    pub failure: DownloadFailure,
}

/// Why a file could not be fetched, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadFailure {
    /// The hub wants to know who asks (401).
    #[error("{endpoint} answered 401{said}; {}", if *token {
        "it does not accept the token in HF_TOKEN (or in the token file): is it expired, or does it lack the right to \
         read this model?"
    } else {
        "the model is private or gated, or there is none of this id: check the id, or set HF_TOKEN to a token that may \
         read it"
    })]
    Unauthorized {
        /// The server.
        endpoint: String,
        /// What it said, with `: ` before it; may be empty.
        said: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// Who asks may not have the file (403), or has not accepted the model's conditions.
    #[error("{endpoint} answered {status}{said}; {}", if *token {
        "the account of the token in HF_TOKEN has no access: ask for it on the model's page, or check what the token may \
         read"
    } else {
        "the model is gated: accept its conditions on its page, then set HF_TOKEN to a token of that account"
    })]
    Forbidden {
        /// The server.
        endpoint: String,
        /// 401 or 403.
        status: u16,
        /// What it said, with `: ` before it; may be empty.
        said: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// There is no such model (404).
    #[error("{endpoint} has no model of this id{said}; check the id, and if the model is private, HF_TOKEN")]
    NoModel {
        /// The server.
        endpoint: String,
        /// What it said, with `: ` before it; may be empty.
        said: String,
    },
    /// The model has no such revision (404).
    #[error("the model has no branch, tag or commit of this name at {endpoint}{said}")]
    NoRevision {
        /// The server.
        endpoint: String,
        /// What it said, with `: ` before it; may be empty.
        said: String,
    },
    /// The revision has no such file (404).
    #[error("this revision has no such file at {endpoint}{said}")]
    NoFile {
        /// The server.
        endpoint: String,
        /// What it said, with `: ` before it; may be empty.
        said: String,
    },
    /// No answer came.
    #[error(
        "no answer from {url} in {attempts} attempts: {message}; check the network and HF_ENDPOINT, or set \
         HF_HUB_OFFLINE=1 to use what the cache has"
    )]
    NoAnswer {
        /// What was asked for, without its query.
        url: String,
        /// What the system said.
        message: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The server answered with a status that means none of the above.
    #[error("{url} answered {status}{said} in {attempts} attempts; {}", if *status == 429 {
        "wait before the next one; with HF_TOKEN set more requests are allowed"
    } else {
        "try again later"
    })]
    Status {
        /// What was asked for, without its query.
        url: String,
        /// The status of the last answer.
        status: u16,
        /// What it said, with `: ` before it; may be empty.
        said: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The answer lacks something that the hub's answers have, or contradicts itself.
    #[error("{url}: {message}; does HF_ENDPOINT name a hub?")]
    NotAHub {
        /// What was asked for, without its query.
        url: String,
        /// What was expected and what was found.
        message: String,
    },
    /// The connection ended too early, again and again.
    #[error(
        "the connection ended after {received} of {expected} bytes and brought nothing new in {attempts} attempts \
         ({message}); the next call goes on from there"
    )]
    Truncated {
        /// How many bytes are there, in the part-file beside the blob's place.
        received: u64,
        /// How many there should be.
        expected: u64,
        /// How often it was tried without a new byte.
        attempts: u32,
        /// What the system said.
        message: String,
    },
    /// What came is not what the hub announced; it was removed.
    #[error(
        "expected {expected}, found {found}: what came was thrown away; try again, and if it stays so, something between \
         here and the hub changes files"
    )]
    Checksum {
        /// The announced digest, or size.
        expected: String,
        /// That of the bytes that came.
        found: String,
    },
    /// The cache could not be written.
    #[error("{}: {message}; make room or set HF_HUB_CACHE to another place: what was fetched stays and is not fetched again",
        path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
}

/// A file in the cache that does not have the contents that its name says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model `{id}`, revision `{revision}`: {file} is damaged: expected {expected}, found {found} in {}; {advice}",
    path.display())]
pub struct Damaged {
    /// The model's id.
    pub id: String,
    /// The revision that was asked for.
    pub revision: String,
    /// The file.
    pub file: String,
    /// Where it lies.
    pub path: PathBuf,
    /// The digest that it should have.
    pub expected: String,
    /// The one that it has.
    pub found: String,
    /// What to do.
    pub advice: String,
}
