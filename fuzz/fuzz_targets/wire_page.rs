//! Any bytes as a page or a manifest: what is accepted is safe to read.
#![no_main]

use latchkey_fuzz::{announcing, digests, read_fully, sealed, snapshot};
use libfuzzer_sys::fuzz_target;
use policy::Digest;
use policy::table::Loading;

fuzz_target!(|bytes: &[u8]| {
    let snapshot = snapshot();
    let mut loading = Loading::start(&snapshot.manifest).expect("a manifest");
    assert!(loading.add(bytes.to_vec()).is_err() || bytes == snapshot.pages[0], "another page was announced");
    let _ = (Loading::start(bytes), Loading::start(&sealed(&snapshot.manifest, bytes)));

    let page = sealed(&snapshot.pages[0], bytes);
    let Some(mut loading) = announcing(&snapshot.manifest, &page).and_then(|manifest| Loading::start(&manifest).ok())
    else {
        return;
    };
    if loading.add(page).is_ok()
        && let Some(mut table) = loading.finish()
    {
        // A record may be anywhere, so each offset may be the start of a digest.
        let known = bytes.windows(32).filter_map(|window| window.try_into().ok()).map(Digest);
        let known: Vec<_> = known.chain(digests()).collect();
        known.iter().for_each(|digest| read_fully(&table, digest));
        while table.rebase_a_page() {}
        known.iter().for_each(|digest| read_fully(&table, digest));
    }
});
