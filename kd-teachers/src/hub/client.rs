//! Requests to the hub: whose answers say commit, checksum and size, and whose token stays with it.
//!
//! Redirects are followed here and not by the HTTP client, for two reasons. The answer that sends one away to a storage
//! server is the one with the file's checksum (`X-Linked-Etag`) and size (`X-Linked-Size`); and the token goes only to
//! the server (scheme, host and port) that the endpoint names, wherever it sends one.

use std::time::Duration;

use ureq::http::{Method, Request, Response, Uri, header};
use ureq::{Agent, Body};

use super::cache::is_commit;
use super::digest::Checksum;
use super::environment::{HubEnvironment, Token};
use super::failure::DownloadFailure;
use super::patience::{Patience, Trouble};

const HUB: &str = "https://huggingface.co";

/// What the hub says of a file, on the way to it.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) checksum: Option<Checksum>,
    pub(super) size: Option<u64>,
}

pub(super) struct Client {
    agent: Agent,
    pub(super) endpoint: String,
    token: Option<Token>,
    pub(super) patience: Patience,
}

impl Client {
    pub(super) fn new(environment: &HubEnvironment, patience: Patience) -> Self {
        let agent = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("kd-teachers/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .timeout_per_write(Some(Duration::from_secs(30)))
            .build()
            .into();
        let endpoint = environment.endpoint.clone().unwrap_or_else(|| HUB.to_string());
        Self { agent, endpoint, token: environment.token.clone(), patience }
    }

    /// The commit that a revision is, and the names of its files.
    pub(super) fn files(&self, id: &str, revision: &str) -> Result<(String, Vec<String>), DownloadFailure> {
        let url = format!("{}/api/models/{id}/revision/{}", self.endpoint, percent_encoded(revision));
        let text = self.patience.run(|attempt| {
            let (mut response, _) = self.send(&Method::GET, &url, None, attempt)?;
            let text = response.body_mut().with_config().limit(64 << 20).read_to_string();
            text.map_err(|source| Trouble::passing(no_answer(&url, &source, attempt)))
        })?;
        let wrong = |message: &str| DownloadFailure::NotAHub { url: url.clone(), message: message.to_string() };
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|source| wrong(&format!("expected JSON: {source}")))?;
        let commit = value.get("sha").and_then(|sha| sha.as_str()).filter(|sha| is_commit(sha));
        let commit = commit.ok_or_else(|| wrong("expected a commit in `sha`, found none"))?;
        let files = value.get("siblings").and_then(|files| files.as_array());
        let files = files.ok_or_else(|| wrong("expected a list of files in `siblings`, found none"))?;
        let names = files.iter().filter_map(|file| file.get("rfilename")?.as_str().map(String::from)).collect();
        Ok((commit.to_string(), names))
    }

    pub(super) fn url(&self, id: &str, commit: &str, file: &str) -> String {
        format!("{}/{id}/resolve/{commit}/{}", self.endpoint, percent_encoded(file))
    }

    /// The checksum and the size of a file.
    pub(super) fn describe(&self, url: &str) -> Result<(Checksum, u64), DownloadFailure> {
        let (_, said) = self.patience.run(|attempt| self.send(&Method::HEAD, url, None, attempt))?;
        let wrong = |message: &str| DownloadFailure::NotAHub { url: url.to_string(), message: message.to_string() };
        let checksum = said.checksum.ok_or_else(|| {
            wrong("expected a sha256 or a git sha1 as X-Linked-Etag or ETag, to check the file by, found neither")
        })?;
        let size = said.size.ok_or_else(|| wrong("expected X-Linked-Size or Content-Length, found neither"))?;
        Ok((checksum, size))
    }

    /// A file's bytes from `from` on; a server that does not know ranges answers 200 and all of them.
    pub(super) fn get(&self, url: &str, from: u64, attempt: u32) -> Result<Response<Body>, Trouble> {
        Ok(self.send(&Method::GET, url, (from > 0).then_some(from), attempt)?.0)
    }

