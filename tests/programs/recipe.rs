//! The recipes of `docs/recipes.md`, as a reader follows them: the files are those of its blocks, and its commands are typed in their folder.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::engine::{Container, Image, base_folder, docker_says, host, root, shell, unique};
use crate::support::{Outcome, Running, Start, World, binary, children, eventually, send};

/// A block of code.
#[derive(Debug)]
pub struct Block {
    /// The heading that it stands under.
    pub section: String,
    /// The file that it is: what the paragraph before it begins with, as in "`nginx.conf`:". Otherwise it is to be typed.
    name: Option<String>,
    text: String,
}

/// All blocks of the page, in order.
pub fn blocks() -> Vec<Block> {
    let page = fs::read_to_string(root().join("docs/recipes.md")).unwrap();
    let (mut section, mut paragraph, mut found) = (String::new(), "", Vec::new());
    let mut lines = page.lines();
    let mut above = "";
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|&line| line != "```").flat_map(|line| [line, "\n"]).collect();
            let name = match paragraph.strip_prefix('`').and_then(|rest| rest.split_once("`:")) {
                _ if language == "dockerfile" => Some("Dockerfile"),
                name => name.map(|(name, _)| name),
            };
            found.push(Block { section: section.clone(), name: name.map(str::to_owned), text });
            paragraph = "";
        } else if let Some(heading) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            heading.clone_into(&mut section);
        } else if above.is_empty() && !line.is_empty() {
            paragraph = line;
        }
        above = line;
    }
    found
}

/// What the page has as code in a sentence, with this beginning.
pub fn mentioned(beginning: &str) -> String {
    let page = fs::read_to_string(root().join("docs/recipes.md")).unwrap();
    let mut spans = page.split('`').filter(|span| span.starts_with(beginning));
    spans.next().unwrap_or_else(|| panic!("no {beginning}")).to_owned()
}

/// What the table says of a program: of each signal the exit code, or none when the program goes on.
pub fn signals(program: &str) -> Vec<(i32, Option<i32>)> {
    let page = fs::read_to_string(root().join("docs/recipes.md")).unwrap();
    assert!(page.contains("| | `TERM` | `INT` | `QUIT` | `HUP` |"));
    let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {program} | "))).unwrap();
    let cells = row.trim_end_matches(" |").split(" | ");
    let code = |cell: &str| cell.split([',', ' ']).next().unwrap().parse().ok();
    [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP].into_iter().zip(cells.map(code)).collect()
}

/// A recipe in a folder of its own, with its container, once there is one.
pub struct Recipe {
    pub world: World,
    commands: Vec<String>,
    /// The name in the text, and that which stands for it here.
    names: (&'static str, String),
    container: Option<Container>,
    /// When the container was last started, since 1970.
    since: Cell<Duration>,
    /// It cannot go before its container, nor its base before it.
    image: Option<Arc<Image>>,
    base: Option<Arc<Image>>,
}

impl Recipe {
    /// The files of a section. What the text calls `name` has a name here that nothing else has.
    pub fn of(section: &str, name: &'static str) -> Self {
        let world = World::new();
        let mut commands = Vec::new();
        for block in blocks().into_iter().filter(|block| block.section == section) {
            match &block.name {
                Some(name) => drop(world.file(name, block.text)),
                None => commands.push(block.text),
            }
        }
        fs::copy(binary(), world.path.join("secret-init")).unwrap();
        Self { world, commands, names: (name, unique()), container: None, since: Cell::default(), image: None, base: None }
    }

    /// What its line FROM names.
    #[must_use]
    pub fn from(mut self, base: &Arc<Image>) -> Self {
        let dockerfile = self.read("Dockerfile");
        let from = dockerfile.lines().next().unwrap();
        assert!(from.starts_with("FROM "), "{dockerfile}");
        self.world.file("Dockerfile", dockerfile.replace(from, &format!("FROM {}", base.name)));
        self.base = Some(Arc::clone(base));
        self
    }

    /// Its blocks of commands, which have to be so many.
    #[track_caller]
    pub fn commands<const COUNT: usize>(&self) -> [String; COUNT] {
        self.commands.clone().try_into().unwrap()
    }

