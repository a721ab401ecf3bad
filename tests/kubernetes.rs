//! The manifests of `docs/kubernetes.md`: the schemas of Kubernetes accept them, and their pods do what the page says. There is no cluster: containers of a real engine are
//! put together as kubelet does, from the manifests themselves.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "containers/engine.rs"]
mod engine;
mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use engine::{Container, Image, Run, docker, docker_says, host, root, unique};
use serde_json::{Value, json};
use support::servers::installed;
use support::{Outcome, World, eventually};

/// The manifests of the page, each with all its documents.
fn manifests() -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/kubernetes.md")).unwrap();
    page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// What the schemas of Kubernetes say, in which nothing may be that they do not know.
fn validate(manifest: &str) -> Outcome {
    let world = World::new();
    let file = world.file("manifest.yaml", manifest);
    host(Command::new(installed("kubernetes", "kubernetes-validate")).args(["--strict", "-k", "1.37"]).arg(file)).finishes()
}

#[test]
fn every_manifest_of_the_docs_is_valid_and_a_wrong_field_is_not() {
    let manifests = manifests();
    assert_eq!(manifests.len(), 5);
    for manifest in &manifests {
        let outcome = validate(manifest);
        assert_eq!(outcome.code(), 0, "{}{}", outcome.stdout, outcome.stderr);
        // Every mapping of the pod refuses what it does not know, and a value of another kind.
        for (right, wrong) in [
            ("readOnlyRootFilesystem", "readonlyRootFilesystem"),
            ("runAsUser: 1", "runAsUsr: 1"),
            ("mountPath", "mountpath"),
            ("automountServiceAccountToken: false", "automountServiceAccountToken: 7"),
            ("spec:", "specs:"),
        ] {
            assert!(manifest.contains(right), "{right} in {manifest}");
            let outcome = validate(&manifest.replacen(right, wrong, 1));
            assert_ne!(outcome.code(), 0, "{wrong}: {}", outcome.stdout);
        }
    }
    let sidecar = &manifests[3];
    for (right, wrong) in [("restartPolicy: Always", "restartPolicies: Always"), ("startupProbe: { exec", "startupProbe: { execute")] {
        assert_ne!(validate(&sidecar.replacen(right, wrong, 1)).code(), 0, "{wrong}");
    }
}

/// A volume in memory that containers share.
struct Memory(String);

impl Memory {
    fn new() -> Self {
        let name = unique();
        docker_says(["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=mode=1777", &name]);
        Self(name)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = docker(["volume", "rm", "--force", &self.0]);
    }
}

/// What a volume of a pod is here.
enum Volume {
    Memory(Memory),
    Folder(PathBuf),
}

/// A pod of a manifest.
struct Pod {
    // Containers go first, then what they hold.
    pause: Container,
    spec: Value,
    volumes: Vec<(String, Volume)>,
    world: World,
    image: Arc<Image>,
}

impl Pod {
    /// That of the manifest whose pod has a container of this name. Secrets have this content.
    fn new(container: &str, secret: &[(&str, &str)]) -> Self {
        let documents: Vec<Value> = manifests().iter().flat_map(|manifest| parse(manifest)).collect();
        let spec = |document: &Value| {
            let spec = if document["kind"] == "Pod" { &document["spec"] } else { &document["spec"]["template"]["spec"] };
            let is_its = spec["containers"].as_array()?.iter().any(|its| its["name"] == container);
            is_its.then(|| spec.clone())
        };
        let spec = documents.iter().find_map(spec).unwrap();
        let world = World::new();
        let volume = |volume: &Value| {
            let name = volume["name"].as_str().unwrap();
            let folder = world.path.join(name);
            let kind = if volume["secret"].is_object() {
                fs::create_dir(&folder).unwrap();
                swap(&folder, secret);
                Volume::Folder(folder)
            } else if let Some(name) = volume["configMap"]["name"].as_str() {
                let is_its = |document: &&Value| document["kind"] == "ConfigMap" && document["metadata"]["name"] == name;
                let data = documents.iter().find(is_its).unwrap()["data"].as_object().unwrap().clone();
                fs::create_dir(&folder).unwrap();
                swap(&folder, &data.iter().map(|(name, text)| (name.as_str(), text.as_str().unwrap())).collect::<Vec<_>>());
                Volume::Folder(folder)
            } else if volume["projected"].is_object() {
                fs::create_dir(&folder).unwrap();
                swap(&folder, &[("token", "the-token-of-the-pod")]);
                Volume::Folder(folder)
            } else {
                Volume::Memory(Memory::new())
            };
            (name.to_owned(), kind)
        };
        let volumes: Vec<(String, Volume)> = spec["volumes"].as_array().unwrap().iter().map(volume).collect();
        // What holds the namespaces of a pod, and here its volumes in memory too.
        let mut pause = Image::base().run().shell("trap 'exit 0' TERM; echo pause; while :; do sleep 9999 & wait $!; done");
        for (at, (_, volume)) in volumes.iter().enumerate() {
            if let Volume::Memory(memory) = volume {
                pause = pause.options(&format!("--volume {}:/hold/{at}", memory.0));
            }
        }
        let pause = pause.starts();
        pause.line("pause");
        Self { pause, spec, volumes, world, image: Image::of_the_example() }
    }

