//! `latchkey envoy-config`: prints envoy/sidecar.yaml, filled in for a gateway.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::bail;
use axum::http::uri::Authority;
use clap::{Args, ValueEnum};
use policy::Config;
use policy::path::PathKind;
use serde::Deserialize;
use serde_json::{Value, json};

use self::origin::{Destination, Origin};
use self::route::{RouteFlag, find_bypass};

mod origin;
mod route;

/// The printed templates, with the reasons in comments.
const SIDECAR: &str = include_str!("../../../envoy/sidecar.yaml");
const TOKEN_SECRET: &str = include_str!("../../../envoy/edge-token.yaml");

/// The options of `latchkey envoy-config`. Files are named as Envoy will see them; none is read here.
#[derive(Args)]
pub(super) struct EnvoyConfigOptions {
    /// Where Envoy reaches the control plane: https://keys.example.com:8444, or unix:/run/latchkey/edges.sock on the
    /// same machine. Several control planes over one database may share a name, or be given one by one: then the filter
    /// sends the first one's name to all.
    #[arg(long = "control-plane", value_name = "URL", required = true)]
    control_planes: Vec<Origin>,

    /// Your name for this gateway; replicas share it, and so does the edge token.
    #[arg(long, value_name = "NAME", default_value = "edge")]
    edge: String,

    /// File with the edge token, lkedge_…, and nothing else.
    #[arg(long, value_name = "FILE", default_value = "/run/latchkey/edge-token")]
    token_file: PathBuf,

    /// Where you save the output of `--print token-secret`. It names the token's file to Envoy, so that Envoy watches
    /// it.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchkey/edge-token.yaml")]
    token_secret: PathBuf,

    /// The service behind Envoy, host:port.
    #[arg(long, value_name = "HOST:PORT")]
    upstream: Destination,

    /// A route and its rule, may be given more than once: /v1/reviews=reviews, /healthz=public, or, for paths that name
    /// a workspace, '/v1/workspaces/{workspace}/{*rest}=workspaces'. A path also matches everything below it.
    /// Everything else is denied.
    #[arg(long = "route", value_name = "PATH=RULE")]
    routes: Vec<RouteFlag>,

    /// Address and port for clients. `[::]` also accepts IPv4.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10000")]
    listen: SocketAddr,

    /// Certificate for clients, with its chain (PEM). Without it clients speak plain HTTP: for when TLS is terminated
    /// in front of Envoy.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,

    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,

    /// Authority (PEM) of the control plane's certificate.
    #[arg(long, value_name = "FILE", default_value = "/etc/ssl/certs/ca-certificates.crt")]
    control_plane_ca: PathBuf,

    /// Certificate (PEM) that Envoy presents to the control plane, if that has --edge-client-ca.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,

    /// That certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,

    /// How many of your own proxies are in front of Envoy. Allowlists are compared with the address that the outermost
    /// of them reports; if the number is too high, any client can choose its address.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    trusted_hops: u8,

    /// Spellings of paths to allow, given more than once or separated by commas: semicolon (/a;v=2), encoded-slash
    /// (%2F), encoded-unreserved (%61), double-slash (//), encoded-query (%3F). Upstreams read these in different ways,
    /// so by default they get 400; allow what yours reads as Envoy does. Refused if a route covers the path of a
    /// stricter one.
    #[arg(long = "allow-in-paths", value_name = "KIND", value_delimiter = ',', value_parser = path_kind)]
    allow_in_paths: Vec<PathKind>,

    /// Leave x-http-method-override, x-method-override, x-http-method, x-original-url and x-rewrite-url in requests. An
    /// upstream that obeys them serves a different request than the one that was authorized.
    #[arg(long)]
    keep_override_headers: bool,

    /// Requests a second that each key may make at each Envoy.
    #[arg(long, value_name = "NUMBER", default_value = "100")]
    rate_limit: NonZeroU32,

    /// How long an Envoy that is cut off serves its last keys, in seconds: the worst case for a revocation.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    max_staleness_secs: u64,

    /// Also look up imported keys, which other software made.
    #[arg(long)]
    foreign_keys: bool,

    /// The filter's module.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchkey/latchkey_filter.wasm")]
    wasm: PathBuf,

    /// Loopback address for readiness and for retirement (envoy/leave).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9902")]
    local: SocketAddr,

    /// Loopback address of Envoy's admin pages.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,

    /// What to print.
    #[arg(long, value_name = "WHAT", default_value = "config")]
    print: Print,

