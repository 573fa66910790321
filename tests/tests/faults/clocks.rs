//! Wall clocks set an hour forward: keys that expire within it are denied early, nothing else is, and it heals.

use std::time::Duration;

use end_to_end::{ControlPlane, CreatedKey, Echo, Envoy, EnvoyConfig, WallClock, eventually, now};
use serde_json::json;

const HOUR: i64 = 3_600;

#[test]
fn a_wall_clock_that_is_set_forward_denies_early_what_expires_and_nothing_else() {
    let (theirs, edges) = (WallClock::right(), WallClock::right());
    let (control_plane, echo) = (ControlPlane::start_by(&theirs), Echo::start());
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let expires_at = now() + Duration::from_secs(1_800);
    let body = json!({"name": "half an hour", "expires_at": expires_at.to_string(), "scopes": {"reviews": "read"}});
    let (short, long) = (admin.create_key_with("acme", &body), admin.create_key("acme", "for ever"));
    let mut config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
    config.wall_clock = Some(edges.clone());
    let mut envoy = Envoy::start(&config);
    envoy.wait_ready();
    let mut connections = envoy.connections(4);
    let mut wait = |key: &CreatedKey, expected: &str, when: &str| {
        for connection in &mut connections {
            eventually("every worker decides so", || {
                let seen = connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict();
                if seen == expected { Ok(()) } else { Err(format!("{when}: {seen} instead of {expected}")) }
            });
        }
    };
    for (clock, whose) in [(&edges, "the edge's"), (&theirs, "the control plane's")] {
        for (moved, expected) in [(0, "200 -"), (HOUR, "401 expired-key"), (0, "200 -")] {
            clock.move_by(moved);
            // Its answer tells the control plane's time.
            let told = admin.create_key("acme", "told");
            let when = format!("{whose} clock moved by {moved} s");
            wait(&told, "200 -", &when);
            wait(&short, expected, &when);
            wait(&long, "200 -", &when);
        }
    }
    envoy.assert_no_vm_broke();
}
