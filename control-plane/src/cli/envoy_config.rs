//! `latchkey envoy-config`: prints envoy/sidecar.yaml, filled in for a gateway.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::bail;
use axum::http::Uri;
use axum::http::uri::Authority;
use clap::{Args, ValueEnum};
use policy::Config;
use serde_json::{Value, json};

/// What is printed, with its reasons.
const SIDECAR: &str = include_str!("../../../envoy/sidecar.yaml");
const TOKEN_SECRET: &str = include_str!("../../../envoy/edge-token.yaml");

/// What `latchkey envoy-config` is told. Files are named as Envoy will see them; none is read here.
#[derive(Args)]
pub(super) struct EnvoyConfigOptions {
    /// Where Envoy reaches the control plane: https://keys.example.com:8444. Several over one database may share a name, or be
    /// named one by one: then the filter sends the first one's name to all.
    #[arg(long = "control-plane", value_name = "URL", required = true)]
    control_planes: Vec<Origin>,

    /// Your name for this gateway; replicas share it, and so does the edge token.
    #[arg(long, value_name = "NAME", default_value = "edge")]
    edge: String,

    /// File with the edge token, lkedge_…, and nothing else.
    #[arg(long, value_name = "FILE", default_value = "/run/latchkey/edge-token")]
    token_file: PathBuf,

    /// Where you put what `--print token-secret` prints: it tells Envoy of the token's file, so that Envoy watches it.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchkey/edge-token.yaml")]
    token_secret: PathBuf,

    /// The service behind Envoy, host:port.
    #[arg(long, value_name = "HOST:PORT")]
    upstream: Destination,

    /// A route and its rule, as often as there are any: /v1/reviews=reviews, /healthz=public, or, for paths that name a
    /// workspace, '/v1/workspaces/{workspace}/{*rest}=workspaces'. A path takes what is below it, too. All else is denied.
    #[arg(long = "route", value_name = "PATH=RULE")]
    routes: Vec<RouteFlag>,

    /// Address and port for clients.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10000")]
    listen: SocketAddr,

    /// Certificate for clients, with its chain (PEM). Without it clients speak plain HTTP: for when TLS ends before Envoy.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,

    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,

    /// Authority (PEM) of the control plane's certificate.
    #[arg(long, value_name = "FILE", default_value = "/etc/ssl/certs/ca-certificates.crt")]
    control_plane_ca: PathBuf,

    /// Certificate (PEM) that Envoy shows the control plane, if that has --edge-client-ca.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,

    /// That certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,

    /// How many proxies of your own stand before Envoy. Allowlists are held against the address that the outermost of them
    /// names; with one too many, any client can name its own.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    trusted_hops: u8,

    /// Requests a second that each key may make at each Envoy.
    #[arg(long, value_name = "NUMBER", default_value = "100")]
    rate_limit: NonZeroU32,

    /// How long an Envoy that is cut off serves the last keys it knows, in seconds: a revocation's worst case.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    max_staleness_secs: u64,

    /// Look up keys that other software made, too, once they were imported.
    #[arg(long)]
    foreign_keys: bool,

    /// The filter's module.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchkey/latchkey_filter.wasm")]
    wasm: PathBuf,

    /// Loopback address for readiness and for leaving (envoy/leave).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9902")]
    local: SocketAddr,

    /// Loopback address of Envoy's admin pages.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,

    /// What to print.
    #[arg(long, value_name = "WHAT", default_value = "config")]
    print: Print,

    /// Take a control plane that is reached by plain HTTP, where the edge token can be read on the way.
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

/// Scheme and authority of the control plane.
#[derive(Clone)]
struct Origin {
    has_tls: bool,
    authority: Authority,
    destination: Destination,
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected http:// or https:// and a host, with a port if needed and no path".to_owned();
        let uri = text.parse::<Uri>().map_err(|_| expected())?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(expected());
        };
        let (has_tls, is_bare) = (scheme == "https", uri.path_and_query().is_none_or(|rest| rest.as_str() == "/"));
        let port = authority.port_u16().unwrap_or(if has_tls { 443 } else { 80 });
        let destination = Destination::new(authority.host(), port).filter(|_| is_bare && !text.contains('@'));
        Ok(Self { has_tls, authority: authority.clone(), destination: destination.ok_or_else(expected)? })
    }
}

