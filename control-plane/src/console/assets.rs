//! The console's style sheet, script and icon, compiled in. Their names contain a hash, so browsers can cache them.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use policy::Digest;

use crate::web::problem::Problem;

/// A file that pages refer to.
struct Asset {
    /// `console-<hash>.css`
    file: String,
    kind: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(name: &str, extension: &str, kind: &'static str, content: &'static str) -> Self {
        let hash: String = Digest::of(content.as_bytes()).0.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { file: format!("{name}-{hash}.{extension}"), kind, content }
    }
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("console", "css", "text/css; charset=utf-8", include_str!("../../assets/console.css")));

static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("console", "js", "text/javascript; charset=utf-8", include_str!("../../assets/console.js"))
});

static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("../../assets/icon.svg")));

pub(super) fn style() -> &'static str {
    &STYLE.file
}

pub(super) fn script() -> &'static str {
    &SCRIPT.file
}

pub(super) fn icon() -> &'static str {
    &ICON.file
}

pub(super) async fn show(Path(file): Path<String>) -> Result<Response, Problem> {
    let all = [&*STYLE, &*SCRIPT, &*ICON];
    let asset = all.into_iter().find(|asset| asset.file == file).ok_or_else(Problem::unknown_path)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    Ok((headers, asset.content).into_response())
}
