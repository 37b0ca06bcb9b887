//! Where a program's pretrained model is.

use anyhow::{Result, anyhow};
use kd_teachers::Error;
use kd_teachers::hub::{FindOptions, HubEnvironment, ModelFiles};

/// The files of a hub id or a folder, for a program whose flag `--pickle` allows pickled weights.
///
/// # Errors
/// If there are none, or only such as are not allowed; the message names the flag.
pub fn find(id: &str, revision: &str, pickle: bool) -> Result<ModelFiles> {
    let options = FindOptions { pickle, ..FindOptions::default() };
    ModelFiles::find_with(id, revision, &HubEnvironment::from_env()?, &options).map_err(|error| match error {
        Error::Pickled { found } => anyhow!(
            "{found}: convert them to safetensors (save_pretrained of transformers does), or allow them with --pickle"
        ),
        error => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pickled_weights_that_are_not_allowed_name_the_flag() {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in [("config.json", "{}"), ("tokenizer.json", "{}"), ("pytorch_model.bin", "")] {
            std::fs::write(folder.path().join(name), contents).unwrap();
        }
        let flag = "convert them to safetensors (save_pretrained of transformers does), or allow them with --pickle";
        let of_folder = folder.path().display().to_string();
        let message = find(&of_folder, "main", false).unwrap_err().to_string();
        let expected =
            format!("no model.safetensors in {of_folder}; there are only pickled weights, pytorch_model.bin: {flag}");
        assert!(message.ends_with(&expected), "{message}");
        assert!(find(&of_folder, "main", true).unwrap().pickle);
        let of_file = format!("{of_folder}/pytorch_model.bin");
        let message = find(&of_file, "main", false).unwrap_err().to_string();
        assert_eq!(message, format!("{of_file}: weights are pickled: {flag}"));
        // Any other error is the library's.
        let message = find("/nowhere/model", "main", false).unwrap_err().to_string();
        assert!(message.starts_with("model `/nowhere/model`: there is no such folder or file"), "{message}");
    }
}
