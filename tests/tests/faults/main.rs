//! Faults on the real parts: power, disk, clocks, kills, the edge's link, clients that never finish.

mod clocks;
mod connections;
mod copies;
mod disk;
mod health;
mod kills;
mod link;
mod power;
