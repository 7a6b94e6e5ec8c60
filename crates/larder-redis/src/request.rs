//! What is sent: commands that travel together.

use larder_core::Error;
use redis::{Cmd, Pipeline, cmd};

use crate::reply::ambiguous;
use crate::scripts::Script;

/// Whether a request may be sent a second time when it is not known whether the server has carried it out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Yes,
    No,
}

/// Commands that travel together.
pub(crate) struct Request {
    pub(crate) commands: Pipeline,
    // Which of them call a script.
    pub(crate) scripts: Vec<(usize, &'static Script)>,
    // So many at the start change nothing: they do not forbid to send the rest again.
    pub(crate) harmless: usize,
    pub(crate) again: Again,
}

/// Why a request brought no replies.
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// It was handed to a connection: the server may have carried it out.
    pub(crate) sent: bool,
    /// The time limit is used up.
    pub(crate) late: bool,
}

impl Request {
    pub(crate) fn new(again: Again) -> Self {
        Request { commands: Pipeline::new(), scripts: Vec::new(), harmless: 0, again }
    }

    pub(crate) fn command(&mut self, command: Cmd) {
        self.commands.add_command(command);
    }

    /// Adds one that changes nothing, or nothing that matters; before all others.
    pub(crate) fn harmless(&mut self, command: Cmd) {
        debug_assert_eq!(self.harmless, self.commands.len());
        self.commands.add_command(command);
        self.harmless += 1;
    }

    /// Adds a call of a script.
    pub(crate) fn script<'a>(
        &mut self,
        script: &'static Script,
        names: &[impl AsRef<str>],
        arguments: impl IntoIterator<Item = &'a [u8]>,
    ) {
        let mut command = cmd("EVALSHA");
        command.arg(&script.hash).arg(names.len());
        for name in names {
            command.arg(name.as_ref());
        }
        for argument in arguments {
            command.arg(argument);
        }
        self.scripts.push((self.commands.len(), script));
        self.commands.add_command(command);
    }

    pub(crate) fn len(&self) -> usize {
        self.commands.len()
    }
}

impl Failure {
    pub(crate) fn before(error: Error) -> Self {
        Failure { error, sent: false, late: false }
    }

    // For what cannot be asked again: it was sent, and nobody knows.
    pub(crate) fn in_doubt(self) -> Error {
        if self.sent { ambiguous() } else { self.error }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}
