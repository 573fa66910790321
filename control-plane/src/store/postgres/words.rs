//! Messages between replicas in NOTIFY payloads: a line with the sender's id, then lines of messages.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use policy::{Epoch, Revision};

use super::{Server, Session};
use crate::store::replicas::{Untold, Word};
use crate::store::sql::{NONE, Sql, SqlError, params};

/// The channel of the messages.
pub(super) const CHANNEL: &str = "latchkey_words";

/// PostgreSQL takes payloads of less than 8,000 bytes.
const MAX_BYTES: usize = 7_900;

/// How long to wait between attempts while the server is unreachable, and how long to collect wrong tokens before they
/// are sent.
const STEP: Duration = Duration::from_millis(100);

/// Messages to send: only the newest of each instance.
#[derive(Default)]
struct Waiting {
    applied: HashMap<String, (Epoch, Revision)>,
    again: bool,
    /// Wrong tokens by address.
    guesses: HashMap<IpAddr, u32>,
}

/// Starts the thread that sends messages. It ends when the sending side of `words` is dropped.
pub(in crate::store) fn speak(
    server: Arc<Server>,
    me: String,
    words: Receiver<Word>,
    untold: Arc<Untold>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("store-speaker".to_owned()).spawn(move || {
        let (mut waiting, mut session, mut gathered_at) = (Waiting::default(), None, Instant::now());
        loop {
            match words.recv_timeout(STEP) {
                Ok(word) => waiting.add(word),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            words.try_iter().for_each(|word| waiting.add(word));
            if gathered_at.elapsed() >= STEP && waiting.guesses.is_empty() {
                (waiting.guesses, gathered_at) = (untold.take(), Instant::now());
            }
            if waiting.is_empty() {
                continue;
            }
            // What can't be sent now is sent with later messages.
            if said(&server, &mut session, &waiting.payloads(&me)).is_ok() {
                waiting = Waiting::default();
            } else {
                session = None;
            }
        }
    })
}

fn said(server: &Server, session: &mut Option<Session>, payloads: &[String]) -> Result<(), SqlError> {
    let session = match session {
        Some(session) => session,
        None => session.insert(server.connect()?),
    };
    let payloads = serde_json::to_string(payloads).map_err(|_| SqlError::Fault("words can't be written"))?;
    // One transaction that writes nothing, so it doesn't wait for the disk.
    let notify = "SELECT pg_notify(?1, said) IS NULL FROM json_array_elements_text(CAST(?2 AS json)) AS said";
    Sql::Postgres(session).prepare(notify)?.query_map(params![CHANNEL, payloads], |_| Ok(())).map(drop)
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.guesses.is_empty() && !self.again
    }

    fn add(&mut self, word: Word) {
        match word {
            Word::Applied { instance, epoch, revision } => {
                self.applied.insert(instance, (epoch, revision));
            }
            Word::SayAgain => self.again = true,
        }
    }

    fn payloads(&self, me: &str) -> Vec<String> {
        let mut by_revision: HashMap<(Epoch, Revision), Vec<&str>> = HashMap::new();
        for (instance, at) in &self.applied {
            by_revision.entry(*at).or_default().push(instance);
        }
        let mut payloads = Payloads { me, done: Vec::new(), open: None };
        if self.again {
            payloads.add("again", "");
        }
        for ((epoch, revision), instances) in by_revision {
            let head = format!("applied {epoch} {revision}");
            instances.into_iter().for_each(|instance| payloads.add(&head, instance));
        }
        let mut by_number: HashMap<u32, Vec<IpAddr>> = HashMap::new();
        for (of, number) in &self.guesses {
            by_number.entry(*number).or_default().push(*of);
        }
        for (number, addresses) in by_number {
            let head = format!("wrong {number}");
            addresses.into_iter().for_each(|of| payloads.add(&head, &of.to_string()));
        }
        payloads.done.extend(payloads.open.map(|(text, _)| text));
        payloads.done
    }
}

/// Builds payloads.
struct Payloads<'a> {
    me: &'a str,
    done: Vec<String>,
    /// The last payload, and how its last line begins.
    open: Option<(String, String)>,
}

