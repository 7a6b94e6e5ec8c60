//! Counts allocations: prints a line for each case and size, `name`, size, allocations and bytes of an operation.
//!
//! A realloc counts as one allocation of its new size.
#![allow(clippy::print_stdout)]

use larder_benches::{SIZES, WARM_UP, data, grpc, http, remote, sessions};

const TIMES: u64 = 1000;

fn main() {
    let suite = std::env::args().nth(1);
    let cases = match suite.as_deref() {
        Some("http") => http::CASES,
        Some("data") => data::CASES,
        Some("grpc") => grpc::CASES,
        Some("remote") => remote::CASES,
        Some("session") => sessions::CASES,
        _ => panic!("usage: allocations http|data|grpc|remote|session"),
    };
    for case in cases {
        for size in SIZES {
            let mut run = (case.make)(size);
            run(WARM_UP);
            let info = allocation_counter::measure(|| run(TIMES));
            let each = |sum: u64| sum as f64 / TIMES as f64;
            let (count, bytes) = (each(info.count_total), each(info.bytes_total));
            println!("{}\t{size}\t{count}\t{bytes}", case.name);
        }
    }
}
