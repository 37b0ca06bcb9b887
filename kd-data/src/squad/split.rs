//! A cut into training, development and test part, by article.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Answer, Article};
use crate::error::{Error, Result};
use crate::sample::shuffle;

/// Articles of each part, by their places, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// To learn from.
    pub train: Vec<usize>,
    /// To choose on.
    pub dev: Vec<usize>,
    /// To report.
    pub test: Vec<usize>,
}

/// Draws whole articles for test and for dev until they have the shares `test` and `dev` of all questions with an
/// answer, or so nearly that the next article would be too much; the others are for training.
///
/// Articles without such questions are always for training.
///
/// # Errors
/// If a share is not above 0, their sum is not below 1, or a part would get no question with an answer.
pub fn split(articles: &[Article], dev: f64, test: f64, seed: u64) -> Result<Split> {
    if !(dev > 0.0 && test > 0.0 && dev + test < 1.0) {
        let expected = "shares above 0, their sum below 1";
        return Err(Error::argument("split", expected, format!("{dev} of dev and {test} of test")));
    }
    let answered: Vec<usize> = articles.iter().map(answered).collect();
    let total: usize = answered.iter().sum();
    let mut order: Vec<usize> = (0..articles.len()).collect();
    shuffle(&mut order, &mut ChaCha8Rng::seed_from_u64(seed));
    let mut split = Split { train: Vec::new(), dev: Vec::new(), test: Vec::new() };
    let mut room = [test, dev].map(|share| (share * total as f64).ceil() as usize);
    for article_idx in order {
        let size = answered[article_idx];
        let part = room.iter().position(|&room| 0 < size && size <= room);
        match part {
            Some(0) => split.test.push(article_idx),
            Some(_) => split.dev.push(article_idx),
            None => split.train.push(article_idx),
        }
        if let Some(part) = part {
            room[part] -= size;
        }
    }
    let parts = [("train", &mut split.train), ("dev", &mut split.dev), ("test", &mut split.test)];
    for (name, part) in parts {
        part.sort_unstable();
        if !part.iter().any(|&article_idx| answered[article_idx] > 0) {
            let found = format!("none: {} articles, {total} questions", articles.len());
            return Err(Error::argument(format!("split: {name}"), "an article with answered questions", found));
        }
    }
    Ok(split)
}

fn answered(article: &Article) -> usize {
    let questions = article.paragraphs.iter().flat_map(|paragraph| &paragraph.questions);
    questions.filter(|question| matches!(question.answer, Answer::Spans(_))).count()
}
