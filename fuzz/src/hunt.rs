//! Searches for inputs that break a promise, or that have a mark that no input of the corpus has.

use std::cell::RefCell;
use std::time::Instant;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use crate::mutation::inputs;
use crate::targets::Marks;
use crate::{Corpus, Target};

/// How many inputs are tried before the inputs that were found are used, too.
const ROUND: u32 = 200;

/// When a search ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this number of inputs.
    Tried(u32),
    /// At this time.
    Time(Instant),
}

/// A search for one target.
#[derive(Debug)]
pub struct Hunt {
    target: &'static Target,
    corpus: Corpus,
    known: Marks,
    /// The number of inputs that were tried.
    pub tried: u32,
    /// The inputs with new marks, each with its first new mark.
    pub found: Vec<(String, Vec<u8>)>,
}

impl Hunt {
    /// Starts with the marks of the whole corpus. Panics if an input of the corpus breaks a promise.
    #[must_use]
    pub fn begin(target: &'static Target, corpus: Corpus) -> Self {
        let mut known = Marks::new();
        corpus.inputs.iter().for_each(|(_, input)| known.append(&mut (target.read)(input)));
        Self { target, corpus, known, tried: 0, found: Vec::new() }
    }

    /// Searches until `until`. The error is an input that breaks a promise, made as short as possible.
    pub fn run(&mut self, until: Until, seed: u64) -> Result<(), (String, Vec<u8>)> {
        let mut round = 0;
        loop {
            let cases = match until {
                Until::Tried(limit) => ROUND.min(limit - self.tried),
                Until::Time(end) if Instant::now() < end => ROUND,
                Until::Time(_) => 0,
            };
            if cases == 0 {
                return Ok(());
            }
            self.round(cases, seed.wrapping_add(round))?;
            round += 1;
        }
    }

    fn round(&mut self, cases: u32, seed: u64) -> Result<(), (String, Vec<u8>)> {
        let config = Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Config::default() };
        let seeds = self.corpus.inputs.iter().chain(&self.found).map(|(_, input)| input.clone()).collect();
        let (known, found) = (RefCell::new(&mut self.known), RefCell::new(&mut self.found));
        let tried = TestRunner::new(config).run(&inputs(seeds), |input| {
            let marks = (self.target.read)(&input);
            let mut known = known.borrow_mut();
            if let Some(new) = marks.iter().find(|mark| !known.contains(*mark)) {
                found.borrow_mut().push((new.clone(), input.clone()));
                known.extend(marks);
            }
            Ok::<_, TestCaseError>(())
        });
        self.tried += cases;
        match tried {
            Ok(()) => Ok(()),
            Err(TestError::Fail(why, input)) => Err((why.message().to_owned(), input)),
            Err(TestError::Abort(why)) => Err((why.message().to_owned(), Vec::new())),
        }
    }

    /// Puts the inputs that were found into the corpus. Returns how many.
    pub fn keep(mut self) -> Result<usize, String> {
        for (mark, input) in &self.found {
            self.corpus.keep(mark, input)?;
        }
        Ok(self.found.len())
    }
}
