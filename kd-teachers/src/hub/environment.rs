//! Which hub, which cache, which token: what the environment says, read as the Python library reads it.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Where models are looked for, whether missing files may be downloaded, from where, and with whose rights.
///
/// | variable | meaning | without it |
/// |---|---|---|
/// | `HF_HUB_CACHE` (or `HUGGINGFACE_HUB_CACHE`) | the cache | `$HF_HOME/hub` |
/// | `HF_HOME` | what belongs to the hub | `$XDG_CACHE_HOME/huggingface`, else `~/.cache/huggingface` |
/// | `HF_HUB_OFFLINE` (or `TRANSFORMERS_OFFLINE`) | `1`, `on`, `yes` or `true`: no downloads | downloads |
/// | `HF_ENDPOINT` | another server | `https://huggingface.co` |
/// | `HF_TOKEN` (or `HUGGING_FACE_HUB_TOKEN`) | the token for private and gated models | the file below |
/// | `HF_TOKEN_PATH` | a file with the token, as `hf auth login` writes it | `$HF_HOME/token` |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubEnvironment {
    /// The hub's cache folder, the one with the `models--*` folders in it.
    pub cache: PathBuf,
    /// Whether downloads are forbidden.
    pub offline: bool,
    /// Another server than `https://huggingface.co`.
    pub endpoint: Option<String>,
    /// What private and gated models are asked for with.
    pub token: Option<Token>,
}

/// A token of the hub; it is sent to the endpoint alone, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in `text`, without the blanks and line ends around it; none if nothing else is there.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_string()))
    }

    #[cfg(feature = "hub")]
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(..)")
    }
}

impl HubEnvironment {
    /// What the process environment says.
    ///
    /// # Errors
    /// If none of the variables that could name the cache is set, or if there is a file for the token that cannot be
    /// read.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// The same with `get` in place of the process environment; an empty value counts as not set.
    ///
    /// # Errors
    /// As [`HubEnvironment::from_env`].
    pub fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let either = |name: &str, old: &str| get(name).or_else(|| get(old));
        let path = |name: &str| get(name).map(PathBuf::from);
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| path("HOME").or_else(|| path("USERPROFILE")).map(|home| home.join(".cache/huggingface")));
        let cache = either("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join("hub")))
            .ok_or_else(|| {
                Error::Argument("cannot find the hub's cache: none of HF_HUB_CACHE, HF_HOME and HOME is set".into())
            })?;
        // The values that the Python library takes for true.
        let offline = either("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE").is_some_and(|value| {
            matches!(value.to_string_lossy().to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
        });
        let endpoint = get("HF_ENDPOINT").map(|value| value.to_string_lossy().trim_end_matches('/').to_string());
        let token_path = path("HF_TOKEN_PATH").or_else(|| home.map(|home| home.join("token")));
        let token = match (either("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), token_path) {
            (Some(token), _) => Token::new(&token.to_string_lossy()),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => Token::new(&text),
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => None,
                Err(source) => return Err(Error::io(&path, &source)),
            },
            (None, None) => None,
        };
        Ok(Self { cache, offline, endpoint, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> HubEnvironment {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(*value));
        HubEnvironment::from_variables(get).unwrap()
    }

    #[test]
    fn the_cache_is_where_the_python_library_has_it() {
        let check = |variables: &[(&str, &str)], cache: &str, offline: bool| {
            let environment = environment(variables);
            assert_eq!((environment.cache, environment.offline), (PathBuf::from(cache), offline), "{variables:?}");
        };
        check(&[("HOME", "/u")], "/u/.cache/huggingface/hub", false);
        check(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/c")], "/c/huggingface/hub", false);
        check(&[("HOME", "/u"), ("HF_HOME", "/h"), ("HF_HUB_OFFLINE", "1")], "/h/hub", true);
        check(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/hc"), ("HF_HUB_OFFLINE", "0")], "/hc", false);
        check(&[("HF_HOME", ""), ("HOME", "/u"), ("HF_HUB_OFFLINE", "true")], "/u/.cache/huggingface/hub", true);
        check(&[("HOME", "/u"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("TRANSFORMERS_OFFLINE", "1")], "/old", true);
        assert!(HubEnvironment::from_variables(|_| None).is_err());
    }

    #[test]
    fn the_token_is_the_variable_or_the_file_and_is_not_printed() {
        let home = tempfile::tempdir().unwrap();
        let home_text = home.path().to_str().unwrap();
        assert_eq!(environment(&[("HF_HOME", home_text)]).token, None);
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        std::fs::write(home.path().join("other"), " hf_other \r\n").unwrap();
        let other = home.path().join("other");
        let check = |more: &[(&str, &str)], expected: &str| {
            let mut variables = vec![("HF_HOME", home_text)];
            variables.extend(more);
            let environment = environment(&variables);
            assert_eq!(environment.token, Token::new(expected), "{more:?}");
            assert!(!format!("{environment:?}").contains("hf_"), "{environment:?}");
        };
        check(&[], "hf_file");
        check(&[("HF_TOKEN", "hf_variable\n")], "hf_variable");
        check(&[("HUGGING_FACE_HUB_TOKEN", "hf_old")], "hf_old");
        check(&[("HF_TOKEN_PATH", other.to_str().unwrap())], "hf_other");
        // A folder in the place of the file is no token, and no reason to go on without one.
        let folder = [("HOME", "/u"), ("HF_TOKEN_PATH", home_text)];
        let get = |name: &str| folder.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(*value));
        assert!(HubEnvironment::from_variables(get).unwrap_err().to_string().contains(home_text));
    }

    #[test]
    fn an_endpoint_has_no_slash_at_its_end() {
        let variables = [("HOME", "/u"), ("HF_ENDPOINT", "https://mirror.example/hf/")];
        assert_eq!(environment(&variables).endpoint.as_deref(), Some("https://mirror.example/hf"));
    }
}
