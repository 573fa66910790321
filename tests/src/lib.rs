//! The real parts as fixtures: control plane, Envoy with the filter, upstream, and clients that can say anything.

mod admin;
mod browser;
mod command_line;
mod connection;
mod control_plane;
mod disk;
mod echo;
mod envoy;
mod hammer;
mod link;
mod preload;
mod process;
mod stack;
mod tour;
mod wait;
mod wall_clock;

pub use admin::{Admin, CreatedKey};
pub use browser::{Browser, Scripts};
pub use command_line::{CommandLine, Ended};
pub use connection::{Connection, Response};
pub use control_plane::{ControlPlane, latchkey, serve_command};
pub use disk::{Disk, Fault, Unsynced};
pub use echo::Echo;
pub use envoy::{Discovery, Envoy, EnvoyConfig};
pub use hammer::{Expected, Hammer};
pub use link::{Link, Trouble};
pub use process::{Process, free_port, root};
pub use stack::Stack;
pub use tour::{Stop, Tour};
pub use wait::{DEADLINE, eventually, eventually_within, now};
pub use wall_clock::WallClock;
