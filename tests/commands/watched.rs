//! The real program while it is being watched.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::client::{self, Answer};
use crate::download::look_until;
use crate::prometheus::{self, Samples};
use crate::site::Site;

/// A run that can be watched; killed at the latest when dropped.
pub(crate) struct Watched {
    pub(crate) child: Child,
    /// Where it listens, as `127.0.0.1:PORT`.
    pub(crate) address: String,
    log: Arc<Mutex<String>>,
}

impl Watched {
    /// Starts the program with these arguments and variables, on a free port.
    pub(crate) fn start(site: &Site, line: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = site.command(&format!("{line} --listen 127.0.0.1:0"));
        let command = command
            .envs(variables.iter().copied())
            .stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        while !told.contains("to be watched at") {
            assert_ne!(err.read_line(&mut told).unwrap(), 0, "{told}");
        }
        let place = told.split("http://").nth(1).unwrap();
        let address = place.split('/').next().unwrap().to_owned();
        let log = Arc::new(Mutex::new(told));
        let kept = Arc::clone(&log);
        thread::spawn(move || keep(err, &kept));
        Self {
            child,
            address,
            log,
        }
    }

    /// What it answers to a `GET`.
    pub(crate) fn get(&self, path: &str) -> Answer {
        client::ask(&self.address, "GET", path, &[], "")
    }

    pub(crate) fn progress(&self) -> Value {
        self.get("/progress").json()
    }

    pub(crate) fn metrics(&self) -> Samples {
        let answer = self.get("/metrics");
        let content = &answer.headers["content-type"];
        assert_eq!(content, "text/plain; version=0.0.4; charset=utf-8");
        prometheus::parse(&answer.body).unwrap()
    }

    pub(crate) fn trigger(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        client::ask(&self.address, "POST", "/trigger", headers, body)
    }

    /// Waits until its progress is as wanted.
    pub(crate) fn until(&mut self, is_so: impl Fn(&Value) -> bool) -> Value {
        let address = self.address.clone();
        let progress = || client::ask(&address, "GET", "/progress", &[], "").json();
        look_until(&mut self.child, || is_so(&progress()));
        progress()
    }

    /// Waits until it has said so. What it shows may be there before what it says is read.
    pub(crate) fn until_told(&mut self, words: &str) {
        let log = Arc::clone(&self.log);
        look_until(&mut self.child, || log.lock().unwrap().contains(words));
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            println!("the program said:\n{}", self.log());
        }
    }
}

fn keep(mut err: impl Read, log: &Mutex<String>) {
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = err.read(&mut piece) {
        let text = String::from_utf8_lossy(&piece[..length]);
        log.lock().unwrap().push_str(&text);
    }
}
