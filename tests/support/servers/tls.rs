//! Certificates, made by openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Folder, folder};

/// An authority that signs for the tests. What it made goes with it.
pub struct Authority {
    /// Its own certificate.
    pub ca: PathBuf,
    folder: Folder,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What a server at 127.0.0.1 is to be called.
const LOCAL: &str = "IP:127.0.0.1,DNS:localhost";

const CONFIG: &str = "[ca]\ndefault_ca=tests\n[tests]\ndatabase=index.txt\nnew_certs_dir=.\ndefault_md=sha256\nrand_serial=yes\npolicy=any\n\
    unique_subject=no\nx509_extensions=server\ncopy_extensions=copy\n[any]\ncommonName=supplied\n\
    [server]\nbasicConstraints=CA:FALSE\n";

/// A new authority.
pub fn authority() -> Authority {
    let folder = folder();
    fs::write(folder.join("ca.conf"), CONFIG).unwrap();
    fs::write(folder.join("index.txt"), "").unwrap();
    let authority = Authority { ca: folder.join("ca.pem"), folder };
    let usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    authority.openssl(
        &[&["req", "-x509", "-days", "30", "-subj", "/CN=authority of the tests", "-out", "ca.pem"][..], &usage, &new_key("ca.key")]
            .concat(),
    );
    authority
}

impl Authority {
    /// For a server at 127.0.0.1 or localhost.
    pub fn server(&self) -> Certificate {
        self.sign("server", LOCAL, "serverAuth", &["-days", "30"])
    }

    /// For a server that is called otherwise.
    pub fn server_of_another_name(&self) -> Certificate {
        self.sign("server", "DNS:elsewhere.example", "serverAuth", &["-days", "30"])
    }

    /// For a server at 127.0.0.1 or localhost, until the end of 2024.
    pub fn expired_server(&self) -> Certificate {
        self.sign("server", LOCAL, "serverAuth", &["-startdate", "20240101000000Z", "-enddate", "20241231000000Z"])
    }

    /// Our own: one of an authority, and of nobody else.
    pub fn own(&self) -> Certificate {
        Certificate { certificate: self.ca.clone(), key: self.folder.join("ca.key") }
    }

    /// For a client of this name.
    pub fn client(&self, name: &str) -> Certificate {
        self.sign(name, &format!("DNS:{name}"), "clientAuth", &["-days", "30"])
    }

    fn sign(&self, name: &str, names: &str, usage: &str, validity: &[&str]) -> Certificate {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (certificate, key, request) = (format!("{number}.pem"), format!("{number}.key"), format!("{number}.csr"));
        let (subject, names, usage) = (format!("/CN={name}"), format!("subjectAltName={names}"), format!("extendedKeyUsage={usage}"));
        self.openssl(&[&["req", "-subj", &subject, "-addext", &names, "-addext", &usage, "-out", &request][..], &new_key(&key)].concat());
        // It has a file with all that it signed, one at a time.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let files = ["-keyfile", "ca.key", "-cert", "ca.pem", "-in", &request, "-out", &certificate];
        self.openssl(&[&["ca", "-config", "ca.conf", "-batch", "-notext"][..], &files, validity].concat());
        Certificate { certificate: self.folder.join(certificate), key: self.folder.join(key) }
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(&*self.folder).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn new_key(path: &str) -> [&str; 7] {
    ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", path]
}

/// The text of a file in PEM.
pub fn pem(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}
