//! Accessibility and layout of every console page, down to a small window.

use end_to_end::{Browser, ConsoleFixture, ConsolePage, Scripts};

/// Widths and colour schemes for the checker. Colours don't depend on the width.
const VIEWPORTS: [(u32, &str); 2] = [(1280, "light"), (320, "dark")];

/// From a small phone to a large screen.
const WIDTHS: [u32; 7] = [320, 390, 768, 1024, 1200, 1280, 1920];

#[test]
fn every_page_passes_the_accessibility_checker_and_fits_the_window() {
    let fixture = ConsoleFixture::start();
    let browser = Browser::start(&fixture.stack.control_plane.url(), Scripts::On);
    let mut found = Vec::new();
    let mut check = |pages: Vec<ConsolePage>| {
        for page in pages {
            page.open(&browser);
            for (width, scheme) in VIEWPORTS {
                browser.set_viewport(width, 900, scheme);
                let violations = browser.accessibility_violations().into_iter();
                found.extend(violations.map(|found| format!("{} at {width} px, {scheme}: {found}", page.name)));
            }
            for width in WIDTHS {
                browser.set_viewport(width, 900, "light");
                let overflow = browser.horizontal_overflow();
                if overflow > 0 {
                    found.push(format!("{} at {width} px: {overflow} px wider than the window", page.name));
                }
            }
        }
    };
    check(fixture.signed_out_pages());
    fixture.sign_in(&browser);
    check(fixture.signed_in_pages());
    assert!(found.is_empty(), "{}", found.join("\n"));
}
