//! Counts allocations: a line for each row, `job`, `row`, allocations, bytes and most computations of an operation.

use std::sync::atomic::Ordering;

use peers::{JOBS, MOST_COMPUTED};

const TIMES: u64 = 500;

fn main() {
    for (at, job) in JOBS.iter().enumerate() {
        for (name, make) in job.rows {
            let mut run = make();
            run(TIMES);
            MOST_COMPUTED.store(0, Ordering::Relaxed);
            let info = allocation_counter::measure(|| run(TIMES));
            let each = |sum: u64| sum as f64 / TIMES as f64;
            let computed = MOST_COMPUTED.load(Ordering::Relaxed);
            println!(
                "{at}\t{name}\t{}\t{}\t{computed}",
                each(info.count_total),
                each(info.bytes_total)
            );
        }
    }
}
