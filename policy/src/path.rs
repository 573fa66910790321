//! The one reading of a request's path: it passes only if every plausible upstream reads it as Envoy matched it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A spelling that upstreams read in different ways, and that an operator may admit all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// `;`, or `%3b`: parameters of a segment.
    Semicolon,
    /// `%2f` and `%5c`.
    EncodedSlash,
    /// `%61`, `%2d`: a character that needs no escape. Never a dot.
    EncodedUnreserved,
    /// `//`.
    DoubleSlash,
    /// `%3f` and `%23`.
    EncodedQuery,
}

/// How an edge reads paths: `paths` of the plugin configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// What is admitted beyond paths that can be read in one way only. Dot segments under any reading never are.
    pub allow: BTreeSet<PathKind>,
}
