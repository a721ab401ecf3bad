//! The rig for containers: images that are built here, since none can be pulled, and containers of a real engine. All of them are gone with the test.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test that fails is to panic")]
#![allow(clippy::pedantic, reason = "the builder is to read as a sentence")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::support::servers::{installed, openbao};
use crate::support::{Outcome, Running, World, binary};

/// The sources of the examples.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A name that nothing else of this engine has.
pub fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("secret-init-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Starts a command of the host.
pub fn host(command: &mut Command) -> Running {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::new(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// A command of the engine's client.
#[track_caller]
pub fn docker<const COUNT: usize>(words: [&str; COUNT]) -> Outcome {
    host(Command::new("docker").args(words)).finishes()
}

/// A command of the engine's client that is to succeed, whatever it says on stderr; gives its output.
#[track_caller]
pub fn docker_says<const COUNT: usize>(words: [&str; COUNT]) -> String {
    let outcome = docker(words);
    assert_eq!(outcome.code(), 0, "docker {words:?}: {} (tests/run installs and starts an engine)", outcome.stderr);
    outcome.stdout
}

/// Runs a shell script with these variables in a folder.
#[track_caller]
pub fn shell(folder: &Path, script: &str, variables: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new("sh");
    host(command.args(["-ec", script]).current_dir(folder).envs(variables.iter().copied())).finishes()
}

/// An image of ours. It goes with the last that holds it.
pub struct Image {
    pub name: String,
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = docker(["rmi", "--force", &self.name]);
    }
}

impl Image {
    /// busybox with all its applets, and two users: what stands in for a base image that would be pulled.
    pub fn base() -> Arc<Self> {
        static SHARED: Mutex<Weak<Image>> = Mutex::new(Weak::new());
        shared(&SHARED, || Self::imported(&base_folder(&World::new())))
    }

    /// What `Dockerfile.example` makes of the base and of `myapp.rs`.
    pub fn of_the_example() -> Arc<Self> {
        static SHARED: Mutex<Weak<Image>> = Mutex::new(Weak::new());
        shared(&SHARED, || Self::example_on(&Self::base().name))
    }

    /// The same without any base.
    pub fn from_scratch() -> Arc<Self> {
        static SHARED: Mutex<Weak<Image>> = Mutex::new(Weak::new());
        shared(&SHARED, || Self::example_on("scratch"))
    }

    fn example_on(base: &str) -> Self {
        let world = World::new();
        example_context(&world.path);
        let name = unique();
        let argument = format!("BASE={base}");
        let context = world.path.display().to_string();
        let dockerfile = world.path.join("Dockerfile.example").display().to_string();
        docker_says(["build", "--force-rm", "--tag", &name, "--build-arg", &argument, "--file", &dockerfile, &context]);
        Self { name }
    }

    /// The real OpenBao, in place of the image that would be pulled.
    pub fn openbao() -> Arc<Self> {
        static SHARED: Mutex<Weak<Image>> = Mutex::new(Weak::new());
        shared(&SHARED, || {
            let world = World::new();
            for folder in ["bin", "tls", "tmp"] {
                fs::create_dir(world.path.join(folder)).unwrap();
            }
            fs::copy(openbao::binary(), world.path.join("bin/bao")).unwrap();
            Self::imported(&world.path)
        })
    }

    /// MiniStack as `tests/run` has installed it, in place of the image that would be pulled: its Python, and the libraries that this needs.
    pub fn ministack() -> Arc<Self> {
        static SHARED: Mutex<Weak<Image>> = Mutex::new(Weak::new());
        shared(&SHARED, || {
            let (script, name) = (root().join("tests/containers/ministack.sh"), unique());
            host(Command::new(script).arg(installed("ministack", "python")).arg(&name)).finishes().succeeds();
            Self { name }
        })
    }

    /// The content of a folder as an image.
    pub fn import(folder: &Path) -> Arc<Self> {
        Arc::new(Self::imported(folder))
    }

    fn imported(folder: &Path) -> Self {
        let name = unique();
        shell(folder, "tar -c . | docker import - \"$NAME\"", &[("NAME", &name)]).succeeds();
        Self { name }
    }

    /// A container of it, to be run.
    pub fn run(self: &Arc<Self>) -> Run {
        Run { options: Vec::new(), image: Arc::clone(self), words: Vec::new() }
    }
}

fn shared(slot: &Mutex<Weak<Image>>, make: impl FnOnce() -> Image) -> Arc<Image> {
    let mut slot = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    slot.upgrade().unwrap_or_else(|| {
        let image = Arc::new(make());
        *slot = Arc::downgrade(&image);
        image
    })
}

/// The files of the base image.
pub fn base_folder(world: &World) -> PathBuf {
    let folder = world.path.join("base");
    for directory in ["bin", "etc", "home/app", "tmp", "usr/local/bin"] {
        fs::create_dir_all(folder.join(directory)).unwrap();
    }
    fs::set_permissions(folder.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy("/bin/busybox", folder.join("bin/busybox")).unwrap();
    let applets = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|&applet| applet != "busybox") {
        symlink("busybox", folder.join("bin").join(applet)).unwrap();
    }
    fs::write(folder.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n").unwrap();
    fs::write(folder.join("etc/group"), "root:x:0:\napp:x:1000:\nlogs:x:50:app\n").unwrap();
    folder
}

/// What `Dockerfile.example` expects beside it.
pub fn example_context(folder: &Path) {
    fs::copy(root().join("Dockerfile.example"), folder.join("Dockerfile.example")).unwrap();
    fs::copy(binary(), folder.join("secret-init")).unwrap();
    let source = root().join("tests/containers/myapp.rs");
    let mut compiler = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    compiler
        .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"])
        .arg(folder.join("myapp"))
        .arg(source);
    host(&mut compiler).finishes().succeeds();
}

/// How a container will be started.
#[derive(Clone)]
pub struct Run {
    options: Vec<String>,
    image: Arc<Image>,
    words: Vec<String>,
}

impl Run {
    /// Options of `docker run`, with spaces between them.
    #[must_use]
    pub fn options(mut self, options: &str) -> Self {
        self.options.extend(options.split_whitespace().map(str::to_owned));
        self
    }

    /// A variable of the container.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.options.extend(["--env".to_owned(), format!("{name}={value}")]);
        self
    }

    /// A file of the host as `/run/secrets/NAME`.
    #[must_use]
    pub fn secret(mut self, name: &str, file: &Path) -> Self {
        self.options.extend(["--volume".to_owned(), format!("{}:/run/secrets/{name}:ro", file.display())]);
        self
    }

    /// CMD.
    #[must_use]
    pub fn program<const COUNT: usize>(mut self, words: [&str; COUNT]) -> Self {
        self.words = words.map(str::to_owned).to_vec();
        self
    }

    /// CMD, of any number of words.
    #[must_use]
    pub fn words<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.words = words.into_iter().map(str::to_owned).collect();
        self
    }

    /// A shell script as CMD.
    #[must_use]
    pub fn shell(self, script: &str) -> Self {
        self.program(["sh", "-c", script])
    }

    fn container(&self) -> Container {
        Container { name: unique(), image: Some(Arc::clone(&self.image)) }
    }

    fn command(&self, beginning: &[&str], name: &str) -> Command {
        let mut command = Command::new(beginning[0]);
        command.args(&beginning[1..]).args(["--name", name]).args(&self.options).arg(&self.image.name).args(&self.words);
        command
    }

    /// Runs it to its end, in the foreground.
    #[track_caller]
    pub fn finishes(&self) -> Outcome {
        let container = self.container();
        host(&mut self.command(&["docker", "run"], &container.name)).finishes()
    }

    /// Runs it to its end on a terminal: whenever the first of a pair was shown, the second is typed.
    #[track_caller]
    pub fn finishes_on_a_terminal(&self, conversation: &[(&str, &str)]) -> Outcome {
        let container = self.container();
        let helper = root().join("tests/containers/terminal.py").display().to_string();
        let mut beginning = vec!["python3", &helper];
        beginning.extend(conversation.iter().flat_map(|&(expected, typed)| [expected, typed]));
        beginning.extend(["--", "docker", "run", "--interactive", "--tty"]);
        host(&mut self.command(&beginning, &container.name)).finishes()
    }

    /// Starts it in the background.
    #[track_caller]
    pub fn starts(&self) -> Container {
        let container = self.container();
        let outcome = host(&mut self.command(&["docker", "run", "--detach"], &container.name)).finishes();
        assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
        container
    }
}

/// A container of ours. It is removed at the end.
pub struct Container {
    pub name: String,
    /// An image cannot go before its containers.
    image: Option<Arc<Image>>,
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker(["rm", "--force", "--volumes", &self.name]);
    }
}