    /// Them all, however many there are.
    pub fn all_commands(&self) -> &[String] {
        &self.commands
    }

    /// secret-init without a container.
    pub fn secret_init(&self) -> Start {
        self.world.secret_init()
    }

    pub fn put(&self, name: &str, content: &str) {
        self.world.file(name, content);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.world.path.join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Types the commands in its folder. They succeed. Gives what they print on stdout.
    #[track_caller]
    pub fn types(&self, commands: &str) -> String {
        let outcome = shell(&self.world.path, &self.here(commands), &[]);
        assert_eq!(outcome.code(), 0, "{commands}{outcome:?}");
        outcome.stdout
    }

    /// Types the commands that build an image and start a container.
    #[track_caller]
    pub fn starts(&mut self, commands: &str) {
        self.container = Some(Container::named(self.names.1.clone()));
        self.builds(commands);
    }

    /// Starts the container, which has ended.
    #[track_caller]
    pub fn starts_again(&self) {
        self.since.set(SystemTime::UNIX_EPOCH.elapsed().unwrap());
        docker_says(["start", &self.names.1]);
    }

    /// Types the commands that build an image.
    #[track_caller]
    pub fn builds(&mut self, commands: &str) -> Arc<Image> {
        let image = Arc::new(Image { name: self.names.1.clone() });
        self.image = Some(Arc::clone(&image));
        self.types(commands);
        image
    }

    /// Starts to type commands.
    pub fn begins(&self, commands: &str) -> Running {
        host(Command::new("sh").args(["-ec", &self.here(commands)]).current_dir(&self.world.path))
    }

    /// The commands with our names. Nobody but us is to reach the container, and no port of the machine is to be taken: it has its own loopback alone.
    fn here(&self, commands: &str) -> String {
        if !commands.contains("docker") {
            return commands.to_owned();
        }
        let commands = commands.replace(self.names.0, &self.names.1);
        match commands.split_once("-p ") {
            Some((before, after)) => format!("{before}--network none {}", after.split_once(' ').unwrap().1),
            None => commands,
        }
    }

    pub fn container(&self) -> &Container {
        self.container.as_ref().unwrap()
    }

    /// What comes of a signal to the container: each cell of a row of the table of signals. It is started for each, and `is_ready` waits until it works.
    #[track_caller]
    pub fn obeys(&self, program: &str, is_ready: impl Fn(&Self)) {
        for (signal, expected) in signals(program) {
            self.starts_again();
            is_ready(self);
            self.container().signal(&signal.to_string());
            if expected.is_none() {
                // Had the first ended it, it would be with another code.
                self.container().signal("TERM");
            }
            assert_eq!(self.container().exit_code(), expected.unwrap_or(0), "{program}: {signal}");
        }
    }

    /// This signal ends the container with this code.
    #[track_caller]
    pub fn ends_by(&self, signal: &str, code: i32) {
        self.container().signal(signal);
        assert_eq!(self.container().exit_code(), code, "{signal}");
    }

    /// When its program is killed the container ends with 137, and all of its processes with it.
    #[track_caller]
    pub fn dies_with_its_program(&self, is_ready: impl Fn(&Self)) {
        self.starts_again();
        is_ready(self);
        let program = children(self.pid())[0];
        let rest = children(program);
        send(program, libc::SIGKILL);
        assert_eq!(self.container().exit_code(), 128 + libc::SIGKILL);
        assert!(rest.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
    }

    /// PID 1 of the container.
    fn pid(&self) -> i32 {
        docker_says(["inspect", "--format", "{{.State.Pid}}", &self.names.1]).trim().parse().unwrap()
    }

    /// A command in the container's network.
    pub fn inside(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).args(["sh", "-c", script]);
        command.current_dir(&self.world.path).stdin(Stdio::null());
        command
    }

    /// Runs a command in the container's network.
    #[track_caller]
    pub fn tries(&self, script: &str) -> Outcome {
        host(&mut self.inside(script)).finishes()
    }

    /// Waits until a command in the container's network succeeds, and gives its output.
    #[track_caller]
    pub fn succeeds(&self, script: &str) -> String {
        eventually(script, || Some(self.tries(script)).filter(|outcome| outcome.code() == 0)).stdout
    }

    /// Waits until the container has said this since it was last started.
    #[track_caller]
    pub fn says(&self, text: &str) {
        let since = format!("{}.{:09}", self.since.get().as_secs(), self.since.get().subsec_nanos());
        let script = "exec docker logs --follow --since \"$0\" \"$1\" 2>&1";
        let mut log = host(Command::new("sh").args(["-c", script, &since, &self.names.1]));
        while !log.line("").contains(text) {}
    }
}

/// What an image of Debian would be with a package installed: a shell, and the package's files, which are those of this machine.
pub struct Base {
    world: World,
    folder: PathBuf,
    files: BTreeSet<PathBuf>,
}

impl Base {
    pub fn new() -> Self {
        let world = World::new();
        let folder = base_folder(&world);
        for (link, target) in [("lib", "usr/lib"), ("lib64", "usr/lib64")] {
            symlink(target, folder.join(link)).unwrap();
        }
        Self { world, folder, files: BTreeSet::new() }
    }

