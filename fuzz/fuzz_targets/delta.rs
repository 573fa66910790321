//! Any bytes as a delta, and as the changes of one with a correct chain: applied as a whole or not at all.
#![no_main]

use latchkey_fuzz::{digests, load, read_fully, snapshot};
use libfuzzer_sys::fuzz_target;
use policy::wire::encode_delta;
use policy::{Digest, Table};

/// What a table has for some digests, and its position.
fn table_state(table: &Table, of: &[Digest]) -> Vec<String> {
    let known = of.iter().map(|digest| {
        read_fully(table, digest);
        table.find(digest).map_or_else(String::new, |view| {
            format!("{:?} {} {:?} {:?}", view.key(), view.is_active(), view.expires_at(), view.superseded_at())
        })
    });
    known.chain([format!("{:?} {}", table.position(), table.len())]).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let mut table = load(&snapshot());
    let known: Vec<_> = bytes.windows(32).filter_map(|window| window.try_into().ok()).map(Digest).collect();
    let known: Vec<_> = known.into_iter().chain(digests()).collect();
    let before = table_state(&table, &known);
    match table.apply(bytes) {
        Ok(()) => assert!(table.position() != load(&snapshot()).position(), "an applied delta moves the position"),
        Err(_) => assert_eq!(table_state(&table, &known), before),
    }

    // The first byte decides how the rest is split into changes.
    let [cut, rest @ ..] = bytes else { return };
    let (first, second) = rest.split_at(usize::from(*cut).min(rest.len()));
    for bodies in [vec![rest], vec![first, second]] {
        let from = table.position();
        let Some(to) = bodies.iter().try_fold(from, |position, body| position.then(body)) else { return };
        let Ok(message) = encode_delta(from.revision, to, &bodies) else { return };
        let before = table_state(&table, &known);
        match table.apply(&message) {
            Ok(()) => assert_eq!(table.position(), to),
            Err(_) => assert_eq!(table_state(&table, &known), before, "a delta that is refused changes nothing"),
        }
        let after = table_state(&table, &known);
        while table.rebase_a_page() {}
        assert_eq!(table_state(&table, &known), after, "moving changes into the pages changes no answer");
    }
});
