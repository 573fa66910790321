//! The real parts as fixtures: control plane, Envoy with the filter, upstream, and clients that can say anything.

mod admin;
mod browser;
mod certificates;
mod command_line;
mod connection;
mod control_plane;
mod echo;
mod envoy;
mod envoy_file;
mod hammer;
mod process;
mod shell;
mod stack;
mod tour;
mod wait;
mod wall_clock;

pub use admin::{Admin, CreatedKey};
pub use browser::{Browser, Scripts};
pub use certificates::Authority;
pub use command_line::{CommandLine, Ended};
pub use connection::{Connection, Response};
pub use control_plane::{ControlPlane, latchkey, serve_command};
pub use echo::Echo;
pub use envoy::{Discovery, Envoy, EnvoyConfig};
pub use envoy_file::{refused_by_envoy, run_envoy};
pub use hammer::{Expected, Hammer};
pub use process::{Process, free_port, root};
pub use shell::paste;
pub use stack::Stack;
pub use tour::{Stop, Tour};
pub use wait::{DEADLINE, eventually, eventually_within, now};
pub use wall_clock::WallClock;
