//! How well an answer in words agrees with another (Rajpurkar et al. 2016, SQuAD, §6.1).
//!
//! Both are compared in lower case, without ASCII punctuation, without the articles `a`, `an` and `the`, word by word.

use std::collections::HashMap;

/// The words that are compared.
///
/// ```
/// use kd_data::scores::answers::{exact_match, f1, normalized};
/// assert_eq!(normalized("The end, of (an) Era!"), ["end", "of", "era"]);
/// assert!(exact_match("the Beatles", "Beatles."));
/// // Two of three words and two of two: precision 1, recall 2/3.
/// assert!((f1("end of era", "the end era") - 0.8).abs() < 1e-12);
/// ```
pub fn normalized(answer: &str) -> Vec<String> {
    let plain: String = answer.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let words = plain.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the"));
    words.map(str::to_string).collect()
}

/// Whether the words are the same.
pub fn exact_match(gold: &str, predicted: &str) -> bool {
    normalized(gold) == normalized(predicted)
}

/// F1 of the words, each counted as often as it occurs; 0 if none is shared.
pub fn f1(gold: &str, predicted: &str) -> f64 {
    let (gold, predicted) = (normalized(gold), normalized(predicted));
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in &gold {
        *left.entry(word).or_default() += 1;
    }
    let mut shared = 0;
    for word in &predicted {
        if let Some(count @ 1..) = left.get_mut(word.as_str()) {
            *count -= 1;
            shared += 1;
        }
    }
    if shared == 0 { 0.0 } else { 2.0 * f64::from(shared) / (gold.len() + predicted.len()) as f64 }
}
