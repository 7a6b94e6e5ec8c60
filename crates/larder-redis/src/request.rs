//! What is sent: commands that travel together, each to where its names lie.

use larder_core::Error;
use redis::{Cmd, Pipeline, Value, cmd};
use smallvec::SmallVec;

use crate::reply::{ambiguous, copy};
use crate::scripts::Script;

/// Whether a request may be sent a second time when it is not known whether the server has carried it out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Yes,
    No,
    /// It may, and it only reads entries, each for itself: a replica may answer it too.
    Read,
}

/// Commands that travel together. Each stands for itself: those of one slot arrive in order.
pub(crate) struct Request {
    pub(crate) commands: Pipeline,
    // Where the names of each lie.
    slots: SmallVec<[u16; 4]>,
    // Which of them call a script.
    scripts: Vec<(usize, &'static Script)>,
    // So many at the start change nothing: they do not forbid to send the rest again.
    pub(crate) harmless: usize,
    pub(crate) again: Again,
}

/// What came of one command: a value, which may be a server's error.
pub(crate) type Reply = Result<Value, Failure>;

/// Of each command; mostly there is one.
pub(crate) type Replies = SmallVec<[Reply; 1]>;

/// The values of commands that were all carried out.
pub(crate) type Values = SmallVec<[Value; 1]>;

/// Why a command brought no reply.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// It was handed to a connection: the server may have carried it out.
    pub(crate) sent: bool,
    /// The time limit is used up.
    pub(crate) late: bool,
}

impl Request {
    pub(crate) fn new(again: Again) -> Self {
        Request {
            commands: Pipeline::new(),
            slots: SmallVec::new(),
            scripts: Vec::new(),
            harmless: 0,
            again,
        }
    }

    /// Adds a command whose names all lie in that slot.
    pub(crate) fn command(&mut self, slot: u16, command: Cmd) {
        self.commands.add_command(command);
        self.slots.push(slot);
    }

    /// Adds one that changes nothing, or nothing that matters; before all others.
    pub(crate) fn harmless(&mut self, slot: u16, command: Cmd) {
        debug_assert_eq!(self.harmless, self.commands.len());
        self.command(slot, command);
        self.harmless += 1;
    }

    /// Adds a call of a script.
    pub(crate) fn script<'a>(
        &mut self,
        slot: u16,
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
        self.command(slot, command);
    }

    pub(crate) fn len(&self) -> usize {
        self.commands.len()
    }

    pub(crate) fn slot(&self, index: usize) -> u16 {
        self.slots[index]
    }

    /// The call of a script with its source instead of its hash; `None` for a command that calls none.
    pub(crate) fn with_source(&self, index: usize) -> Option<Cmd> {
        let (_, script) = self.scripts.iter().find(|(place, _)| *place == index)?;
        let mut eval = cmd("EVAL");
        eval.arg(&script.source);
        let call = self.commands.cmd_iter().nth(index)?;
        for argument in call.args_iter().skip(2) {
            if let redis::Arg::Simple(bytes) = argument {
                eval.arg(bytes);
            }
        }
        Some(eval)
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

// An error is no value that can be copied; this one is told again, to each command that it met.
impl Clone for Failure {
    fn clone(&self) -> Self {
        Failure { error: copy(&self.error), sent: self.sent, late: self.late }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}
