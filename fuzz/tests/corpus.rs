//! Replays all inputs of the corpus, and does a short search that is the same each time.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use ferrymq_fuzz::{Corpus, Hunt, TARGETS, Target, Until};

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

fn replay_and_hunt(name: &str) {
    let target = target(name);
    let corpus = Corpus::of(target).unwrap();
    assert!(corpus.inputs.len() > 5, "the corpus of {name} has inputs");
    let mut hunt = Hunt::begin(target, corpus);
    if let Err((why, input)) = hunt.run(Until::Tried(target.tries), 1) {
        panic!("{why}, with {input:?}");
    }
}

#[test]
fn frames() {
    replay_and_hunt("frames");
}

#[test]
fn tables() {
    replay_and_hunt("tables");
}

#[test]
fn recovery() {
    replay_and_hunt("recovery");
}

/// Shows that a search finds a broken promise if there is one.
#[test]
fn a_promise_that_is_broken_is_found_and_made_short() {
    static FRAGILE: Target = Target {
        name: "tables",
        read: |input| {
            assert!(!input.windows(2).any(|pair| pair == [0, 0xff]), "these two bytes break the promise");
            Default::default()
        },
        tries: 0,
    };
    let mut corpus = Corpus::of(&FRAGILE).unwrap();
    corpus.inputs.retain(|(_, input)| !input.windows(2).any(|pair| pair == [0, 0xff]));
    let mut hunt = Hunt::begin(&FRAGILE, corpus);
    let (_, input) = hunt.run(Until::Tried(20_000), 1).unwrap_err();
    assert!(input.len() < 200, "{} bytes", input.len());
}
