//! A headless Chromium at the end of two pipes: it opens a page from disk, and tells what the page did. The pipes are
//! named ones, since a child gets no further descriptors without `unsafe`; the protocol is DevTools', JSON with a NUL
//! behind each message.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

/// How long the browser may take for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// The browsers that will do, by name.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// A running browser. It ends when this is dropped.
pub(crate) struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    next: u64,
    /// What happened and was not asked for.
    events: Vec<Value>,
    _folder: tempfile::TempDir,
}

/// A page that is open.
pub(crate) struct Tab<'a> {
    browser: &'a mut Browser,
    session: String,
    url: String,
}

impl Browser {
    /// Starts one; none if none is installed.
    pub(crate) fn start() -> Option<Self> {
        let name = NAMES.iter().find(|name| {
            let found = Command::new(name).arg("--version").output();
            found.is_ok_and(|output| output.status.success())
        })?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pipe = |name: &str| {
            let path = folder.path().join(name);
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, &path, FileType::Fifo, mode, 0).expect("a pipe can be made");
            // Open both ways, so that opening never waits for the other side.
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .expect("it can be opened")
        };
        let (to, back) = (pipe("to"), pipe("back"));
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3< to 4> back", name])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-pipe",
                "--user-data-dir=profile",
                "about:blank",
            ])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let (sender, from) = mpsc::channel();
        thread::spawn(move || {
            let mut messages = BufReader::new(back);
            let mut message = Vec::new();
            while messages
                .read_until(0, &mut message)
                .is_ok_and(|read| 0 < read)
            {
                message.pop();
                let value = serde_json::from_slice(&message).expect("the browser speaks JSON");
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        Some(Self {
            child,
            to,
            from,
            next: 0,
            events: Vec::new(),
            _folder: folder,
        })
    }

    /// Opens a page from disk in a window of `width`, by day or by night, and waits until it is there.
    pub(crate) fn open(&mut self, page: &Path, width: u32, dark: bool) -> Tab<'_> {
        self.events.clear();
        let target = self.ask(None, "Target.createTarget", &json!({"url": "about:blank"}));
        let attached = self.ask(
            None,
            "Target.attachToTarget",
            &json!({"targetId": target["targetId"], "flatten": true}),
        );
        let session = attached["sessionId"].as_str().expect("a name").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.ask(Some(&session), &format!("{domain}.enable"), &json!({}));
        }
        let phone = width < 600;
        let metrics =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": phone});
        self.ask(
            Some(&session),
            "Emulation.setDeviceMetricsOverride",
            &metrics,
        );
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.ask(Some(&session), "Emulation.setEmulatedMedia", &media);
        let path = fs::canonicalize(page).expect("the page is there");
        let url = format!("file://{}", path.display());
        self.ask(Some(&session), "Page.navigate", &json!({"url": url}));
        self.wait_for("Page.loadEventFired");
        Tab {
            browser: self,
            session,
            url,
        }
    }

    /// Sends a command and gives its result.
    fn ask(&mut self, session: Option<&str>, method: &str, params: &Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser listens");
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = self.receive(deadline, method);
            if answer["id"] == self.next {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    fn wait_for(&mut self, event: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.events.iter().any(|seen| seen["method"] == event) {
            let next = self.receive(deadline, event);
            self.events.push(next);
        }
    }

    fn receive(&mut self, deadline: Instant, what: &str) -> Value {
        let left = deadline.saturating_duration_since(Instant::now());
        self.from
            .recv_timeout(left)
            .unwrap_or_else(|_| panic!("the browser said nothing within {LIMIT:?}: {what}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its own way first, so that its helpers go too.
        let _ = self
            .to
            .write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tab<'_> {
    /// What a piece of JavaScript gives.
    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        let params = json!({"expression": script, "returnByValue": true, "awaitPromise": true});
        let answer = self
            .browser
            .ask(Some(&self.session), "Runtime.evaluate", &params);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{script}: {}",
            answer["exceptionDetails"]
        );
        answer["result"]["value"].clone()
    }

    /// Presses a key, as a keyboard would.
    pub(crate) fn press(&mut self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let params =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.browser
                .ask(Some(&self.session), "Input.dispatchKeyEvent", &params);
        }
    }

    /// Everything that must not be: errors, words on the console, requests for anything but the page itself.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // What is still on its way has come when this was answered.
        self.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))",
        );
        let complaint = |event: &Value| -> Option<String> {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => {
                    Some(format!("exception: {}", params["exceptionDetails"]))
                }
                "Runtime.consoleAPICalled" => Some(format!("console: {}", params["args"])),
                "Log.entryAdded" => Some(format!("log: {}", params["entry"]["text"])),
                "Network.requestWillBeSent" => {
                    let url = params["request"]["url"].as_str().unwrap_or_default();
                    let inside = url == self.url || url.starts_with("data:");
                    (!inside).then(|| format!("request: {url}"))
                }
                _ => None,
            }
        };
        self.browser.events.iter().filter_map(complaint).collect()
    }

    /// The whole page as PNG.
    pub(crate) fn screenshot(&mut self) -> Vec<u8> {
        let params = json!({"captureBeyondViewport": true});
        let answer = self
            .browser
            .ask(Some(&self.session), "Page.captureScreenshot", &params);
        let data = answer["data"].as_str().expect("a picture");
        BASE64_STANDARD.decode(data).expect("base64")
    }
}
