//! What servers do with the segments of a path.

/// Cuts each segment at its first `;`.
pub(super) fn cut_parameters(path: &[u8]) -> Vec<u8> {
    map(path, |segment| segment.split(|byte| *byte == b';').next().unwrap_or_default().to_vec())
}

/// Changes each segment.
pub(super) fn map(path: &[u8], change: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    path.split(|byte| *byte == b'/').map(change).collect::<Vec<_>>().join(&b'/')
}

pub(super) fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|next, before| (*next, *before) == (b'/', b'/'));
    merged
}

pub(super) fn backslashes_to_slashes(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
}

/// What happens to a `..` that leads above the root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AboveRoot {
    Refuse,
    Stay,
}

/// Resolves `.` and `..` segments. As in most servers, `..` removes an empty segment like any other.
pub(super) fn resolve_dots(path: &[u8], above_root: AboveRoot) -> Option<Vec<u8>> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut rest = path.strip_prefix(b"/")?.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = rest.next() {
        let is_last = rest.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                if segments.pop().is_none() && above_root == AboveRoot::Refuse {
                    return None;
                }
            }
            segment => {
                segments.push(segment);
                continue;
            }
        }
        // `/a/.` and `/a/b/..` are folders.
        if is_last {
            segments.push(b"");
        }
    }
    Some([b"/", segments.join(&b'/').as_slice()].concat())
}

/// Merges slashes, then resolves dots within the root.
pub(super) fn clean(path: &[u8]) -> Option<Vec<u8>> {
    resolve_dots(&merge_slashes(path), AboveRoot::Stay)
}

/// The length without a blank at the end. Some servers trim control bytes and the no-break space like one.
fn ends_blank(segment: &[u8]) -> Option<usize> {
    match segment {
        [rest @ .., 0xc2, 0xa0] => Some(rest.len()),
        [rest @ .., byte] if *byte <= b' ' || *byte == 0x7f => Some(rest.len()),
        _ => None,
    }
}

fn begins_blank(segment: &[u8]) -> Option<usize> {
    match segment {
        [0xc2, 0xa0, ..] => Some(2),
        [byte, ..] if *byte <= b' ' || *byte == 0x7f => Some(1),
        _ => None,
    }
}

/// Trims blanks and control bytes at both ends.
pub(super) fn trim_blanks(segment: &[u8]) -> Vec<u8> {
    let mut rest = segment;
    while let Some(end) = ends_blank(rest) {
        rest = &rest[..end];
    }
    while let Some(start) = begins_blank(rest) {
        rest = &rest[start..];
    }
    rest.to_vec()
}
