//! Any bytes as the filter's configuration: what is accepted is the same after it is written and read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::Config;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((config, routes)) = Config::parse(bytes) {
        let written = serde_json::to_vec(&config).expect("a configuration is JSON");
        let (again, _) = Config::parse(&written).expect("an accepted configuration is accepted again");
        assert!(again == config);
        for path in [&b"/"[..], b"/v1/reviews", b"/a/b/c?d"] {
            let read = config.paths.read(b"GET", path);
            let _ = read.as_ref().map(|path| routes.find(b"GET", path, config.unmatched.rule()));
        }
    }
});
