//! A real browser: headless Chromium, used as a person would use it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::ChromeCapabilities;
use thirtyfour::error::WebDriverResult;
use thirtyfour::extensions::cdp::ChromeDevTools;
use thirtyfour::{By, ChromiumLikeCapabilities, DesiredCapabilities, WebDriver, WebElement};
use tokio::runtime::Runtime;

use crate::process::{Process, free_port, root};
use crate::wait::eventually;

/// Whether pages may run scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripts {
    On,
    Off,
}

/// A browser with its own profile. Calls that use an element wait for it, and fail the test if it doesn't appear.
pub struct Browser {
    driver: WebDriver,
    runtime: Runtime,
    base: String,
    // Dropped last: the driver's process, then the profile.
    _process: Process,
    _folder: TempDir,
}

/// The accessibility checker, which `scripts/axe` fetches.
const AXE: &str = ".tools/axe.min.js";

impl Browser {
    /// Opens a browser for the pages of one address.
    pub fn start(base: &str, scripts: Scripts) -> Self {
        Self::start_with_hosts(base, scripts, "")
    }

    /// As [`Self::start`], with host name rules: `MAP keys.test 127.0.0.1`.
    pub fn start_with_hosts(base: &str, scripts: Scripts, hosts: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).env("TMPDIR", folder.path());
        let process = Process::start("chromedriver", &mut command, &folder.path().join("chromedriver.log"));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let url = format!("http://127.0.0.1:{port}");
        let driver = eventually("the browser starts", || {
            let capabilities = capabilities(scripts, hosts, folder.path()).map_err(|error| error.to_string())?;
            runtime.block_on(WebDriver::new(&url, capabilities)).map_err(|error| error.to_string())
        });
        Self { driver, runtime, base: base.to_owned(), _process: process, _folder: folder }
    }

    fn wait<T>(&self, future: impl Future<Output = WebDriverResult<T>>) -> Result<T, String> {
        self.runtime.block_on(future).map_err(|error| error.to_string())
    }

    /// Opens a page by its path or its URL.
    pub fn open(&self, path: &str) {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        self.wait(self.driver.goto(&url)).expect("a page");
    }

    /// Signs in on the console's sign-in page.
    pub fn sign_in(&self, token: &str) {
        self.open("/console/sign-in");
        self.fill("#token", token);
        self.press("Sign in");
        eventually("the sign-in succeeds", || {
            let path = self.path();
            if path.starts_with("/console/sign-in") { Err(path) } else { Ok(()) }
        });
    }

    pub fn back(&self) {
        self.wait(self.driver.back()).expect("the page before");
    }

    pub fn forward(&self) {
        self.wait(self.driver.forward()).expect("the page after");
    }

    /// Reloads the page, as the browser's button does.
    pub fn reload(&self) {
        self.wait(self.driver.refresh()).expect("the page again");
    }

    /// The path of the page, with its query.
    pub fn path(&self) -> String {
        let url = self.wait(self.driver.current_url()).expect("an address");
        url.as_str().strip_prefix(&self.base).unwrap_or(url.as_str()).to_owned()
    }

    /// All visible text of the page.
    pub fn text(&self) -> String {
        self.text_of("body")
    }

    /// The page's HTML, with what scripts have changed.
    pub fn source(&self) -> String {
        self.wait(self.driver.source()).expect("a page")
    }

    /// Finds an element and uses it. Retries both while the element is missing, or while its page is being replaced.
    fn with<T, F: Future<Output = WebDriverResult<T>>>(&self, css: &str, act: impl Fn(WebElement) -> F) -> T {
        eventually(&format!("{css} is on the page and can be used"), || {
            let found = self.wait(async { act(self.driver.find(By::Css(css)).await?).await });
            found.map_err(|error| format!("{error} on {}", self.path()))
        })
    }

    pub fn text_of(&self, css: &str) -> String {
        self.with(css, |element| async move { element.text().await })
    }

    /// How many elements match a CSS selector.
    pub fn count(&self, css: &str) -> usize {
        self.wait(self.driver.find_all(By::Css(css))).expect("elements").len()
    }

    /// The value of a field.
    pub fn value(&self, css: &str) -> String {
        self.with(css, |element| async move { element.prop("value").await }).unwrap_or_default()
    }

    pub fn click(&self, css: &str) {
        self.with(css, |element| async move { element.click().await });
    }

    /// Clicks the link or button with this text.
    pub fn press(&self, text: &str) {
        let path = format!(
            "//*[self::a or self::button or self::summary][normalize-space()='{text}'] | //label[normalize-space()='{text}']"
        );
        eventually(&format!("{text} can be pressed on {}", self.path()), || {
            let all = self.wait(self.driver.find_all(By::XPath(&path)))?;
            let shown = all.into_iter().find(|element| self.wait(element.is_displayed()) == Ok(true));
            self.wait(shown.ok_or("no such button")?.click())
        });
    }

    /// Replaces the value of a field.
    pub fn fill(&self, css: &str, text: &str) {
        self.with(css, |element| async move {
            element.clear().await?;
            element.send_keys(text).await
        });
    }

    /// Sends keys to the focused element.
    pub fn keys(&self, text: &str) {
        let element = self.wait(self.driver.active_element()).expect("a focus");
        self.wait(element.send_keys(text)).expect("pressed keys");
    }

    /// Runs a script of the test. It runs even if the page's own scripts may not, and outside the page's policy.
    pub fn run(&self, script: &str) -> Value {
        let answer = self.wait(self.driver.execute(script, Vec::new())).expect("a script's answer");
        answer.json().clone()
    }

    /// As [`Self::run`], with a value that the script passes to `done`.
    pub fn run_async(&self, script: &str) -> Value {
        let script = format!("const done = arguments[arguments.length - 1]; {script}");
        self.wait(self.driver.execute_async(&script, Vec::new())).expect("a script's answer").json().clone()
    }

    /// Lets pages write and read the clipboard, as a person can allow it.
    pub fn allow_clipboard(&self) {
        let permissions =
            json!({"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": self.base});
        self.devtools("Browser.grantPermissions", permissions);
    }

    /// Waits until the page shows this text.
    pub fn wait_text(&self, text: &str) {
        eventually(&format!("{} shows {text:?}", self.path()), || {
            let seen = self.text();
            if seen.contains(text) { Ok(()) } else { Err(seen) }
        });
    }

    fn devtools(&self, command: &str, parameters: Value) -> Value {
        let tools = ChromeDevTools::new(self.driver.handle.clone());
        self.wait(tools.execute_cdp_with_params(command, parameters)).expect("an answer of the browser")
    }

    /// Sets the window's size and the preferred colour scheme, `light` or `dark`.
    pub fn set_viewport(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
        // A scrollbar would make the page narrower, but not the screenshot.
        self.devtools("Emulation.setScrollbarsHidden", json!({"hidden": true}));
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", features);
    }

    /// How many pixels the page is wider than the window.
    pub fn horizontal_overflow(&self) -> i64 {
        let script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth;";
        self.run(script).as_i64().expect("a number")
    }

    /// A screenshot of the whole page, PNG in base64.
    pub fn screenshot(&self) -> String {
        let shot = self.devtools("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        shot["data"].as_str().expect("a screenshot").to_owned()
    }

    /// What the accessibility checker reports about the page: each rule and place.
    pub fn accessibility_violations(&self) -> Vec<String> {
        let axe =
            std::fs::read_to_string(root().join(AXE)).unwrap_or_else(|error| panic!("{AXE}: {error}; run scripts/axe"));
        let script = format!(
            "{axe}; const done = arguments[arguments.length - 1]; \
             axe.run(document, {{resultTypes: ['violations']}}).then((found) => done(found.violations.flatMap((rule) => \
             rule.nodes.map((node) => rule.id + ' at ' + node.target.join(' ') + ': ' + node.failureSummary))), \
             (error) => done([String(error)]));"
        );
        let answer = self.wait(self.driver.execute_async(&script, Vec::new())).expect("the checker's answer");
        serde_json::from_value(answer.json().clone()).expect("texts")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seen = self.wait(async { self.driver.find(By::Css("body")).await?.text().await });
            eprintln!(
                "---- the page was {:?}\n{}\n----",
                self.wait(self.driver.current_url()),
                seen.unwrap_or_default()
            );
        }
        // Ending only the driver would leave Chromium running.
        let _ = self.wait(self.driver.clone().quit());
    }
}

fn capabilities(scripts: Scripts, hosts: &str, folder: &Path) -> WebDriverResult<ChromeCapabilities> {
    let mut capabilities = DesiredCapabilities::chrome();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let chromium = std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|file| file.exists());
    let chromium = chromium.expect("chromium is not there: run scripts/browser");
    capabilities.set_binary(chromium.to_str().expect("a path in UTF-8"))?;
    for argument in [
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-proxy-server",
        "--window-size=1280,900",
        // Chromium refuses to run as root with its sandbox, and the pages are our own.
        "--no-sandbox",
    ] {
        capabilities.add_arg(argument)?;
    }
    capabilities.add_arg(&format!("--user-data-dir={}", folder.join("profile").display()))?;
    if !hosts.is_empty() {
        capabilities.add_arg(&format!("--host-resolver-rules={hosts}"))?;
    }
    if scripts == Scripts::Off {
        let off = json!({"profile.managed_default_content_settings.javascript": 2});
        capabilities.add_experimental_option("prefs", off)?;
    }
    Ok(capabilities)
}
