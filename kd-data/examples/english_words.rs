//! Prints the words of each line of its standard input, parted by blanks, for `tests/reference/english_words.py`.

use std::io::{BufRead, Write};

fn main() -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        writeln!(out, "{}", kd_data::tokenize::english_words(&line?).join(" "))?;
    }
    out.flush()
}
