//! `latchkey check-config`: reports what an edge would refuse, and what makes it less safe than it looks.

mod address;
mod bypasses;
mod capabilities;
mod chain;
mod clusters;
mod envoy;
mod field_names;
mod filter_order;
mod guard;
mod headers;
mod latchkey_filter;
mod manager;
mod mesh;
mod message;
mod overrides;
mod path_set;
mod reference;
pub(super) mod requirement;
mod routes;
mod rules;
mod shadowing;
mod values;
mod wasm;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use policy::Config;
use serde_json::{Value, json};

use self::latchkey_filter::latchkey_filters;
use self::rules::Catalogue;
use super::failure::Outcome;
use super::output::{pluralize, print, print_json};

/// The options of `latchkey check-config`.
#[derive(Args)]
pub(super) struct CheckConfigOptions {
    /// A plugin configuration (JSON), or an Envoy file with our filter in it (YAML or JSON): a bootstrap, a listener, a
    /// manifest.
    file: PathBuf,

    /// The control plane's latchkey.toml: rules must name scopes of its catalogue, and the edge one of its
    /// environments.
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,

    /// Print JSON instead of lines.
    #[arg(long)]
    json: bool,
}

/// A problem in a file.
pub(super) struct Finding {
    severity: Severity,
    /// The path of fields that leads to it in the file.
    place: String,
    message: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// The edge would refuse it, deny everything, or let through what it must not.
    Refused,
    /// It works, but is less safe or less useful than it could be.
    Warning,
}

impl Finding {
    pub(super) fn refused(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Refused, place: place.into(), message: message.into() }
    }

    pub(super) fn warning(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, place: place.into(), message: message.into() }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Warning => "warning",
        })
    }
}

/// The two kinds of files that can be checked.
enum ConfigFile {
    /// A plugin configuration, byte for byte.
    Plugin(Vec<u8>),
    /// Envoy's configuration, or a manifest that contains it.
    Envoy(Value),
}

pub(super) fn run_check_config(options: &CheckConfigOptions) -> anyhow::Result<Outcome> {
    let catalogue =
        options.catalogue.as_deref().map(crate::base::config::Config::from_file).transpose()?.map(Catalogue);
    let (findings, checked) = match read(&options.file)? {
        ConfigFile::Plugin(json) => {
            let mut findings = Vec::new();
            let config = check_plugin_config("", &json, catalogue.as_ref(), &mut findings);
            if let Some(config) = &config {
                let hosts = [routes::host_of_plugin(config, &Value::Null)];
                shadowing::check_shadowing(
                    &hosts,
                    Some(config),
                    &clusters::Clusters::read(&Value::Null),
                    &mut findings,
                );
            }
            let edge = config.map(|config| config.edge).unwrap_or_default();
            (findings, format!("a plugin configuration, of the edge `{edge}`"))
        }
        ConfigFile::Envoy(value) => envoy::check(&value, catalogue.as_ref())?,
    };
    let is_refused = findings.iter().any(|finding| finding.severity == Severity::Refused);
    if options.json {
        let list = findings.iter().map(|Finding { severity, place, message }| {
            json!({"kind": severity.to_string(), "place": place, "message": message})
        });
        print_json(&json!({"accepted": !is_refused, "findings": list.collect::<Vec<_>>()}))?;
    } else {
        let file = options.file.display();
        for Finding { severity, place, message } in &findings {
            let at = if place.is_empty() { String::new() } else { format!(" {place}:") };
            print(&format!("{file}: {severity}:{at} {message}\n"))?;
        }
        let verdict = if is_refused { "refused" } else { "accepted" };
        let warnings = findings.iter().filter(|finding| finding.severity == Severity::Warning).count();
        print(&format!("{file}: {verdict}, with {}: {checked}\n", pluralize(warnings as u64, "warning")))?;
    }
    Ok(if is_refused { Outcome::Refused } else { Outcome::Done })
}