    /// Accept a control plane over plain HTTP, where others can read the edge token on the way.
    #[arg(long)]
    insecure_http: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Print {
    /// Envoy's configuration.
    Config,
    /// The file that --token-secret names.
    TokenSecret,
}

/// The text to print.
pub(super) fn run_envoy_config(options: &EnvoyConfigOptions) -> anyhow::Result<String> {
    Ok(match options.print {
        Print::Config => config(options)?,
        Print::TokenSecret => fill(TOKEN_SECRET, &[("TOKEN_FILE", file(&options.token_file)?)]),
    })
}

/// The whole template with nothing filled in, which `check-config` compares with.
pub(super) fn empty_template() -> String {
    fill(SIDECAR, &[])
}

fn config(options: &EnvoyConfigOptions) -> anyhow::Result<String> {
    let [first @ Origin { has_tls, authority, .. }, others @ ..] = options.control_planes.as_slice() else {
        bail!("--control-plane is missing");
    };
    if others.iter().any(|other| other.has_tls != *has_tls) {
        bail!("--control-plane is https:// here and http:// there: Envoy reaches all of them in the same way");
    }
    if others.iter().any(|other| other.is_unix() != first.is_unix()) {
        bail!("--control-plane is a Unix socket here and an address there: Envoy reaches all of them in the same way");
    }
    if !has_tls && !first.is_unix() && !options.insecure_http {
        bail!(
            "--control-plane is plain HTTP, where others can read the edge token on the way: use https://, or --insecure-http if the network is your own"
        );
    }
    for (flag, address) in [("--admin", options.admin), ("--local", options.local)] {
        if !address.ip().is_loopback() {
            bail!("{flag} {address} is not loopback: anyone who reaches it can shut this Envoy down or retire it");
        }
    }
    let allowed = BTreeSet::from_iter(options.allow_in_paths.iter().copied());
    refuse_bypass(&allowed, &options.routes)?;
    let plugin = plugin(options, authority, &allowed)?;
    let all = || std::iter::once(first).chain(others);
    let mut names: Vec<String> = all().map(Origin::name).collect();
    names.dedup();
    let endpoints: Vec<String> = all().map(Origin::endpoint).collect();
    let wanted = [
        ("tls", options.tls_certificate.is_some()),
        ("control-plane-tls", *has_tls),
        ("client-certificate", options.client_certificate.is_some()),
        ("several-names", names.len() > 1),
        ("no-override-headers", !options.keep_override_headers),
    ];
    let or_none = |path: &Option<PathBuf>| path.as_deref().map_or(Ok(String::new()), file);
    // Envoy takes the first route that matches.
    let mut routes: Vec<&RouteFlag> = options.routes.iter().collect();
    routes.sort_by_key(|route| std::cmp::Reverse(route.prefix().len()));
    let routes: Vec<String> = routes.into_iter().map(ToString::to_string).collect();
    Ok(fill(
        &sections(SIDECAR, &wanted),
        &[
            ("EDGE", quoted(&options.edge)),
            ("LISTEN_ADDRESS", quoted(&options.listen.ip().to_string())),
            ("LISTEN_PORT", options.listen.port().to_string()),
            ("IPV4_TOO", ipv4_too(options.listen.ip())),
            ("ADMIN_ADDRESS", quoted(&options.admin.ip().to_string())),
            ("ADMIN_PORT", options.admin.port().to_string()),
            ("LOCAL_ADDRESS", quoted(&options.local.ip().to_string())),
            ("LOCAL_PORT", options.local.port().to_string()),
            ("TLS_CERTIFICATE", or_none(&options.tls_certificate)?),
            ("TLS_KEY", or_none(&options.tls_key)?),
            ("TRUSTED_HOPS", options.trusted_hops.to_string()),
            ("MERGE_SLASHES", (!allowed.contains(&PathKind::DoubleSlash)).to_string()),
            ("ESCAPED_SLASHES", escaped_slashes(&allowed)),
            ("RATE_LIMIT", options.rate_limit.to_string()),
            ("ROUTES", routes.join("\n")),
            ("LATCHKEY", plugin.to_string()),
            ("WASM", file(&options.wasm)?),
            ("UPSTREAM_HOST", quoted(&options.upstream.host)),
            ("UPSTREAM_PORT", options.upstream.port.to_string()),
            ("CONTROL_PLANE_AUTHORITY", quoted(authority.as_str())),
            ("CONTROL_PLANE_HOST", quoted(first.host())),
            ("CONTROL_PLANE_TYPE", if first.is_unix() { "STATIC" } else { "STRICT_DNS" }.to_owned()),
            ("CONTROL_PLANE_NAMES", names.join(", ")),
            ("CONTROL_PLANE_ENDPOINTS", endpoints.join("\n")),
            ("CONTROL_PLANE_CA", file(&options.control_plane_ca)?),
            ("CLIENT_CERTIFICATE", or_none(&options.client_certificate)?),
            ("CLIENT_KEY", or_none(&options.client_key)?),
            ("TOKEN_SECRET", file(&options.token_secret)?),
        ],
    ))
}

/// The plugin configuration, checked together with the routes as the filter would.
fn plugin(options: &EnvoyConfigOptions, authority: &Authority, allowed: &BTreeSet<PathKind>) -> anyhow::Result<Value> {
    let mut plugin = serde_json::Map::from_iter([
        ("edge".to_owned(), json!(options.edge)),
        ("control_plane".to_owned(), json!({"cluster": "latchkey", "authority": authority.as_str()})),
        ("max_staleness_secs".to_owned(), json!(options.max_staleness_secs)),
    ]);
    if options.trusted_hops > 0 {
        plugin.insert("trusted_hops".to_owned(), json!(options.trusted_hops));
    }
    if options.foreign_keys {
        plugin.insert("foreign_keys".to_owned(), json!(true));
    }
    if !allowed.is_empty() {
        plugin.insert("paths".to_owned(), json!({"allow": allowed}));
    }
    let plugin = Value::Object(plugin);
    let routes: Vec<Value> =
        options.routes.iter().map(|route| json!({"path": route.template(), "rule": route.rule})).collect();
    let mut checked = plugin.clone();
    if let Some(fields) = checked.as_object_mut() {
        fields.insert("routes".to_owned(), json!(routes));
    }
    Config::parse(checked.to_string().as_bytes())?;
    Ok(plugin)
}

/// Envoy matches a path as it is spelled, and the filter uses the route that Envoy took. If an upstream reads the
/// spelling as another route's path, that route's rule must not be stricter.
fn refuse_bypass(allowed: &BTreeSet<PathKind>, routes: &[RouteFlag]) -> anyhow::Result<()> {
    let spelled = allowed.iter().find(|kind| kind.is_matched_as_spelled());
    let (Some(kind), Some((own, other))) = (spelled, find_bypass(routes)) else { return Ok(()) };
    let kind = json!(kind);
    bail!(
        "--allow-in-paths {}: Envoy can take {}={} for a request that the upstream reads as {}={}: make the first as strict as the second, or don't allow {0}",
        kind.as_str().unwrap_or_default(),
        own.path,
        own.rule,
        other.path,
        other.rule
    )
}

/// A kind by its name in the plugin configuration.
fn path_kind(text: &str) -> Result<PathKind, serde_json::Error> {
    PathKind::deserialize(&Value::from(text))
}

/// What Envoy does with `%2F` and `%5C`.
fn escaped_slashes(allowed: &BTreeSet<PathKind>) -> String {
    let action = if allowed.contains(&PathKind::EncodedSlash) { "KEEP_UNCHANGED" } else { "REJECT_REQUEST" };
    action.to_owned()
}

/// A listener on all IPv6 addresses accepts IPv4 only with this field.
fn ipv4_too(listen: IpAddr) -> String {
    let field = if listen == Ipv6Addr::UNSPECIFIED { ", ipv4_compat: true" } else { "" };
    field.to_owned()
}

/// The template without the sections that aren't wanted. Sections may be nested.
fn sections(template: &str, wanted: &[(&str, bool)]) -> String {
    let mut text = String::with_capacity(template.len());
    let mut open: Vec<bool> = Vec::new();
    for line in template.lines() {
        if let Some(name) = line.strip_prefix("#if ") {
            open.push(wanted.contains(&(name, true)));
        } else if line == "#end" {
            open.pop();
        } else if open.iter().all(|is_wanted| *is_wanted) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    // In one pass, so that a value that looks like a placeholder stays as it is.
    while let Some((before, (name, after))) =
        rest.split_once("${").and_then(|(before, tail)| Some((before, tail.split_once('}')?)))
    {
        text.push_str(before);
        text.push_str(values.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value));
        rest = after;
    }
    text.push_str(rest);
    // An empty value leaves no blank line.
    text.replace("\n\n              - match", "\n              - match")
}

fn file(path: &Path) -> anyhow::Result<String> {
    match path.to_str() {
        Some(path) => Ok(quoted(path)),
        None => bail!("{} is not UTF-8, as Envoy's configuration must be", path.display()),
    }
}

/// A string in a form that is valid in YAML and JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