    /// A container of it, from an image of ours, in which this is run in place of the app; what secret-init is started as stays.
    fn run(&self, group: &str, name: &str, app: Option<&str>) -> Run {
        let container = self.spec[group].as_array().unwrap().iter().find(|container| container["name"] == name).unwrap();
        let user = &self.spec["securityContext"];
        let mut run = self
            .image
            .run()
            .options(&format!("--user {}:{} --network container:{}", user["runAsUser"], user["runAsGroup"], self.pause.name));
        let context = &container["securityContext"];
        assert_eq!((&context["readOnlyRootFilesystem"], &context["capabilities"]["drop"]), (&json!(true), &json!(["ALL"])));
        run = run.options("--read-only --cap-drop ALL --security-opt no-new-privileges");
        if self.spec["shareProcessNamespace"] == true {
            run = run.options(&format!("--pid container:{}", self.pause.name));
        }
        for mount in container["volumeMounts"].as_array().unwrap() {
            let (_, volume) = self.volumes.iter().find(|(name, _)| mount["name"] == **name).unwrap();
            let source = match volume {
                Volume::Memory(memory) => memory.0.clone(),
                Volume::Folder(folder) => folder.display().to_string(),
            };
            let mode = if mount["readOnly"] == true { ":ro" } else { "" };
            run = run.options(&format!("--volume {source}:{}{mode}", mount["mountPath"].as_str().unwrap()));
        }
        for variable in container["env"].as_array().unwrap_or(&Vec::new()) {
            run = run.variable(variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
        }
        run = run.variable("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        if let Some(command) = container["command"].as_array() {
            run = run.options(&format!("--entrypoint {}", command[0].as_str().unwrap()));
            return run.words(command[1..].iter().map(|word| word.as_str().unwrap()));
        }
        match app {
            Some(script) => run.shell(script),
            None => run.words(container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap())),
        }
    }

    fn folder(&self, volume: &str) -> PathBuf {
        self.world.path.join(volume)
    }

    /// The command of a probe.
    fn probe(&self, group: &str, name: &str, probe: &str) -> Vec<String> {
        let container = self.spec[group].as_array().unwrap().iter().find(|container| container["name"] == name).unwrap();
        let words = container[probe]["exec"]["command"].as_array().unwrap();
        words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }
}

fn succeeds(container: &Container, probe: &[String]) {
    let words: Vec<&str> = probe.iter().map(String::as_str).collect();
    eventually("the probe succeeds", || (container.exec(&words).code() == 0).then_some(()));
}

