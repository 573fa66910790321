//! Which of two rules lets more requests pass.

/// True if the rule `other` lets pass everything that `own` does, whatever the workspaces.
pub(super) fn is_rule_as_strict(own: &str, other: &str) -> bool {
    let ((own, own_level), (other, level)) = (scope_of(own), scope_of(other));
    match (own, other) {
        ("deny", _) | (_, "public") => true,
        ("public", _) => false,
        (_, "optional") => true,
        ("optional", _) => false,
        (_, "key") => true,
        _ => own == other && (own_level == level || own_level == "write" || level == "read"),
    }
}

/// A rule's scope and level; the level is empty if the method determines it.
fn scope_of(rule: &str) -> (&str, &str) {
    rule.split_once(':').unwrap_or((rule, ""))
}
