//! Every page for people who don't see it well, or who have a small window.

use end_to_end::{Browser, Scripts, Stop, Tour};

/// Widths and colour schemes for the checker. Colours don't depend on the width.
const LOOKS: [(u32, &str); 2] = [(1280, "light"), (320, "dark")];

/// From a small phone to a large screen.
const WIDTHS: [u32; 7] = [320, 390, 768, 1024, 1200, 1280, 1920];

#[test]
fn every_page_passes_the_accessibility_checker_and_fits_the_window() {
    let tour = Tour::start();
    let browser = Browser::start(&tour.stack.control_plane.url(), Scripts::On);
    let mut found = Vec::new();
    let mut look = |stops: Vec<Stop>| {
        for stop in stops {
            stop.go(&browser);
            for (width, scheme) in LOOKS {
                browser.look(width, 900, scheme);
                let violations = browser.accessibility_violations().into_iter();
                found.extend(violations.map(|found| format!("{} at {width} px, {scheme}: {found}", stop.name)));
            }
            for width in WIDTHS {
                browser.look(width, 900, "light");
                let overhang = browser.overhang();
                if overhang > 0 {
                    found.push(format!("{} at {width} px: {overhang} px of it are outside the window", stop.name));
                }
            }
        }
    };
    look(tour.outside());
    tour.sign_in(&browser);
    look(tour.inside());
    assert!(found.is_empty(), "{}", found.join("\n"));
}
