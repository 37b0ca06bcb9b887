//! A folder with data and a configuration, in which `neuronblocks` runs.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_neuronblocks");

pub(crate) struct Place(tempfile::TempDir);

impl Place {
    /// `conf.json`, and these lines as `train.tsv`, `valid.tsv` and `test.tsv`.
    pub(crate) fn with(configuration: &Value, [train, valid, test]: [String; 3]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for (name, lines) in [("train", train), ("valid", valid), ("test", test)] {
            std::fs::write(place.at(&format!("{name}.tsv")), lines).unwrap();
        }
        place.configure(configuration);
        place
    }

    pub(crate) fn configure(&self, configuration: &Value) {
        std::fs::write(self.at("conf.json"), configuration.to_string()).unwrap();
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn train(&self, out: &str, threads: usize) -> Command {
        let mut command = self.command("train");
        for part in ["train", "valid", "test"] {
            command.arg(format!("--{part}_data_path")).arg(self.at(&format!("{part}.tsv")));
        }
        command.arg("--model_save_dir").arg(self.at(out)).args(["--checkpoint_every", "2"]);
        command.env("RAYON_NUM_THREADS", threads.to_string());
        command
    }

    /// `test` of the model in `out`; predictions go to `again.tsv`.
    pub(crate) fn test(&self, out: &str) -> Command {
        let mut command = self.command("test");
        command.arg("--test_data_path").arg(self.at("test.tsv")).arg("--disable_log_file");
        command.arg("--previous_model_path").arg(self.at(&format!("{out}/model.nb")));
        command.arg("--predict_output_path").arg(self.at("again.tsv"));
        command
    }

    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg(name).arg("--conf_path").arg(self.at("conf.json"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }
}

pub(crate) fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What a program that failed said.
pub(crate) fn fail(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "expected a failure");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
