//! Sends requests: each command to the node that has its names, all of them at the same time, and again where that is
//! right.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use larder_core::envelope::TimeBase;
use larder_core::{Error, Result};
use redis::{Cmd, Pipeline, Value, cmd};
use tokio::time::{Instant, sleep};

use crate::NAME;
use crate::config::Builder;
use crate::dial::Transport;
use crate::layout::Layout;
use crate::node::Node;
use crate::outage::Why;
use crate::reply::{garbled, misdirected, refusal};
use crate::request::{Again, Failure, Replies, Reply, Request, Values};
use crate::topology::Topology;

pub(crate) struct Client {
    topology: Topology,
    pub(crate) connect_timeout: Duration,
    pub(crate) login: redis::RedisConnectionInfo,
}

impl Client {
    pub(crate) fn new(builder: &Builder) -> Self {
        Client {
            topology: Topology::new(builder),
            connect_timeout: builder.connect_timeout,
            login: builder.login.info(0),
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.topology.layout()
    }

    /// The lowest slot of each primary: where to scan.
    pub(crate) fn slots(&self) -> Vec<u16> {
        self.topology.slots()
    }

    /// The server's time, there where a slot is; `None` before it was reached for the first time.
    pub(crate) fn base(&self, slot: u16) -> Option<TimeBase> {
        self.topology.shard(slot).ok()?.primary.time().base()
    }

    /// Which connection leads to a slot: what was learned over an earlier one may no longer hold.
    pub(crate) fn connection(&self, slot: u16) -> u64 {
        self.topology.shard(slot).map_or(0, |shard| shard.primary.latest())
    }

    /// Which server has a slot: a number that the same one has in every process.
    pub(crate) fn server(&self, slot: u16) -> u16 {
        self.topology.shard(slot).map_or(0, |shard| shard.primary.server())
    }

    /// Waits for the first attempt's outcome.
    pub(crate) async fn connected(&self) -> Result<()> {
        let connected = self.topology.connected().await;
        connected.map_err(|why| Error::new(why.kind, &*why.words).with_backend(NAME))
    }

    /// Waits for a connection to where a slot is, or tells why there is none.
    pub(crate) async fn reached(&self, slot: u16, deadline: Instant) -> Result<()> {
        let reached = async {
            self.topology.known(deadline).await?;
            self.topology.shard(slot)?.primary.reached(deadline).await
        };
        reached.await.map_err(|why| why.error(false))
    }

    /// How to log in there where a slot is, and which database to choose.
    pub(crate) fn login(&self, slot: u16) -> Result<redis::RedisConnectionInfo, Why> {
        Ok(self.topology.shard(slot)?.primary.login().clone())
    }

    /// Opens another connection to where a slot is.
    pub(crate) async fn dial(&self, slot: u16) -> Result<Box<dyn Transport>, Why> {
        self.topology.known(Instant::now() + self.connect_timeout).await?;
        self.topology.shard(slot)?.primary.dial().await
    }

    /// Sends a request and gives as many values as it has commands, or the first failure of any.
    pub(crate) async fn exchange(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<Vec<Value>, Failure> {
        match self.first(request, deadline).await {
            First::All(values) => Ok(values.into_vec()),
            First::Some(sent) => {
                Box::pin(self.rest(request, sent, deadline)).await.into_iter().collect()
            }
        }
    }

    /// Sends a request and gives as many replies as it has commands; a reply may be a server's error.
    ///
    /// Sends a command again, within the same time, when that is right: a server said that it is not the one to carry
    /// it out, or has forgotten the script that it calls, or the connection was lost and the request may be repeated.
    ///
    /// When the future is dropped, each command is carried out or not; its reply reaches nobody.
    pub(crate) async fn exchange_each(&self, request: &Request, deadline: Instant) -> Replies {
        match self.first(request, deadline).await {
            First::All(values) => values.into_iter().map(Ok).collect(),
            // Boxed like all that is rare: every request's future would else have room for it.
            First::Some(sent) => Box::pin(self.rest(request, sent, deadline)).await,
        }
    }

    // Sends all commands for the first time. Where there is but one node to send them to and it carried them out, which
    // is nearly always, there is nothing to keep account of.
    async fn first(&self, request: &Request, deadline: Instant) -> First {
        let steps = || (0..request.len()).map(Step::new).collect();
        let Some(node) = self.topology.only() else {
            return First::Some(Box::pin(self.round(request, steps(), deadline)).await);
        };
        match node.send(&request.commands, deadline).await {
            Ok(values) if !values.iter().any(|value| matches!(value, Value::ServerError(_))) => {
                First::All(values)
            }
            outcome => First::Some(sent(steps(), node, outcome)),
        }
    }

    // Goes on after the first time until each command has its last reply.
    async fn rest(&self, request: &Request, first: Vec<Sent>, deadline: Instant) -> Replies {
        let mut replies: Vec<Option<Reply>> = vec![None; request.len()];
        let mut pause = PAUSE;
        let mut sent = first;
        loop {
            let mut later = false;
            let mut open = Vec::new();
            for (mut step, node, reply) in sent {
                let next = step.after(&reply, request, &self.topology, node.as_deref());
                // What came first is the better answer when there is no time or connection for a second try.
                let place = &mut replies[step.index];
                let sent = reply.as_ref().err().is_none_or(|failure| failure.sent);
                if sent || place.is_none() {
                    *place = Some(reply);
                }
                match next {
                    Next::Done => {}
                    Next::Now => open.push(step),
                    Next::Later => {
                        later = true;
                        open.push(step);
                    }
                }
            }
            if open.is_empty() || Instant::now() + pause >= deadline {
                break;
            }
            if later {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            // A command may wait for those before it of the same slot.
            open.sort_unstable_by_key(|step| step.index);
            sent = self.round(request, open, deadline).await;
        }
        let replies = replies.into_iter();
        replies.map(|reply| reply.unwrap_or_else(|| Err(Failure::before(garbled())))).collect()
    }

    // Sends each command once, those of a node together.
    async fn round(&self, request: &Request, open: Vec<Step>, deadline: Instant) -> Vec<Sent> {
        let mut sent = Vec::with_capacity(open.len());
        let mut parts: Vec<Part> = Vec::new();
        let known = self.topology.known(deadline).await;
        for mut step in open {
            match known.clone().and_then(|()| self.node_of(request, &mut step)) {
                Err(why) => {
                    sent.push((step, None, Err(Failure::before(why.error(false)))));
                }
                Ok(node) => match parts.iter_mut().find(|part| Arc::ptr_eq(&part.node, &node)) {
                    Some(part) => part.steps.push(step),
                    None => parts.push(Part { node, steps: vec![step] }),
                },
            }
        }
        match parts.len() {
            0 => {}
            1 => sent.extend(parts.remove(0).send(request, deadline).await),
            _ => {
                let parts = parts.into_iter().map(|part| part.send(request, deadline));
                sent.extend(join_all(parts).await.into_iter().flatten());
            }
        }
        sent
    }

    fn node_of(&self, request: &Request, step: &mut Step) -> Result<Arc<Node>, Why> {
        match &step.asked {
            Some(node) => Ok(node.clone()),
            None => {
                let shard = self.topology.shard(request.slot(step.index))?;
                let may = request.again == Again::Read && step.index >= request.harmless;
                let replica = if may && !step.primary { shard.replica() } else { None };
                step.read = replica.is_some();
                Ok(replica.unwrap_or_else(|| shard.primary.clone()))
            }
        }
    }
}

type Sent = (Step, Option<Arc<Node>>, Reply);

// What came of sending all commands once.
enum First {
    // Each was carried out.
    All(Values),
    Some(Vec<Sent>),
}

// Commands for one node.
struct Part {
    node: Arc<Node>,
    steps: Vec<Step>,
}

impl Part {
    async fn send(self, request: &Request, deadline: Instant) -> Vec<Sent> {
        let Part { node, steps } = self;
        let mut deadline = deadline;
        if steps.iter().any(|step| step.read) {
            // The rest is for its primary, should it not answer.
            let now = Instant::now();
            deadline = now + deadline.saturating_duration_since(now) / 2;
        }
        let plain = steps.iter().all(|step| step.asked.is_none() && !step.sourced);
        let outcome = if plain && steps.len() == request.len() {
            node.send(&request.commands, deadline).await
        } else {
            node.send(&commands(request, &steps), deadline).await
        };
        sent(steps, &node, outcome)
    }
}

// Each command with its reply.
fn sent(steps: Vec<Step>, node: &Arc<Node>, outcome: Result<Values, Failure>) -> Vec<Sent> {
    let steps = steps.into_iter();
    match outcome {
        Err(failure) => {
            steps.map(|step| (step, Some(node.clone()), Err(failure.clone()))).collect()
        }
        Ok(values) => {
            let mut values = values.into_iter();
            let reply = |step: Step| {
                // Before it came the answer to `ASKING`.
                let skipped = usize::from(step.asked.is_some());
                let value = values.nth(skipped).ok_or_else(|| Failure::before(garbled()));
                (step, Some(node.clone()), value)
            };
            steps.map(reply).collect()
        }
    }
}

fn commands(request: &Request, steps: &[Step]) -> Pipeline {
    let mut commands = Pipeline::with_capacity(steps.len());
    let all: Vec<&Cmd> = request.commands.cmd_iter().collect();
    for step in steps {
        if step.asked.is_some() {
            commands.add_command(cmd("ASKING"));
        }
        let sourced = step.sourced.then(|| request.with_source(step.index)).flatten();
        commands.add_command(sourced.unwrap_or_else(|| all[step.index].clone()));
    }
    commands
}

// One command on its way.
struct Step {
    index: usize,
    // The node that a slot is moving to.
    asked: Option<Arc<Node>>,
    // A replica was asked.
    read: bool,
    // Only the primary is.
    primary: bool,
    // A script is sent with its source.
    sourced: bool,
    // It was sent again after a loss, or to a server that is not the one.
    repeated: bool,
    // How often it was sent on by a node of a cluster.
    hops: u32,
}

// What is to be done with a command after its reply.
enum Next {
    Done,
    Now,
    Later,
}

impl Step {
    fn new(index: usize) -> Self {
        Step {
            index,
            asked: None,
            read: false,
            primary: false,
            sourced: false,
            repeated: false,
            hops: 0,
        }
    }

    fn after(
        &mut self,
        reply: &Reply,
        request: &Request,
        topology: &Topology,
        node: Option<&Node>,
    ) -> Next {
        self.asked = None;
        if self.read && !matches!(reply, Ok(value) if !matches!(value, Value::ServerError(_))) {
            // Whatever is the matter with a replica, its primary may have the answer.
            self.primary = true;
            return Next::Now;
        }
        let value = match reply {
            Ok(value) => value,
            Err(failure) => {
                topology.doubt();
                let may = failure.sent && !failure.late && request.again != Again::No;
                return self.repeat(may);
            }
        };
        let Value::ServerError(error) = value else { return Next::Done };
        if error.code() == "NOSCRIPT" && !self.sourced {
            // It was not carried out before.
            self.sourced = true;
            return Next::Now;
        }
        if misdirected(value) && topology.layout() == Layout::Cluster {
            let (code, details) = (error.code(), error.details().unwrap_or_default());
            let Some(node) = node.filter(|_| matches!(code, "MOVED" | "ASK")) else {
                // It has no answer yet; the time limit ends this.
                topology.doubt();
                return Next::Later;
            };
            self.hops += 1;
            if self.hops > MOST_HOPS {
                return Next::Done;
            }
            let target = topology.redirected(node, details, code == "MOVED");
            return match (target, code) {
                (None, _) => Next::Done,
                (Some(target), "ASK") => {
                    self.asked = Some(target);
                    Next::Now
                }
                _ => Next::Now,
            };
        }
        self.repeat(refusal(value).is_some_and(|refusal| refusal.unfit))
    }

    fn repeat(&mut self, may: bool) -> Next {
        if !may || self.repeated {
            return Next::Done;
        }
        self.repeated = true;
        Next::Now
    }
}

// Maps of two nodes may contradict each other for a moment.
const MOST_HOPS: u32 = 8;

// Where a slot that is moving, or a cluster that is choosing, has no answer yet; doubled each time.
const PAUSE: Duration = Duration::from_millis(2);

const LONGEST_PAUSE: Duration = Duration::from_millis(50);