impl Container {
    /// One that something else starts, by its name.
    pub fn named(name: String) -> Self {
        Self { name, image: None }
    }

    /// Waits for a line of its log that begins so.
    #[track_caller]
    pub fn line(&self, beginning: &str) -> String {
        host(Command::new("docker").args(["logs", "--follow", &self.name])).line(beginning)
    }

    /// As [`Container::line`], for a container that something else removes.
    #[track_caller]
    pub fn line_and_leave(self, beginning: &str) {
        std::mem::ManuallyDrop::new(self).line(beginning);
    }

    /// What it has written so far: stdout and stderr.
    #[track_caller]
    pub fn logs(&self) -> String {
        let outcome = docker(["logs", &self.name]);
        outcome.stdout + &outcome.stderr
    }

    /// `docker exec` with its options and the command.
    #[track_caller]
    pub fn exec(&self, words: &[&str]) -> Outcome {
        host(Command::new("docker").arg("exec").arg(&self.name).args(words)).finishes()
    }

    #[track_caller]
    pub fn signal(&self, name: &str) {
        docker_says(["kill", "--signal", name, &self.name]);
    }

    /// `docker stop` with a grace that is longer than any test, and the exit code: a program that needs to be killed never gets to it.
    #[track_caller]
    pub fn stops(&self) -> i32 {
        docker_says(["stop", "--time", "600", &self.name]);
        self.exit_code()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn exit_code(&self) -> i32 {
        docker_says(["wait", &self.name]).trim().parse().unwrap()
    }
}

/// The example of this name below `compose-examples`, copied with what its README expects two folders above it.
pub struct Project {
    world: World,
    folder: PathBuf,
    name: String,
    base: Arc<Image>,
    /// More variables for Compose.
    pub variables: Vec<(&'static str, String)>,
    compose: &'static str,
}

/// The commands of Compose that this machine has.
pub fn composes() -> Vec<&'static str> {
    let answers = |compose: &&str| Command::new("sh").args(["-c", &format!("{compose} version")]).output().unwrap().status.success();
    let found: Vec<&str> = ["docker-compose", "docker compose"].into_iter().filter(answers).collect();
    assert!(!found.is_empty(), "no Compose here: tests/run installs it");
    found
}

impl Project {
    pub fn new(example: &str, compose: &'static str) -> Self {
        let world = World::new();
        let folder = world.path.join("compose-examples").join(example);
        let release = world.path.join("target/any/release");
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        fs::create_dir_all(&release).unwrap();
        fs::copy(binary(), release.join("secret-init")).unwrap();
        let source = root().join("compose-examples").join(example).display().to_string();
        shell(&world.path, "cp -a \"$SOURCE\" \"$FOLDER\"", &[("SOURCE", &source), ("FOLDER", &folder.display().to_string())]).succeeds();
        let name = unique();
        // Of two images that are the same to the byte, Docker makes one: a test would take it away from another that still builds on it.
        let app = fs::read_to_string(folder.join("app")).unwrap();
        fs::write(folder.join("app"), format!("{app}# {name}\n")).unwrap();
        Self { world, folder, name, base: Image::base(), variables: Vec::new(), compose }
    }

    /// A file of the example, with another content.
    pub fn put(&self, name: &str, content: &str) {
        fs::write(self.folder.join(name), content).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.folder.join(name)).unwrap();
    }

    /// A line of shell as a user types it in the folder of the example.
    #[track_caller]
    pub fn types(&self, line: &str) -> Outcome {
        let line = line.replace("docker-compose", self.compose);
        let mut variables = vec![("COMPOSE_PROJECT_NAME", self.name.as_str()), ("BASE", &self.base.name), ("PORT", "0")];
        variables.extend(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        shell(&self.folder, &line, &variables)
    }

    /// The lines of shell in the README of the example.
    pub fn readme(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("README.md")).unwrap();
        text.split("```sh\n").skip(1).flat_map(|rest| rest.split("```").next().unwrap().lines()).map(str::to_owned).collect()
    }

    /// The name of a service's container.
    pub fn container(&self, service: &str) -> String {
        self.types(&format!("docker-compose ps --quiet {service}")).stdout.trim().to_owned()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.types("docker-compose down --rmi local --volumes --timeout 5");
    }
}
