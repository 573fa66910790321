//! What a service stores on disk, on either engine.

use std::io::Read as _;
use std::path::Path;

use test_support::databases::{of, on_server};

/// Everything that is stored, by the names of the places: files, or the tables of the database with this URL.
pub(crate) fn data_at_rest(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(directory).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file());
    let files = files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()));
    let mut all: Vec<_> = files.collect();
    let url = of(directory);
    if url.starts_with("postgres://") {
        all.extend(on_server(&url, |server| {
            let tables =
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace";
            let names: Vec<String> = server.query(tables, &[]).unwrap().iter().map(|row| row.get(0)).collect();
            let mut contents = Vec::new();
            for name in names {
                let mut bytes = Vec::new();
                // Digests as bytes, not in hexadecimal.
                let copy = format!("COPY {name} TO STDOUT (FORMAT binary)");
                server.copy_out(&copy).unwrap().read_to_end(&mut bytes).unwrap();
                contents.push((name, bytes));
            }
            contents
        }));
    }
    all
}
