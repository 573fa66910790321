//! Takes screenshots of every console page, light and dark, narrow and wide, for people to review.

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use end_to_end::{Browser, Scripts, Stop, Tour};

/// Takes a picture of every page of the console.
#[derive(Parser)]
struct Arguments {
    /// Where the pictures go.
    #[arg(long, default_value = "target/screenshots")]
    to: PathBuf,

    /// Only pages whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// Name, width, height and preferred colour scheme.
const LOOKS: [(&str, u32, u32, &str); 4] = [
    ("wide-light", 1360, 900, "light"),
    ("wide-dark", 1360, 900, "dark"),
    ("narrow-light", 320, 720, "light"),
    ("narrow-dark", 320, 720, "dark"),
];

fn main() -> anyhow::Result<()> {
    let Arguments { to, only } = Arguments::parse();
    std::fs::create_dir_all(&to).with_context(|| to.display().to_string())?;
    let tour = Tour::start();
    let browser = Browser::start(&tour.stack.control_plane.url(), Scripts::On);
    let shoot = |stop: &Stop| -> anyhow::Result<()> {
        if !stop.name.contains(&only) {
            return Ok(());
        }
        browser.look(1360, 900, "light");
        stop.go(&browser);
        for (look, width, height, scheme) in LOOKS {
            browser.look(width, height, scheme);
            let file = to.join(format!("{}-{look}.png", stop.name));
            std::fs::write(&file, STANDARD.decode(browser.picture())?).with_context(|| file.display().to_string())?;
        }
        Ok(())
    };
    tour.outside().iter().try_for_each(shoot)?;
    tour.sign_in(&browser);
    tour.inside().iter().try_for_each(shoot)?;
    Ok(())
}
