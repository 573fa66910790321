//! Takes screenshots of every console page, light and dark, narrow and wide, for review by people.

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use end_to_end::{Browser, ConsoleFixture, ConsolePage, Scripts};

/// Takes a screenshot of every page of the console.
#[derive(Parser)]
struct Arguments {
    /// The folder for the screenshots.
    #[arg(long, default_value = "target/screenshots")]
    to: PathBuf,

    /// Only pages whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// Name, width, height and preferred colour scheme.
const VIEWPORTS: [(&str, u32, u32, &str); 4] = [
    ("wide-light", 1360, 900, "light"),
    ("wide-dark", 1360, 900, "dark"),
    ("narrow-light", 320, 720, "light"),
    ("narrow-dark", 320, 720, "dark"),
];

fn main() -> anyhow::Result<()> {
    let Arguments { to, only } = Arguments::parse();
    std::fs::create_dir_all(&to).with_context(|| to.display().to_string())?;
    let fixture = ConsoleFixture::start();
    let browser = Browser::start(&fixture.stack.control_plane.url(), Scripts::On);
    let shoot = |page: &ConsolePage| -> anyhow::Result<()> {
        if !page.name.contains(&only) {
            return Ok(());
        }
        browser.set_viewport(1360, 900, "light");
        page.open(&browser);
        for (name, width, height, scheme) in VIEWPORTS {
            browser.set_viewport(width, height, scheme);
            let file = to.join(format!("{}-{name}.png", page.name));
            std::fs::write(&file, STANDARD.decode(browser.screenshot())?)
                .with_context(|| file.display().to_string())?;
        }
        Ok(())
    };
    fixture.signed_out_pages().iter().try_for_each(shoot)?;
    fixture.sign_in(&browser);
    fixture.signed_in_pages().iter().try_for_each(shoot)?;
    Ok(())
}
