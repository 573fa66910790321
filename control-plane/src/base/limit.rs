//! A limit from the operator's file.

/// A limit: a change or a connection beyond it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name in the operator's file.
    pub name: &'static str,
    pub maximum: u64,
}
