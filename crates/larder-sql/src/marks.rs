//! Sequences and tags.

use std::sync::Arc;

use larder_core::{Error, ErrorKind, Marks, Namespace, Result, Sequence, Tag};

use crate::database::{Argument, Database, Row};
use crate::naming::{self, SEQUENCE};
use crate::store::{Inner, OVERHEAD, list, text};

impl<D: Database> Inner<D> {
    /// Reads them; makes those that are missing, of another epoch, or were not asked for lately, and reads again.
    pub(crate) async fn marks(
        self: &Arc<Self>,
        namespace: &Namespace,
        tags: &[Tag],
    ) -> Result<Marks> {
        let names: Vec<String> = tags.iter().map(|tag| naming::tag(namespace, tag)).collect();
        let asked = || {
            let all = std::iter::once(SEQUENCE).chain(names.iter().map(|name| &**name));
            vec![text(namespace.as_str()), text(list(all))]
        };
        for _ in 0..ATTEMPTS {
            let statement = &self.statements.marks;
            let answer = self.reader.fetch(statement, asked(), true, self.deadline()).await?;
            let number = |name: &str| {
                let row = answer.rows.iter().find(|row| row[0].text() == Some(name))?;
                let number = row[1].integer().and_then(Sequence::from_i64)?;
                let age = row[3].integer()?.saturating_sub(row[2].integer()?);
                Some((number, age))
            };
            let Some((sequence, _)) = number(SEQUENCE) else {
                let arguments = vec![
                    text(namespace.as_str()),
                    Argument::Integer(Some(Sequence::start().get())),
                    Argument::Integer(Some(OVERHEAD)),
                ];
                self.write(&self.statements.make_sequence, arguments, true).await?;
                continue;
            };
            let mut numbers = Vec::with_capacity(names.len());
            let mut missing = Vec::new();
            for name in &names {
                match number(name) {
                    Some((number, age)) if number.same_epoch(sequence) => {
                        numbers.push(number);
                        if age > LATELY {
                            missing.push(&**name);
                        }
                    }
                    _ => missing.push(name),
                }
            }
            if missing.is_empty() {
                return Ok(Marks { sequence, tags: numbers });
            }
            missing.sort_unstable();
            missing.dedup();
            let arguments = vec![
                text(namespace.as_str()),
                text(list(missing.into_iter())),
                Argument::Integer(Some(OVERHEAD)),
            ];
            self.write(&self.statements.make_marks, arguments, true).await?;
        }
        let words =
            "the namespace's sequence is lost again and again; does somebody empty the table?";
        Err(Error::new(ErrorKind::Unavailable, words).with_backend(D::NAME))
    }

    /// What is bound to the statement that invalidates.
    pub(crate) fn invalidation(&self, namespace: &Namespace, tags: &[Tag]) -> Vec<Argument> {
        let mut names: Vec<String> = tags.iter().map(|tag| naming::tag(namespace, tag)).collect();
        names.sort_unstable();
        names.dedup();
        vec![
            text(namespace.as_str()),
            text(list(names.iter().map(|name| &**name))),
            Argument::Integer(Some(Sequence::start().get())),
            Argument::Integer(Some(OVERHEAD)),
        ]
    }
}

/// The number that an invalidation took.
pub(crate) fn number(rows: &[Row]) -> Result<Sequence> {
    let number = rows.first().and_then(|row| row[0].integer()).and_then(Sequence::from_i64);
    number.ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "the namespace's sequence is not one that Larder wrote")
    })
}

// A record that was used within a day needs no note that it is used.
const LATELY: i64 = 24 * 60 * 60 * 1000;

const ATTEMPTS: usize = 10;
