//! Schemas of requests and of enumerations in responses, for the OpenAPI document.
//!
//! Handlers parse fields one by one, so that one response reports all errors; these types describe what they parse.

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// A workspace to create.
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

/// The level of access in a scope; write includes read.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum ScopeLevel {
    Read,
    Write,
}

/// A key to create. One of `expires_in` and `expires_at` is required.
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
    /// One of the operator's; the first by default. The secret's text contains it.
    #[schema(nullable = false)]
    environment: Option<String>,
    /// At most 4 KiB as JSON.
    #[schema(value_type = Object, nullable = false)]
    metadata: Option<serde_json::Value>,
}

/// A key of another system, by the digest of its secret. One of `expires_in` and `expires_at` is required.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct ImportKey {
    /// SHA-256 of the secret's text: 64 hexadecimal digits, or base64, optionally with the prefix `sha256:`.
    #[schema(pattern = "^(sha256:)?([0-9A-Fa-f]{64}|[0-9A-Za-z+/_-]{43}=?)$")]
    digest: String,
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Id or slug. Required if the path has none; otherwise it may be left out.
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
    /// The secret's last characters, to tell keys apart; `null`, the default, if they aren't known.
    #[schema(max_length = 4)]
    last_characters: Option<String>,
}

/// What to do with lines of an import whose key has expired.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum ExpiredLines {
    Refuse,
    Skip,
}

/// Which keys to change: those that meet all given conditions, at least one. Each is as in the list of keys.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct MatchingKeys {
    /// Whether to list those keys only, and change nothing.
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
    /// How long the old secret keeps working: `30m`, `12h`, `7d`, at most 7 days. Left out or `null`: not at all.
    #[schema(pattern = "^[0-9]+[mhd]$")]
    overlap: Option<String>,
    /// Replace only the current secret, at once, and leave a previous one in its overlap: if the response to a rotation
    /// was lost. Not with `overlap`.
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

/// An admin token to create.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct CreateAdminToken {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    role: RoleName,
    /// Id or slug, for the roles of a workspace. A workspace admin may leave it out.
    workspace: Option<String>,
    /// By default a token expires with the one that created it. At most one of this and `expires_at`.
    #[schema(nullable = false)]
    expires_in: Option<Lifetime>,
    #[schema(format = DateTime, nullable = false)]
    expires_at: Option<String>,
}

/// An edge token to create.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct CreateEdgeToken {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    edge: String,
}

/// The state of an instance with regard to a revision.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum EdgeState {
    /// Connected, and each worker has applied it.
    Current,
    /// Connected, and some worker hasn't acknowledged it.
    Behind,
    /// Without a request for more than 30 s.
    Disconnected,
    /// Without contact for longer than its staleness bound: it denies all requests.
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

/// What a text belongs to.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum IdentifiedKind {
    Key,
    AdminToken,
    EdgeToken,
}

/// The status of a secret (the first four) or of a token (the others).
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

/// The kind of an actor.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(super) enum ActorKind {
    System,
    TokenFile,
    AdminToken,
}

/// Who made a change.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct Actor {
    kind: ActorKind,
    /// The same as in `created_by`.
    id: String,
    name: String,
}

/// The workspace, key, token or instance that was changed.
#[derive(ToSchema)]
#[schema(as = Target)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct AuditTarget {
    kind: String,
    id: String,
    name: String,
}

/// A change, as the audit log records it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct AuditEvent {
    revision: u64,
    #[schema(format = DateTime)]
    at: String,
    actor: Actor,
    action: String,
    #[schema(required)]
    target: Option<AuditTarget>,
    #[schema(required)]
    workspace_id: Option<String>,
    /// The changed fields as they were; `null` if the target was created.
    #[schema(value_type = Option<Object>, required)]
    before: Option<serde_json::Value>,
    /// The changed fields as they are now; `null` if the target was removed.
    #[schema(value_type = Option<Object>, required)]
    after: Option<serde_json::Value>,
    /// The client's address.
    #[schema(required)]
    address: Option<String>,
    #[schema(required)]
    request_id: Option<String>,
    /// SHA-256 of the hash of the previous event, the revision (8 bytes, little-endian) and the event without its hash.
    hash: String,
}

/// A body without fields.
#[derive(ToSchema)]
pub(super) struct Nothing {}

/// The order of a list of keys; `-` is descending.
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

/// The order of a list of events; `-` is descending.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) enum AuditSort {
    #[schema(rename = "at")]
    Oldest,
    #[schema(rename = "-at")]
    Newest,
}

/// The health of the control plane.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct Health {
    status: String,
}
