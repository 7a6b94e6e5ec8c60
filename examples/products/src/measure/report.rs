//! The table, and the same as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Page, Sample};
use crate::options::Measure;

pub(super) struct Measured {
    pub(super) page: Page,
    pub(super) before: Sample,
    pub(super) after: Sample,
}

pub(super) struct Report {
    measured: Vec<Measured>,
    connections: u16,
    seconds: f64,
    cache: String,
}

impl Measured {
    fn ratio(&self) -> f64 {
        self.after.per_second() / self.before.per_second()
    }
}

impl Report {
    pub(super) fn new(measured: Vec<Measured>, how: &Measure, cache: &str) -> Self {
        Report {
            measured,
            connections: how.connections,
            seconds: how.seconds,
            cache: cache.to_owned(),
        }
    }

    // Requests per second when everything is asked equally often: the slow ones take most of the time.
    fn overall(&self, side: impl Fn(&Measured) -> &Sample) -> f64 {
        let times = self.measured.iter().map(|measured| 1.0 / side(measured).per_second());
        self.measured.len() as f64 / times.sum::<f64>()
    }

    pub(super) fn table(&self) -> String {
        let mut rows = vec![
            ["page", "before req/s", "after req/s", "ratio", "p50 ms", "p99 ms"].map(str::to_owned),
        ];
        for measured in &self.measured {
            let (before, after) = (&measured.before, &measured.after);
            let both = |percent| {
                let (before, after) = (before.percentile_ms(percent), after.percentile_ms(percent));
                format!("{before:.2} → {after:.2}")
            };
            rows.push([
                measured.page.name.clone(),
                format!("{:.0}", before.per_second()),
                format!("{:.0}", after.per_second()),
                format!("{:.1}×", measured.ratio()),
                both(50),
                both(99),
            ]);
        }
        let (before, after) = (self.overall(|m| &m.before), self.overall(|m| &m.after));
        let ratio = format!("{:.1}×", after / before);
        let (before, after) = (format!("{before:.0}"), format!("{after:.0}"));
        rows.push(["equal parts of all".to_owned(), before, after, ratio, "".into(), "".into()]);

        // A Markdown table, so that it can be pasted.
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0)).collect();
        let mut table = String::new();
        for (at, row) in rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(table, "| {cell:<width$} "),
                    _ => write!(table, "| {cell:>width$} "),
                };
            }
            table.push_str("|\n");
            if at == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let _ = match column {
                        0 => write!(table, "| {:-<width$} ", ""),
                        _ => write!(table, "| {:->width$}:", "", width = width),
                    };
                }
                table.push_str("|\n");
            }
        }
        let _ = write!(
            table,
            "\n{} connections, {} s each, cache: {}, {} cores shared by server and client",
            self.connections,
            self.seconds,
            self.cache,
            cores()
        );
        table
    }

    pub(super) fn json(&self) -> String {
        let side = |sample: &Sample| {
            json!({
                "requests": sample.requests(),
                "requests_per_second": sample.per_second(),
                "p50_ms": sample.percentile_ms(50),
                "p99_ms": sample.percentile_ms(99),
            })
        };
        let pages: Vec<Value> = self
            .measured
            .iter()
            .map(|measured| {
                json!({
                    "page": measured.page.name,
                    "paths": measured.page.paths.len(),
                    "first_path": measured.page.paths.first(),
                    "before": side(&measured.before),
                    "after": side(&measured.after),
                    "ratio": measured.ratio(),
                })
            })
            .collect();
        let (before, after) = (self.overall(|m| &m.before), self.overall(|m| &m.after));
        let report = json!({
            "cache": self.cache,
            "connections": self.connections,
            "seconds": self.seconds,
            "cores": cores(),
            "pages": pages,
            "overall": {
                "before_requests_per_second": before,
                "after_requests_per_second": after,
                "ratio": after / before,
            },
        });
        format!("{report:#}")
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
