//! Messages between replicas in NOTIFY payloads: a line with the sender's id, then lines of messages.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use policy::{Epoch, Revision};

use crate::store::db::postgres::Server;
use crate::store::db::postgres::notifications::send_messages;
use crate::store::db::sql::{Session, SqlError};
use crate::store::replicas::{PendingAuthFailures, ReplicaMessage};

/// PostgreSQL accepts payloads of less than 8,000 bytes.
const MAX_BYTES: usize = 7_900;

/// How long to wait between attempts while the server is unreachable, and how long to collect wrong tokens before they
/// are sent.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(100);

/// Messages that are still to be sent: only the newest of each instance.
#[derive(Default)]
struct PendingMessages {
    applied: HashMap<String, (Epoch, Revision)>,
    resend_requested: bool,
    /// Wrong tokens by address.
    auth_failures: HashMap<IpAddr, u32>,
}

/// Starts the thread that sends messages. It ends when the sending side of `messages` is dropped.
pub(crate) fn start_sender(
    server: Arc<Server>,
    own_id: String,
    messages: Receiver<ReplicaMessage>,
    pending_auth_failures: Arc<PendingAuthFailures>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("store-sender".to_owned()).spawn(move || {
        let (mut pending, mut session, mut collected_at) = (PendingMessages::default(), None, Instant::now());
        loop {
            match messages.recv_timeout(RECEIVE_TIMEOUT) {
                Ok(message) => pending.add(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            messages.try_iter().for_each(|message| pending.add(message));
            if collected_at.elapsed() >= RECEIVE_TIMEOUT && pending.auth_failures.is_empty() {
                (pending.auth_failures, collected_at) = (pending_auth_failures.take(), Instant::now());
            }
            if pending.is_empty() {
                continue;
            }
            // What can't be sent now is sent with later messages.
            if send_payloads(&server, &mut session, &pending.payloads(&own_id)).is_ok() {
                pending = PendingMessages::default();
            } else {
                session = None;
            }
        }
    })
}

fn send_payloads(server: &Server, session: &mut Option<Session>, payloads: &[String]) -> Result<(), SqlError> {
    let session = match session {
        Some(session) => session,
        None => session.insert(server.connect()?),
    };
    send_messages(session, payloads)
}

impl PendingMessages {
    fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.auth_failures.is_empty() && !self.resend_requested
    }

    fn add(&mut self, message: ReplicaMessage) {
        match message {
            ReplicaMessage::Applied { instance, epoch, revision } => {
                self.applied.insert(instance, (epoch, revision));
            }
            ReplicaMessage::ResendRequest => self.resend_requested = true,
        }
    }

    fn payloads(&self, own_id: &str) -> Vec<String> {
        let mut by_revision: HashMap<(Epoch, Revision), Vec<&str>> = HashMap::new();
        for (instance, at) in &self.applied {
            by_revision.entry(*at).or_default().push(instance);
        }
        let mut payloads = Payloads { own_id, full: Vec::new(), open: None };
        if self.resend_requested {
            payloads.add("again", "");
        }
        for ((epoch, revision), instances) in by_revision {
            let head = format!("applied {epoch} {revision}");
            instances.into_iter().for_each(|instance| payloads.add(&head, instance));
        }
        let mut by_number: HashMap<u32, Vec<IpAddr>> = HashMap::new();
        for (address, number) in &self.auth_failures {
            by_number.entry(*number).or_default().push(*address);
        }
        for (number, addresses) in by_number {
            let head = format!("wrong {number}");
            addresses.into_iter().for_each(|address| payloads.add(&head, &address.to_string()));
        }
        payloads.full.extend(payloads.open.map(|(text, _)| text));
        payloads.full
    }
}

/// Packs message lines into as few payloads as possible.
struct Payloads<'a> {
    own_id: &'a str,
    full: Vec<String>,
    /// The last payload, and how its last line begins.
    open: Option<(String, String)>,
}

impl Payloads<'_> {
    /// Adds an item to a line that begins with `head`.
    fn add(&mut self, head: &str, item: &str) {
        let is_full = |(text, _): &(String, String)| {
            text.len().saturating_add(head.len()).saturating_add(item.len()).saturating_add(2) > MAX_BYTES
        };
        if let Some((text, _)) = self.open.take_if(|open| is_full(open)) {
            self.full.push(text);
        }
        let (text, last) = self.open.get_or_insert_with(|| (self.own_id.to_owned(), String::new()));
        if last != head {
            text.push('\n');
            text.push_str(head);
            head.clone_into(last);
        }
        text.push(' ');
        text.push_str(item);
    }
}

/// The messages of another replica. Skips this replica's own, and what can't be parsed.
pub(crate) fn parse_messages(payload: &str, own_id: &str) -> Vec<ReplicaMessage> {
    foreign_lines(payload, own_id).flat_map(parse_message_line).collect()
}

