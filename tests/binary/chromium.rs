//! A headless Chromium, driven by its own DevTools protocol over a pair of pipes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::support::programs::skip;

/// Only a browser that hangs takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether there is a browser; says so when not, and in CI that is a failure.
pub fn is_there() -> bool {
    let found =
        std::process::Command::new("chromium").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = found.is_ok_and(|status| status.success());
    if !there {
        assert_eq!(skip(&"no `chromium`: tests/setup.sh installs it"), 0, "skipped in CI");
    }
    there
}

/// One tab. Dropping it ends the browser.
pub struct Tab {
    _browser: Child,
    /// Chromium's descriptors 3 and 4.
    commands: ChildStdin,
    messages: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    events: Vec<Value>,
    _profile: TempDir,
}

impl Tab {
    /// Opens an empty one.
    pub async fn open() -> anyhow::Result<Self> {
        let profile = tempfile::tempdir()?;
        // The protocol is spoken on descriptors 3 and 4. As root, and in most containers, Chromium has no sandbox; it
        // opens nothing but our own page.
        let mut browser = tokio::process::Command::new("sh")
            .args(["-c", "exec 3<&0 4>&1 </dev/null >/dev/null 2>&1; exec chromium \"$@\"", "chromium"])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let commands = browser.stdin.take().context("a child without stdin")?;
        let messages = BufReader::new(browser.stdout.take().context("a child without stdout")?);
        let mut tab = Self {
            _browser: browser,
            commands,
            messages,
            session: None,
            last: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let made = tab.call("Target.createTarget", json!({"url": "about:blank"})).await?;
        let attach = json!({"targetId": made["targetId"], "flatten": true});
        let attached = tab.call("Target.attachToTarget", attach).await?;
        tab.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            tab.call(&format!("{domain}.enable"), json!({})).await?;
        }
        let listen = "window.violations = []; addEventListener('securitypolicyviolation', \
                      (e) => violations.push(`${e.effectiveDirective} ${e.blockedURI}`)); window.born = performance.now();";
        tab.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": listen })).await?;
        Ok(tab)
    }

    /// One command, and its answer.
    pub async fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        tokio::time::timeout(PATIENCE, self.ask(method, params))
            .await
            .with_context(|| format!("Chromium did not answer {method} within {PATIENCE:?}"))?
    }

    async fn ask(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).await?;
        loop {
            let message = self.read().await?;
            if message["id"] == json!(self.last) {
                ensure!(message.get("error").is_none(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            self.events.push(message);
        }
    }

    async fn read(&mut self) -> anyhow::Result<Value> {
        let mut message = Vec::new();
        self.messages.read_until(0, &mut message).await?;
        ensure!(message.pop() == Some(0), "Chromium has ended");
        Ok(serde_json::from_slice(&message)?)
    }

    /// Goes to `url`, until it is loaded.
    pub async fn load(&mut self, url: &str) -> anyhow::Result<()> {
        let went = self.call("Page.navigate", json!({ "url": url })).await?;
        ensure!(went.get("errorText").is_none(), "{url}: {went}");
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'").await
    }

    /// What an expression is worth in the page.
    pub async fn value(&mut self, expression: &str) -> anyhow::Result<Value> {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", params).await?;
        ensure!(answer.get("exceptionDetails").is_none(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true in the page.
    pub async fn wait(&mut self, expression: &str) -> anyhow::Result<()> {
        let begun = std::time::Instant::now();
        loop {
            // A page that is just being left cannot be asked.
            let seen = self.value(expression).await;
            if seen.as_ref().is_ok_and(|value| *value == json!(true)) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let text = self.value("document.body.innerText").await.unwrap_or_default();
                bail!("waited {PATIENCE:?} for {expression}; last {seen:?}, on\n{}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `light` or `dark`.
    pub async fn prefer(&mut self, scheme: &str) -> anyhow::Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await.map(drop)
    }

    /// A window of `width` and `height` in CSS pixels.
    pub async fn size(&mut self, width: u32, height: u32, phone: bool) -> anyhow::Result<()> {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        self.call("Emulation.setDeviceMetricsOverride", params).await.map(drop)
    }

    /// Whether pages may run scripts. What a test asks is run all the same.
    pub async fn scripts(&mut self, allowed: bool) -> anyhow::Result<()> {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": !allowed })).await.map(drop)
    }

    /// Types into the search.
    pub async fn type_into_search(&mut self, text: &str) -> anyhow::Result<()> {
        self.value("document.getElementById('q').focus()").await?;
        self.call("Input.insertText", json!({ "text": text })).await.map(drop)
    }

    pub async fn press_enter(&mut self) -> anyhow::Result<()> {
        let key = |kind: &str| json!({"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"});
        self.call("Input.dispatchKeyEvent", key("keyDown")).await?;
        self.call("Input.dispatchKeyEvent", key("keyUp")).await.map(drop)
    }

    /// A picture of what is seen.
    pub async fn screenshot(&mut self, file: &Path) -> anyhow::Result<()> {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await?;
        let bytes = BASE64_STANDARD.decode(picture["data"].as_str().context("no picture")?)?;
        ensure!(bytes.len() > 10_000, "an empty picture: {} bytes", bytes.len());
        Ok(std::fs::write(file, bytes)?)
    }

    /// Everything the browser complained of: exceptions, refused loads, the page's own errors. That an answer has the
    /// code of a failure is what the page is there for.
    pub async fn complaints(&mut self) -> anyhow::Result<Vec<String>> {
        let violations = self.value("window.violations").await?;
        let mut found: Vec<String> = serde_json::from_value(violations)?;
        for event in &self.events {
            let (params, entry) = (&event["params"], &event["params"]["entry"]);
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => found.push(params["exceptionDetails"].to_string()),
                Some("Runtime.consoleAPICalled") if params["type"] == "error" => found.push(params.to_string()),
                Some("Log.entryAdded") if entry["level"] == "error" => {
                    let text = entry["text"].as_str().unwrap_or_default();
                    if !text.contains("the server responded with a status of 503") {
                        found.push(entry.to_string());
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }
}
