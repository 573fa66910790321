//! A real Envoy with the config that `latchkey envoy-config` prints, over plain HTTP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::admin::CreatedKey;
use crate::connection::{Connection, Response};
use crate::control_plane::{ControlPlane, latchkey};
use crate::disk::Disk;
use crate::envoy_file::run_envoy;
use crate::process::{Process, built, free_port};
use crate::wait::eventually;

/// What differs from one sidecar to the next.
pub struct SidecarFlags<'a> {
    pub upstream_port: u16,
    /// The address for clients.
    pub listen: IpAddr,
    /// The address of the admin pages, and of the listener for envoy/leave.
    pub loopback: IpAddr,
    /// Further flags.
    pub flags: &'a [&'a str],
    /// Replacements in the printed config; each must be found there.
    pub replacements: &'a [(&'a str, &'a str)],
    /// Where the control plane's database is, if that isn't the system's disk.
    pub disk: Option<&'a Disk>,
}

impl<'a> SidecarFlags<'a> {
    pub fn new(upstream_port: u16, flags: &'a [&'a str]) -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self { upstream_port, listen: loopback, loopback, flags, replacements: &[], disk: None }
    }
}

/// Envoy with its control plane. A worker has reported ready.
pub struct Sidecar {
    pub envoy: Process,
    pub control_plane: ControlPlane,
    pub port: u16,
    pub admin: SocketAddr,
    pub local: SocketAddr,
    folder: TempDir,
}

impl Sidecar {
    pub fn start(options: &SidecarFlags<'_>) -> Self {
        let control_plane = options.disk.map_or_else(ControlPlane::start, ControlPlane::start_on_disk);
        let folder = tempfile::tempdir().expect("a folder");
        control_plane.admin().create_workspace("acme");
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("edge-token"), control_plane.edge_token()).expect("the edge token");
        let [port, admin_port, local_port] = std::array::from_fn(|_| free_port());
        let (admin, local) =
            (SocketAddr::new(options.loopback, admin_port), SocketAddr::new(options.loopback, local_port));
        let flags = [
            format!("--control-plane=http://127.0.0.1:{}", control_plane.port),
            "--insecure-http".to_owned(),
            format!("--upstream=127.0.0.1:{}", options.upstream_port),
            format!("--listen={}", SocketAddr::new(options.listen, port)),
            format!("--admin={admin}"),
            format!("--local={local}"),
            format!("--token-file={}", file("edge-token").display()),
            format!("--token-secret={}", file("edge-token.yaml").display()),
            format!("--wasm={}", built("dist/latchkey_filter.wasm").display()),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(options.flags.iter().copied()).collect();
        std::fs::write(file("edge-token.yaml"), print(&[&flags, &["--print=token-secret"][..]].concat()))
            .expect("the secret");
        let mut config = print(&flags);
        for (from, to) in options.replacements {
            assert!(config.contains(from), "the printed config no longer has {from:?}");
            config = config.replace(from, to);
        }
        std::fs::write(file("envoy.yaml"), config).expect("the config");
        let envoy = run_envoy(&file("envoy.yaml"));
        let mut started = Self { envoy, control_plane, port, admin, local, folder };
        eventually("the sidecar has its keys", || {
            started.envoy.assert_runs();
            let answer = Connection::try_open_at(local)?.try_get("/latchkey/ready", &[])?;
            if answer.status == 200 { Ok(()) } else { Err(answer.verdict()) }
        });
        started
    }

    /// The file that it was started with.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("envoy.yaml")
    }

    /// Creates a key with this body. Returns when eight connections to this address, one after the other, may read
    /// reviews with it.
    pub fn create_key_at(&self, address: SocketAddr, body: &Value) -> CreatedKey {
        let key = self.control_plane.admin().create_key_with("acme", body);
        for _ in 0..8 {
            eventually("the key is accepted", || {
                let mut connection = Connection::try_open_at(address)?;
                let seen = connection.try_get("/v1/reviews", &[("x-api-key", &key.secret)])?.verdict();
                if seen == "200 -" { Ok(()) } else { Err(seen) }
            });
        }
        key
    }

    /// Creates a key for reviews, as [`Self::create_key_at`] does.
    pub fn create_key(&self) -> CreatedKey {
        let body = json!({"name": "sidecar", "expires_in": "none", "scopes": {"reviews": "write"}});
        self.create_key_at(SocketAddr::from(([127, 0, 0, 1], self.port)), &body)
    }

    /// The value of one of Envoy's statistics.
    pub fn stat(&self, name: &str) -> u64 {
        let mut admin = Connection::try_open_at(self.admin).expect("the admin pages");
        let stats = admin.get(&format!("/stats?filter=^{}$", name.replace('.', "\\.")), &[]).body;
        let value = stats.trim().strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")?.parse().ok());
        value.unwrap_or_else(|| panic!("no statistic {name}: {stats:?}"))
    }

    /// One request on a new connection.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        Connection::open(self.port).get(path, headers)
    }
}

fn print(flags: &[&str]) -> String {
    let (code, output) = latchkey(&[&["envoy-config"], flags].concat());
    assert_eq!(code, Some(0), "{output}");
    output
}
