//! Schemas of requests and of words in answers, for the OpenAPI document.
//!
//! Handlers read fields one by one, so that one answer reports all errors; these types describe what they read.

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// A workspace to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct CreateWorkspace {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    #[schema(pattern = "^[a-z][a-z0-9-]{1,38}$")]
    slug: String,
}

/// What to replace in a workspace.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct UpdateWorkspace {
    #[schema(min_length = 1, max_length = 100, nullable = false)]
    name: Option<String>,
}

/// How long a key or token lives.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) enum Lifetime {
    #[schema(rename = "none")]
    Endless,
    #[schema(rename = "1h")]
    Hour,
    #[schema(rename = "1d")]
    Day,
    #[schema(rename = "7d")]
    Days7,
    #[schema(rename = "30d")]
    Days30,
    #[schema(rename = "90d")]
    Days90,
    #[schema(rename = "180d")]
    Days180,
    #[schema(rename = "360d")]
    Days360,
}

/// How much of a scope's area; write includes read.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum ScopeLevel {
    Read,
    Write,
}

/// A key to be made. One of `expires_in` and `expires_at` is required.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct CreateKey {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    #[schema(nullable = false)]
    expires_in: Option<Lifetime>,
    #[schema(format = DateTime, nullable = false)]
    expires_at: Option<String>,
    /// Scopes of the operator's catalogue; none by default.
    #[schema(nullable = false)]
    scopes: Option<BTreeMap<String, ScopeLevel>>,
    /// Addresses and CIDR ranges that the key may be used from; `null`, the default, is any.
    #[schema(min_items = 1, max_items = 100)]
    ip_allowlist: Option<Vec<String>>,
    /// One of the operator's; the first by default. Stands in the secret's text.
    #[schema(nullable = false)]
    environment: Option<String>,
    /// At most 4 KiB as JSON.
    #[schema(value_type = Object, nullable = false)]
    metadata: Option<serde_json::Value>,
}

/// A key that somebody else made, by the digest of its secret. One of `expires_in` and `expires_at` is required.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct ImportKey {
    /// SHA-256 of the secret's text: 64 hexadecimal digits, or base64; `sha256:` may stand before it.
    #[schema(pattern = "^(sha256:)?([0-9A-Fa-f]{64}|[0-9A-Za-z+/_-]{43}=?)$")]
    digest: String,
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Id or slug. Required where the path names none; else it may be left out.
    #[schema(nullable = false)]
    workspace: Option<String>,
    #[schema(nullable = false)]
    expires_in: Option<Lifetime>,
    #[schema(format = DateTime, nullable = false)]
    expires_at: Option<String>,
    /// Scopes of the operator's catalogue; none by default.
    #[schema(nullable = false)]
    scopes: Option<BTreeMap<String, ScopeLevel>>,
    /// Addresses and CIDR ranges that the key may be used from; `null`, the default, is any.
    #[schema(min_items = 1, max_items = 100)]
    ip_allowlist: Option<Vec<String>>,
    /// One of the operator's; the first by default.
    #[schema(nullable = false)]
    environment: Option<String>,
    /// At most 4 KiB as JSON.
    #[schema(value_type = Object, nullable = false)]
    metadata: Option<serde_json::Value>,
    /// Whether it can be used; `true` by default.
    #[schema(nullable = false)]
    active: Option<bool>,
    /// Of the secret, to tell keys apart; `null`, the default, where they aren't known.
    #[schema(max_length = 4)]
    last_characters: Option<String>,
}

/// What becomes of lines of an import whose key has expired.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum ExpiredLines {
    Refuse,
    Skip,
}

/// Which keys to change: those for which all holds that is given, at least one condition. Each is as in the list of keys.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct MatchingKeys {
    /// Whether to say which keys those are, and change nothing.
    dry_run: bool,
    #[schema(nullable = false)]
    status: Option<KeyStatus>,
    #[schema(minimum = 1, maximum = 36500, nullable = false)]
    unused_days: Option<u32>,
    #[schema(minimum = 1, maximum = 36500, nullable = false)]
    unrotated_days: Option<u32>,
    #[schema(minimum = 1, maximum = 36500, nullable = false)]
    expiring_days: Option<u32>,
    #[schema(min_length = 1, max_length = 100, nullable = false)]
    name: Option<String>,
}

