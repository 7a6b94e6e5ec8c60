//! Sentinels: they know which server is the primary, and choose another one when it is gone.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{address, command};
use crate::dial::{Address, Dialer};
use crate::link::Link;
use crate::outage::Why;

/// The sentinels of one primary. Any of them will do; one that has answered is asked first the next time.
pub(crate) struct Sentinels {
    dialer: Dialer,
    primary: String,
    // With the connection, if there is one. One question at a time: nobody but a node's keeper and a bus ask.
    sentinels: Mutex<Vec<(Address, Option<Arc<Link>>)>>,
}

impl Sentinels {
    /// How often it is asked whether the primary is still the same.
    pub(crate) const EVERY: Duration = Duration::from_secs(1);

    pub(crate) fn new(dialer: Dialer, addresses: Vec<Address>, primary: String) -> Self {
        let sentinels = addresses.into_iter().map(|address| (address, None)).collect();
        Sentinels { dialer, primary, sentinels: Mutex::new(sentinels) }
    }

    /// Where the primary is. All of them together have half the time that an attempt to connect has.
    pub(crate) async fn primary(&self) -> Result<Address, Why> {
        let mut sentinels = self.sentinels.lock().await;
        let share = self.dialer.connect_timeout / 2 / sentinels.len().max(1) as u32;
        let mut last = Why::closed();
        for at in 0..sentinels.len() {
            let (place, link) = &mut sentinels[at];
            match timeout(share, self.ask(place, link)).await {
                Ok(Ok(primary)) => {
                    let answered = sentinels.remove(at);
                    sentinels.insert(0, answered);
                    return Ok(primary);
                }
                Ok(Err(why)) => last = why,
                Err(_) => last = self.dialer.silence(),
            }
            sentinels[at].1 = None;
        }
        Err(Why { words: format!("no sentinel tells the primary: {}", last.words).into(), ..last })
    }

    async fn ask(&self, place: &Address, link: &mut Option<Arc<Link>>) -> Result<Address, Why> {
        let link = match link {
            Some(link) if !link.driver.is_finished() => link,
            _ => {
                let (opened, _) = Link::open(&self.dialer, place.clone(), 0).await?;
                link.insert(opened)
            }
        };
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &self.primary];
        match link.ask(command(&question)).await? {
            Value::Array(parts) => match &parts[..] {
                [Value::BulkString(host), Value::BulkString(port)] => {
                    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Why::garbled());
                    let port = text(port)?.parse().map_err(|_| Why::garbled())?;
                    Ok(address(text(host)?, port))
                }
                _ => Err(Why::garbled()),
            },
            Value::Nil => Err(Why::configuration(
                "it knows no primary of that name; check the first part of the URL's path, redis+sentinel://h1,h2,h3/NAME",
            )),
            Value::ServerError(error) if error.code() == "NOAUTH" => Err(Why::configuration(
                "it demands a password; give sentinel_user and sentinel_pass in the URL",
            )),
            Value::ServerError(_) => {
                Err(Why::configuration("it is no sentinel; give the addresses of the sentinels"))
            }
            _ => Err(Why::garbled()),
        }
    }
}
