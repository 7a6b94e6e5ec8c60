//! Prints what each row costs, beside the first of its table.
//!
//! Rows take turns, and ratios are taken within a round: a neighbour's burst of work hits few rounds. Allocations are
//! counted by a program of their own, so that the counting weighs on no time.

use std::collections::HashMap;
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use peers::{JOBS, Job, Run};

// Of each row in each round.
const BATCH: Duration = Duration::from_millis(4);
const ROUNDS: usize = 31;

fn main() {
    let counts = counts();
    for (at, job) in JOBS.iter().enumerate() {
        println!("\n{}\n", job.name);
        println!("| {:32} | allocations |   bytes | computed |       ns | ratio |", "");
        println!("|{:-<34}|------------:|--------:|---------:|---------:|------:|", "");
        for ((name, _), (nanos, ratio)) in job.rows.iter().zip(times(job)) {
            let [count, bytes, computed] = counts[&(at, (*name).to_owned())];
            let computed = if computed > 0.0 { computed.to_string() } else { String::new() };
            println!(
                "| {name:32} | {count:>11.2} | {bytes:>7.0} | {computed:>8} | {nanos:>8.0} | {ratio:>5.2} |"
            );
        }
    }
}

fn counts() -> HashMap<(usize, String), [f64; 3]> {
    let program = std::env::current_exe().expect("this program").with_file_name("allocations");
    let output = Command::new(program).output().expect("the program that counts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| fields[at].parse::<f64>().expect("a number");
        ((number(0) as usize, fields[1].to_owned()), [number(2), number(3), number(4)])
    };
    String::from_utf8(output.stdout).expect("text").lines().map(line).collect()
}

fn times(job: &Job) -> Vec<(f64, f64)> {
    let mut runs: Vec<(Run, u64)> = job
        .rows
        .iter()
        .map(|(_, make)| {
            let mut run = make();
            let times = calibrate(&mut run);
            (run, times)
        })
        .collect();
    let rounds: Vec<Vec<f64>> = (0..ROUNDS)
        .map(|_| {
            let time = |(run, times): &mut (Run, u64)| {
                let start = Instant::now();
                run(black_box(*times));
                start.elapsed().as_nanos() as f64 / *times as f64
            };
            runs.iter_mut().map(time).collect()
        })
        .collect();
    (0..runs.len())
        .map(|row| {
            let nanos = median(rounds.iter().map(|round| round[row]));
            (nanos, median(rounds.iter().map(|round| round[row] / round[0])))
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

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
