use super::*;
use crate::example::{Label, TextExample};

const FILE: &str = r#"{"version": "v2.0", "data": [
  {"title": "Hens", "paragraphs": [
    {"context": "The été hen lives in Rome. It eats corn. Nobody paints the hen.", "qas": [
      {"id": "1", "question": "Where does the hen  live? ", "answers": [{"text": "Rome", "answer_start": 21}, {"text": "in Rome", "answer_start": 18}], "is_impossible": false},
      {"id": "2", "question": "Who paints the hen?", "answers": [], "plausible_answers": [{"text": "Rome", "answer_start": 21}], "is_impossible": true},
      {"id": "3", "question": "What does it eat?", "answers": [{"text": "corn", "answer_start": 35}]}]}]},
  {"title": "Foxes", "paragraphs": [
    {"context": "A fox runs. A fox sleeps in Rome.", "qas": [
      {"id": "4", "question": "What runs?", "answers": []}]}]}]}"#;

fn read(text: &str) -> Result<Vec<Article>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("dev.json"), text).unwrap();
    read_squad(folder.path().join("dev.json"))
}

fn question(id: &str, text: &str, answer: Answer) -> Question {
    Question { id: id.into(), text: text.into(), answer }
}

fn article(title: &str, paragraphs: &[(&str, &[(&str, Answer)])]) -> Article {
    let paragraph = |(context, questions): &(&str, &[(&str, Answer)])| Paragraph {
        context: context.to_string(),
        questions: questions.iter().map(|(text, answer)| question(text, text, answer.clone())).collect(),
    };
    Article { title: title.into(), paragraphs: paragraphs.iter().map(paragraph).collect() }
}

fn span(context: &str, answer: &str) -> Range<usize> {
    let start = context.find(answer).unwrap();
    start..start + answer.len()
}

fn one(context: &str, answer: &str) -> Answer {
    Answer::Spans(vec![span(context, answer)])
}

#[test]
fn answers_are_counted_in_characters_and_kept_in_bytes() {
    let articles = read(FILE).unwrap();
    assert_eq!(articles.iter().map(|article| article.title.as_str()).collect::<Vec<_>>(), ["Hens", "Foxes"]);
    let hens = &articles[0].paragraphs[0];
    let spans = Answer::Spans(vec![span(&hens.context, "Rome"), span(&hens.context, "in Rome")]);
    assert_eq!(hens.questions[0], question("1", "Where does the hen live?", spans));
    assert_eq!(hens.questions[1].answer, Answer::Impossible);
    assert_eq!(hens.questions[2].answer, one(&hens.context, "corn"));
    assert_eq!(articles[1].paragraphs[0].questions[0].answer, Answer::Unknown);
}

#[test]
fn what_is_wrong_names_its_place() {
    let message = |from: &str, to: &str| {
        let text = FILE.replacen(from, to, 1);
        assert_ne!(text, FILE, "{from}");
        let message = read(&text).unwrap_err().to_string();
        message[message.find("dev.json").unwrap()..].to_string()
    };
    let place = "data[0].paragraphs[0].qas[0]";
    assert_eq!(
        message("\"answer_start\": 21", "\"answer_start\": 22"),
        format!(
            "dev.json: expected where `Rome` begins in the context at `{place}.answers[0].answer_start`, found `22`"
        )
    );
    assert_eq!(
        message("\"answer_start\": 21", "\"answer_start\": -1"),
        format!("dev.json: expected a number of characters at `{place}.answers[0].answer_start`, found `-1`")
    );
    assert_eq!(message("\"id\": \"1\"", "\"id\": 1"), format!("dev.json: expected a text at `{place}.id`, found `1`"));
    assert_eq!(
        message("\"question\": \"Where does the hen  live? \"", "\"question\": \" \""),
        format!("dev.json: expected a question at `{place}.question`, found `\" \"`")
    );
    assert_eq!(
        message("\"is_impossible\": false", "\"is_impossible\": 0"),
        format!("dev.json: expected true or false at `{place}.is_impossible`, found `0`")
    );
    assert_eq!(
        message("\"is_impossible\": false", "\"is_impossible\": true"),
        format!("dev.json: expected none of an impossible question at `{place}.answers`, found a list of 2")
    );
    assert_eq!(message("\"title\": \"Foxes\", ", ""), "dev.json: expected a text at `data[1].title`, found nothing");
    assert_eq!(message("\"data\"", "\"date\""), "dev.json: expected a list at `data`, found nothing");
    assert!(message("{\"version\"", "{version").starts_with("dev.json:1: expected JSON, found key must be a string"));
    let none = read("{\"data\": []}").unwrap_err().to_string();
    assert!(none.ends_with("dev.json: expected at least one article in `data`, found none"), "{none}");
}

#[test]
fn overlapping_files_become_one_set() {
    let (a, b) = ("A hen.", "B hen.");
    let files = [
        article("X", &[(a, &[("q", Answer::Unknown), ("r", one(a, "hen")), ("s", Answer::Impossible)])]),
        article("Y", &[(b, &[("q", Answer::Impossible)])]),
        article("X", &[(a, &[("q", one(a, "hen")), ("r", Answer::Unknown), ("s", Answer::Unknown)]), ("C", &[])]),
        article("Z", &[(b, &[("t", Answer::Unknown)])]),
    ];
    let (merged, counts) = merge(files);
    let expected = [
        article("X", &[(a, &[("q", one(a, "hen")), ("r", one(a, "hen")), ("s", Answer::Impossible)]), ("C", &[])]),
        article("Y", &[(b, &[("q", Answer::Impossible), ("t", Answer::Unknown)])]),
    ];
    assert_eq!(merged, expected);
    assert_eq!(counts, Merged { paragraphs: 2, questions: 3 });
}