/// The documents of a manifest.
fn parse(manifest: &str) -> Vec<Value> {
    let world = World::new();
    let file = world.file("manifest.yaml", manifest);
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = Command::new("/usr/bin/python3").args(["-c", script]).arg(file).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Fills a volume as kubelet does, and replaces what is in it.
fn swap(volume: &Path, files: &[(&str, &str)]) {
    let old = fs::read_link(volume.join("..data"));
    let number: u32 = old.as_ref().map_or(0, |old| old.to_str().unwrap().rsplit('.').next().unwrap().parse().unwrap());
    let name = format!("..2026_01_01_00_00_00.{}", number + 1);
    let generation = volume.join(&name);
    fs::create_dir(&generation).unwrap();
    for (file, content) in files {
        fs::write(generation.join(file), content).unwrap();
        fs::set_permissions(generation.join(file), fs::Permissions::from_mode(0o444)).unwrap();
    }
    symlink(&name, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    for (file, _) in files {
        let _ = symlink(Path::new("..data").join(file), volume.join(file));
    }
    if let Ok(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    }
}

const TELLS: &str =
    "trap 'echo has $(cat $DATABASE_URL_FILE)' HUP; echo starts with $(cat $DATABASE_URL_FILE); while :; do sleep 9999 & wait $!; done";

#[test]
fn in_its_own_image_the_app_has_the_new_secret_when_kubelet_brings_it() {
    let pod = Pod::new("api", &[("password", "p@ss\n")]);
    let app = pod.run("containers", "api", Some(TELLS)).starts();
    app.line("starts with postgresql://app:p%40ss@db/app");
    succeeds(&app, &pod.probe("containers", "api", "readinessProbe"));
    swap(&pod.folder("source"), &[("password", "n3w\n")]);
    app.line("has postgresql://app:n3w@db/app");
    // What the page has people type.
    let outcome = app.exec(&["secret-init", "refresh"]);
    assert!(outcome.code() == 0 && outcome.stdout.contains("0 secrets changed, 1 unchanged, 0 failed\n"), "{outcome:?}");
    // A Prometheus of the cluster asks from outside of the container, in the pod's network.
    let scrape = pod.pause.exec(&["wget", "-q", "-O", "-", "http://127.0.0.1:9464/metrics"]);
    assert!(scrape.stdout.contains("\nsecret_init_secret_rotation_total{secret_type=\"file\",result=\"rotated\"} 1\n"), "{scrape:?}");
}

#[test]
fn what_an_init_container_has_written_is_there_for_an_app_that_knows_nothing() {
    let pod = Pod::new("report", &[("password", "p@ss\n")]);
    let init = pod.run("initContainers", "secret-init", None).finishes();
    assert_eq!(
        (init.code(), init.stderr.as_str()),
        (0, "secret-init: warning: /run/secret-init: others can write to it (owner 0, mode 1777)\n")
    );
    let app = pod.run("containers", "report", Some("cat $DATABASE_URL_FILE")).options("--entrypoint env").finishes();
    assert_eq!(app.succeeds(), "postgresql://app:p%40ss@db/app");
}

#[test]
fn a_sidecar_gives_nginx_its_certificate_and_tells_it_when_there_is_another() {
    let pod = Pod::new("nginx", &[("tls.crt", "certificate 1"), ("tls.key", "key 1")]);
    let sidecar = pod.run("initContainers", "secret-init", None).starts();
    // The app is not started before.
    succeeds(&sidecar, &pod.probe("initContainers", "secret-init", "startupProbe"));
    let reads = "echo \"$(cat /run/secret-init/tls/..data/tls.crt), $(cat /run/secret-init/tls/..data/tls.key)\"";
    let script = format!("#!/bin/sh\ntrap '{reads}' HUP\n{reads}\nwhile :; do sleep 9999 & wait $!; done\n");
    fs::set_permissions(pod.world.script("nginx", &script), fs::Permissions::from_mode(0o755)).unwrap();
    let app = pod
        .run("containers", "nginx", Some("exec /app/nginx"))
        .options(&format!("--entrypoint env --volume {}:/app:ro", pod.world.path.display()));
    let app = app.starts();
    app.line("certificate 1, key 1");
    swap(&pod.folder("source"), &[("tls.crt", "certificate 2"), ("tls.key", "key 2")]);
    app.line("certificate 2, key 2");
    for probe in ["livenessProbe", "readinessProbe"] {
        succeeds(&sidecar, &pod.probe("initContainers", "secret-init", probe));
    }
    assert_eq!(sidecar.stops(), 0);
    assert!(docker_says(["inspect", "--format", "{{.State.Running}}", &app.name]).contains("true"));
}

#[test]
fn a_job_ends_with_the_code_of_its_program() {
    let pod = Pod::new("migrate", &[("password", "p@ss\n")]);
    let job = pod.run("containers", "migrate", Some("echo has $DB_PASSWORD; exit 3")).finishes();
    assert_eq!((job.code(), job.stdout.as_str(), job.stderr.as_str()), (3, "has p@ss\n", ""));
}

#[test]
fn the_configuration_for_vault_logs_in_by_the_token_of_the_pod() {
    let pod = Pod::new("orders", &[]);
    let plan = pod.run("containers", "orders", Some("")).options("--entrypoint secret-init").words(["plan"]).finishes();
    assert!(plan.code() == 0 && plan.stdout.contains("vault:database/creds/orders#username"), "{plan:?}");
    // Nobody is there, so that it ends with 69; what is wrong with the login would come first.
    let check = pod.run("containers", "orders", Some("")).options("--entrypoint secret-init").variable("SECRET_INIT_TIMEOUT", "1s");
    let check = check.words(["check"]).finishes();
    assert_eq!(check.code(), 69, "{check:?}");
    assert_eq!(pod.spec["serviceAccountName"], "orders");
    assert_eq!(fs::read_to_string(pod.folder("vault-token").join("token")).unwrap(), "the-token-of-the-pod");
}
