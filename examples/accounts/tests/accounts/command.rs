//! The command line, as the binary itself.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::browser::Service;

fn accounts(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_accounts"));
    command.args(args).stdin(Stdio::null());
    command
}

fn fails(args: &[&str], words: &[&str]) -> String {
    let output = accounts(args).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{args:?}");
    for words in words {
        assert!(error.contains(words), "{args:?} does not say {words:?}: {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
    error
}

#[test]
fn help_tells_of_every_option() {
    let output = accounts(&["--help"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for words in ["--sessions <URL>", "--listen <ADDR>", "--database <PATH>", "--https", "redis://"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn wrong_options_are_told_with_what_to_write_and_no_password_is_repeated() {
    fails(&["--sesions", "memory://"], &["unexpected argument '--sesions'", "--sessions"]);
    fails(&["--listen", "3000"], &["127.0.0.1:3001"]);
    fails(&["--database", "/nowhere/at/all.db", "--listen", "127.0.0.1:0"], &["--database PATH"]);
    for url in [
        "hunter2",
        "sqlite://user:hunter2@host/",
        "redis://user:hunter2@127.0.0.1:1/0",
        "memory://?max_bytes=hunter2",
        "failover:memory://?namespace=hunter2|memory://",
    ] {
        let error = fails(&["--sessions", url], &["--sessions", "memory://?max_bytes=32MiB"]);
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn one_command_starts_it_and_a_signal_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts.db");
    let mut command = accounts(&["--listen", "127.0.0.1:0", "--database", path.to_str().unwrap()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // Open to the end, since it goes on printing.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.by_ref().map(Result::unwrap).find(|line| line.contains("http://")).unwrap();
    let address = address.split("http://").nth(1).unwrap().split(' ').next().unwrap();
    assert!(std::net::TcpStream::connect(address).is_ok());
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success() && child.wait().unwrap().success());
    assert!(path.exists());
}

// The process, and where it listens.
#[cfg(unix)]
fn started(args: &[&str]) -> (Child, Arc<Service>) {
    let mut child = accounts(args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("http://")).unwrap();
    // It goes on printing.
    std::thread::spawn(move || lines.for_each(drop));
    let address = line.split("http://").nth(1).unwrap().split(' ').next().unwrap();
    (child, Arc::new(Service::at(format!("http://{address}"))))
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn d19_what_was_answered_before_a_signal_under_load_is_there_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("accounts.db").display().to_string();
    let sessions = format!("file://{}/sessions?namespace=accounts", folder.path().display());
    let args = ["--listen", "127.0.0.1:0", "--database", &database, "--sessions", &sessions];
    let (mut child, service) = started(&args);
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (service, answered) = (service.clone(), answered.clone());
        clients.spawn(async move {
            loop {
                let mut browser = service.browser("one");
                let token = browser.get("/cart").await.token();
                let page = browser.post("/cart", &[("token", &token), ("item", "Teapot")]).await;
                assert_eq!(page.status, 303);
                answered.lock().unwrap().push(browser.cookie.unwrap());
            }
        });
    }
    let enough = async {
        while answered.lock().unwrap().len() < 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), enough).await.unwrap();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    // Each of them ends with a connection that is refused.
    while let Some(client) = clients.join_next().await {
        assert!(client.is_err());
    }
    assert!(child.wait().unwrap().success());

    let (mut child, service) = started(&args);
    let answered = std::mem::take(&mut *answered.lock().unwrap());
    assert!(answered.len() >= 50);
    for cookie in answered {
        let mut browser = service.browser("one");
        browser.cookie = Some(cookie);
        browser.get("/cart").await.says("<td>Teapot</td><td>1</td>");
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}
