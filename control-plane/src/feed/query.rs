//! The query of a feed request: who asks, from where on, and how long it may wait.

use std::borrow::Cow;
use std::time::Duration;

use policy::wire::FORMAT;
use policy::{Position, Revision};

use crate::edge_name;
use crate::edges::Bound;
use crate::problem::Problem;

/// The longest that a request waits.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// A request for changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The operator's name for the gateway.
    pub(super) edge: String,
    /// One process of it.
    pub(super) instance: String,
    /// What each worker of the instance's last acknowledgement has applied, of the position's epoch.
    pub(super) applied: Option<Revision>,
    /// Where the edge's table stands; `None` when it has none.
    pub(super) from: Option<Position>,
    pub(super) wait: Duration,
    /// How long the instance goes on deciding without an answer.
    pub(super) bound: Bound,
}

impl Asked {
    /// Reads a query. Parameters that aren't known are for newer control planes, and are left alone.
    pub(super) fn read(query: &str) -> Result<Self, Problem> {
        let parameters = Parameters(form_urlencoded::parse(query.as_bytes()).collect());
        // The format comes first: an edge with another one may well have other parameters.
        match parameters.one("format")? {
            Some(format) if format.parse() == Ok(FORMAT) => {}
            Some(_) => return Err(Problem::unknown_format(FORMAT)),
            None => return Err(Problem::bad_query("name the wire format: `format=1`")),
        }
        let from = match (parameters.one("epoch")?, parameters.one("since")?, parameters.one("head")?) {
            (Some(epoch), Some(since), Some(head)) => Some(Position {
                epoch: epoch.parse().map_err(|_| bad("epoch", "32 hexadecimal digits"))?,
                revision: Revision(since.parse().map_err(|_| bad("since", "a revision, a number"))?),
                head: head.parse().map_err(|_| bad("head", "64 hexadecimal digits"))?,
            }),
            (epoch, since, head) => {
                // Part of a position is none, but what is given must be right.
                epoch
                    .map(str::parse::<policy::Epoch>)
                    .transpose()
                    .map_err(|_| bad("epoch", "32 hexadecimal digits"))?;
                since.map(str::parse::<u64>).transpose().map_err(|_| bad("since", "a revision, a number"))?;
                head.map(str::parse::<policy::ChainHash>)
                    .transpose()
                    .map_err(|_| bad("head", "64 hexadecimal digits"))?;
                None
            }
        };
        let applied = parameters.one("applied")?.map(str::parse).transpose();
        let applied = applied.map_err(|_| bad("applied", "a revision, a number"))?.map(Revision);
        let staleness = match parameters.one("max_staleness")? {
            None | Some("null" | "never") => None,
            Some(secs) => {
                let secs = secs.parse::<u64>().ok().filter(|secs| *secs > 0);
                Some(secs.ok_or_else(|| bad("max_staleness", "whole seconds above 0, or `never`"))?)
            }
        };
        let wait = match parameters.one("wait")? {
            None => 0,
            Some(secs) => secs.parse::<u64>().map_err(|_| bad("wait", "whole seconds"))?,
        };
        Ok(Self {
            edge: parameters.name("edge")?,
            instance: parameters.name("instance")?,
            applied,
            from,
            wait: capped(wait, staleness),
            bound: staleness.map_or(Bound::Never, Bound::Secs),
        })
    }
}

/// At most 20 s, and at most a third of the staleness bound, so that two answers may be lost before an edge denies.
fn capped(wait_secs: u64, max_staleness_secs: Option<u64>) -> Duration {
    let third = max_staleness_secs.map_or(Duration::MAX, |secs| Duration::from_secs(secs) / 3);
    Duration::from_secs(wait_secs).min(MAX_WAIT).min(third)
}

fn bad(name: &str, expected: &str) -> Problem {
    Problem::bad_query(format!("`{name}` must be {expected}"))
}

struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Parameters<'_> {
    /// The value of a parameter that stands there at most once.
    fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_ref());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Problem::bad_query(format!("`{name}` stands there twice"))),
        }
    }

    fn name(&self, name: &str) -> Result<String, Problem> {
        let named = self.one(name)?.filter(|text| edge_name::fits(text)).map(str::to_owned);
        named.ok_or_else(|| bad(name, edge_name::EXPECTED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Asked, &'static str> {
        Asked::read(query).map_err(|problem| problem.code())
    }

    fn wait_ms(rest: &str) -> Result<u128, &'static str> {
        read(&format!("format=1&edge=e&instance=i&{rest}")).map(|asked| asked.wait.as_millis())
    }

    #[test]
    fn waiting_ends_before_an_edge_gets_stale() {
        for (rest, expected) in [
            ("x=1", Ok(0)),
            ("wait=0", Ok(0)),
            ("wait=5", Ok(5_000)),
            ("wait=20", Ok(20_000)),
            ("wait=21", Ok(20_000)),
            ("wait=18446744073709551615", Ok(20_000)),
            ("wait=20&max_staleness=10", Ok(3_333)),
            ("wait=2&max_staleness=10", Ok(2_000)),
            ("wait=20&max_staleness=86400", Ok(20_000)),
            ("wait=20&max_staleness=never", Ok(20_000)),
            ("wait=20&max_staleness=null", Ok(20_000)),
            ("wait=20&max_staleness=0", Err("bad-query")),
            ("wait=20&max_staleness=-1", Err("bad-query")),
            ("wait=soon", Err("bad-query")),
            ("wait=1&wait=2", Err("bad-query")),
        ] {
            assert_eq!(wait_ms(rest), expected, "{rest}");
        }
    }

    #[test]
    fn a_position_is_whole_or_none() {
        let (epoch, head) = ("0".repeat(32), "1".repeat(64));
        let who = "format=1&edge=e&instance=i";
        let from = read(&format!("{who}&epoch={epoch}&since=7&head={head}")).unwrap().from.unwrap();
        assert_eq!((from.epoch.to_string(), from.revision, from.head.to_string()), (epoch.clone(), Revision(7), head));
        assert_eq!(read(who).unwrap().from, None);
        assert_eq!(read(&format!("{who}&epoch={epoch}&since=7")).unwrap().from, None);
        for wrong in ["epoch=1", "since=-1", "since=x", "head=1"] {
            assert_eq!(read(&format!("{who}&{wrong}")).err(), Some("bad-query"), "{wrong}");
        }
    }

    #[test]
    fn whoever_asks_has_a_name_and_a_known_format() {
        for (query, code) in [
            ("format=1&edge=edge-1&instance=0af3", None),
            ("format=1&edge=edge-1", Some("bad-query")),
            ("format=1&instance=0af3", Some("bad-query")),
            ("format=1&edge=&instance=0af3", Some("bad-query")),
            ("format=1&edge=a/b&instance=0af3", Some("bad-query")),
            ("edge=edge-1&instance=0af3", Some("bad-query")),
            ("format=2&edge=edge-1&instance=0af3", Some("unknown-format")),
            ("format=x&edge=edge-1&instance=0af3", Some("unknown-format")),
        ] {
            assert_eq!(read(query).err(), code, "{query}");
        }
    }
}
