//! A server that speaks as much of the hub's API as a model's files need, and makes the mistakes that a test wants.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha1::Sha1;
use sha2::{Digest, Sha256};

pub(crate) const MAIN: &str = "1111111111111111111111111111111111111111";
pub(crate) const LATER: &str = "2222222222222222222222222222222222222222";

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// What goes wrong, once each.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Another answer.
    Instead(Reply),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// After so many bytes of the body nothing comes any more.
    Stall(usize),
    /// The last byte of the body is another one.
    Wrong,
}

/// Listens on a free port of this machine until the process ends.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    faults: Arc<Mutex<Vec<(String, Fault)>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { url, seen: Arc::default(), faults: Arc::default() };
        let (answer, shared) = (Arc::new(answer), server.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, shared) = (Arc::clone(&answer), shared.clone());
                // The client may hang up when it likes.
                thread::spawn(move || drop(shared.serve(stream, answer.as_ref())));
            }
        });
        server
    }

    /// Makes the next request whose `METHOD /path` has `pattern` in it go wrong.
    pub(crate) fn next(&self, pattern: &str, fault: Fault) {
        self.faults.lock().unwrap().push((pattern.to_string(), fault));
    }

    /// The requests so far whose `METHOD /path` has `pattern` in it.
    pub(crate) fn seen(&self, pattern: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| format!("{} {}", seen.method, seen.path).contains(pattern)).cloned().collect()
    }

    fn serve(&self, mut stream: TcpStream, answer: &dyn Fn(&Seen) -> Reply) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or(Ok(String::new()))?;
        let mut words = first.split(' ').map(String::from);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_string());
        }
        let seen = Seen { method, path, headers };
        let name = format!("{} {}", seen.method, seen.path);
        self.seen.lock().unwrap().push(seen.clone());
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            let found = faults.iter().position(|(pattern, _)| name.contains(pattern));
            found.map(|idx| faults.remove(idx).1)
        };
        let mut reply = answer(&seen);
        let (mut sent, mut stalls) = (usize::MAX, false);
        match fault {
            Some(Fault::Instead(other)) => reply = other,
            Some(Fault::Cut(len)) => sent = len,
            Some(Fault::Stall(len)) => (sent, stalls) = (len, true),
            Some(Fault::Wrong) => *reply.body.last_mut().unwrap() ^= 1,
            None => {}
        }
        let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status);
        let len = reply.body.len();
        if !reply.headers.iter().any(|(name, _)| *name == "Content-Length") {
            head += &format!("Content-Length: {len}\r\n");
        }
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        if seen.method != "HEAD" {
            stream.write_all(&reply.body[..len.min(sent)])?;
        }
        stream.flush()?;
        if stalls {
            // Until the client hangs up.
            stream.read_to_end(&mut Vec::new())?;
        }
        Ok(())
    }
}

/// A model as the hub has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// Of each commit the files, large ones (kept outside git) marked.
    pub(crate) commits: BTreeMap<&'static str, BTreeMap<String, (Vec<u8>, bool)>>,
    pub(crate) revisions: BTreeMap<&'static str, &'static str>,
    /// Who may see it; none for everybody.
    pub(crate) token: Option<&'static str>,
    /// Where large files are.
    pub(crate) storage: Option<String>,
    pub(crate) ignores_ranges: bool,
}

impl Model {
    /// Answers for `org/name`.
    pub(crate) fn answer(&self, seen: &Seen) -> Reply {
        let error = |status, code: &str| Reply::new(status).header("X-Error-Code", code);
        let authorization = self.token.map(|token| format!("Bearer {token}"));
        if authorization.is_some() && authorization.as_deref() != seen.header("authorization") {
            let said =
                if seen.header("authorization").is_some() { "Invalid credentials in Authorization header" } else { "" };
            return Reply::new(401).header("X-Error-Message", said);
        }
        let commit = |revision: &str| {
            let revision = revision.replace("%2F", "/");
            self.commits
                .keys()
                .chain(self.revisions.get(revision.as_str()))
                .copied()
                .find(|commit| *commit == revision || self.revisions.get(revision.as_str()) == Some(commit))
        };
        if let Some(revision) = seen.path.strip_prefix("/api/models/org/name/revision/") {
            let Some(commit) = commit(revision) else { return error(404, "RevisionNotFound") };
            let siblings: Vec<_> =
                self.commits[commit].keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
            return Reply::new(200).body(serde_json::json!({ "sha": commit, "siblings": siblings }).to_string());
        }
        let Some((revision, file)) = seen.path.strip_prefix("/org/name/resolve/").and_then(|rest| rest.split_once('/'))
        else {
            return error(404, "RepoNotFound").header("X-Error-Message", "Repository not found");
        };
        let Some(commit) = commit(revision) else { return error(404, "RevisionNotFound") };
        let Some((contents, large)) = self.commits[commit].get(file) else { return error(404, "EntryNotFound") };
        let etag = format!("\"{}\"", name_of(contents, *large));
        let linked = |reply: Reply| {
            let reply = reply.header("X-Repo-Commit", commit);
            if *large {
                reply.header("X-Linked-Etag", &etag).header("X-Linked-Size", contents.len().to_string())
            } else {
                reply
            }
        };
        match &self.storage {
            Some(storage) if *large => {
                let location = format!("{storage}/{}?signature=x", name_of(contents, true));
                linked(Reply::new(302).header("Location", location).header("ETag", "\"of-the-redirect\""))
            }
            _ => linked(ranged(contents, seen, self.ignores_ranges).header("ETag", &etag)),
        }
    }

    /// A server of the large files, which knows neither models nor tokens.
    pub(crate) fn storage(&self) -> Server {
        let files: BTreeMap<String, Vec<u8>> = self
            .commits
            .values()
            .flat_map(|files| files.values())
            .map(|(contents, _)| (format!("/{}?signature=x", name_of(contents, true)), contents.clone()))
            .collect();
        Server::start(move |seen| match files.get(&seen.path) {
            // What a storage server's ETag is, is its own business.
            Some(contents) => ranged(contents, seen, false).header("ETag", "\"5d41402abc4b2a76b9719d911017c592-2\""),
            None => Reply::new(403),
        })
    }

    pub(crate) fn start(self) -> Server {
        Server::start(move |seen| self.answer(seen))
    }
}

fn ranged(contents: &[u8], seen: &Seen, ignores_ranges: bool) -> Reply {
    let range = seen.header("range").filter(|_| !ignores_ranges);
    let Some(first) = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()) else {
        return Reply::new(200).body(contents);
    };
    let len = contents.len();
    if first >= len {
        return Reply::new(416).header("Content-Range", format!("bytes */{len}"));
    }
    Reply::new(206).header("Content-Range", format!("bytes {first}-{}/{len}", len - 1)).body(&contents[first..])
}

/// The name that the hub gives to contents.
pub(crate) fn name_of(contents: &[u8], large: bool) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if large {
        return hex(&Sha256::digest(contents));
    }
    let mut digest = Sha1::new();
    digest.update(format!("blob {}\0", contents.len()));
    digest.update(contents);
    hex(&digest.finalize())
}
