//! Counts the instructions of work. A test asserts on the count: unlike a time it does not depend on what else the
//! machine does.
//!
//! Valgrind's tool callgrind counts. So a test starts its own program again, under valgrind and for that one test, and
//! asserts in there. [`counting`] does this, and fails if the inner test did not run or counted nothing.

use std::{
    any::type_name,
    env, fs,
    hint::black_box,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::Folder;

/// The variable that says to the inner test where its counts are.
const COUNTS: &str = "FERRYMQ_TEST_COUNTS";
/// Settings of glibc, so that what it does for a fixed number of bytes or blocks does not depend on the number of
/// objects. Callgrind would count one instruction for each byte that `rep movsb` moves, and glibc uses this for long
/// moves only. And `free` would search for neighbours only once many blocks are free.
const GLIBC: &str = "glibc.cpu.hwcaps=-ERMS:glibc.malloc.tcache_count=65535";
/// The first work also pays for what is made once, so it does not count.
const WARM_UP: usize = 32;
const FEW: usize = 128;
const MANY: usize = 4 * FEW;

/// What the test inside of valgrind counts with.
#[derive(Debug)]
pub struct Callgrind {
    counts: PathBuf,
    number: u64,
}

/// Runs `test`, in which instructions can be counted. It must be called by the test's function itself and get a
/// closure of that function, whose name is that of the test.
pub fn counting<T: FnOnce(&mut Callgrind)>(test: T) {
    match env::var_os(COUNTS) {
        Some(counts) => test(&mut Callgrind { counts: counts.into(), number: 0 }),
        None => run_again(test_of(type_name::<T>())),
    }
}

/// The name of the test in which a closure is.
fn test_of(closure: &str) -> &str {
    let function = closure.split("::{{").next().unwrap_or(closure);
    function.split_once("::").map_or(function, |(_, in_crate)| in_crate)
}

/// Runs a test of this program in a process under valgrind.
fn run_again(test: &str) {
    let folder = Folder::created();
    let counts = folder.0.join("counts");
    let started = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={}", name_of(&counted)))
        .arg(format!("--dump-after={}", name_of(&written)))
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(COUNTS, &counts)
        .env("GLIBC_TUNABLES", GLIBC)
        // A trace would take long.
        .env_remove("RUST_BACKTRACE")
        .output();
    let output = match started {
        Err(why) if why.kind() == ErrorKind::NotFound => {
            panic!("valgrind is missing, with which this test counts instructions: install the package `valgrind`")
        }
        started => started.unwrap(),
    };
    let shown = shown(&output);
    println!("{shown}");
    assert!(output.status.success(), "under valgrind, {test} ended with {}:\n{shown}", output.status);
    assert!(shown.contains("test result: ok. 1 passed; 0 failed; 0 ignored;"), "{test} did not run:\n{shown}");
    assert!(fs::exists(part(&counts, 1)).unwrap(), "{test} counted nothing:\n{shown}");
}

fn shown(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}

/// The file with the count of a piece of work.
fn part(counts: &Path, number: u64) -> PathBuf {
    counts.with_extension(number.to_string())
}

/// The name of a function in callgrind's options.
fn name_of<T>(_: &T) -> &'static str {
    type_name::<T>()
}

/// When callgrind leaves this function, it writes what it has counted, and begins at zero again. It would ignore the
/// second one of two options for the same function, so this is another one than [`counted`].
#[inline(never)]
fn written(work: &mut dyn FnMut()) {
    counted(work);
    black_box(());
}

/// Callgrind counts while this runs, in this thread alone. The call of `work` must not be the last one of this
/// function: it would be a jump.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

impl Callgrind {
    /// How many instructions `work` takes in this thread, without those of the kernel.
    pub fn instructions(&mut self, work: impl FnOnce()) -> u64 {
        let mut work = Some(work);
        written(&mut || (work.take().unwrap())());
        self.number += 1;
        let part = part(&self.counts, self.number);
        let text = fs::read_to_string(&part).unwrap();
        let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap();
        let count = total.trim().parse().unwrap();
        assert!(count > 0, "no work was counted");
        count
    }

    /// Fails if the work for one object grows with the number of objects. `measure` gets this number, and returns the
    /// instructions for all objects. Four times as many may take `percent_max` of the instructions for each: more than
    /// 100 where trees are deeper and chunks longer.
    pub fn check_linear(&mut self, what: &str, percent_max: u64, mut measure: impl FnMut(&mut Self, usize) -> u64) {
        self.check_constant(what, percent_max, |callgrind, count| measure(callgrind, count) / count as u64);
    }

    /// Fails if work grows with the number of objects. `measure` gets this number, and returns the instructions of the
    /// work.
    pub fn check_constant(&mut self, what: &str, percent_max: u64, mut measure: impl FnMut(&mut Self, usize) -> u64) {
        measure(self, WARM_UP);
        let [few, many] = [FEW, MANY].map(|count| measure(self, count));
        let counted = format!("{what}: {few} instructions with {FEW}, {many} with {MANY} ({} %)", many * 100 / few);
        println!("{counted}");
        assert!(many * 100 <= few * percent_max, "{counted}, at most {percent_max} % are allowed");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        thread,
    };

    use super::*;

    fn steps(count: usize) {
        (0..count).for_each(|number| {
            black_box(number);
        });
    }

    /// The test below runs this one, because it counts nothing.
    #[test]
    fn a_closure_has_the_name_of_its_test() {
        assert_eq!(test_of("ferrymq_node::tests::doubling::name::{{closure}}"), "tests::doubling::name");
        let closure = || ();
        assert_eq!(test_of(name_of(&closure)), "callgrind::tests::a_closure_has_the_name_of_its_test");
    }

    #[test]
    fn only_work_of_the_own_thread_counts() {
        counting(|callgrind| {
            steps(100_000);
            let [few, many] = [1_000, 2_000].map(|count| callgrind.instructions(|| steps(count)));
            steps(100_000);
            assert!(many > 1_000 && many < 100_000, "{many} instructions for 2,000 steps");
            assert!((2 * few).abs_diff(many) < 100, "{few} for 1,000 steps, {many} for 2,000");
            let elsewhere = callgrind.instructions(|| {
                thread::scope(|scope| scope.spawn(|| steps(1_000_000)).join().unwrap());
            });
            assert!(elsewhere < 200_000, "{elsewhere} instructions beside 1,000,000 steps of another thread");
        });
    }

    #[test]
    fn a_search_in_each_step_is_found() {
        counting(|callgrind| {
            let mut check = |search: usize| {
                let measure = |callgrind: &mut Callgrind, count: usize| {
                    // Each step takes some hundred instructions, and one more for some of the other objects.
                    callgrind.instructions(|| (0..count).for_each(|_| steps(100 + count / search)))
                };
                catch_unwind(AssertUnwindSafe(|| callgrind.check_linear("steps", 110, measure))).is_ok()
            };
            assert!(check(usize::MAX));
            assert!(!check(32));
        });
    }

    #[test]
    #[should_panic(expected = "did not run")]
    fn a_test_that_does_not_run_fails() {
        run_again("no such test");
    }

    #[test]
    #[should_panic(expected = "counted nothing")]
    fn a_test_that_counts_nothing_fails() {
        run_again("callgrind::tests::a_closure_has_the_name_of_its_test");
    }

    #[test]
    #[should_panic(expected = "under valgrind")]
    fn a_test_that_fails_inside_fails() {
        // Inside, the panic has another text, so that the inner test fails.
        counting(|_| panic!("inside"));
    }
}