impl Payloads<'_> {
    /// Adds an item to a line that begins with `head`.
    fn add(&mut self, head: &str, item: &str) {
        let full = |(text, _): &(String, String)| {
            text.len().saturating_add(head.len()).saturating_add(item.len()).saturating_add(2) > MAX_BYTES
        };
        if let Some((text, _)) = self.open.take_if(|open| full(open)) {
            self.done.push(text);
        }
        let (text, last) = self.open.get_or_insert_with(|| (self.me.to_owned(), String::new()));
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
pub(super) fn read(payload: &str, me: &str) -> Vec<Word> {
    lines(payload, me).flat_map(words).collect()
}

/// Like [`read`], for the wrong tokens that another replica counted, by address.
pub(super) fn guesses(payload: &str, me: &str) -> Vec<(IpAddr, u32)> {
    lines(payload, me).flat_map(wrong).collect()
}

/// The message lines of a payload; none if this replica sent it.
fn lines<'a>(payload: &'a str, me: &str) -> impl Iterator<Item = &'a str> {
    let mut lines = payload.lines();
    let is_another = lines.next().is_some_and(|from| from != me);
    lines.filter(move |_| is_another)
}

fn wrong(line: &str) -> Vec<(IpAddr, u32)> {
    let mut parts = line.split_ascii_whitespace();
    match (parts.next(), parts.next().map(str::parse)) {
        (Some("wrong"), Some(Ok(number))) => {
            parts.filter_map(|address| address.parse().ok()).map(|of| (of, number)).collect()
        }
        _ => Vec::new(),
    }
}

fn words(line: &str) -> Vec<Word> {
    let mut parts = line.split_ascii_whitespace();
    match parts.next() {
        Some("again") => vec![Word::SayAgain],
        Some("applied") => {
            let (epoch, revision) = (parts.next().map(str::parse), parts.next().map(str::parse));
            let (Some(Ok(epoch)), Some(Ok(revision))) = (epoch, revision) else { return Vec::new() };
            let applied = |id: &str| Word::Applied { instance: id.to_owned(), epoch, revision: Revision(revision) };
            parts.map(applied).collect()
        }
        Some(_) | None => Vec::new(),
    }
}

/// Subscribes to the messages.
pub(super) fn listen(session: &Session) -> Result<(), SqlError> {
    session.execute_batch(&format!("LISTEN {CHANNEL}"))?;
    // From here on nothing is missed; what was sent before is requested again.
    Sql::Postgres(session).query_row("SELECT 1", NONE, |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(instance: &str, revision: u64) -> Word {
        let epoch = Epoch::from_bytes([7; 16]);
        Word::Applied { instance: instance.to_owned(), epoch, revision: Revision(revision) }
    }

    fn sorted(mut words: Vec<Word>) -> Vec<String> {
        words.sort_by_key(|word| format!("{word:?}"));
        words.into_iter().map(|word| format!("{word:?}")).collect()
    }

    #[test]
    fn messages_of_any_length_are_received() {
        let mut words: Vec<_> = (0..1_000).map(|number| applied(&format!("instance-{number}"), number % 3)).collect();
        words.push(Word::SayAgain);
        let mut waiting = Waiting::default();
        words.iter().cloned().for_each(|word| waiting.add(word));
        let payloads = waiting.payloads("a");
        assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.len() <= MAX_BYTES));
        let heard = |me: &str| payloads.iter().flat_map(|payload| read(payload, me)).collect::<Vec<_>>();
        assert_eq!(sorted(heard("b")), sorted(words));
        assert_eq!(heard("a"), [], "its own");
    }

    #[test]
    fn only_the_newest_revision_of_an_instance_is_sent() {
        let mut waiting = Waiting::default();
        for revision in [1, 3] {
            waiting.add(applied("i", revision));
        }
        let heard: Vec<_> = waiting.payloads("a").iter().flat_map(|payload| read(payload, "b")).collect();
        assert_eq!(heard, [applied("i", 3)]);
    }

    #[test]
    fn wrong_tokens_are_sent_by_address_in_any_number() {
        let told: HashMap<_, _> = (0..1_000_u32).map(|n| (IpAddr::from(n.to_be_bytes()), n % 3)).collect();
        let waiting = Waiting { guesses: told.clone(), ..Waiting::default() };
        let payloads = waiting.payloads("a");
        assert!(payloads.len() < 4 && payloads.iter().all(|payload| payload.len() <= MAX_BYTES));
        let heard = |me: &str| payloads.iter().flat_map(|payload| guesses(payload, me)).collect::<Vec<_>>();
        assert_eq!(heard("b").into_iter().collect::<HashMap<_, _>>(), told);
        assert_eq!(heard("a"), [], "its own");
        assert!(payloads.iter().all(|payload| read(payload, "b").is_empty()));
        for payload in ["x\nwrong 1 elsewhere", "x\nwrong many ::1", "x\nwrong -1 ::1", "x\nwrong ::1", "wrong 1 ::1"] {
            assert_eq!(guesses(payload, "b"), [], "{payload}");
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
            assert_eq!(read(&payload, "b"), [], "{payload}");
        }
    }
}
