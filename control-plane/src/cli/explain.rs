//! `latchkey explain`: the answer to a request with a key, its rule and its reason, by the code that decides in Envoy.

mod record;
mod why;

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use policy::config::Config;
use policy::decide::{Credential, Decision, Facts, Knowledge, decide};
use policy::route::{self, Binding, RouteRule, Routes, Template};
use policy::{Holding, UnixSeconds};
use serde_json::{Value, json};

use self::record::{Known, Presented, Shape};
use super::check_config;
use super::client::Call;
use super::connection::Remote;
use super::failure::{Failure, Outcome};
use super::output::{card, say, say_json};
use crate::cli::json::word;
use crate::clock::Clock;
use crate::instant;

/// What `latchkey explain` is told.
#[derive(Args)]
pub struct ExplainOptions {
    #[command(flatten)]
    remote: Remote,

    /// The request's method: GET.
    method: String,

    /// The request's path, as Envoy hands it on once it is normalised: /v1/reviews/7.
    path: String,

    /// The edge's plugin configuration, or an Envoy file with our filter in it. Without it: an edge without `routes`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The rule in the metadata of the route that Envoy takes. Without it, the configuration's `routes` say the rule.
    #[arg(long)]
    rule: Option<String>,

    /// The `path` in that metadata: /v1/workspaces/{workspace}/{*rest}.
    #[arg(long, requires = "rule", value_name = "TEMPLATE")]
    template: Option<String>,

    /// The key, by its id: asked for at the control plane. Without it and --record: a request without a key.
    #[arg(long, value_name = "KEY", conflicts_with = "record")]
    key: Option<String>,

    /// The key, in a file as `latchkey keys show --json` writes it. No control plane is asked.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// The key's workspace, by id or slug.
    #[arg(long, short, env = "LATCHKEY_WORKSPACE")]
    workspace: Option<String>,

    /// Which of the key's secrets the request has.
    #[arg(long, value_enum, default_value = "current")]
    secret: Presented,

    /// The key was imported, and its secret doesn't begin with lk_.
    #[arg(long)]
    foreign: bool,

    /// The client's address, as Envoy trusts it.
    #[arg(long)]
    address: Option<IpAddr>,

    /// When; now by default: 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "INSTANT", value_parser = instant_of)]
    at: Option<UnixSeconds>,
}

pub(super) fn run_explain(options: &ExplainOptions) -> anyhow::Result<Outcome> {
    let (config, routes) = config(options)?;
    let known = known(options)?;
    let now = options.at.unwrap_or_else(|| Clock::system().now());
    let told = explain(options, &config, &routes, known.as_ref(), now)?;
    if options.remote.json() {
        say_json(&told.json)?;
    } else {
        say(&card(&told.fields))?;
    }
    Ok(told.outcome)
}

/// The answer, for scripts and for people.
struct Told {
    json: Value,
    fields: Vec<(&'static str, String)>,
    outcome: Outcome,
}

fn explain(
    options: &ExplainOptions,
    config: &Config,
    routes: &Routes,
    known: Option<&Known>,
    now: UnixSeconds,
) -> anyhow::Result<Told> {
    let (method, path) = (options.method.as_bytes(), options.path.as_bytes());
    if options.path.split('?').next() == Some(&config.ready_path) {
        bail!("{}: the filter answers this path itself, for probes (`ready_path`); no key is looked at", options.path);
    }
    let read = config.paths.read(method, path);
    let (route, source) = match (&read, &options.rule) {
        (None, _) => (RouteRule::BadPath, "no rule is looked for".to_owned()),
        (Some(path), Some(rule)) => {
            let bind = |text: &String| Template::compile(text).map_or(Binding::NoFit, |template| template.bind(path));
            (route::stated(rule, options.template.as_ref().map(bind)), "the route's metadata".to_owned())
        }
        (Some(path), None) => {
            let source = match routes.template(path) {
                Some(template) => format!("`routes`, at {template}"),
                None => "`unmatched`".to_owned(),
            };
            (routes.find(method, path, config.unmatched.rule()), source)
        }
    };
    let holding = Holding::from(record::table(known)?);
    let text = known.map(|known| known.stand_in.as_bytes());
    let facts = Facts {
        credential: text.map_or(Credential::Missing, Credential::One),
        route,
        method,
        knowledge: Knowledge::Serving(&holding),
        environment: &config.environment,
        foreign_keys: config.foreign(),
        now,
    };
    let asked = why::Asked { route, method: &options.method, address: options.address, now };
    let (verdict, status, why, outcome) = match decide(&facts, || options.address) {
        Decision::Public => ("public", 200, "the rule is `public`: no key is needed".to_owned(), Outcome::Done),
        Decision::Allow(_) => ("allowed", 200, why::allowed(&asked, config), Outcome::Done),
        Decision::Deny(denial) => {
            let why = why::denied(&denial.reason, &asked, config, known);
            (denial.reason.code(), denial.reason.status(), why, Outcome::Denied)
        }
    };
    let key = known.map_or_else(|| "none".to_owned(), |known| format!("{} ({})", known.name, known.record.key));
    let rule = why::rule(&asked);
    let json = json!({
        "allowed": outcome == Outcome::Done, "verdict": verdict, "status": status, "why": why,
        "rule": rule, "rule_from": source, "key_id": known.map(|known| known.record.key.to_string()),
        "edge": config.edge, "environment": config.environment.as_str(), "at": instant::text(now),
    });
    let answer = match outcome {
        Outcome::Denied => format!("{status} {verdict}"),
        _ => format!("{verdict}: on to the upstream"),
    };
    let fields = vec![
        ("request", format!("{} {}", options.method, options.path)),
        ("key", key),
        ("rule", if read.is_some() { format!("{rule}, from {source}") } else { rule }),
        ("verdict", answer),
        ("why", why),
    ];
    Ok(Told { json, fields, outcome })
}

/// The edge's configuration, and its routes.
fn config(options: &ExplainOptions) -> anyhow::Result<(Config, Routes)> {
    let json = match &options.config {
        Some(path) => check_config::one_plugin(path)?,
        None => br#"{"control_plane": {"cluster": "latchkey", "authority": "latchkey"}}"#.to_vec(),
    };
    let name = || options.config.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    Config::parse(&json).with_context(name)
}

/// The key of the request.
fn known(options: &ExplainOptions) -> anyhow::Result<Option<Known>> {
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
            (body, word(&slug, "slug").to_owned())
        }
        (None, None) => return Ok(None),
    };
    let shape = if options.foreign { Shape::Foreign } else { Shape::Ours };
    Known::read(&body, slug, options.secret, shape).map(Some)
}

fn instant_of(text: &str) -> Result<UnixSeconds, String> {
    instant::parse(text).ok_or_else(|| "expected an instant like 2027-01-31T12:00:00Z".to_owned())
}
