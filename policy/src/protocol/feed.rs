//! The feed request: which instance sends it, from which position on, and how long the response may take.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::str::FromStr;

use super::{FEED_PATH, NAME_EXPECTED, is_name};
use crate::id::Epoch;
use crate::position::{ChainHash, Position, Revision};
use crate::wire::FORMAT;

/// A GET of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRequest<'a> {
    /// The operator's name for the gateway.
    pub edge: Cow<'a, str>,
    /// One Envoy process of that gateway.
    pub instance: Cow<'a, str>,
    /// How long the control plane may hold the request until there is a change, in seconds.
    pub wait_secs: u64,
    /// The longest that a worker decides without a confirmation from the control plane, in seconds; `None`: forever.
    pub max_staleness_secs: Option<u64>,
    /// The position of the edge's table; `None` requests a snapshot.
    pub position: Option<Position>,
    /// The revision of the position's epoch that every worker in the last acknowledgement has applied since.
    pub applied: Option<Revision>,
}

/// Why a query is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The edge reads another wire format than [`FORMAT`].
    #[error("another wire format")]
    Format,
    /// A sentence that names the parameter.
    #[error("{0}")]
    Parameter(String),
}

impl FeedRequest<'_> {
    /// The path and query that request this.
    pub fn path(&self) -> String {
        let Self { edge, instance, wait_secs, .. } = self;
        let mut path = format!("{FEED_PATH}?format={FORMAT}&edge={edge}&instance={instance}&wait={wait_secs}");
        // Writing to a text can't fail.
        if let Some(secs) = self.max_staleness_secs {
            let _ = write!(path, "&max_staleness={secs}");
        }
        if let Some(Position { epoch, revision, head }) = self.position {
            let _ = write!(path, "&epoch={epoch}&since={revision}&head={head}");
            if let Some(applied) = self.applied {
                let _ = write!(path, "&applied={applied}");
            }
        }
        path
    }

    /// Reads the decoded parameters of a query. The format is checked first: an edge with another format may have other
    /// parameters.
    pub fn read<'a>(
        parameters: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<FeedRequest<'static>, QueryError> {
        let parameters = Parameters(parameters.into_iter().collect());
        match parameters.one("format")? {
            Some(format) if format.parse() == Ok(FORMAT) => {}
            Some(_) => return Err(QueryError::Format),
            None => return Err(QueryError::Parameter(format!("name the wire format: `format={FORMAT}`"))),
        }
        let epoch = parameters.parsed::<Epoch>("epoch", "32 hexadecimal digits")?;
        let since = parameters.parsed("since", "a revision, a number")?.map(Revision);
        let head = parameters.parsed::<ChainHash>("head", "64 hexadecimal digits")?;
        // A part of a position is no position.
        let position = match (epoch, since, head) {
            (Some(epoch), Some(revision), Some(head)) => Some(Position { epoch, revision, head }),
            (_, _, _) => None,
        };
        let applied = parameters.parsed("applied", "a revision, a number")?.map(Revision);
        let max_staleness_secs = match parameters.one("max_staleness")? {
            None | Some("null" | "never") => None,
            Some(secs) => {
                let secs = secs.parse::<u64>().ok().filter(|secs| *secs > 0);
                Some(secs.ok_or_else(|| wrong("max_staleness", "whole seconds above 0, or `never`"))?)
            }
        };
        let wait_secs = parameters.parsed("wait", "whole seconds")?.unwrap_or_default();
        let (edge, instance) = (parameters.name("edge")?, parameters.name("instance")?);
        Ok(FeedRequest { edge, instance, wait_secs, max_staleness_secs, position, applied })
    }
}

fn wrong(name: &str, expected: &str) -> QueryError {
    QueryError::Parameter(format!("`{name}` must be {expected}"))
}

struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Parameters<'_> {
    /// The value of a parameter that may be given once.
    fn one(&self, name: &str) -> Result<Option<&str>, QueryError> {
        let mut values = self.0.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_ref());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(QueryError::Parameter(format!("`{name}` is given twice"))),
        }
    }

    fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, QueryError> {
        self.one(name)?.map(str::parse).transpose().map_err(|_| wrong(name, expected))
    }

    fn name(&self, name: &str) -> Result<Cow<'static, str>, QueryError> {
        let named = self.one(name)?.filter(|text| is_name(text)).map(|text| Cow::Owned(text.to_owned()));
        named.ok_or_else(|| wrong(name, NAME_EXPECTED))
    }
}