/// Like [`parse_messages`], for the wrong tokens that another replica counted, by address.
pub(crate) fn parse_auth_failures(payload: &str, own_id: &str) -> Vec<(IpAddr, u32)> {
    foreign_lines(payload, own_id).flat_map(parse_auth_failure_line).collect()
}

/// The message lines of a payload; none if this replica sent it.
fn foreign_lines<'a>(payload: &'a str, own_id: &str) -> impl Iterator<Item = &'a str> {
    let mut lines = payload.lines();
    let is_foreign = lines.next().is_some_and(|sender| sender != own_id);
    lines.filter(move |_| is_foreign)
}

fn parse_auth_failure_line(line: &str) -> Vec<(IpAddr, u32)> {
    let mut parts = line.split_ascii_whitespace();
    match (parts.next(), parts.next().map(str::parse)) {
        (Some("wrong"), Some(Ok(number))) => {
            parts.filter_map(|address| address.parse().ok()).map(|address| (address, number)).collect()
        }
        _ => Vec::new(),
    }
}

fn parse_message_line(line: &str) -> Vec<ReplicaMessage> {
    let mut parts = line.split_ascii_whitespace();
    match parts.next() {
        Some("again") => vec![ReplicaMessage::ResendRequest],
        Some("applied") => {
            let (epoch, revision) = (parts.next().map(str::parse), parts.next().map(str::parse));
            let (Some(Ok(epoch)), Some(Ok(revision))) = (epoch, revision) else { return Vec::new() };
            let applied =
                |id: &str| ReplicaMessage::Applied { instance: id.to_owned(), epoch, revision: Revision(revision) };
            parts.map(applied).collect()
        }
        Some(_) | None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(instance: &str, revision: u64) -> ReplicaMessage {
        let epoch = Epoch::from_bytes([7; 16]);
        ReplicaMessage::Applied { instance: instance.to_owned(), epoch, revision: Revision(revision) }
    }

    fn sorted(mut messages: Vec<ReplicaMessage>) -> Vec<String> {
        messages.sort_by_key(|message| format!("{message:?}"));
        messages.into_iter().map(|message| format!("{message:?}")).collect()
    }

    #[test]
    fn messages_of_any_length_are_received() {
        let mut messages: Vec<_> =
            (0..1_000).map(|number| applied(&format!("instance-{number}"), number % 3)).collect();
        messages.push(ReplicaMessage::ResendRequest);
        let mut pending = PendingMessages::default();
        messages.iter().cloned().for_each(|message| pending.add(message));
        let payloads = pending.payloads("a");
        assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.len() <= MAX_BYTES));
        let received =
            |own_id: &str| payloads.iter().flat_map(|payload| parse_messages(payload, own_id)).collect::<Vec<_>>();
        assert_eq!(sorted(received("b")), sorted(messages));
        assert_eq!(received("a"), [], "its own");
    }

    #[test]
    fn only_the_newest_revision_of_an_instance_is_sent() {
        let mut pending = PendingMessages::default();
        for revision in [1, 3] {
            pending.add(applied("i", revision));
        }
        let received: Vec<_> = pending.payloads("a").iter().flat_map(|payload| parse_messages(payload, "b")).collect();
        assert_eq!(received, [applied("i", 3)]);
    }

    #[test]
    fn wrong_tokens_are_sent_by_address_in_any_number() {
        let counted: HashMap<_, _> = (0..1_000_u32).map(|n| (IpAddr::from(n.to_be_bytes()), n % 3)).collect();
        let pending = PendingMessages { auth_failures: counted.clone(), ..PendingMessages::default() };
        let payloads = pending.payloads("a");
        assert!(payloads.len() < 4 && payloads.iter().all(|payload| payload.len() <= MAX_BYTES));
        let received =
            |own_id: &str| payloads.iter().flat_map(|payload| parse_auth_failures(payload, own_id)).collect::<Vec<_>>();
        assert_eq!(received("b").into_iter().collect::<HashMap<_, _>>(), counted);
        assert_eq!(received("a"), [], "its own");
        assert!(payloads.iter().all(|payload| parse_messages(payload, "b").is_empty()));
        for payload in ["x\nwrong 1 elsewhere", "x\nwrong many ::1", "x\nwrong -1 ::1", "x\nwrong ::1", "wrong 1 ::1"] {
            assert_eq!(parse_auth_failures(payload, "b"), [], "{payload}");
        }
    }

    #[test]
    fn malformed_messages_are_ignored() {
        let epoch = Epoch::from_bytes([7; 16]);
        for payload in [
            String::new(),
            "x".to_owned(),
            "x\nshout i".to_owned(),
            format!("x\napplied {epoch}"),
            format!("x\napplied {epoch} many i"),
            "x\napplied 07 1 i".to_owned(),
            format!("x\napplied {epoch} 1"),
            format!("x\napplied {epoch} -1 i"),
        ] {
            assert_eq!(parse_messages(&payload, "b"), [], "{payload}");
        }
    }
}
