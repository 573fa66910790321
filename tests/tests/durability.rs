//! An answered change is on disk. A kill can't show that: what a killed process wrote is still in the kernel.

use std::process::Command;

use end_to_end::{Admin, ControlPlane, Process, eventually, free_port, serve_command};

/// One system call of the trace: where it began and ended, and its text.
#[derive(Debug)]
struct Call {
    began: usize,
    ended: usize,
    text: String,
}

/// Joins `<unfinished ...>` and `<... resumed>` lines of `strace -f`; instants are line numbers, which are in order.
fn calls(trace: &str) -> Vec<Call> {
    let mut unfinished: Vec<(&str, usize, String)> = Vec::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(start) = text.strip_suffix("<unfinished ...>") {
            unfinished.push((thread, at, start.to_owned()));
        } else if text.starts_with("<...") {
            let Some(own) = unfinished.iter().position(|(other, ..)| *other == thread) else { continue };
            let (_, began, start) = unfinished.remove(own);
            calls.push(Call { began, ended: at, text: format!("{start}{text}") });
        } else {
            calls.push(Call { began: at, ended: at, text: text.to_owned() });
        }
    }
    calls
}

#[test]
fn the_fsync_of_the_wal_has_returned_before_a_change_is_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let trace_file = folder.path().join("trace");
    let database = folder.path().join("latchkey.db").display().to_string();
    let serve = serve_command(folder.path(), port, &[("database", &database)]);
    let mut command = Command::new("strace");
    command
        .args(["-D", "-f", "-y", "-s", "200", "-e", "trace=fsync,fdatasync,write,pwrite64,writev,sendto,sendmsg"])
        .arg("-o")
        .arg(&trace_file)
        .arg(serve.get_program())
        .args(serve.get_args());
    let mut process = Process::start("strace", &mut command, &folder.path().join("log"));
    eventually("the control plane answers /healthz", || {
        process.assert_runs();
        reqwest::blocking::get(format!("http://127.0.0.1:{port}/healthz")).map(drop).map_err(|error| error.to_string())
    });
    let token = std::fs::read_to_string(folder.path().join("admin-token")).expect("the admin token");
    let admin = Admin::new(&format!("http://127.0.0.1:{port}"), token.trim());
    admin.create_workspace("acme");
    let key = admin.create_key("acme", "sync");
    admin.act(&key, "deactivate");
    let rotated = admin.rotate(&key);
    admin.delete(&rotated);

    let trace = eventually("the last answer is in the trace", || {
        let trace = std::fs::read_to_string(&trace_file).map_err(|error| error.to_string())?;
        if trace.contains("204 No Content") { Ok(trace) } else { Err(format!("{} bytes", trace.len())) }
    });
    let calls = calls(&trace);
    let is_wal = |call: &&Call| call.text.contains("latchkey.db-wal");
    let is_sync = |call: &&Call| call.text.starts_with("fsync(") || call.text.starts_with("fdatasync(");
    let answers: Vec<&Call> =
        calls.iter().filter(|call| call.text.contains("latchkey-revision")).filter(|call| !is_wal(call)).collect();
    assert_eq!(answers.len(), 5, "one answer a change: {answers:#?}");
    let mut previous = 0;
    for answer in answers {
        let written: Vec<&Call> = calls
            .iter()
            .filter(|call| is_wal(call) && !is_sync(call) && call.began > previous && call.began < answer.began)
            .collect();
        let last = written.last().unwrap_or_else(|| panic!("nothing was written to the WAL before {answer:?}"));
        let synced = calls.iter().any(|call| {
            is_wal(&call)
                && is_sync(&call)
                && call.began > last.ended
                && call.ended < answer.began
                && call.text.ends_with("= 0")
        });
        assert!(synced, "no fsync of the WAL returned between {last:?} and {answer:?}");
        previous = answer.began;
    }
}

#[test]
fn a_control_plane_killed_under_load_has_every_change_it_answered() {
    let mut control_plane = ControlPlane::start();
    control_plane.admin().create_workspace("acme");
    for round in 0..5 {
        let answered: Vec<String> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let admin = control_plane.admin();
                    scope.spawn(move || {
                        let body =
                            |n: u32| serde_json::json!({"name": format!("{round}.{writer}.{n}"), "expires_in": "1d"});
                        let mut ids = Vec::new();
                        for n in 0.. {
                            let answer = admin.send("POST", "/v1/workspaces/acme/keys", Some(&body(n)));
                            let Some((201, answer)) = answer else { break };
                            let Some(id) = answer["key"]["id"].as_str() else { break };
                            ids.push(id.to_owned());
                        }
                        ids
                    })
                })
                .collect();
            let probe = control_plane.admin();
            eventually("some keys are there", || {
                let keys = probe.get("/v1/workspaces/acme/keys?limit=100");
                let own = |key: &serde_json::Value| {
                    key["name"].as_str().is_some_and(|name| name.starts_with(&format!("{round}.")))
                };
                let count = keys["items"].as_array().map_or(0, |items| items.iter().filter(|key| own(key)).count());
                if count >= 10 { Ok(()) } else { Err(format!("{count} keys")) }
            });
            control_plane.process.kill();
            writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
        });
        control_plane.restart();
        let admin = control_plane.admin();
        assert!(!answered.is_empty());
        for id in answered {
            assert_eq!(admin.get(&format!("/v1/workspaces/acme/keys/{id}"))["id"], id, "round {round}");
        }
    }
}
