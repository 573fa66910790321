//! The shutdown script envoy/leave beside a real Envoy: its output and its exit code.

use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::process::Command;

use end_to_end::{Connection, Echo, Sidecar, SidecarFlags, eventually, free_port, root, run_envoy};

/// Runs envoy/leave with these addresses; returns its exit code and its standard error.
fn leave(admin: &str, local: &str) -> (Option<i32>, String) {
    let mut command = Command::new(root().join("envoy/leave"));
    command.env("LATCHKEY_ADMIN", admin).env("LATCHKEY_LOCAL", local).env("LATCHKEY_DRAIN_SECS", "1");
    let output = command.output().expect("envoy/leave");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_envoy_on_the_ipv6_loopback_is_retired_and_ends() {
    let loopback = IpAddr::V6(Ipv6Addr::LOCALHOST);
    if TcpListener::bind((loopback, 0)).is_err() {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let echo = Echo::start();
    let mut sidecar = Sidecar::start(&SidecarFlags { loopback, ..SidecarFlags::new(echo.port, &[]) });
    let admin = sidecar.control_plane.admin();
    let edges = || admin.send("GET", "/v1/edges", None).expect("an answer").1["items"].as_array().map(Vec::len);
    assert_eq!(edges(), Some(1));
    let (code, stderr) = leave(&sidecar.admin.to_string(), &sidecar.local.to_string());
    assert!(stderr.starts_with("leave: retired instance ") && stderr.lines().count() == 1, "{stderr}");
    assert_eq!(code, Some(0));
    assert!(sidecar.envoy.wait_for_exit().success());
    assert_eq!(edges(), Some(0), "no change waits for it any more");
}

#[test]
fn an_envoy_that_cannot_be_reached_is_not_taken_for_one_without_an_instance() {
    let echo = Echo::start();
    let mut sidecar = Sidecar::start(&SidecarFlags::new(echo.port, &[]));
    let (admin, local) = (sidecar.admin.to_string(), sidecar.local.to_string());
    let nobody = format!("127.0.0.1:{}", free_port());

    let (code, stderr) = leave(&nobody, &nobody);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("(LATCHKEY_ADMIN)") && stderr.contains("(LATCHKEY_LOCAL)"), "{stderr}");
    assert_eq!(stderr.matches("can't reach Envoy").count(), 2, "{stderr}");
    assert!(!stderr.contains("nothing to retire"), "{stderr}");

    // Something else listens there.
    let (code, stderr) = leave(&nobody, &format!("127.0.0.1:{}", echo.port));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("names no instance (HTTP/1.1 200 OK)") && !stderr.contains("nothing to retire"),
        "{stderr}"
    );

    // Without its control plane, Envoy starts and has no keys.
    sidecar.control_plane.process.kill();
    sidecar.envoy.kill();
    sidecar.envoy = run_envoy(&sidecar.config_file());
    eventually("Envoy answers that it has no keys", || {
        let answer = Connection::try_open_at(sidecar.local)?.try_get("/latchkey/ready", &[])?;
        if answer.status == 503 { Ok(()) } else { Err(answer.verdict()) }
    });
    let (code, stderr) = leave(&admin, &local);
    assert_eq!((code, stderr.lines().count()), (Some(0), 1), "{stderr}");
    assert!(stderr.contains("nothing to retire"), "{stderr}");
    assert!(sidecar.envoy.wait_for_exit().success());
}

#[test]
fn an_instance_that_the_control_plane_does_not_retire_is_named() {
    let echo = Echo::start();
    let mut sidecar = Sidecar::start(&SidecarFlags::new(echo.port, &[]));
    sidecar.control_plane.process.kill();
    let (code, stderr) = leave(&sidecar.admin.to_string(), &sidecar.local.to_string());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("is not retired (HTTP/1.1 503 Service Unavailable)"), "{stderr}");
    assert!(sidecar.envoy.wait_for_exit().success());
}
