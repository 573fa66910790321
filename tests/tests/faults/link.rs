//! Damaged answers of the feed: workers keep their table until it is stale, no VM fails, and all recover by themselves.

use std::time::Duration;

use end_to_end::{
    Connection, ControlPlane, CreatedKey, Echo, Envoy, EnvoyConfig, Expected, Link, LinkFault, LoadGenerator,
    eventually, eventually_within,
};
use serde_json::json;

const ALL: [LinkFault; 10] = [
    LinkFault::Silence,
    LinkFault::Slow,
    LinkFault::HalfClosed,
    LinkFault::CutOff,
    LinkFault::Flipped,
    LinkFault::RandomBody,
    LinkFault::Random,
    LinkFault::Oversized,
    LinkFault::Endless,
    LinkFault::CaptivePortal,
];

/// Whether the edge waits for the answer, and so sends only one request.
fn delays_the_answer(fault: LinkFault) -> bool {
    matches!(fault, LinkFault::Silence | LinkFault::Slow)
}

fn start_envoy(link: &Link, control_plane: &ControlPlane, echo: &Echo, bound_secs: u64) -> Envoy {
    let mut config = EnvoyConfig::new(link.port, echo.port, &control_plane.edge_token());
    config.plugin["max_staleness_secs"] = json!(bound_secs);
    Envoy::start(&config)
}

fn wait_verdict(connections: &mut [Connection], key: &CreatedKey, expected: &str) {
    eventually("every worker decides so", || {
        let get = |connection: &mut Connection| connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict();
        let seen: Vec<String> = connections.iter_mut().map(get).collect();
        if seen.iter().all(|seen| seen == expected) { Ok(()) } else { Err(format!("{seen:?} instead of {expected}")) }
    });
}

#[test]
fn damaged_answers_change_no_verdict_and_break_no_vm() {
    let (control_plane, echo) = (ControlPlane::start(), Echo::start());
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let (good, dead) = (admin.create_key("acme", "good"), admin.create_key("acme", "dead"));
    admin.delete(&dead);
    let link = Link::to(control_plane.port);
    let mut envoy = start_envoy(&link, &control_plane, &echo, 86_400);
    envoy.wait_ready();
    let load = LoadGenerator::start(
        envoy.connections(4),
        envoy.port,
        &[
            Expected { secret: good.secret.clone(), verdict: "200 -" },
            Expected { secret: dead.secret.clone(), verdict: "401 unknown-key" },
        ],
    );
    let mut connections = envoy.connections(4);
    for fault in ALL {
        link.set(fault);
        // Changes, so that there is an answer to damage.
        let (new, victim) = (admin.create_key("acme", "new"), admin.create_key("acme", "victim"));
        admin.delete(&victim);
        link.wait_damaged(if delays_the_answer(fault) { 1 } else { 2 });
        load.wait_for(100);
        link.set(LinkFault::Nothing);
        wait_verdict(&mut connections, &new, "200 -");
        wait_verdict(&mut connections, &victim, "401 unknown-key");
        envoy.assert_no_vm_failed();
    }
    println!("{} faults, {} requests meanwhile", ALL.len(), load.answered());
    assert_eq!(load.stop(), Vec::<String>::new());
}

#[test]
fn an_edge_with_only_damaged_answers_denies_after_its_staleness_bound_and_recovers() {
    const BOUND_SECS: u64 = 10;
    let (control_plane, echo) = (ControlPlane::start(), Echo::start());
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let key = admin.create_key("acme", "key");
    let faults = [LinkFault::Slow, LinkFault::RandomBody, LinkFault::HalfClosed];
    let links = faults.map(|_| Link::to(control_plane.port));
    let mut envoys: Vec<Envoy> =
        links.iter().map(|link| start_envoy(link, &control_plane, &echo, BOUND_SECS)).collect();
    envoys.iter_mut().for_each(Envoy::wait_ready);
    let mut connections: Vec<Connection> = envoys.iter().flat_map(|envoy| envoy.connections(2)).collect();
    wait_verdict(&mut connections, &key, "200 -");
    links.iter().zip(faults).for_each(|(link, fault)| link.set(fault));
    admin.delete(&key);
    // Allows for half a second between ticks, and for a busy machine.
    eventually_within(Duration::from_secs(BOUND_SECS + 3), "every worker denies", || {
        let get = |connection: &mut Connection| connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict();
        let seen: Vec<String> = connections.iter_mut().map(get).collect();
        if seen.iter().all(|seen| seen == "503 stale") { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    links.iter().for_each(|link| link.set(LinkFault::Nothing));
    wait_verdict(&mut connections, &key, "401 unknown-key");
    envoys.iter().for_each(Envoy::assert_no_vm_failed);
}

/// The first table, too, is only applied as a whole.
#[test]
fn an_envoy_that_starts_on_a_bad_link_denies_until_it_is_good() {
    let (control_plane, echo) = (ControlPlane::start(), Echo::start());
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let key = admin.create_key("acme", "key");
    let link = Link::to(control_plane.port);
    link.set(LinkFault::Flipped);
    let mut envoy = start_envoy(&link, &control_plane, &echo, 86_400);
    envoy.wait_listening();
    let mut connections = envoy.connections(4);
    for fault in [LinkFault::Flipped, LinkFault::RandomBody, LinkFault::CutOff, LinkFault::CaptivePortal] {
        link.set(fault);
        link.wait_damaged(2);
        for connection in &mut connections {
            assert_eq!(
                connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict(),
                "503 not-ready",
                "{fault:?}"
            );
        }
    }
    link.set(LinkFault::Nothing);
    wait_verdict(&mut connections, &key, "200 -");
    envoy.assert_no_vm_failed();
}
