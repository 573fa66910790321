//! Faults on the real parts: power, disk, kills, the link between edge and control plane, clients that never finish.

mod connections;
mod copies;
mod disk;
mod kills;
mod link;
mod power;
