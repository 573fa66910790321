//! What all routers share: the timeout of requests, and the responses when no route matches.

use std::pin::pin;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::{Instant, sleep_until};

use super::pace::Pace;
use super::problem::Problem;

/// The timeout of a REST request, without the time in which its client sends the body. The feed has its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the timeout is checked while a body arrives.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Longer timeouts, for routes that wait or process many keys.
const LONGER_TIMEOUTS: [(&str, Duration); 6] = [
    ("/v1/edges", Duration::from_secs(300)),
    ("/v1/enforcement", Duration::from_secs(90)),
    ("/v1/keys/import", Duration::from_secs(300)),
    ("/v1/workspaces/{workspace}/keys/import", Duration::from_secs(300)),
    ("/v1/workspaces/{workspace}/keys/deactivate-matching", Duration::from_secs(300)),
    ("/v1/workspaces/{workspace}/keys/delete-matching", Duration::from_secs(300)),
];

pub(crate) async fn unknown_path() -> Problem {
    Problem::unknown_path()
}

pub(crate) async fn method_not_allowed() -> Problem {
    Problem::method_not_allowed()
}

/// Answers 503 if a request takes too long. The time in which its client sends the body isn't counted: it has its own
/// deadlines.
pub(crate) async fn with_timeout(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let longer = LONGER_TIMEOUTS.iter().find(|(own, _)| route == Some(own)).map(|(_, limit)| *limit);
    let limit = longer.unwrap_or(REQUEST_TIMEOUT);
    let (pace, began) = (request.extensions().get::<Pace>().cloned(), Instant::now());
    let mut answer = pin!(next.run(request));
    loop {
        let now = Instant::now();
        let waited = pace.as_ref().map_or(Duration::ZERO, |pace| pace.waited(now));
        let until = began + limit + waited;
        if until <= now {
            return Problem::timeout().into_response();
        }
        // `until` moves with the clock while the request waits for its body.
        tokio::select! {
            answer = &mut answer => return answer,
            () = sleep_until(until.max(now + CHECK_INTERVAL)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::extract::Extension;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;
    use crate::web::pace::PaceLimits;

    const LONG: Duration = Duration::from_secs(600);

    /// The status of a response if the client takes `waits` to send its body, and the handler then takes `works`.
    async fn status(waits: Duration, works: Duration) -> u16 {
        let pace = Pace::new(PaceLimits { max_idle: LONG, max_lag: LONG });
        let handler = move |Extension(pace): Extension<Pace>| async move {
            pace.start_wait(Instant::now());
            tokio::time::sleep(waits).await;
            pace.received(Instant::now(), 1);
            tokio::time::sleep(works).await;
        };
        let router = Router::new().route("/", get(handler)).layer(from_fn(with_timeout));
        let request = Request::get("/").extension(pace).body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap().status().as_u16()
    }

    #[tokio::test(start_paused = true)]
    async fn the_timeout_excludes_the_time_in_which_the_client_sends_its_body() {
        let (short, almost) = (Duration::from_secs(1), REQUEST_TIMEOUT - Duration::from_secs(1));
        for (waits, works, expected) in
            [(short, almost, 200), (LONG, almost, 200), (short, LONG, 503), (LONG, REQUEST_TIMEOUT + short, 503)]
        {
            assert_eq!(status(waits, works).await, expected, "{waits:?} for the client, then {works:?}");
        }
    }
}
