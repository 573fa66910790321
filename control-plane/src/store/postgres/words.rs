//! What replicas say to each other, in NOTIFY's payloads: a line for each word, after one that names who speaks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use policy::{Epoch, Revision};

use super::{Server, Session};
use crate::store::replicas::Word;
use crate::store::sql::{NONE, Sql, SqlError, params};

/// Where words are said.
pub(super) const CHANNEL: &str = "latchkey_words";

/// PostgreSQL takes payloads of less than 8,000 bytes.
const MAX_BYTES: usize = 7_900;

/// How long to wait between attempts while the server is away.
const STEP: Duration = Duration::from_millis(100);

/// Words that wait: of each instance the newest.
#[derive(Default)]
struct Waiting {
    applied: HashMap<String, (Epoch, Revision)>,
    again: bool,
}

/// Starts the thread that speaks. It ends with the other end of `words`.
pub(in crate::store) fn speak(
    server: Arc<Server>,
    me: String,
    words: Receiver<Word>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("store-speaker".to_owned()).spawn(move || {
        let (mut waiting, mut session) = (Waiting::default(), None);
        loop {
            let next = if waiting.is_empty() { words.recv().map_err(Into::into) } else { words.recv_timeout(STEP) };
            match next {
                Ok(word) => waiting.add(word),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            words.try_iter().for_each(|word| waiting.add(word));
            // What can't be said now is said with what comes later.
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
    for payload in payloads {
        let notify = "SELECT pg_notify(?1, ?2) IS NULL";
        Sql::Postgres(session).query_row(notify, params![CHANNEL, payload.as_str()], |_| Ok(()))?;
    }
    Ok(())
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.applied.is_empty() && !self.again
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
        payloads.done.extend(payloads.open.map(|(text, _)| text));
        payloads.done
    }
}

/// Payloads that are being put together.
struct Payloads<'a> {
    me: &'a str,
    done: Vec<String>,
    /// The last, and how its last line begins.
    open: Option<(String, String)>,
}

impl Payloads<'_> {
    /// One more item of a line that begins with `head`.
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

/// What another replica said; nothing of this one's own words, nor of what can't be read.
pub(super) fn read(payload: &str, me: &str) -> Vec<Word> {
    let mut lines = payload.lines();
    if lines.next().is_none_or(|from| from == me) {
        return Vec::new();
    }
    lines.flat_map(words).collect()
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

/// Listens to what is said.
pub(super) fn listen(session: &Session) -> Result<(), SqlError> {
    session.execute_batch(&format!("LISTEN {CHANNEL}"))?;
    // Nothing that was said before this is missed without being asked for.
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
    fn what_is_said_is_heard_whatever_its_length() {
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
    fn of_an_instance_the_newest_is_said() {
        let mut waiting = Waiting::default();
        for revision in [1, 3] {
            waiting.add(applied("i", revision));
        }
        let heard: Vec<_> = waiting.payloads("a").iter().flat_map(|payload| read(payload, "b")).collect();
        assert_eq!(heard, [applied("i", 3)]);
    }

    #[test]
    fn what_nobody_says_is_not_heard() {
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