    /// Sends a request and follows it where it is sent; an answer that is no success is an error (but 416 where a range was
    /// asked for).
    ///
    /// A HEAD goes only as far as the server that knows the file.
    fn send(
        &self,
        method: &Method,
        url: &str,
        from: Option<u64>,
        attempt: u32,
    ) -> Result<(Response<Body>, Said), Trouble> {
        let wrong = |message: String| DownloadFailure::NotAHub { url: url.to_string(), message };
        let parse = |text: &str| text.parse::<Uri>().map_err(|source| wrong(format!("`{text}` is no URL: {source}")));
        let endpoint = parse(&self.endpoint)?;
        let mut uri = parse(url)?;
        let mut said = Said::default();
        for _ in 0..MOST_REDIRECTS {
            let at_hub = same_server(&uri, &endpoint);
            // A compressed body would have another size and checksum.
            let mut request = Request::builder().method(method.clone()).uri(&uri).header("Accept-Encoding", "identity");
            if let Some(token) = self.token.as_ref().filter(|_| at_hub) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.secret()));
            }
            if let Some(from) = from {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let request = request.body(()).map_err(|source| wrong(source.to_string()))?;
            let response = self
                .agent
                .run(request)
                .map_err(|source| Trouble::passing(no_answer(&uri.to_string(), &source, attempt)))?;
            let status = response.status();
            said.add(&response);
            if status.is_success() || (status.as_u16() == 416 && from.is_some()) {
                return Ok((response, said));
            }
            let Some(location) = response.headers().get(header::LOCATION).filter(|_| status.is_redirection()) else {
                return Err(self.refused(&uri, at_hub, &response, attempt));
            };
            let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
            let next = join(&uri, &location).ok_or_else(|| wrong(format!("sent to `{location}`, which is no URL")))?;
            let known = said.checksum.is_some() && said.size.is_some();
            if *method == Method::HEAD && known && !same_server(&next, &endpoint) {
                return Ok((response, said));
            }
            uri = next;
        }
        Err(wrong(format!("expected a file, found more than {MOST_REDIRECTS} redirects")).into())
    }

    /// What an answer without success means.
    fn refused(&self, uri: &Uri, at_hub: bool, response: &Response<Body>, attempt: u32) -> Trouble {
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let status = response.status().as_u16();
        let said = match text("x-error-message") {
            "" => String::new(),
            message => format!(": {}", message.trim_end_matches('.')),
        };
        let (endpoint, token) = (self.endpoint.clone(), self.token.is_some());
        let plain =
            |said: String| DownloadFailure::Status { url: shown(&uri.to_string()), status, said, attempts: attempt };
        if !at_hub {
            // A storage server knows nothing of accounts; its addresses expire, and the hub gives a new one.
            return Trouble::passing(plain(said));
        }
        let failure = match (status, text("x-error-code")) {
            (401 | 403, "GatedRepo") | (403, _) => DownloadFailure::Forbidden { endpoint, status, said, token },
            (401, _) => DownloadFailure::Unauthorized { endpoint, said, token },
            (404, "RevisionNotFound") => DownloadFailure::NoRevision { endpoint, said },
            (404, "EntryNotFound") => DownloadFailure::NoFile { endpoint, said },
            (404, "RepoNotFound") => DownloadFailure::NoModel { endpoint, said },
            (404, _) if uri.path().contains("/resolve/") => DownloadFailure::NoFile { endpoint, said },
            (404, _) => DownloadFailure::NoModel { endpoint, said },
            (408 | 429 | 500..=599, _) => {
                let wait = text("retry-after").parse().ok().map(Duration::from_secs);
                return Trouble { wait, ..Trouble::passing(plain(said)) };
            }
            _ => plain(said),
        };
        failure.into()
    }
}

/// As many as browsers follow, about.
const MOST_REDIRECTS: usize = 10;

impl Said {
    /// Keeps what the first answer says that says anything: the hub's word comes before a storage server's.
    fn add(&mut self, response: &Response<Body>) {
        let text = |name: &str| response.headers().get(name)?.to_str().ok();
        let etag = text("x-linked-etag").or_else(|| text("etag"));
        self.checksum = self.checksum.take().or_else(|| Checksum::of_name(etag?));
        let len = || text("content-length").filter(|_| response.status().is_success());
        self.size = self.size.or_else(|| text("x-linked-size").or_else(len)?.parse().ok());
    }
}

pub(super) fn no_answer(url: &str, source: &ureq::Error, attempts: u32) -> DownloadFailure {
    DownloadFailure::NoAnswer { url: shown(url), message: source.to_string(), attempts }
}

/// A URL without its query, which may be a signature that gives access.
fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or(url).to_string()
}

fn same_server(uri: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().or(if uri.scheme_str() == Some("https") { Some(443) } else { Some(80) });
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    uri.scheme() == other.scheme() && host(uri) == host(other) && port(uri) == port(other)
}

/// Where `location` leads from `base`: a URL, `//host/path` or `/path`.
fn join(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let text = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", base.authority()?)
    } else {
        location.to_string()
    };
    text.parse().ok().filter(|uri: &Uri| uri.host().is_some() && uri.scheme().is_some())
}

/// A text as one part of a path: `refs/pr/1` is `refs%2Fpr%2F1`.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded + &char::from(byte).to_string(),
        _ => format!("{encoded}%{byte:02X}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_followed_from_where_it_was_said() {
        let base: Uri = "http://hub:8080/a/b?c".parse().unwrap();
        let check = |location: &str, expected: Option<&str>| {
            assert_eq!(join(&base, location).map(|uri| uri.to_string()).as_deref(), expected, "{location}");
        };
        check("/x?y=%22z%22", Some("http://hub:8080/x?y=%22z%22"));
        check("//cdn/x", Some("http://cdn/x"));
        check("https://cdn/x", Some("https://cdn/x"));
        check("x/y z", None);
    }

    #[test]
    fn a_server_is_its_scheme_host_and_port() {
        let same = |a: &str, b: &str| same_server(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://Hub.co/a", "https://hub.co:443"));
        for other in ["http://hub.co", "https://cdn.hub.co", "https://hub.co.evil.org", "https://hub.co:444"] {
            assert!(!same(other, "https://hub.co"), "{other}");
        }
    }

    #[test]
    fn a_revision_is_one_part_of_a_path() {
        assert_eq!(percent_encoded("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(percent_encoded("v1.0-rc_2~"), "v1.0-rc_2~");
        assert_eq!(percent_encoded("ü #"), "%C3%BC%20%23");
    }
}
