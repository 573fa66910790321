//! Envoy's health check of a control plane, which decides whether workers may use its feed.

use end_to_end::{Connection, Disk, DiskFault, Echo, Sidecar, SidecarFlags, eventually};
use serde_json::json;

#[test]
fn envoy_keeps_using_a_control_plane_whose_disk_is_full() {
    let (disk, echo) = (Disk::new(), Echo::start());
    // Frequent, so that the test needn't wait.
    let replacements = [("interval: 10s", "interval: 0.2s"), ("unhealthy_interval: 5s", "unhealthy_interval: 0.2s")];
    let options = SidecarFlags { replacements: &replacements, disk: Some(&disk), ..SidecarFlags::new(echo.port, &[]) };
    let sidecar = Sidecar::start(&options);
    let (admin, health_checks) =
        (sidecar.control_plane.admin(), || sidecar.stat("cluster.latchkey.health_check.attempt"));
    let failed = || sidecar.stat("cluster.latchkey.health_check.failure");
    let before = failed();

    disk.set(DiskFault::Full);
    let change = json!({"name": "Other", "slug": "other"});
    let (status, answer) = admin.send("POST", "/v1/workspaces", Some(&change)).expect("an answer");
    assert_eq!((status, &answer["code"]), (503, &json!("storage-unavailable")), "{answer}");
    assert_eq!(Connection::open(sidecar.control_plane.port).get("/readyz", &[]).status, 503, "changes are refused");
    let until = health_checks() + 3;
    eventually("Envoy has checked its health since", || {
        if health_checks() > until { Ok(()) } else { Err(format!("{} of {until}", health_checks())) }
    });
    assert_eq!((failed(), sidecar.stat("cluster.latchkey.membership_healthy")), (before, 1));
    assert_eq!(admin.get("/v1/enforcement")["enforced"], json!(true), "the feed still works");
}
