//! Reading an outbox, and waiting for more.

use std::fmt;
use std::time::Duration;

use larder_core::{Error, ErrorKind, Result, Tag};
use tokio::time::timeout;

use super::{Outbox, told};
use crate::database::{Argument, Cell, Database};
use crate::failure::Failure;

/// Up to where an outbox was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    home: String,
    at: String,
}

impl Position {
    /// One that was kept: where it belongs to, and what [`at`](Position::at) said. What makes no sense is found out when it
    /// is used, and has everything dropped.
    pub fn kept(home: &str, at: &str) -> Self {
        Position { home: home.to_owned(), at: at.to_owned() }
    }

    /// Which outbox of which server it belongs to. Nobody is to take it apart.
    pub fn home(&self) -> &str {
        &self.home
    }

    /// What is to be kept.
    pub fn at(&self) -> &str {
        &self.at
    }
}

/// What was noted since a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// These tags, each once.
    Tags(Vec<Tag>),
    /// Nobody knows what: the position was lost or pruned, a table was truncated, or it is too much.
    Everything,
}

/// What a reading of an outbox found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What is to be invalidated.
    pub changed: Changed,
    /// Where to go on, once that is done and the position is [settled](Listening::settle).
    pub position: Position,
}

/// A connection that follows an outbox; made by [`Outbox::listen`]. After an error it is of no more use.
pub struct Listening<D: Database> {
    ear: D::Ear,
    outbox: Outbox<D>,
    home: String,
}

impl<D: Database> Listening<D> {
    pub(super) async fn new(ear: D::Ear, outbox: Outbox<D>) -> Result<Self> {
        let mut listening = Listening { ear, outbox, home: String::new() };
        listening.home = listening.read(None).await?.position.home;
        Ok(listening)
    }

    /// Which outbox of which server it is: positions of any other are not for this one.
    pub fn home(&self) -> &str {
        &self.home
    }

    /// Reads what was noted since then. Without a position that is everything.
    ///
    /// # Errors
    ///
    /// Those of the database: [`Configuration`](ErrorKind::Configuration) when the outbox is missing.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, connect again.
    pub async fn read(&mut self, since: Option<&Position>) -> Result<News> {
        let known = since.and_then(|position| D::arguments(&position.at));
        let intact = known.is_some();
        let statement = D::read_statement(&self.outbox.name, MOST_TAGS);
        let rows = self.fetch(statement, known.unwrap_or_else(D::nowhere)).await?;
        let (mut home, mut at, mut tags, mut everything) = (None, None, Vec::new(), !intact);
        everything |= rows.len() > MOST_TAGS;
        for row in &rows {
            let (Some(Cell::Integer(kind)), Some(words)) = (row.first(), row.get(1)) else {
                continue;
            };
            match (kind, words.text()) {
                (0, Some(words)) => home = Some(words.to_owned()),
                (1, Some(words)) => at = Some(words.to_owned()),
                (2, Some("")) | (3, _) => everything = true,
                // Nothing can carry what is no tag.
                (2, Some(tag)) => tags.extend(Tag::new(tag).ok()),
                _ => {}
            }
        }
        let (Some(home), Some(at)) = (home.filter(|home| !home.is_empty()), at) else {
            let words = "an outbox is followed on the server that is written to, not on a standby";
            return Err(Error::new(ErrorKind::Unavailable, words).with_backend(D::NAME));
        };
        everything |= since.is_none_or(|since| since.home != home);
        let changed = if everything { Changed::Everything } else { Changed::Tags(tags) };
        Ok(News { changed, position: Position { home, at } })
    }

    /// Waits until there may be something new, but no longer than that: then it is good to read all the same, which also
    /// shows whether the connection is still one.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn wait(&mut self, limit: Duration) -> Result<()> {
        match timeout(limit, D::wake(&mut self.ear)).await {
            Ok(woken) => woken.map_err(|failure| failure.error),
            Err(_) => Ok(()),
        }
    }

    /// Waits until what was read has reached the server's disk. A position is to be used only then: a server that
    /// crashes can lose transactions that were not waited for (`synchronous_commit=off`), and gives their numbers to
    /// others.
    ///
    /// # Errors
    ///
    /// Those of the database.
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Listening::read).
    pub async fn settle(&mut self) -> Result<()> {
        match D::SETTLE {
            Some(statement) => self.fetch(statement.to_owned(), Vec::new()).await.map(drop),
            None => Ok(()),
        }
    }

    /// Removes what is [too old or too much](super#pruning).
    ///
    /// # Errors
    ///
    /// Those of the database.
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Listening::read).
    pub async fn prune(&mut self) -> Result<()> {
        let seconds =
            i64::try_from(self.outbox.keep.as_secs()).unwrap_or(i64::MAX / 2).min(100 * YEAR);
        let most = i64::try_from(self.outbox.keep_at_most).unwrap_or(i64::MAX);
        let arguments = vec![Argument::Integer(Some(seconds)), Argument::Integer(Some(most))];
        self.fetch(D::prune_statement(&self.outbox.name), arguments).await.map(drop)
    }

    async fn fetch(
        &mut self,
        statement: String,
        arguments: Vec<Argument>,
    ) -> Result<Vec<Vec<Cell>>> {
        let fetching = async {
            let connection = D::connection(&mut self.ear).await?;
            D::fetch(connection, statement.into(), &arguments).await
        };
        match timeout(self.outbox.limit, fetching).await {
            Ok(fetched) => fetched.map_err(|error| told::<D>(&error)),
            Err(_) => Err(Failure::late::<D>(true).error),
        }
    }
}

impl<D: Database> fmt::Debug for Listening<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").field("outbox", &self.outbox).finish_non_exhaustive()
    }
}

const YEAR: i64 = 366 * 24 * 60 * 60;

// As many at once are everything.
const MOST_TAGS: usize = 10_000;
