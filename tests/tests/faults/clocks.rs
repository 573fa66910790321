//! Wrong wall clocks: keys that expire within an hour are denied early, nothing is removed, and it recovers.

use std::time::Duration;

use end_to_end::{Admin, ControlPlane, CreatedKey, Echo, Envoy, EnvoyConfig, WallClock, eventually, now};
use serde_json::json;

const HOUR: i64 = 3_600;

const DAY: i64 = 24 * HOUR;

#[test]
fn a_wall_clock_set_forward_denies_expiring_keys_early_and_no_others() {
    let (control_plane_clock, edge_clock) = (WallClock::accurate(), WallClock::accurate());
    let (control_plane, echo) = (ControlPlane::start_with_clock(&control_plane_clock), Echo::start());
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let expires_at = now() + Duration::from_secs(1_800);
    let body = json!({"name": "half an hour", "expires_at": expires_at.to_string(), "scopes": {"reviews": "read"}});
    let (short, long) = (admin.create_key_with("acme", &body), admin.create_key("acme", "for ever"));
    let mut config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
    config.wall_clock = Some(edge_clock.clone());
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
    for (clock, whose) in [(&edge_clock, "the edge's"), (&control_plane_clock, "the control plane's")] {
        for (moved, expected) in [(0, "200 -"), (HOUR, "401 expired-key"), (0, "200 -")] {
            clock.move_by(moved);
            // The feed's answer carries the control plane's time.
            let new = admin.create_key("acme", "told");
            let when = format!("{whose} clock moved by {moved} s");
            wait(&new, "200 -", &when);
            wait(&short, expected, &when);
            wait(&long, "200 -", &when);
        }
    }
    envoy.assert_no_vm_failed();
}

#[test]
fn a_start_400_days_ahead_of_the_right_time_removes_nothing_that_is_kept_for_a_year() {
    let clock = WallClock::accurate();
    let mut control_plane = ControlPlane::start_with_clock(&clock);
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let (dead, used) = (admin.create_key("acme", "dead"), admin.create_key("acme", "used"));
    admin.delete(&dead);
    let edge = Admin::new(&control_plane.url(), &control_plane.edge_token());
    let (status, _) = edge.send("GET", "/edge/v1/feed?format=1&edge=e&instance=i&wait=0", None).expect("an answer");
    assert_eq!(status, 200);
    let keys = json!([{"key": used.id, "hour": now().as_second() / HOUR * HOUR, "allowed": 5}]);
    let batch = json!({"edge": "e", "instance": "i", "worker": "w", "sequence": 1, "keys": keys});
    assert_eq!(edge.send("POST", "/edge/v1/usage", Some(&batch)), Some((200, json!({"sequence": 1}))));
    for (moved, is_far) in [(400 * DAY, true), (400 * DAY, true), (0, false)] {
        control_plane.process.kill();
        clock.move_by(moved);
        control_plane.restart();
        // This line is logged after what the start removes.
        eventually("the audit log's head is in the log", || {
            let log = control_plane.process.log();
            if log.contains("the audit log's head") { Ok(()) } else { Err(log) }
        });
        let log = control_plane.process.log();
        assert_eq!(log.contains("nothing is removed by age"), is_far, "moved by {moved} s: {log}");
        let identified = admin.send("POST", "/v1/keys/identify", Some(&json!({"secret": dead.secret})));
        let (status, identified) = identified.expect("an answer");
        assert_eq!((status, &identified["status"]), (200, &json!("deleted")), "moved by {moved} s: {identified}");
        let usage = admin.get(&format!("{}/usage", used.path()));
        assert_eq!(usage["totals"]["allowed"], 5, "moved by {moved} s: {usage}");
    }
}
