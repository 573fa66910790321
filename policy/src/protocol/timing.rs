//! Timeouts and intervals: every timing that two programs, or two workers, have to agree on.
//!
//! The assertions at the end are what "enforced" depends on. A timing that breaks one doesn't compile.

/// The longest that the control plane holds a feed request until there is a change, in seconds.
pub const MAX_WAIT_SECS: u64 = 20;

/// A feed request waits for at most this fraction of the staleness bound, so that two responses may be lost before an
/// edge denies.
pub const WAIT_PART_OF_BOUND: u64 = 3;

/// How much longer than the wait an answer may take, in milliseconds.
pub const ANSWER_GRACE_MS: u64 = 10_000;

/// How long after its last request an instance counts as connected, in seconds.
pub const INSTANCE_LEASE_SECS: u64 = 30;

/// The longest time between two acknowledgements of an instance, even if nothing has changed, in milliseconds.
pub const ACKNOWLEDGEMENT_HEARTBEAT_MS: u64 = 10_000;

/// How long an acknowledgement may take, in milliseconds.
pub const ACKNOWLEDGEMENT_TIMEOUT_MS: u64 = 5_000;

/// How often a worker reports usage, in milliseconds.
pub const USAGE_INTERVAL_MS: u64 = 10_000;

/// How long a batch of usage may take, in milliseconds. The control plane answers when it is on disk, and under load
/// commits many batches together.
pub const USAGE_TIMEOUT_MS: u64 = 30_000;

/// With a 503 whose `retry-after` is this or more, in seconds, the control plane has no place for another connection.
pub const CROWDED_RETRY_AFTER_SECS: u64 = 30;

/// The longest backoff of an edge after any other failure, in milliseconds.
pub const MAX_BACKOFF_MS: u64 = 2_000;
/// The longest backoff after a 503 with [`CROWDED_RETRY_AFTER_SECS`], in milliseconds.
pub const MAX_CROWDED_BACKOFF_MS: u64 = CROWDED_RETRY_AFTER_SECS * 1_000;

/// How long an instance that was connected when it was retired still counts, in milliseconds. Its waiting request gets
/// 410 immediately, and from then on it denies.
pub const RETIRING_MS: u64 = 3_000;

/// The minimum time in milliseconds before a retired instance sends its first request under a new id. Most retired
/// instances end within it; enforcement would have to wait for a new id that is never used again.
pub const RETIRED_PAUSE_MS: u64 = 6_000;

/// How often a worker renews its entry in the membership of its Envoy, and a leader its lease, in milliseconds.
pub const WORKER_HEARTBEAT_MS: u64 = 500;

/// A leader's lease that wasn't renewed for this long is free, in milliseconds.
pub const LEADER_LEASE_MS: u64 = 2_000;

/// How long a worker that serves requests leaves a free lease to a worker that doesn't, in milliseconds.
pub const LEASE_PATIENCE_MS: u64 = 200;

/// A worker without a heartbeat for this long, in milliseconds, checks for changes before each decision, until it has
/// renewed its entry.
pub const WORKER_LATE_MS: u64 = 2_000;

/// A worker without a heartbeat for this long, in milliseconds, is removed from the membership: enforcement no longer
/// waits for it.
pub const WORKER_GONE_MS: u64 = 4_000;

// An instance that only waits for changes stays connected: each wait and its answer end before its lease does.
const _: () = assert!(MAX_WAIT_SECS * 1_000 + ANSWER_GRACE_MS <= INSTANCE_LEASE_SECS * 1_000);
// Two acknowledgements may be lost before the lease ends.
const _: () = assert!(ACKNOWLEDGEMENT_HEARTBEAT_MS * 3 <= INSTANCE_LEASE_SECS * 1_000);
const _: () = assert!(ACKNOWLEDGEMENT_TIMEOUT_MS < ACKNOWLEDGEMENT_HEARTBEAT_MS);
// A worker that others have removed already distrusts its own table, at whatever moments the two read the clock.
const _: () = assert!(WORKER_LATE_MS * 2 <= WORKER_GONE_MS);
// Three heartbeats in a row may be late before a worker is.
const _: () = assert!(WORKER_HEARTBEAT_MS * 4 <= WORKER_LATE_MS);
const _: () = assert!(WORKER_HEARTBEAT_MS * 4 <= LEADER_LEASE_MS);
// A lease is taken over before the leader's entry is removed, so that the others are never without a leader for long.
const _: () = assert!(LEADER_LEASE_MS + LEASE_PATIENCE_MS < WORKER_GONE_MS);
// A worker that was suspended while its instance was retired distrusts its table before the instance stops counting.
const _: () = assert!(WORKER_LATE_MS < RETIRING_MS);
// An instance that is retired and then ends has time to do so before it would count under its new id.
const _: () = assert!(RETIRING_MS * 2 <= RETIRED_PAUSE_MS);
// After an outage an edge retries well before a lease ends.
const _: () = assert!(MAX_BACKOFF_MS * 2 <= INSTANCE_LEASE_SECS * 1_000);

/// How long to wait for a change under a staleness bound, in seconds; `None`: no bound.
pub const fn wait_secs(max_staleness_secs: Option<u64>) -> u64 {
    match max_staleness_secs {
        Some(bound) if bound / WAIT_PART_OF_BOUND < MAX_WAIT_SECS => bound / WAIT_PART_OF_BOUND,
        Some(_) | None => MAX_WAIT_SECS,
    }
}
