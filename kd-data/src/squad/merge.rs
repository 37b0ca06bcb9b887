//! One set of several files that overlap.

use std::collections::HashMap;

use super::{Answer, Article};

/// What [`merge`] found more than once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Paragraphs that were there already.
    pub paragraphs: usize,
    /// Questions of the same text that their paragraph had already.
    pub questions: usize,
}

/// Every article, paragraph and question once: articles of one title are one, and so are paragraphs of one context and,
/// in a paragraph, questions of one text. What is known of an answer in one place is known; where one calls a question
/// impossible that another answers, the answer stays.
///
/// A paragraph that stands under two titles stays with the first, so that a cut by article never has it on both sides.
pub fn merge(articles: impl IntoIterator<Item = Article>) -> (Vec<Article>, Merged) {
    let (mut merged, mut counts) = (Vec::<Article>::new(), Merged::default());
    let (mut titles, mut contexts) = (HashMap::new(), HashMap::<String, (usize, usize)>::new());
    for article in articles {
        let article_idx = *titles.entry(article.title.clone()).or_insert_with(|| {
            merged.push(Article { title: article.title, paragraphs: Vec::new() });
            merged.len() - 1
        });
        for mut paragraph in article.paragraphs {
            let questions = std::mem::take(&mut paragraph.questions);
            let (article_idx, paragraph_idx) = match contexts.get(&paragraph.context) {
                Some(&place) => {
                    counts.paragraphs += 1;
                    place
                }
                None => {
                    let place = (article_idx, merged[article_idx].paragraphs.len());
                    contexts.insert(paragraph.context.clone(), place);
                    merged[article_idx].paragraphs.push(paragraph);
                    place
                }
            };
            let known = &mut merged[article_idx].paragraphs[paragraph_idx].questions;
            for question in questions {
                match known.iter_mut().find(|other| other.text == question.text) {
                    Some(other) => {
                        counts.questions += 1;
                        if rank(&question.answer) > rank(&other.answer) {
                            other.answer = question.answer;
                        }
                    }
                    None => known.push(question),
                }
            }
        }
    }
    merged.retain(|article| !article.paragraphs.is_empty());
    (merged, counts)
}

/// How much is known.
fn rank(answer: &Answer) -> u8 {
    match answer {
        Answer::Unknown => 0,
        Answer::Impossible => 1,
        Answer::Spans(_) => 2,
    }
}
