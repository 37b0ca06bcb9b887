//! SNIPS and its like: three files, line by line the words, the tag of each and the intent.
//!
//! ```text
//! seq.in   listen to westbam alumb allergic on google music
//! seq.out  O O B-artist O B-album O B-service I-service
//! label    PlayMusic
//! ```
//!
//! Words and tags are parted by blanks, one or more. (Goo et al. 2018, "Slot-Gated Modeling for Joint Slot Filling and
//! Intent Prediction"; the commands are those of Coucke et al. 2018, CC0.)

use std::path::Path;

use crate::conll::check_tag;
use crate::error::{Error, Result, count, read_text};
use crate::example::{Dataset, Layout, Sentence, Utterance};

/// The utterances of a folder with the files `seq.in`, `seq.out` and `label`.
///
/// # Errors
/// If a file cannot be read, is not UTF-8 or is empty, if the files differ in their number of lines, if a line has no words
/// or not as many tags as words, if a tag is malformed, or if an intent is missing.
pub fn read_snips(folder: impl AsRef<Path>) -> Result<Dataset<Utterance>> {
    let folder = folder.as_ref();
    let [words, tags, intents] = ["seq.in", "seq.out", "label"].map(|name| folder.join(name));
    let texts = [read_text(&words)?, read_text(&tags)?, read_text(&intents)?];
    let [word_lines, tag_lines, intent_lines] = texts.each_ref().map(|text| text.lines().collect::<Vec<_>>());
    if word_lines.is_empty() {
        return Err(Error::file(&words, "at least one utterance", "an empty file"));
    }
    for (path, lines) in [(&tags, &tag_lines), (&intents, &intent_lines)] {
        if lines.len() != word_lines.len() {
            let expected = format!("{} as in `seq.in`", count(word_lines.len(), "line"));
            return Err(Error::file(path, expected, count(lines.len(), "line")));
        }
    }
    let mut examples = Vec::with_capacity(word_lines.len());
    for (idx, ((text, slots), intent)) in word_lines.iter().zip(&tag_lines).zip(&intent_lines).enumerate() {
        let line = idx + 1;
        let split = |text: &str| text.split_ascii_whitespace().map(str::to_string).collect::<Vec<_>>();
        let sentence = Sentence { words: split(text), tags: split(slots), line, layout: Layout::Line };
        if sentence.words.is_empty() {
            return Err(Error::line(&words, line, "at least one word", "an empty line"));
        }
        if sentence.tags.len() != sentence.words.len() {
            let expected = format!("{} as `seq.in` has words", count(sentence.words.len(), "tag"));
            return Err(Error::line(&tags, line, expected, sentence.tags.len().to_string()));
        }
        for tag in &sentence.tags {
            check_tag(&tags, line, tag)?;
        }
        let intent = intent.trim_ascii();
        if intent.is_empty() {
            return Err(Error::line(&intents, line, "an intent", "an empty line"));
        }
        examples.push(Utterance { sentence, intent: intent.to_string() });
    }
    Ok(Dataset { path: folder.to_path_buf(), examples })
}

impl Dataset<Utterance> {
    /// The words with their slot tags, as sentences of `seq.out`.
    pub fn slots(&self) -> Dataset<Sentence> {
        let examples = self.examples.iter().map(|utterance| utterance.sentence.clone()).collect();
        Dataset { path: self.path.join("seq.out"), examples }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(words: &str, tags: &str, intents: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("seq.in", words), ("seq.out", tags), ("label", intents)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn message(words: &str, tags: &str, intents: &str) -> String {
        let folder = folder(words, tags, intents);
        let message = read_snips(folder.path()).unwrap_err().to_string();
        message.strip_prefix(&format!("{}/", folder.path().display())).unwrap().to_string()
    }

    #[test]
    fn lines_are_read_together() {
        let folder = folder("play  some jazz \r\nhi\r\n", "O O B-genre \nO \n", "PlayMusic\nGreet");
        let data = read_snips(folder.path()).unwrap();
        let first = &data.examples[0];
        assert_eq!((first.text().as_str(), first.sentence.tags.join(" ").as_str()), ("play some jazz", "O O B-genre"));
        let intents: Vec<_> = data.examples.iter().map(|utterance| utterance.intent.as_str()).collect();
        assert_eq!(intents, ["PlayMusic", "Greet"]);
        let slots = data.slots();
        assert_eq!(slots.path, folder.path().join("seq.out"));
        assert_eq!((slots.examples[1].line_of(0), slots.examples[0].line_of(2)), (2, 1));
    }

    #[test]
    fn files_that_do_not_fit_are_errors() {
        assert_eq!(message("a\nb\n", "O\n", "x\ny\n"), "seq.out: expected 2 lines as in `seq.in`, found 1 line");
        assert_eq!(message("a\n", "O\n", "x\ny\n"), "label: expected 1 line as in `seq.in`, found 2 lines");
        assert_eq!(
            message("a\nb c\n", "O\nO\n", "x\ny\n"),
            "seq.out:2: expected 2 tags as `seq.in` has words, found 1"
        );
        assert_eq!(message("a\n\n", "O\nO\n", "x\ny\n"), "seq.in:2: expected at least one word, found an empty line");
        assert_eq!(message("a\nb\n", "O\nO\n", "x\n \n"), "label:2: expected an intent, found an empty line");
        assert_eq!(message("", "", ""), "seq.in: expected at least one utterance, found an empty file");
        let expected = "seq.out:1: expected the tag `O` or one of B, I, E, S, a hyphen and a type, found `genre`";
        assert_eq!(message("a\n", "genre\n", "x\n"), expected);
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = folder("a\n", "O\n", "x\n");
        std::fs::remove_file(folder.path().join("seq.out")).unwrap();
        let message = read_snips(folder.path()).unwrap_err().to_string();
        assert!(message.starts_with(&folder.path().join("seq.out").display().to_string()), "{message}");
    }
}
