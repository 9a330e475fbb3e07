//! A bare client: it applies the same change to Endpoints of its own at the moment of the deciding
//! answer. It does what no daemon can do faster, so its time is the floor of the daemon's.

use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Endpoints;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::fixture::{self, Fixture};
use super::targets::{Health, Targets};
use super::write_recorder::WriteRecorder;
use crate::support::runtime;

/// A client that runs until it is dropped.
pub(crate) struct BareClient {
    pub recorder: WriteRecorder,
    task: JoinHandle<()>,
}

impl BareClient {
    /// Fills the Endpoints of a namespace of its own, one for each database with these addresses.
    /// From then on it follows the targets, of which the second of each database changes.
    pub(crate) async fn start(
        fixture: &Fixture,
        targets: &Targets,
        ips: &[Vec<IpAddr>],
        port: u16,
    ) -> BareClient {
        let (namespace, token) = fixture.services("bare", ips.len(), port).await;
        let recorder = WriteRecorder::start(&fixture.plane).await;
        let kubeconfig = fixture.plane.kubeconfig_at(&recorder.url, &token);
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("our own file");
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let client = kube::Client::try_from(config.expect("a config")).expect("a client");
        let api: Api<Endpoints> = Api::namespaced(client, &namespace.name);
        for (index, ips) in ips.iter().enumerate() {
            apply(&api, index, ips, port).await;
        }
        fixture::all_have(&namespace, ips.len(), 3).await;
        recorder.take();
        let task = runtime().spawn(follow(api, targets.decisions(), ips.to_vec(), port));
        BareClient { recorder, task }
    }
}

impl Drop for BareClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Applies each deciding answer.
async fn follow(
    api: Api<Endpoints>,
    mut decisions: broadcast::Receiver<(IpAddr, Health)>,
    ips: Vec<Vec<IpAddr>>,
    port: u16,
) {
    let index_of: HashMap<IpAddr, usize> =
        ips.iter().enumerate().map(|(index, ips)| (ips[1], index)).collect();
    while let Ok((ip, to)) = decisions.recv().await {
        let index = index_of[&ip];
        let mut members = ips[index].clone();
        if to == Health::Down {
            members.remove(1);
        }
        let api = api.clone();
        runtime().spawn(async move { apply(&api, index, &members, port).await });
    }
}

async fn apply(api: &Api<Endpoints>, index: usize, ips: &[IpAddr], port: u16) {
    let name = fixture::service(index);
    let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let subset = json!({"addresses": addresses, "ports": [{"port": port, "protocol": "TCP"}]});
    let object = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "bare-client"}},
        "subsets": [subset],
    });
    let params = PatchParams::apply("bare-client").force();
    api.patch(&name, &params, &Patch::Apply(object)).await.expect("the API takes it");
}
