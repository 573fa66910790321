//! Which roles may do what: written down again, apart from the table that the control plane uses.

/// The roles that may call a route; an empty list: everybody, with a token or without.
pub(crate) type Roles = &'static [&'static str];

pub(crate) const EVERYBODY: Roles = &[];
pub(crate) const PLATFORM_ADMIN: Roles = &["platform_admin"];
pub(crate) const ADMINS: Roles = &["platform_admin", "workspace_admin"];
pub(crate) const READ_KEYS: Roles =
    &["platform_admin", "platform_viewer", "responder", "workspace_admin", "workspace_member"];
/// Deactivate, end an overlap, identify.
pub(crate) const RESPOND: Roles = &["platform_admin", "responder", "workspace_admin"];
pub(crate) const READ_AUDIT: Roles = &["platform_admin", "platform_viewer", "responder", "workspace_admin"];
pub(crate) const READ_WHOLE_AUDIT: Roles = &["platform_admin", "platform_viewer", "responder"];
pub(crate) const READ_ADMIN_TOKENS: Roles = &["platform_admin", "platform_viewer", "workspace_admin"];
pub(crate) const READ_EDGES: Roles =
    &["platform_admin", "platform_viewer", "responder", "edge_operator", "workspace_admin", "workspace_member"];
pub(crate) const READ_EDGE_TOKENS: Roles = &["platform_admin", "platform_viewer", "edge_operator"];
pub(crate) const MANAGE_EDGES: Roles = &["platform_admin", "edge_operator"];
pub(crate) const READ_METRICS: Roles = &["platform_admin", "platform_viewer", "edge_operator", "metrics"];

/// All roles, with the workspace that the test's token is bound to.
pub(crate) const ROLES: [(&str, Option<&str>); 7] = [
    ("platform_admin", None),
    ("platform_viewer", None),
    ("responder", None),
    ("edge_operator", None),
    ("metrics", None),
    ("workspace_admin", Some("acme")),
    ("workspace_member", Some("acme")),
];
