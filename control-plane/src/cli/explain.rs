//! `latchkey explain`: the answer to a request with a key, its rule and its reason, by the code that decides in Envoy.

mod reason;
mod record;

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use policy::config::Config;
use policy::decide::{Credential, Decision, Facts, Knowledge, decide};
use policy::route::{self, Binding, RouteRule, Routes, Template};
use policy::{LiveTable, UnixSeconds};
use serde_json::{Value, json};

use self::record::{ExplainedKey, SecretChoice, SecretShape};
use super::check_config;
use super::client::Call;
use super::connection::RemoteOptions;
use super::failure::{Failure, Outcome};
use super::output::{card, print, print_json};
use crate::base::clock::Clock;
use crate::base::instant;
use crate::cli::json::string;

/// The options of `latchkey explain`.
#[derive(Args)]
pub(super) struct ExplainOptions {
    #[command(flatten)]
    remote: RemoteOptions,

    /// The request's method: GET.
    method: String,

    /// The request's path, as Envoy passes it on after normalisation: /v1/reviews/7.
    path: String,

    /// The edge's plugin configuration, or an Envoy file with our filter in it. Without it: an edge without `routes`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The rule in the metadata of the route that Envoy takes. Without it, the configuration's `routes` determine the
    /// rule.
    #[arg(long)]
    rule: Option<String>,

    /// The `path` in that metadata: /v1/workspaces/{workspace}/{*rest}.
    #[arg(long, requires = "rule", value_name = "TEMPLATE")]
    template: Option<String>,

    /// The key, by its id: read from the control plane. Without it and --record: a request without a key.
    #[arg(long, value_name = "KEY", conflicts_with = "record")]
    key: Option<String>,

    /// The key, in a file as `latchkey keys show --json` writes it. No request is sent to a control plane.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// The key's workspace, by id or slug.
    #[arg(long, short, env = "LATCHKEY_WORKSPACE")]
    workspace: Option<String>,

    /// Which of the key's secrets the request presents.
    #[arg(long, value_enum, default_value = "current")]
    secret: SecretChoice,

    /// The key was imported, and its secret doesn't begin with lk_.
    #[arg(long)]
    foreign: bool,

    /// The client's address, as Envoy trusts it.
    #[arg(long)]
    address: Option<IpAddr>,

    /// The time of the request, now by default: 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "INSTANT", value_parser = instant_of)]
    at: Option<UnixSeconds>,
}

pub(super) fn run_explain(options: &ExplainOptions) -> anyhow::Result<Outcome> {
    let (config, routes) = config(options)?;
    let key = load_key(options)?;
    let now = options.at.unwrap_or_else(|| Clock::system().now());
    let explanation = explain(options, &config, &routes, key.as_ref(), now)?;
    if options.remote.json() {
        print_json(&explanation.json)?;
    } else {
        print(&card(&explanation.fields))?;
    }
    Ok(explanation.outcome)
}