    /// The package that its `apt-get` finds installed. No other can be installed.
    #[must_use]
    pub fn package(self, name: &str) -> Self {
        let installs = "install -y --no-install-recommends";
        self.script("apt-get", &format!("#!/bin/sh\ncase \"$*\" in update | '{installs} {name}') ;; *) exit 100 ;; esac\n"))
    }

    /// A command that is a script.
    #[must_use]
    pub fn script(self, name: &str, text: &str) -> Self {
        self.world.script(&format!("base/bin/{name}"), text);
        self
    }

    /// A file, or a folder with all that is in it.
    #[must_use]
    pub fn tree(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        // Where it is, since the image has no other links.
        self.files.insert(path.parent().unwrap().canonicalize().unwrap().join(path.file_name().unwrap()));
        self.files.insert(path.canonicalize().unwrap());
        self
    }

    /// A program or a library, with all libraries that it loads.
    #[must_use]
    pub fn program(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let listed = Command::new("ldd").arg(path).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.fold(self, Self::tree).tree(path)
    }

    /// A command that is a link in the package too.
    #[must_use]
    pub fn link(self, name: &str, target: impl AsRef<Path>) -> Self {
        symlink(target, self.folder.join("bin").join(name)).unwrap();
        self
    }

    /// An empty folder of root's.
    #[must_use]
    pub fn folder(self, path: &str) -> Self {
        fs::create_dir_all(self.folder.join(path)).unwrap();
        self
    }

    /// A user of this machine, and an empty folder of theirs.
    #[must_use]
    pub fn user(self, name: &str, home: &str) -> Self {
        let [passwd, _] = ["etc/passwd", "etc/group"].map(|file| {
            let listed = fs::read_to_string(Path::new("/").join(file)).unwrap();
            let line = listed.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or_else(|| panic!("no {name} in {file}"));
            let own = self.folder.join(file);
            fs::write(&own, format!("{}{line}\n", fs::read_to_string(&own).unwrap())).unwrap();
            line.to_owned()
        });
        let mut numbers = passwd.split(':').skip(2).map(|number| number.parse().unwrap());
        let home = self.folder.join(home);
        fs::create_dir_all(&home).unwrap();
        chown(home, numbers.next(), numbers.next()).unwrap();
        self
    }

    pub fn image(self) -> Arc<Image> {
        let name = unique();
        // None of them twice.
        let is_outermost = |path: &&PathBuf| path.ancestors().skip(1).all(|above| !self.files.contains(above));
        let list: Vec<&str> = self.files.iter().filter(is_outermost).map(|path| path.to_str().unwrap().trim_start_matches('/')).collect();
        let list = self.world.file("list", list.join("\n"));
        let script = "tar -c --exclude=jmods -C \"$0\" . -C / --files-from=\"$1\" | docker import - \"$2\"";
        let mut tar = Command::new("sh");
        tar.args(["-ec", script]).args([&self.folder, &list]).arg(&name);
        let image = Image { name };
        host(&mut tar).finishes().succeeds();
        Arc::new(image)
    }
}
