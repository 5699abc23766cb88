//! Looking for inputs that break a promise, or reach what none of the corpus reaches.

use std::cell::RefCell;
use std::time::Instant;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use crate::mutation::inputs;
use crate::targets::Marks;
use crate::{Corpus, Target};

/// How many inputs are tried before the corpus is looked at anew.
const ROUND: u32 = 200;

/// When a hunt ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many inputs.
    Tried(u32),
    /// At this time.
    Time(Instant),
}

/// A hunt for one target.
#[derive(Debug)]
pub struct Hunt {
    target: &'static Target,
    corpus: Corpus,
    known: Marks,
    /// How many inputs were tried.
    pub tried: u32,
    /// Inputs that reached something new, with the first of it.
    pub found: Vec<(String, Vec<u8>)>,
}

impl Hunt {
    /// Begins with everything that the corpus reaches. Panics where an input of the corpus breaks a promise.
    #[must_use]
    pub fn begin(target: &'static Target, corpus: Corpus) -> Self {
        let mut known = Marks::new();
        corpus.inputs.iter().for_each(|(_, input)| known.append(&mut (target.read)(input)));
        Self { target, corpus, known, tried: 0, found: Vec::new() }
    }

    /// Goes on until then; an input that breaks a promise, as short as could be made, is the error.
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

    /// Puts what was found into the corpus.
    pub fn keep(mut self) -> Result<usize, String> {
        for (mark, input) in &self.found {
            self.corpus.keep(mark, input)?;
        }
        Ok(self.found.len())
    }
}