/// What to replace in a key; `metadata` is merged (RFC 7396), and `null` empties it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct UpdateKey {
    #[schema(min_length = 1, max_length = 100, nullable = false)]
    name: Option<String>,
    #[schema(nullable = false)]
    scopes: Option<BTreeMap<String, ScopeLevel>>,
    #[schema(min_items = 1, max_items = 100)]
    ip_allowlist: Option<Vec<String>>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
}

/// How to rotate.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct RotateKey {
    /// How long the old secret works on: `30m`, `12h`, `7d`, at most 7 days. Left out or `null`: not at all.
    #[schema(pattern = "^[0-9]+[mhd]$")]
    overlap: Option<String>,
    /// Replace the current secret alone, at once, and leave a previous one in its overlap: for who lost the answer to a
    /// rotation. Not with `overlap`.
    #[schema(nullable = false)]
    replace: Option<bool>,
}

/// A text that somebody found.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct IdentifySecret {
    #[schema(min_length = 1, max_length = 256)]
    secret: String,
}

/// What a token may do.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum RoleName {
    PlatformAdmin,
    WorkspaceAdmin,
    WorkspaceMember,
}

/// An admin token to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct CreateAdminToken {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    role: RoleName,
    /// Id or slug; goes with the roles of a workspace. A workspace admin may leave it out.
    workspace: Option<String>,
    /// By default a token ends when the one that made it does. At most one of this and `expires_at`.
    #[schema(nullable = false)]
    expires_in: Option<Lifetime>,
    #[schema(format = DateTime, nullable = false)]
    expires_at: Option<String>,
}

/// An edge token to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct CreateEdgeToken {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    edge: String,
}

/// What an instance is, as to a revision.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum EdgeState {
    /// Connected, and each worker has it.
    Current,
    /// Connected, and some worker hasn't said that it has it.
    Behind,
    /// Silent for more than 30 s.
    Disconnected,
    /// Silent for longer than its bound: it denies by itself.
    Stale,
}

/// Whether a key can be used.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum KeyStatus {
    Active,
    Inactive,
    Expired,
}

/// Whether a token can be used.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum TokenStatus {
    Active,
    Expired,
}

/// What a text is of.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum IdentifiedKind {
    Key,
    AdminToken,
    EdgeToken,
}

/// Where a text stands in its life: the first four are a key's, the others a token's.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum IdentifiedStatus {
    Current,
    Previous,
    RotatedOut,
    Deleted,
    Active,
    Expired,
    Revoked,
}

/// Who did something.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum ActorKind {
    System,
    TokenFile,
    AdminToken,
}

/// Who did something.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct Actor {
    kind: ActorKind,
    /// As in `created_by`.
    id: String,
    name: String,
}

/// What something was done to.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct Target {
    kind: String,
    id: String,
    name: String,
}

/// What a change was.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct AuditEvent {
    revision: u64,
    #[schema(format = DateTime)]
    at: String,
    actor: Actor,
    action: String,
    #[schema(required)]
    target: Option<Target>,
    #[schema(required)]
    workspace_id: Option<String>,
    /// Fields that differ, as they were; `null` for what was made.
    #[schema(value_type = Option<Object>, required)]
    before: Option<serde_json::Value>,
    /// Fields that differ, as they are; `null` for what is gone.
    #[schema(value_type = Option<Object>, required)]
    after: Option<serde_json::Value>,
    /// The other end of the connection.
    #[schema(required)]
    address: Option<String>,
    #[schema(required)]
    request_id: Option<String>,
    /// SHA-256 of the hash of the event before, the revision (8 bytes, little-endian) and the event without its hash.
    hash: String,
}

/// A body without fields.
#[derive(ToSchema)]
pub(super) struct Nothing {}

/// The order of a list of keys; `-` is downwards.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) enum KeySort {
    #[schema(rename = "created_at")]
    Oldest,
    #[schema(rename = "-created_at")]
    Newest,
    #[schema(rename = "name")]
    Name,
    #[schema(rename = "-name")]
    NameDescending,
}

/// The order of a list of events; `-` is downwards.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) enum AuditSort {
    #[schema(rename = "at")]
    Oldest,
    #[schema(rename = "-at")]
    Newest,
}

/// That the control plane is well.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct Health {
    status: String,
}
