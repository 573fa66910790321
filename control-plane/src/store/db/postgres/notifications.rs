//! Notifications between control planes (LISTEN, NOTIFY): of changes, and with messages.

use crate::store::db::sql::{NONE, Session, Sql, SqlError, params};

/// The channel on which changes are announced.
const CHANGES: &str = "latchkey";

/// The channel of the messages between replicas.
const MESSAGES: &str = "latchkey_words";

/// A notification that was received.
pub(crate) enum Notification<'a> {
    /// Something was committed.
    Change,
    /// Of messages between replicas.
    Message(&'a str),
}

impl<'a> Notification<'a> {
    pub(crate) fn of(channel: &str, payload: &'a str) -> Self {
        if channel == MESSAGES { Self::Message(payload) } else { Self::Change }
    }
}

/// Subscribes to changes and messages.
pub(crate) fn listen(session: &Session) -> Result<(), SqlError> {
    session.execute_batch(&format!("LISTEN {CHANGES}; LISTEN {MESSAGES}"))?;
    // From here on no message is missed. What was sent before is requested again.
    Sql::Postgres(session).query_row("SELECT 1", NONE, |_| Ok(()))
}

/// Notifies other replicas to read the database once this transaction is committed.
pub(crate) fn notify_change(sql: Sql<'_>) -> Result<(), SqlError> {
    sql.execute_batch(&format!("NOTIFY {CHANGES}"))
}

/// Notifies other replicas of a change, and commits it, in one message to the server.
pub(crate) fn commit_and_notify(sql: Sql<'_>) -> Result<(), SqlError> {
    sql.execute_batch(&format!("NOTIFY {CHANGES}; COMMIT"))
}

/// Sends messages, each of less than 8,000 bytes, in one transaction that writes nothing, so that it doesn't wait for
/// the disk.
pub(crate) fn send_messages(session: &Session, payloads: &[String]) -> Result<(), SqlError> {
    let payloads = serde_json::to_string(payloads).map_err(|_| SqlError::Fault("messages can't be serialized"))?;
    let notify = "SELECT pg_notify(?1, payload) IS NULL FROM json_array_elements_text(CAST(?2 AS json)) AS payload";
    Sql::Postgres(session).prepare(notify)?.query_map(params![MESSAGES, payloads], |_| Ok(())).map(drop)
}
