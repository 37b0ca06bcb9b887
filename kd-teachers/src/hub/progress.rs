//! Who sees how far a download is.

/// How far the download of one file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file's name in the model.
    pub file: &'a str,
    /// How many bytes are there, those of an earlier attempt too.
    pub done: u64,
    /// How many there will be.
    pub total: u64,
}

/// Who sees how far a download is.
#[derive(Clone, Copy, Default)]
pub enum ShowProgress<'a> {
    /// A bar on the standard error, if that is a terminal.
    #[default]
    Terminal,
    /// Nobody.
    Silent,
    /// The function is called when a file's download begins, for every piece that comes, and when the last has come.
    Call(&'a dyn Fn(Progress<'_>)),
}

impl std::fmt::Debug for ShowProgress<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Terminal => "Terminal",
            Self::Silent => "Silent",
            Self::Call(_) => "Call(..)",
        })
    }
}

/// The progress of one file.
#[cfg(feature = "hub")]
pub(super) struct Shown<'a> {
    show: ShowProgress<'a>,
    bar: indicatif::ProgressBar,
    file: &'a str,
    total: u64,
}

#[cfg(feature = "hub")]
impl<'a> Shown<'a> {
    pub(super) fn new(show: ShowProgress<'a>, file: &'a str, total: u64) -> Self {
        let bar = match show {
            // Draws on the standard error, and nothing if that is no terminal.
            ShowProgress::Terminal => indicatif::ProgressBar::new(total),
            _ => indicatif::ProgressBar::hidden(),
        };
        let template = "{msg:24} {bytes:>11} of {total_bytes:<11} [{wide_bar}] {bytes_per_sec} {eta}";
        if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(file.to_string());
        Self { show, bar, file, total }
    }

    pub(super) fn at(&self, done: u64) {
        self.bar.set_position(done);
        if let ShowProgress::Call(call) = self.show {
            call(Progress { file: self.file, done, total: self.total });
        }
    }
}

#[cfg(feature = "hub")]
impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.bar.abandon();
    }
}
