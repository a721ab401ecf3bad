//! A real PostgreSQL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Folder, Server, folder, on_a_free_port};

/// A PostgreSQL of its own, which asks for passwords.
pub struct Postgres {
    pub port: u16,
    /// Of the user `postgres`, who may do everything.
    pub password: String,
    _server: Server,
    _folder: Folder,
}

impl Postgres {
    #[track_caller]
    pub fn start() -> Self {
        let (folder, password) = (folder(), "postgres-password".to_owned());
        fs::write(folder.join("password"), &password).unwrap();
        let data = folder.join("data");
        fs::create_dir(&data).unwrap();
        assert!(Command::new("chown").arg("postgres:").arg(&data).status().unwrap().success());
        let mut initdb = as_postgres(&folder, "initdb");
        initdb.args(["--no-sync", "--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]);
        let output = initdb.args(["--pwfile=password", "--pgdata=data"]).output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let (mut server, port) = on_a_free_port(|port| {
            let mut command = as_postgres(&folder, "postgres");
            command.args(["-D", "data", "-p", &port.to_string()]);
            command.args(["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"].iter().flat_map(|option| ["-c", option]));
            Ok((Server::start(&folder, &mut command, "database system is ready to accept connections")?, port))
        });
        // At once, and with all its processes.
        server.last_signal = libc::SIGQUIT;
        Self { port, password, _server: server, _folder: folder }
    }

    /// What this user gets with this password.
    pub fn query_as(&self, user: &str, password: &str, sql: &str) -> Result<String, String> {
        let to = format!("host=127.0.0.1 port={} user={user} dbname=postgres", self.port);
        let output = Command::new("psql").args(["-X", "-tAq", &to, "-c", sql]).env("PGPASSWORD", password).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// What the user `postgres` gets.
    pub fn query(&self, sql: &str) -> Result<String, String> {
        self.query_as("postgres", &self.password, sql)
    }
}

fn as_postgres(folder: &Path, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    // What makes it another user clears the signal for the end of its parent: once more, after that.
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "setpriv", "--pdeathsig", "QUIT"]);
    command.arg(binaries().join(program)).current_dir(folder);
    command
}

/// Where Debian has the server's commands, which are not in PATH.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path().join("bin"));
    versions.filter(|bin| bin.join("postgres").exists()).max().unwrap()
}
