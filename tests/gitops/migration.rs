//! Hand-written Endpoints that leave Git and become the daemon's, as the guide says, without a
//! moment in which an address is missing.

use libtest_mimic::Trial;

use crate::fixture::{CHECK, Fixture, config};
use crate::gitops::manifests::Repository;
use crate::gitops::rounds::case;
use crate::gitops::tools::Tool;
use crate::support::{Daemon, shared};

pub(crate) fn cases() -> Vec<Trial> {
    let tools = [
        ("flux", Tool::Flux),
        ("argo_client_side", Tool::ArgoClientSide),
        ("argo_server_side", Tool::ArgoServerSide),
        ("helm_client_side", Tool::HelmClientSide),
        ("helm_server_side", Tool::HelmServerSide),
    ];
    let cases = tools
        .into_iter()
        .map(|(name, tool)| case(format!("migration::{name}"), async move || migrate(tool).await));
    cases.collect()
}

async fn migrate(tool: Tool) {
    let mut fixture = Fixture::without_service("by-hand").await;
    let name = fixture.namespace.name.clone();
    let repository = Repository::new(&name);
    let ips = fixture.ips(&[0, 1, 2]);
    repository.commit_by_hand(0, &ips);
    tool.deliver(&repository, &name).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let history = fixture.history().await;

    repository.commit_by_hand(1, &[]);
    tool.deliver(&repository, &name).await;
    assert_eq!(fixture.namespace.endpoint_ips("mysql").await, ips, "it is marked to be kept");
    let daemon = {
        let yaml = config(&name, &ips.join(", "), CHECK, "  adopt: true\n");
        Daemon::start(&yaml, &shared().kubeconfig(), &[]).await
    };
    fixture.expect_condition(&daemon, "Published").await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    for round in 2..5 {
        repository.commit_by_hand(round, &[]);
        tool.deliver(&repository, &name).await;
    }
    fixture.expect_endpoints(&[1, 2]).await;
    let two = Some(fixture.ips(&[1, 2]));
    let steps = history.steps();
    let first = steps.iter().position(|step| *step == two).expect("the step");
    assert!(steps[..first].iter().all(|step| *step == Some(ips.clone())), "{steps:?}");
    assert!(steps[first..].iter().all(|step| *step == two), "{steps:?}");
}
