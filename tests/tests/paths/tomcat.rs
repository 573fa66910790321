//! A real servlet container behind Envoy: Debian's tomcat10, as an instance of the test's own.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use end_to_end::{Connection, Process, Response, UpstreamModel, eventually, free_port, send_all};

use crate::generator;
use crate::site::{PRINTED, Setup, Site, request};

/// Where Debian's package puts it.
const HOME: &str = "/usr/share/tomcat10";

/// Connectors of one Tomcat, by their options, and the model of each.
const CONNECTORS: [(&str, &str); 4] = [
    ("", "Tomcat 10.1"),
    ("encodedSolidusHandling=\"decode\"", "Tomcat 10.1 that decodes %2f"),
    ("encodedSolidusHandling=\"passthrough\"", "Tomcat 10.1 that passes %2f through"),
    ("encodedSolidusHandling=\"decode\" allowBackslash=\"true\"", "Tomcat 10.1 with allowBackslash"),
];

/// One servlet for all paths, whose answer is the path that Tomcat dispatched on, in hex.
const WEB_APP: &str = r#"<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0" metadata-complete="true">
  <servlet>
    <servlet-name>dispatched</servlet-name>
    <jsp-file>/WEB-INF/dispatched.jsp</jsp-file>
  </servlet>
  <servlet-mapping><servlet-name>dispatched</servlet-name><url-pattern>/</url-pattern></servlet-mapping>
</web-app>
"#;
const DISPATCHED: &str = r#"<%@page contentType="text/plain; charset=UTF-8" trimDirectiveWhitespaces="true"%>
<%=java.util.HexFormat.of().formatHex(request.getServletPath().getBytes("UTF-8"))%>
"#;
const WEB_DEFAULTS: &str = r#"<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">
  <servlet>
    <servlet-name>jsp</servlet-name>
    <servlet-class>org.apache.jasper.servlet.JspServlet</servlet-class>
  </servlet>
</web-app>
"#;

struct Tomcat {
    /// The port of each connector.
    ports: [u16; CONNECTORS.len()],
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Tomcat {
    /// `None` where the package isn't installed.
    fn start() -> Option<Self> {
        let bin = Path::new(HOME).join("bin");
        if !bin.join("bootstrap.jar").exists() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let base = folder.path();
        for folder in ["conf", "temp", "work", "logs", "webapps/ROOT/WEB-INF"] {
            std::fs::create_dir_all(base.join(folder)).expect("a folder of Tomcat's");
        }
        let ports = CONNECTORS.map(|_| free_port());
        let connectors: String = CONNECTORS
            .iter()
            .zip(ports)
            .map(|((options, _), port)| format!("<Connector address=\"127.0.0.1\" port=\"{port}\" {options}/>\n"))
            .collect();
        let server = format!(
            "<Server port=\"-1\"><Service name=\"paths\">\n{connectors}<Engine name=\"paths\" defaultHost=\"localhost\">\
             <Host name=\"localhost\" appBase=\"webapps\"/></Engine></Service></Server>\n"
        );
        for (file, text) in [
            ("conf/server.xml", server.as_str()),
            ("conf/web.xml", WEB_DEFAULTS),
            ("webapps/ROOT/WEB-INF/web.xml", WEB_APP),
            ("webapps/ROOT/WEB-INF/dispatched.jsp", DISPATCHED),
        ] {
            std::fs::write(base.join(file), text).expect("a file of Tomcat's");
        }
        let mut command = Command::new("java");
        // Options for a fast start, because it doesn't serve for long.
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp"]);
        command.arg(format!("{0}/bootstrap.jar:{0}/tomcat-juli.jar", bin.display()));
        command.arg(format!("-Dcatalina.home={HOME}")).arg(format!("-Dcatalina.base={}", base.display()));
        command.arg(format!("-Djava.io.tmpdir={}", base.join("temp").display()));
        command.args(["org.apache.catalina.startup.Bootstrap", "start"]);
        let mut process = Process::start("Tomcat", &mut command, &base.join("tomcat.log"));
        for port in ports {
            eventually("Tomcat serves", || {
                process.assert_runs();
                let answer = Connection::try_open(port)?.try_get("/", &[])?;
                if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
            });
        }
        Some(Self { ports, _process: process, _folder: folder })
    }
}

/// The path that Tomcat dispatched on, without a slash at its end: whether it keeps that depends on what it cut.
fn dispatched(answer: &Response) -> Option<Vec<u8>> {
    let digits: Vec<u32> = answer.body.trim().chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let path = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit));
    let path: Vec<u8> = path.map(|byte| u8::try_from(byte).expect("two digits")).collect();
    (answer.status == 200 && !path.is_empty()).then(|| without_slash(&path).to_vec())
}

fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