impl Origin {
    /// What its certificate has to be for.
    fn name(&self) -> String {
        let host = &self.destination.host;
        let san_type = if host.parse::<IpAddr>().is_ok() { "IP_ADDRESS" } else { "DNS" };
        format!("{{san_type: {san_type}, matcher: {{exact: {}}}}}", quoted(host))
    }

    /// One of the cluster's.
    fn endpoint(&self) -> String {
        let Destination { host, port } = &self.destination;
        let address = format!("{{address: {}, port_value: {port}}}", quoted(host));
        format!("        - endpoint: {{address: {{socket_address: {address}}}}}")
    }
}

/// A host and a port that Envoy connects to.
#[derive(Clone)]
struct Destination {
    host: String,
    port: u16,
}

impl Destination {
    fn new(host: &str, port: u16) -> Option<Self> {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_name =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        (is_name || host.parse::<IpAddr>().is_ok()).then(|| Self { host: host.to_ascii_lowercase(), port })
    }
}

impl FromStr for Destination {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| Self::new(host, port.parse().ok()?));
        parsed.ok_or("expected a host and a port: 127.0.0.1:8081")
    }
}

/// `--route PATH=RULE`.
#[derive(Clone)]
struct RouteFlag {
    path: String,
    rule: String,
}

impl FromStr for RouteFlag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.rsplit_once('=') {
            Some((path, rule)) if path.starts_with('/') && !rule.is_empty() => {
                Ok(Self { path: path.to_owned(), rule: rule.to_owned() })
            }
            _ => Err("expected a path and a rule: /v1/reviews=reviews"),
        }
    }
}

impl RouteFlag {
    /// What comes before the first parameter, without a slash behind.
    fn prefix(&self) -> &str {
        let literal = self.path.split_once('{').map_or(self.path.as_str(), |(literal, _)| literal);
        literal.trim_end_matches('/')
    }

    /// The same as a template of the plugin configuration.
    fn template(&self) -> String {
        if self.path.contains('{') { self.path.clone() } else { format!("{}/{{*rest}}", self.prefix()) }
    }
}

/// A route of Envoy's.
impl fmt::Display for RouteFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, rule) = (self.prefix(), quoted(&self.rule));
        let path = if self.path.contains('{') { format!(", path: {}", quoted(&self.path)) } else { String::new() };
        let matched = match prefix {
            "" => "prefix: /".to_owned(),
            prefix => format!("path_separated_prefix: {}", quoted(prefix)),
        };
        writeln!(f, "              - match: {{{matched}}}")?;
        writeln!(f, "                metadata: {{filter_metadata: {{latchkey: {{rule: {rule}{path}}}}}}}")?;
        write!(f, "                route: {{cluster: upstream}}")
    }
}

/// What is to be printed.
pub(super) fn run_envoy_config(options: &EnvoyConfigOptions) -> anyhow::Result<String> {
    Ok(match options.print {
        Print::Config => config(options)?,
        Print::TokenSecret => fill(TOKEN_SECRET, &[("TOKEN_FILE", file(&options.token_file)?)]),
    })
}

/// All of what can be printed, with nothing filled in: what `check-config` compares with.
pub(super) fn unfilled() -> String {
    fill(SIDECAR, &[])
}