/// The only plugin configuration in a file.
pub(super) fn read_plugin_config(path: &Path) -> anyhow::Result<Vec<u8>> {
    let value = match read(path)? {
        ConfigFile::Plugin(json) => return Ok(json),
        ConfigFile::Envoy(value) => value,
    };
    let found = latchkey_filters(&value);
    let mut plugins: Vec<Vec<u8>> =
        found.iter().filter_map(|filter| filter.plugin.bytes().map(<[u8]>::to_vec)).collect();
    plugins.extend(mesh::plugins(&value));
    match (plugins.as_slice(), found.len()) {
        ([plugin], ..=1) => Ok(plugin.clone()),
        ([], ..=1) => bail!("{}: the Latchkey filter in it has no configuration", path.display()),
        (several, found) => {
            let count = found.max(several.len());
            bail!(
                "{}: it contains {count} Latchkey filters; put the plugin configuration to use into a file of its own",
                path.display()
            )
        }
    }
}

/// Checks a plugin configuration as the edge itself does; `None` if the edge would refuse it.
pub(super) fn check_plugin_config(
    place: &str,
    json: &[u8],
    catalogue: Option<&Catalogue>,
    findings: &mut Vec<Finding>,
) -> Option<Config> {
    let config = match Config::parse(json) {
        Ok((config, _)) => config,
        Err(error) => {
            findings.push(Finding::refused(place, error.to_string()));
            return None;
        }
    };
    if let Some(catalogue) = catalogue {
        catalogue.check(place, &config, findings);
    }
    if config.max_staleness_secs.is_none() {
        let message = "`max_staleness_secs` is null: an edge that is cut off accepts revoked keys forever";
        findings.push(Finding::warning(place, message));
    }
    Some(config)
}

fn read(path: &Path) -> anyhow::Result<ConfigFile> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot read it", path.display()))?;
    let value: Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(_) => yaml(&text).with_context(|| path.display().to_string())?,
    };
    let is_envoy =
        |value: &Value| !latchkey_filters(value).is_empty() || chain::has_placeholder(value) || mesh::has_ours(value);
    // A file that isn't Envoy's keeps its names: a plugin configuration has only one spelling of each.
    let renamed = field_names::with_canonical_names(value.clone()).with_context(|| path.display().to_string())?;
    if is_envoy(&renamed) {
        // The JSON parser takes the last of two fields with the same name, the YAML parser refuses them.
        if let Err(error) = yaml(&text)
            && error.to_string().contains("duplicate")
        {
            return Err(error).with_context(|| path.display().to_string());
        }
        return Ok(ConfigFile::Envoy(renamed));
    }
    let is_plugin = value.as_object().is_some_and(|fields| fields.keys().all(|name| !name.starts_with('@')))
        && ["static_resources", "dynamic_resources", "resources", "filter_chains", "kind"]
            .iter()
            .all(|name| value.get(name).is_none());
    if !is_plugin {
        bail!("{}: it contains no Latchkey filter, and is not a plugin configuration", path.display());
    }
    // JSON text stays as it is, so that duplicate fields are found. A plugin configuration may also be YAML.
    let json =
        if serde_json::from_str::<Value>(&text).is_ok() { text.into_bytes() } else { value.to_string().into_bytes() };
    Ok(ConfigFile::Plugin(json))
}

/// All documents of a file as a list; a single document as itself.
fn yaml(text: &str) -> anyhow::Result<Value> {
    let read = serde_saphyr::from_multiple(text);
    let mut documents: Vec<Value> = read.map_err(|error| {
        // The later lines of the error quote the file, which may contain a token.
        let error = error.to_string();
        let what = error.lines().next().unwrap_or_default();
        let hint = if text.contains("${") { "; a template must be filled in first" } else { "" };
        anyhow!("neither JSON nor YAML: {}{hint}", what.trim_start_matches("error: "))
    })?;
    Ok(if documents.len() == 1 { documents.remove(0) } else { documents.into() })
}
