//! Running cases: what their operations cost, as a table.

use std::collections::HashMap;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Case, Run, SIZES, served};

/// A bench program's rows.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// What `src/bin/allocations.rs` calls it.
    pub name: &'static str,
    /// The rows.
    pub cases: &'static [Case],
    /// The row that the others are compared with.
    pub baseline: &'static str,
    /// Rows of whole requests.
    pub served: &'static [served::Case],
}

// Of each case in each round, so that a neighbour's burst of work hits few rounds.
const BATCH: Duration = Duration::from_millis(4);
const ROUNDS: usize = 31;

// Operations of the two runs whose difference is counted.
const FEW: u64 = 500;
const MANY: u64 = 2500;

/// A bench program: without arguments it measures, with `--spin` or `--serve` it is what is measured.
///
/// `allocations` is the program that counts allocations. Arguments that are no options choose the rows whose names
/// contain one of them.
#[allow(clippy::print_stdout)]
pub fn main(suite: Suite, allocations: &str) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--spin", name, size, times] => {
            let (size, times) = (number(size), number(times) as u64);
            let case = suite.cases.iter().find(|case| case.name == name).expect("a case");
            (case.make)(size)(times);
        }
        ["--serve", name, size, connections] => {
            let case = suite.served.iter().find(|case| case.name == name).expect("a case");
            served::serve(case, number(size), number(connections));
        }
        _ => {
            let wanted = |name: &str| {
                let mut chosen = arguments.iter().filter(|word| !word.starts_with("--")).peekable();
                chosen.peek().is_none() || chosen.any(|word| name.contains(word))
            };
            let callgrind = has_valgrind();
            if !callgrind {
                println!("valgrind is not in PATH: instructions are not counted.");
            }
            measure(suite, allocations, callgrind, &wanted);
            if callgrind && !suite.served.is_empty() {
                whole_requests(suite, &wanted);
            }
        }
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

#[allow(clippy::print_stdout)]
fn measure(suite: Suite, allocations: &str, callgrind: bool, wanted: &dyn Fn(&str) -> bool) {
    let cases: Vec<&Case> =
        suite.cases.iter().filter(|c| c.name == suite.baseline || wanted(c.name)).collect();
    let allocated = count_allocations(allocations, suite.name);
    for size in SIZES {
        let times = interleaved(&cases, size, suite.baseline);
        let instructions: Vec<Option<u64>> = cases
            .iter()
            .map(|case| callgrind.then(|| instructions("--spin", case.name, size, spin)))
            .collect();
        let baseline = cases.iter().position(|case| case.name == suite.baseline);
        let floor = baseline.and_then(|at| instructions[at]);
        println!("\n{} KiB", size / 1024);
        println!(
            "| {:32} | allocations |   bytes | instructions | x base |       ns | x base |",
            ""
        );
        println!(
            "|{:-<34}|------------:|--------:|-------------:|-------:|---------:|-------:|",
            ""
        );
        for ((case, time), counted) in cases.iter().zip(times).zip(instructions) {
            let (count, bytes) = allocated[&(case.name.to_owned(), size)];
            let counted_text =
                counted.map_or("no valgrind".to_owned(), |counted| counted.to_string());
            let ratio = counted.zip(floor).map_or(String::new(), |(counted, floor)| {
                format!("{:.2}", counted as f64 / floor as f64)
            });
            println!(
                "| {:32} | {count:>11.2} | {bytes:>7.0} | {counted_text:>12} | {ratio:>6} | {:>8.0} | {:>6.2} |",
                case.name, time.nanos, time.ratio,
            );
        }
    }
}

struct Timed {
    nanos: f64,
    ratio: f64,
}

// One batch of each case in turn, many times over. Ratios are taken within a round.
fn interleaved(cases: &[&Case], size: usize, baseline: &str) -> Vec<Timed> {
    let mut runs: Vec<(Run, u64)> = cases
        .iter()
        .map(|case| {
            let mut run = (case.make)(size);
            let times = calibrate(&mut run);
            (run, times)
        })
        .collect();
    let rounds: Vec<Vec<f64>> = (0..ROUNDS)
        .map(|_| {
            runs.iter_mut()
                .map(|(run, times)| {
                    let start = Instant::now();
                    run(black_box(*times));
                    start.elapsed().as_nanos() as f64 / *times as f64
                })
                .collect()
        })
        .collect();
    let base = cases.iter().position(|case| case.name == baseline).expect("a baseline");
    (0..cases.len())
        .map(|case| Timed {
            nanos: median(rounds.iter().map(|round| round[case])),
            ratio: median(rounds.iter().map(|round| round[case] / round[base])),
        })
        .collect()
}

fn calibrate(run: &mut Run) -> u64 {
    let mut times = 16;
    loop {
        let start = Instant::now();
        run(times);
        if start.elapsed() >= BATCH {
            return times;
        }
        times *= 2;
    }
}

/// The middle one.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn count_allocations(program: &str, suite: &str) -> HashMap<(String, usize), (f64, f64)> {
    let output = Command::new(program).arg(suite).output().expect("the counting program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .map(|line| {
            let mut fields = line.split('\t');
            let mut next = || fields.next().expect("four fields");
            let key = (next().to_owned(), number(next()));
            let mut float = || next().parse::<f64>().expect("a number");
            (key, (float(), float()))
        })
        .collect()
}

fn has_valgrind() -> bool {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// This program under callgrind.
pub(crate) fn under_callgrind(mode: &str, name: &str, size: usize, last: usize) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program's path"))
        .args([mode, name, &size.to_string(), &last.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The instructions that callgrind says it collected.
pub(crate) fn collected(stderr: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().find(|line| line.contains("Collected :"));
    let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("callgrind collected nothing:\n{text}"))
}

// What one operation takes: the difference of two runs, so that neither start nor warm-up counts.
fn instructions(
    mode: &str,
    name: &str,
    size: usize,
    run: impl Fn(&str, &str, usize, u64) -> u64,
) -> u64 {
    (run(mode, name, size, MANY) - run(mode, name, size, FEW)) / (MANY - FEW)
}

fn spin(mode: &str, name: &str, size: usize, times: u64) -> u64 {
    let output = under_callgrind(mode, name, size, times as usize).output().expect("valgrind");
    collected(&output.stderr)
}

#[allow(clippy::print_stdout)]
fn whole_requests(suite: Suite, wanted: &dyn Fn(&str) -> bool) {
    println!("\nWhole requests through hyper (HTTP/1.1, 64 connections), 1 KiB");
    println!("| {:32} | instructions | x base |", "");
    println!("|{:-<34}|-------------:|-------:|", "");
    let mut base = None;
    for case in suite.served.iter().filter(|case| case.baseline || wanted(case.name)) {
        let counted = instructions("--serve", case.name, SIZES[0], served::count);
        let base = *base.get_or_insert(counted);
        println!("| {:32} | {counted:>12} | {:>6.2} |", case.name, counted as f64 / base as f64);
    }
}
