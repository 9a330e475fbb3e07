//! The fixture of all figures: a cluster, a namespace with many Services, and the daemon with an
//! ordinary ServiceAccount.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::json;

use crate::support::{ControlPlane, Daemon, Namespace, Options, eventually, rbac};

/// Far longer than any step takes on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// The number of concurrent API calls during the set-up.
const MAX_CONCURRENT: usize = 16;

pub(crate) struct Fixture {
    pub plane: ControlPlane,
    program: PathBuf,
}

impl Fixture {
    pub(crate) async fn start(program: &Path) -> Fixture {
        Fixture {
            plane: ControlPlane::start(Options::default()).await,
            program: program.to_owned(),
        }
    }

    /// Creates a namespace with this many Services. Returns a token of a ServiceAccount with the
    /// rights of a deployed daemon.
    ///
    /// An administrator's token would not do: the API server neither queues nor refuses its
    /// requests.
    pub(crate) async fn services(
        &self,
        prefix: &str,
        count: usize,
        port: u16,
    ) -> (Namespace, String) {
        let namespace = self.plane.namespace(prefix).await;
        let made = futures::stream::iter(0..count).map(|index| {
            let (namespace, name) = (&namespace, service(index));
            async move { namespace.create_service(&name, &[("", port)]).await }
        });
        assert_eq!(made.buffer_unordered(MAX_CONCURRENT).count().await, count);

        namespace.create_service_account("daemon").await;
        let rules = json!([
            rbac::rule("services", rbac::READ),
            rbac::rule("endpoints", rbac::READ),
            rbac::rule("endpoints", &["create", "patch"]),
            rbac::rule("events", &["create", "list", "patch"]),
        ]);
        rbac::grant(&namespace, "daemon", rules).await;
        let token = namespace.token("daemon").await;
        (namespace, token)
    }

    /// Starts the program that is measured.
    pub(crate) async fn daemon(&self, config: &str, kubeconfig: &Path, extra: &[&str]) -> Daemon {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", kubeconfig);
        Daemon::start_command(command, config, extra).await
    }
}

/// Returns the name of a Service.
pub(crate) fn service(index: usize) -> String {
    format!("db-{index}")
}

/// Waits until each Service of a namespace has this many addresses.
pub(crate) async fn all_have(namespace: &Namespace, services: usize, addresses: usize) {
    eventually(TIMEOUT, &format!("{services} Services have {addresses} addresses"), async || {
        let list = namespace
            .api::<Endpoints>()
            .list(&Default::default())
            .await
            .map_err(|error| error.to_string())?;
        let done = list.items.iter().filter(|endpoints| ready(endpoints) == addresses).count();
        if done == services { Ok(()) } else { Err(format!("{done} have")) }
    })
    .await;
}

/// Returns the number of ready addresses of Endpoints.
pub(crate) fn ready(endpoints: &Endpoints) -> usize {
    let subsets = endpoints.subsets.iter().flatten();
    subsets.flat_map(|subset| subset.addresses.iter().flatten()).count()
}

/// Returns the daemon's failed writes, if there are any.
pub(crate) fn failed_writes(metrics: &str) -> Option<String> {
    let series =
        metrics.lines().filter(|line| line.starts_with("external_endpoints_writes_total{"));
    let mut failed: Vec<&str> =
        series.filter(|line| !line.contains("result=\"success\"")).collect();
    failed.truncate(3);
    (!failed.is_empty()).then(|| failed.join(", "))
}
