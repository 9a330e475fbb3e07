//! Each way in of docs/guides/install.md: at most three commands, and at most a minute until the
//! database is published.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Namespace as KubeNamespace};
use kube::api::{Api, ListParams, PostParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::support::daemon::PROGRAM;
use crate::support::kubelet::Kubelet;
use crate::support::{
    ControlPlane, Database, Namespace, Options, addresses, binaries, blocking, case::cases,
    eventually, temp_dir,
};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        helm_publishes_within_a_minute,
        kustomize_publishes_within_a_minute,
        one_file_publishes_within_a_minute,
        import_publishes_within_a_minute,
        the_playground_shows_a_database_that_leaves_and_comes_back,
    ]
}

/// The time from the first command to the first `Published` that each way may take.
const LIMIT: Duration = Duration::from_secs(60);

const PAGE: &str = include_str!("../../docs/guides/install.md");

/// Returns the text of the page's block with these words after its fence.
fn block(info: &str) -> &'static str {
    let fence = format!("```{info}\n");
    let (_, rest) = PAGE.split_once(&fence).unwrap_or_else(|| panic!("no block {info}"));
    rest.split_once("```").expect("an end of the block").0
}

/// A fresh cluster with a Service without a selector, its three databases, and a person's folder.
struct Site {
    plane: Arc<ControlPlane>,
    kubelet: Kubelet,
    prod: Namespace,
    databases: Vec<Database>,
    folder: PathBuf,
}

impl Site {
    async fn new() -> Site {
        let plane = Arc::new(ControlPlane::start(Options::default()).await);
        let kubelet = Kubelet::start(plane.clone());
        let namespaces: Api<KubeNamespace> = Api::all(plane.client());
        let prod = serde_json::from_value(json!({"metadata": {"name": "prod"}})).expect("JSON");
        namespaces.create(&PostParams::default(), &prod).await.expect("a namespace");
        let prod = Namespace { name: "prod".to_owned(), client: plane.client() };
        prod.create_service("mysql", &[("", 3306)]).await;
        let mut databases = Vec::new();
        for ip in addresses::allocate(3) {
            databases.push(Database::start(ip, 3306).await);
        }
        let folder = temp_dir("site");
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        symlink(deploy, folder.join("deploy")).expect("a link in the sandbox");
        let site = Site { plane, kubelet, prod, databases, folder };
        fs::write(site.folder.join("databases.yaml"), site.config()).expect("a file");
        site
    }

    /// Returns the config of Getting started, with the addresses of this site.
    fn config(&self) -> String {
        let page = include_str!("../../docs/getting-started.md");
        let (_, rest) = page.split_once("```yaml config\n").expect("a config");
        let config = rest.split_once("```").expect("an end").0;
        let ips: Vec<String> = self.databases.iter().map(|it| it.ip.to_string()).collect();
        let with_ips = config.replace("10.20.0.11, 10.20.0.12, 10.20.0.13", &ips.join(", "));
        assert_ne!(with_ips, config);
        with_ips
    }

    /// Runs the commands as a person would type them.
    async fn type_in(&self, commands: &str) {
        let count = commands.replace("\\\n", " ").lines().count();
        assert!(count <= 3, "{count} commands");
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", commands])
            .current_dir(&self.folder)
            .env("PATH", path())
            .env("HOME", &self.folder)
            .env("KUBECONFIG", self.plane.kubeconfig());
        let output = blocking(move || shell.output().expect("a shell")).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{commands}\n{said}{errors}");
        println!("{said}{errors}");
    }

    /// Waits until the database is published, then until the Deployment is ready.
    async fn published(&self, since: Instant) {
        let wanted: Vec<String> = self.databases.iter().map(|it| it.ip.to_string()).collect();
        let left = LIMIT.saturating_sub(since.elapsed());
        let events: Api<Event> = self.prod.api();
        eventually(left, "the Event Published", async || {
            let list = events.list(&ListParams::default()).await.map_err(|it| it.to_string())?;
            let reasons: Vec<_> = list.items.into_iter().filter_map(|event| event.reason).collect();
            if reasons.iter().any(|reason| reason == "Published") {
                return Ok(());
            }
            Err(format!("{reasons:?}"))
        })
        .await;
        println!("published after {:.1} s", since.elapsed().as_secs_f64());
        assert_eq!(self.prod.endpoint_ips("mysql").await, wanted);
    }

