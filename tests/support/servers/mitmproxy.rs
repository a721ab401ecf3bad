//! mitmproxy, between secret-init and a real server: for what that server does not do on demand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Folder, Server, folder, installed, on_a_free_port};

/// A proxy in front of one server. It takes HTTP and TLS at the same port.
pub struct Mitmproxy {
    pub port: u16,
    /// Who has signed its certificate.
    pub ca: PathBuf,
    _server: Server,
    _folder: Folder,
}

impl Mitmproxy {
    /// In front of the server at this address, with this authority when it has TLS; the script is one in Python, as `mitmdump --script` takes it.
    #[track_caller]
    pub fn start(upstream: &str, upstream_ca: Option<&Path>, script: &str) -> Self {
        let folder = folder();
        fs::write(folder.join("script.py"), script).unwrap();
        let (server, port) = on_a_free_port(|port| {
            let mut command = Command::new(installed("mitmproxy", "mitmdump"));
            command.args(["--mode", &format!("reverse:{upstream}"), "--listen-host", "127.0.0.1", "--listen-port", &port.to_string()]);
            command.args(["--scripts", "script.py", "--set", "confdir=.", "--set", "flow_detail=0"]).env("PYTHONUNBUFFERED", "1");
            if let Some(ca) = upstream_ca {
                command.args(["--set", &format!("ssl_verify_upstream_trusted_ca={}", ca.display())]);
            }
            Ok((Server::start(&folder, &mut command, "listening at")?, port))
        });
        Self { port, ca: folder.join("mitmproxy-ca-cert.pem"), _server: server, _folder: folder }
    }
}
