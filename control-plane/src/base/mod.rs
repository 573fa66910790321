//! What every other folder uses: configuration, clocks, randomness, tokens and files. Knows neither HTTP nor SQL.

pub mod clock;
pub mod config;
pub mod entropy;
pub(crate) mod instant;
pub mod limit;
pub(crate) mod lossy_log;
pub(crate) mod private_file;
pub mod public_url;
pub mod secret;
pub mod staleness_bound;
pub mod tokens;