    /// Checks that a database leaves and comes back, and that people can see why.
    async fn works(&mut self) {
        let all: Vec<String> = self.databases.iter().map(|it| it.ip.to_string()).collect();
        self.databases[1].stop().await;
        let rest = [all[0].clone(), all[2].clone()];
        eventually(LIMIT, "it leaves", async || {
            let there = self.prod.endpoint_ips("mysql").await;
            if there == rest { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
        self.databases[1].restart().await;
        eventually(LIMIT, "it comes back", async || {
            let there = self.prod.endpoint_ips("mysql").await;
            if there == all { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
        eventually(LIMIT, "`status` is well", async || self.status().await).await;
        // Both replicas run. One that cannot listen ends at once, and starts again and again.
        let logs = fs::read_dir(self.kubelet.logs()).expect("the logs");
        let texts = logs.map(|log| fs::read_to_string(log.expect("a log").path()).expect("a log"));
        let texts: Vec<String> = texts.collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        let runs = |text: &String| !text.is_empty() && !text.contains("can't listen");
        assert!(texts.iter().all(runs), "{texts:?}");
    }

    /// Runs `external-endpoints status` through the API server, which fails if anything needs a
    /// person.
    async fn status(&self) -> Result<(), String> {
        let mut command = Command::new(PROGRAM);
        command.arg("status").env("KUBECONFIG", self.plane.kubeconfig());
        let output = blocking(move || command.output().expect("the program runs")).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() && said.contains("Published") {
            true => Ok(()),
            false => Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr))),
        }
    }
}

/// Returns a PATH that has the tools of the commands.
fn path() -> String {
    let tools = [PathBuf::from(PROGRAM), binaries::helm(), binaries::kubernetes("kubectl")];
    let folders = tools.iter().filter_map(|tool| tool.parent()).map(|it| it.display().to_string());
    let own = std::env::var("PATH").unwrap_or_default();
    folders.chain([own]).collect::<Vec<_>>().join(":")
}

async fn helm_publishes_within_a_minute() {
    let mut site = Site::new().await;
    let began = Instant::now();
    site.type_in(block("sh door-helm")).await;
    site.published(began).await;
    site.works().await;
}

async fn kustomize_publishes_within_a_minute() {
    let mut site = Site::new().await;
    let began = Instant::now();
    let remote = "https://github.com/external-endpoints/external-endpoints//deploy/base?ref=main";
    let (url, branch) = (repository().await, "base");
    let kustomization =
        block("yaml kustomization").replace(remote, &format!("{url}//deploy/base?ref={branch}"));
    assert!(kustomization.contains(&url), "{kustomization}");
    fs::write(site.folder.join("kustomization.yaml"), kustomization).expect("a file");
    site.type_in(block("sh door-kustomize")).await;
    site.published(began).await;
    site.works().await;
}

/// Returns the URL of a Git repository with this tree's manifests, in the branch `base`.
async fn repository() -> String {
    let folder = temp_dir("repository");
    let script = format!(
        "cp -r {}/deploy . && git init -q -b base && git add . && \
         git -c user.name=test -c user.email=test@example.com commit -q -m base",
        env!("CARGO_MANIFEST_DIR"),
    );
    let mut shell = Command::new("sh");
    shell.args(["-ec", &script]).current_dir(&folder);
    let output = blocking(move || shell.output().expect("a shell")).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    format!("file://{}", folder.display())
}

async fn one_file_publishes_within_a_minute() {
    let mut site = Site::new().await;
    let began = Instant::now();
    site.type_in(block("sh door-one-file")).await;
    site.published(began).await;
    site.works().await;
}

async fn import_publishes_within_a_minute() {
    let mut site = Site::new().await;
    fs::remove_file(site.folder.join("databases.yaml")).expect("a file");
    let ips: Vec<_> = site.databases.iter().map(|database| database.ip).collect();
    site.prod.create_endpoints("mysql", &ips, &[("", 3306)]).await;
    let before = site.prod.resource_version("mysql").await;
    let began = Instant::now();
    site.type_in(block("sh door-import")).await;
    eventually(LIMIT, "`status` is well", async || site.status().await).await;
    println!("taken over after {:.1} s", began.elapsed().as_secs_f64());
    assert!(began.elapsed() < LIMIT);
    assert_eq!(site.prod.resource_version("mysql").await, before, "nothing is written");
    site.works().await;
}

async fn the_playground_shows_a_database_that_leaves_and_comes_back() {
    let page = include_str!("../../README.md");
    let (_, rest) = page.split_once("```sh playground\n").expect("a walk through the playground");
    let commands = rest.split_once("```").expect("an end").0;
    let said = super::playground::rehearse(commands).await;
    println!("{said}");
    let (before, rest) = said.split_once("203.0.113.12 is stopped").expect("it is stopped");
    let (stopped, started) = rest.split_once("203.0.113.12 is started").expect("it is started");
    let seen = [before, stopped, started].map(|text| {
        let mut answers = text.lines().filter_map(|line| line.strip_prefix("answered: "));
        answers.next_back().unwrap_or_else(|| panic!("nobody answered: {text}")).to_owned()
    });
    let all = "203.0.113.11, 203.0.113.12, 203.0.113.13";
    assert_eq!(seen, [all, "203.0.113.11, 203.0.113.13", all]);
}