fn config(options: &EnvoyConfigOptions) -> anyhow::Result<String> {
    let [first @ Origin { has_tls, authority, destination }, others @ ..] = options.control_planes.as_slice() else {
        bail!("--control-plane is missing");
    };
    if others.iter().any(|other| other.has_tls != *has_tls) {
        bail!("--control-plane is https:// here and http:// there: Envoy reaches all of them in the same way");
    }
    if !has_tls && !options.insecure_http {
        bail!(
            "--control-plane is plain HTTP, where the edge token can be read on the way: take https://, or --insecure-http where nobody can listen"
        );
    }
    for (flag, address) in [("--admin", options.admin), ("--local", options.local)] {
        if !address.ip().is_loopback() {
            bail!("{flag} {address} is not loopback: whoever reaches it can end this Envoy, or have it retired");
        }
    }
    let plugin = plugin(options, authority)?;
    let all = || std::iter::once(first).chain(others);
    let mut names: Vec<String> = all().map(Origin::name).collect();
    names.dedup();
    let endpoints: Vec<String> = all().map(Origin::endpoint).collect();
    let wanted = [
        ("tls", options.tls_certificate.is_some()),
        ("control-plane-tls", *has_tls),
        ("client-certificate", options.client_certificate.is_some()),
        ("several-names", names.len() > 1),
    ];
    let or_none = |path: &Option<PathBuf>| path.as_deref().map_or(Ok(String::new()), file);
    // Envoy takes the first route that fits.
    let mut routes: Vec<&RouteFlag> = options.routes.iter().collect();
    routes.sort_by_key(|route| std::cmp::Reverse(route.prefix().len()));
    let routes: Vec<String> = routes.into_iter().map(ToString::to_string).collect();
    Ok(fill(
        &sections(SIDECAR, &wanted),
        &[
            ("EDGE", quoted(&options.edge)),
            ("LISTEN_ADDRESS", quoted(&options.listen.ip().to_string())),
            ("LISTEN_PORT", options.listen.port().to_string()),
            ("ADMIN_ADDRESS", quoted(&options.admin.ip().to_string())),
            ("ADMIN_PORT", options.admin.port().to_string()),
            ("LOCAL_ADDRESS", quoted(&options.local.ip().to_string())),
            ("LOCAL_PORT", options.local.port().to_string()),
            ("TLS_CERTIFICATE", or_none(&options.tls_certificate)?),
            ("TLS_KEY", or_none(&options.tls_key)?),
            ("TRUSTED_HOPS", options.trusted_hops.to_string()),
            ("RATE_LIMIT", options.rate_limit.to_string()),
            ("ROUTES", routes.join("\n")),
            ("LATCHKEY", plugin.to_string()),
            ("WASM", file(&options.wasm)?),
            ("UPSTREAM_HOST", quoted(&options.upstream.host)),
            ("UPSTREAM_PORT", options.upstream.port.to_string()),
            ("CONTROL_PLANE_AUTHORITY", quoted(authority.as_str())),
            ("CONTROL_PLANE_HOST", quoted(&destination.host)),
            ("CONTROL_PLANE_NAMES", names.join(", ")),
            ("CONTROL_PLANE_ENDPOINTS", endpoints.join("\n")),
            ("CONTROL_PLANE_CA", file(&options.control_plane_ca)?),
            ("CLIENT_CERTIFICATE", or_none(&options.client_certificate)?),
            ("CLIENT_KEY", or_none(&options.client_key)?),
            ("TOKEN_SECRET", file(&options.token_secret)?),
        ],
    ))
}

/// The plugin configuration, which the filter would take, and the routes with it.
fn plugin(options: &EnvoyConfigOptions, authority: &Authority) -> anyhow::Result<Value> {
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

/// The template without the sections that aren't wanted. A section may stand in another.
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
    // In one pass, so that a value that looks like a name stays what it is.
    while let Some((before, (name, after))) =
        rest.split_once("${").and_then(|(before, tail)| Some((before, tail.split_once('}')?)))
    {
        text.push_str(before);
        text.push_str(values.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value));
        rest = after;
    }
    text.push_str(rest);
    // Where there is nothing to put in there is no line.
    text.replace("\n\n              - match", "\n              - match")
}

fn file(path: &Path) -> anyhow::Result<String> {
    match path.to_str() {
        Some(path) => Ok(quoted(path)),
        None => bail!("{} is not UTF-8, which Envoy's configuration is", path.display()),
    }
}

/// A text as YAML and JSON both write it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
