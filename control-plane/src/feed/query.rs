//! The query of a feed request: what is refused, and how long the request may wait.

use std::time::Duration;

use policy::protocol::feed::{FeedRequest, QueryError};
use policy::protocol::timing::{MAX_WAIT_SECS, WAIT_PART_OF_BOUND};
use policy::wire::FORMAT;

use crate::web::problem::Problem;

/// Reads a query.
pub(super) fn read(query: &str) -> Result<FeedRequest<'static>, Problem> {
    FeedRequest::read(form_urlencoded::parse(query.as_bytes())).map_err(|error| match error {
        QueryError::Format => Problem::unknown_format(FORMAT),
        QueryError::Parameter(detail) => Problem::bad_query(detail),
    })
}

/// How long a request waits: at most [`MAX_WAIT_SECS`], and at most its part of the staleness bound.
pub(super) fn wait(request: &FeedRequest<'_>) -> Duration {
    let part = u32::try_from(WAIT_PART_OF_BOUND).unwrap_or(u32::MAX);
    let most = request.max_staleness_secs.map_or(Duration::MAX, |secs| Duration::from_secs(secs) / part);
    Duration::from_secs(request.wait_secs.min(MAX_WAIT_SECS)).min(most)
}

#[cfg(test)]
mod tests {
    use policy::Revision;

    use super::*;

    fn read(query: &str) -> Result<FeedRequest<'static>, &'static str> {
        super::read(query).map_err(|problem| problem.code())
    }

    fn wait_ms(rest: &str) -> Result<u128, &'static str> {
        read(&format!("format=1&edge=e&instance=i&{rest}")).map(|request| wait(&request).as_millis())
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
        let from = read(&format!("{who}&epoch={epoch}&since=7&head={head}")).unwrap().position.unwrap();
        assert_eq!((from.epoch.to_string(), from.revision, from.head.to_string()), (epoch.clone(), Revision(7), head));
        assert_eq!(read(who).unwrap().position, None);
        assert_eq!(read(&format!("{who}&epoch={epoch}&since=7")).unwrap().position, None);
        for wrong in ["epoch=1", "since=-1", "since=x", "head=1"] {
            assert_eq!(read(&format!("{who}&{wrong}")).err(), Some("bad-query"), "{wrong}");
        }
    }

    #[test]
    fn a_request_has_names_and_a_known_format() {
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