/// The answer, for scripts and for people.
struct Explanation {
    json: Value,
    fields: Vec<(&'static str, String)>,
    outcome: Outcome,
}

fn explain(
    options: &ExplainOptions,
    config: &Config,
    routes: &Routes,
    key: Option<&ExplainedKey>,
    now: UnixSeconds,
) -> anyhow::Result<Explanation> {
    let (method, path) = (options.method.as_bytes(), options.path.as_bytes());
    if options.path.split('?').next() == Some(&config.ready_path) {
        bail!("{}: the filter answers this path itself, for probes (`ready_path`); no key is checked", options.path);
    }
    let read = config.paths.read(method, path);
    let (route, source) = match (&read, &options.rule) {
        (None, _) => (RouteRule::BadPath, "no rule is looked for".to_owned()),
        (Some(path), Some(rule)) => {
            let bind = |text: &String| Template::compile(text).map_or(Binding::NoMatch, |template| template.bind(path));
            (route::rule_from_metadata(rule, options.template.as_ref().map(bind)), "the route's metadata".to_owned())
        }
        (Some(path), None) => {
            let source = match routes.template(path) {
                Some(template) => format!("`routes`, at {template}"),
                None => "`unmatched`".to_owned(),
            };
            (routes.find(method, path, config.unmatched.rule()), source)
        }
    };
    let live_table = LiveTable::from(record::table(key)?);
    let text = key.map(|key| key.placeholder.as_bytes());
    let facts = Facts {
        credential: text.map_or(Credential::Missing, Credential::One),
        route,
        method,
        knowledge: Knowledge::Serving(&live_table),
        environment: &config.environment,
        foreign_keys: config.foreign(),
        now,
    };
    let request = reason::ExplainedRequest { route, method: &options.method, address: options.address, now };
    let (verdict, status, why, outcome) = match decide(&facts, || options.address) {
        Decision::Public => ("public", 200, "the rule is `public`: no key is needed".to_owned(), Outcome::Done),
        Decision::Allow(_) => ("allowed", 200, reason::allowed(&request, config), Outcome::Done),
        Decision::Deny(denial) => {
            let why = reason::denied(&denial, &request, config, key);
            (denial.reason.code(), denial.reason.status(), why, Outcome::Denied)
        }
    };
    let key_text = key.map_or_else(|| "none".to_owned(), |key| format!("{} ({})", key.name, key.record.key));
    let rule = reason::rule(&request);
    let json = json!({
        "allowed": outcome == Outcome::Done, "verdict": verdict, "status": status, "why": why,
        "rule": rule, "rule_from": source, "key_id": key.map(|key| key.record.key.to_string()),
        "edge": config.edge, "environment": config.environment.as_str(), "at": instant::text(now),
    });
    let answer = match outcome {
        Outcome::Denied => format!("{status} {verdict}"),
        _ => format!("{verdict}: passed on to the upstream"),
    };
    let fields = vec![
        ("request", format!("{} {}", options.method, options.path)),
        ("key", key_text),
        ("rule", if read.is_some() { format!("{rule}, from {source}") } else { rule }),
        ("verdict", answer),
        ("why", why),
    ];
    Ok(Explanation { json, fields, outcome })
}

/// The edge's configuration, and its routes.
fn config(options: &ExplainOptions) -> anyhow::Result<(Config, Routes)> {
    let json = match &options.config {
        Some(path) => check_config::read_plugin_config(path)?,
        None => br#"{"control_plane": {"cluster": "latchkey", "authority": "latchkey"}}"#.to_vec(),
    };
    let name = || options.config.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    Config::parse(&json).with_context(name)
}

/// The key of the request.
fn load_key(options: &ExplainOptions) -> anyhow::Result<Option<ExplainedKey>> {
    let (body, slug) = match (&options.record, &options.key) {
        (Some(path), _) => {
            let text = std::fs::read(path).with_context(|| format!("{}: cannot read it", path.display()))?;
            let body: Value = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
            // The answer to `create` contains the key.
            let body = body.get("key").filter(|key| key.is_object()).cloned().unwrap_or(body);
            let slug = options.workspace.clone().filter(|name| name.parse::<policy::WorkspaceId>().is_err());
            (body, slug.unwrap_or_default())
        }
        (None, Some(key)) => {
            let Some(workspace) = &options.workspace else {
                let message = "name the key's workspace: --workspace acme, or LATCHKEY_WORKSPACE=acme";
                return Err(Failure::Usage(message.to_owned()).into());
            };
            let client = options.remote.session()?.client;
            let slug = client.send(Call::get(&["v1", "workspaces", workspace]))?.body;
            let body = client.send(Call::get(&["v1", "workspaces", workspace, "keys", key]))?.body;
            (body, string(&slug, "slug").to_owned())
        }
        (None, None) => return Ok(None),
    };
    let shape = if options.foreign { SecretShape::Foreign } else { SecretShape::Ours };
    ExplainedKey::read(&body, slug, options.secret, shape).map(Some)
}

fn instant_of(text: &str) -> Result<UnixSeconds, String> {
    instant::parse(text).ok_or_else(|| "expected an instant like 2027-01-31T12:00:00Z".to_owned())
}