#[test]
fn a_question_has_the_sentence_that_answers_and_the_most_similar_that_does_not() {
    let text = "Hens live in Rome. The cat eats corn. A hen eats corn in May. In Rome it sleeps.";
    let answers = |answers: &[&str]| Answer::Spans(answers.iter().map(|answer| span(text, answer)).collect());
    let articles = [article(
        "X",
        &[
            (
                text,
                &[
                    // "Rome" stands in two sentences: neither is a negative. The rest shares "hen", "eats" or nothing.
                    ("Where does a hen live?", answers(&["Rome"])),
                    // Two of three annotators chose the third sentence; "The cat eats corn" has the answer too.
                    ("What does the cat eat?", answers(&["corn", "corn in May", "May"])),
                    ("Who?", Answer::Impossible),
                    ("What?", Answer::Unknown),
                    ("Why?", answers(&["Rome. The"])),
                ],
            ),
            ("All hens.", &[("How many?", one("All hens.", "All"))]),
        ],
    )];
    let (examples, counts) = sentence_pairs(&articles);
    let pair = |question: &str, sentence: &str, class: &str, line| TextExample {
        first: question.into(),
        second: Some(sentence.into()),
        label: Label::Class(class.into()),
        line,
        group: Some(question.into()),
    };
    let expected = [
        pair("Where does a hen live?", "Hens live in Rome.", "entailment", 1),
        pair("Where does a hen live?", "A hen eats corn in May.", "not_entailment", 2),
        pair("What does the cat eat?", "A hen eats corn in May.", "entailment", 3),
        // No word is shared with either of what is left: the first.
        pair("What does the cat eat?", "Hens live in Rome.", "not_entailment", 4),
    ];
    assert_eq!(examples, expected);
    let expected = SentenceCounts { used: 2, unanswered: 2, across_sentences: 1, without_negative: 1 };
    assert_eq!(counts, expected);
}

#[test]
fn every_question_has_its_own_passage_and_those_most_like_it() {
    let articles = read(FILE).unwrap();
    let more = article("Cats", &[("A cat\nsleeps.", &[("What runs?", Answer::Unknown)]), ("A cat runs.", &[])]);
    let articles: Vec<Article> = articles.into_iter().chain([more]).collect();
    let (examples, counts) = passage_pairs(&articles, 1);
    let pairs: Vec<(&str, &str)> =
        examples.iter().map(|example| (example.first.as_str(), example.second.as_deref().unwrap())).collect();
    let (hens, foxes) = (articles[0].paragraphs[0].context.as_str(), "A fox runs. A fox sleeps in Rome.");
    let expected = [
        ("Where does the hen live?", hens),
        // Nothing else shares "where", "does", "hen", "live" or "the": no second passage.
        ("Who paints the hen?", hens),
        ("What does it eat?", hens),
        ("What runs?", foxes),
        ("What runs?", "A cat runs."),
        // Asked again of "A cat sleeps.", for which "A cat runs." is found again.
        ("What runs?", "A cat sleeps."),
    ];
    assert_eq!(pairs, expected);
    assert_eq!(counts, PassageCounts { own: 5, retrieved: 1, repeated: 1 });
    assert!(examples.iter().all(|example| example.label == Label::None));
    assert_eq!((examples[4].line, examples[4].group.as_deref()), (5, Some("4")));
}

#[test]
fn articles_are_cut_whole_and_near_the_shares() {
    let of = |questions: usize, title: &str| {
        let known = vec![("q", one("A hen.", "hen")); questions];
        article(title, &[("A hen.", &known), ("B", &[("r", Answer::Impossible)])])
    };
    // 100 answered questions in 20 articles of 5, and an article without any.
    let articles: Vec<Article> =
        (0..20).map(|idx| of(5, &idx.to_string())).chain([article("none", &[("C", &[])])]).collect();
    let cut = split(&articles, 0.1, 0.22, 7).unwrap();
    assert_eq!((cut.dev.len(), cut.test.len(), cut.train.len()), (2, 4, 15));
    let mut all = [cut.train.clone(), cut.dev.clone(), cut.test.clone()].concat();
    all.sort_unstable();
    assert_eq!(all, (0..21).collect::<Vec<_>>());
    assert!(cut.train.contains(&20));
    assert_eq!(split(&articles, 0.1, 0.22, 7).unwrap(), cut);
    assert_ne!(split(&articles, 0.1, 0.22, 8).unwrap(), cut);
    let message = |dev, test| split(&articles, dev, test, 7).unwrap_err().to_string();
    assert_eq!(
        message(0.5, 0.5),
        "split: expected shares above 0, their sum below 1, found 0.5 of dev and 0.5 of test"
    );
    assert!(message(f64::NAN, 0.5).starts_with("split: expected shares above 0"));
    assert_eq!(
        message(0.01, 0.5),
        "split: dev: expected an article with answered questions, found none: 21 articles, 100 questions"
    );
}
