//! How far it is: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::options::Measure;

pub(super) struct Progress {
    kind: Kind,
    steps: usize,
    begun: std::cell::Cell<usize>,
}

enum Kind {
    Bar(ProgressBar),
    Lines,
}

impl Progress {
    pub(super) fn new(steps: usize, how: &Measure) -> Self {
        let seconds = (how.seconds * 1.2).min(how.seconds + 0.5) * steps as f64;
        eprintln!("Measuring for about {seconds:.0} seconds, {} connections", how.connections);
        let kind =
            if std::io::stderr().is_terminal() { Kind::Bar(bar(steps)) } else { Kind::Lines };
        Progress { kind, steps, begun: 0.into() }
    }

    /// Another part begins.
    pub(super) fn step(&self, words: &str) {
        let before = self.begun.replace(self.begun.get() + 1);
        match &self.kind {
            Kind::Bar(bar) => {
                bar.set_position(before as u64);
                bar.set_message(words.to_owned());
            }
            Kind::Lines => eprintln!("[{}/{}] {words}", before + 1, self.steps),
        }
    }

    pub(super) fn done(self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

fn bar(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    // The template is a literal; should it be wrong, the plain style does.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:32} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
