//! How often a request that failed is sent again.

use std::time::Duration;

/// How often a request that failed for a passing reason (no answer, a cut connection, 408, 429, 5xx) is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How often it is tried without a new byte, at least 1.
    pub attempts: u32,
    /// The wait after the first attempt; every further one is twice as long, unless the server says how long.
    pub first_wait: Duration,
    /// If the server wants a longer wait than this, it is not tried again.
    pub longest_wait: Duration,
}

impl Default for Patience {
    /// Five attempts with 7.5 s of waiting in all, what a dropped connection or a restarting server needs, and no wait above
    /// a minute.
    fn default() -> Self {
        Self { attempts: 5, first_wait: Duration::from_millis(500), longest_wait: Duration::from_secs(60) }
    }
}

#[cfg(feature = "hub")]
mod run {
    use std::time::Duration;

    use super::Patience;
    use crate::hub::failure::DownloadFailure;

    impl Patience {
        /// Tries until it succeeds, fails for good, or has failed too often in a row without any progress.
        ///
        /// `attempt` is told how often it was tried since the last progress, this time counted.
        pub(in crate::hub) fn run<T>(
            &self,
            mut attempt: impl FnMut(u32) -> Result<T, Trouble>,
        ) -> Result<T, DownloadFailure> {
            let mut tried = 1;
            loop {
                let trouble = match attempt(tried) {
                    Ok(done) => return Ok(done),
                    Err(trouble) => trouble,
                };
                if trouble.progress {
                    tried = 0;
                }
                let wait = trouble.wait.unwrap_or(self.first_wait.saturating_mul(1 << tried.saturating_sub(1).min(16)));
                if !trouble.passing || tried >= self.attempts || wait > self.longest_wait {
                    return Err(trouble.failure);
                }
                std::thread::sleep(wait);
                tried += 1;
            }
        }
    }

    /// A failed attempt.
    pub(in crate::hub) struct Trouble {
        pub(in crate::hub) failure: DownloadFailure,
        /// Whether another attempt may succeed.
        pub(in crate::hub) passing: bool,
        /// How long the server wants to be left alone.
        pub(in crate::hub) wait: Option<Duration>,
        /// Whether the attempt brought something that the next one need not ask for.
        pub(in crate::hub) progress: bool,
    }

    impl Trouble {
        pub(in crate::hub) fn passing(failure: DownloadFailure) -> Self {
            Self { failure, passing: true, wait: None, progress: false }
        }
    }

    impl From<DownloadFailure> for Trouble {
        fn from(failure: DownloadFailure) -> Self {
            Self { failure, passing: false, wait: None, progress: false }
        }
    }
}

#[cfg(feature = "hub")]
pub(super) use run::Trouble;

#[cfg(all(test, feature = "hub"))]
mod tests {
    use super::*;
    use crate::hub::failure::DownloadFailure;

    #[test]
    fn waiting_doubles_and_ends() {
        let patience = Patience { attempts: 3, first_wait: Duration::ZERO, longest_wait: Duration::from_secs(1) };
        let status = |attempts| DownloadFailure::Status { url: "u".into(), status: 500, said: String::new(), attempts };
        let mut calls = 0;
        let failure = patience.run(|attempt| -> Result<(), Trouble> {
            calls += 1;
            // The second attempt brings something, so three more without anything follow it.
            Err(Trouble { progress: calls == 2, ..Trouble::passing(status(attempt)) })
        });
        assert_eq!((failure, calls), (Err(status(3)), 5));
        let long = Trouble { wait: Some(Duration::from_secs(2)), ..Trouble::passing(status(1)) };
        let mut only = Some(long);
        assert_eq!(patience.run(|_| -> Result<(), Trouble> { Err(only.take().unwrap()) }), Err(status(1)));
    }
}