/// Whether Envoy forwards this path at all.
fn is_forwarded(path: &[u8]) -> bool {
    path.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// Whether Tomcat accepts this path: it requires these characters to be escaped, even with `allowBackslash`.
fn is_accepted(path: &[u8]) -> bool {
    is_forwarded(path) && !path.iter().any(|byte| br#""<>[\]^`{|}"#.contains(byte))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a skipped test reports why")]
fn no_path_that_passes_is_another_route_to_tomcat() {
    let Some(tomcat) = Tomcat::start() else {
        // Not with a macro, whose output is shown only for a failing test.
        let lacking = "skipped: no tomcat10; run scripts/debian-packages \"the test behind Tomcat\" tomcat10-common";
        return writeln!(std::io::stderr(), "{lacking}").expect("standard error");
    };
    assert_models_are_right(&tomcat);
    let setup = PRINTED;
    let mut site = Site::start_with_upstream(&setup, tomcat.ports[0]);
    assert_bypass_is_refused(&tomcat, &site);
    assert_generated_pass_as_matched(&setup, &site);
    site.assert_no_vm_failed();
}

/// The models of Tomcat in the test crate dispatch as the real one does.
fn assert_models_are_right(tomcat: &Tomcat) {
    let paths: Vec<Vec<u8>> = generator::all().into_iter().filter(|path| is_accepted(path)).take(1_000).collect();
    let requests: Vec<Vec<u8>> = paths.iter().map(|path| request(path, None)).collect();
    for ((_, name), port) in CONNECTORS.iter().zip(tomcat.ports) {
        let model = UpstreamModel::ALL.iter().find(|model| model.name == *name).expect("a model of this name");
        let mut wrong = Vec::new();
        for (path, answer) in paths.iter().zip(send_all(port, &requests)) {
            let answer = answer.unwrap_or_else(|| panic!("{name}: {}: no answer", path.escape_ascii()));
            let (actual, expected) = (dispatched(&answer), model.resolve(path));
            if actual.as_deref() != expected.as_deref().map(without_slash) {
                let [actual, expected] =
                    [actual, expected].map(|path| path.map(|path| path.escape_ascii().to_string()));
                wrong.push(format!("{}: {actual:?} instead of {expected:?}", path.escape_ascii()));
            }
        }
        assert!(wrong.is_empty(), "{name}: {} of {} differ: {wrong:#?}", wrong.len(), paths.len());
    }
}

/// The bypass works without Latchkey in front, and is refused with it.
fn assert_bypass_is_refused(tomcat: &Tomcat, site: &Site<'_>) {
    for (sent, forwarded, served) in [
        ("/healthz/%2e%2e;/v1/reviews/1", "/healthz/..;/v1/reviews/1", "/v1/reviews/1"),
        ("/v1/reviews/%2e%2e;/webhooks/1", "/v1/reviews/..;/webhooks/1", "/v1/webhooks/1"),
        ("/v1/webhooks;x/1", "/v1/webhooks;x/1", "/v1/webhooks/1"),
    ] {
        for path in [sent, forwarded] {
            let direct = Connection::open(tomcat.ports[0]).get(path, &[]);
            assert_eq!(dispatched(&direct).as_deref(), Some(served.as_bytes()), "Tomcat alone: {path}");
        }
        for key in [None, Some(site.key.secret.as_str())] {
            assert_eq!(site.get(sent, key).verdict(), "400 bad-path", "{sent}, key {key:?}");
        }
    }
    let allowed = site.get("/v1/reviews/1", Some(&site.key.secret));
    assert_eq!(dispatched(&allowed).as_deref(), Some(b"/v1/reviews/1".as_slice()), "{allowed:?}");
    assert_eq!(site.get("/v1/reviews/1", None).verdict(), "401 missing-key");
}

/// Of some generated paths, those that pass without a key are public to Tomcat, and those that pass with a key for
/// reviews are public or reviews.
fn assert_generated_pass_as_matched(setup: &Setup, site: &Site<'_>) {
    let paths: Vec<Vec<u8>> = generator::all().into_iter().filter(|path| is_forwarded(path)).take(3_000).collect();
    for (key, rules) in [(None, &["public"][..]), (Some(site.key.secret.as_str()), &["public", "reviews"])] {
        let requests: Vec<Vec<u8>> = paths.iter().map(|path| request(path, key)).collect();
        let (mut passed, mut wrong) = (0, Vec::new());
        for (path, answer) in paths.iter().zip(send_all(site.port, &requests)) {
            let Some(dispatched) = answer.as_ref().and_then(dispatched) else { continue };
            passed += 1;
            if !rules.contains(&setup.rule(&dispatched)) {
                wrong.push(format!("{} is {} to Tomcat", path.escape_ascii(), dispatched.escape_ascii()));
            }
        }
        assert!(passed > 10, "{passed} passed, which shows nothing");
        assert!(wrong.is_empty(), "{} of {passed} that passed: {wrong:#?}", wrong.len());
    }
}
