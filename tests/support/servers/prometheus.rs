//! A real Prometheus.

use std::fs;
use std::process::Command;

use super::super::eventually;
use super::{Folder, Server, folder, on_a_free_port};

/// A Prometheus of its own.
pub struct Prometheus {
    address: String,
    _server: Server,
    _folder: Folder,
}

impl Prometheus {
    /// Starts it with this configuration.
    #[track_caller]
    pub fn start(configuration: &str) -> Self {
        let folder = folder();
        fs::write(folder.join("prometheus.yml"), configuration).unwrap();
        let (server, port) = on_a_free_port(|port| {
            let mut command = Command::new("prometheus");
            command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=info"]);
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            Ok((Server::start(&folder, &mut command, "Server is ready to receive web requests")?, port))
        });
        Self { address: format!("http://127.0.0.1:{port}"), _server: server, _folder: folder }
    }

    /// Waits until an expression has a result, and gives it: a line for each series.
    #[track_caller]
    pub fn query(&self, expression: &str) -> String {
        eventually(expression, || {
            let output = Command::new("promtool").args(["query", "instant", &self.address, expression]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            (output.status.success() && !text.trim().is_empty()).then_some(text)
        })
    }
}
