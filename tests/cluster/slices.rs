//! EndpointSlices that the daemon writes itself: their content, their repair and their owner.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::fixture::{CHECK, Fixture, TIMEOUT, config, replace_in, wait_for_checks};
use crate::support::{
    ConnectOutcome, Daemon, Database, Traffic, addresses, case::cases, eventually, shared,
};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_thousand_and_one_addresses_are_in_slices_of_a_hundred,
        slices_have_all_fields_that_clients_need,
        a_flip_writes_one_slice_once,
        outside_changes_of_a_slice_are_repaired,
        a_service_that_gains_a_selector_loses_only_our_slices,
        slices_of_pods_that_are_left_behind_are_reported,
        slices_are_deleted_and_created_again_with_their_service,
        ports_are_matched_by_name,
        each_ip_family_of_the_service_has_a_slice,
        foreign_endpoints_beside_slices_are_never_written,
        a_foreign_slice_with_our_name_is_not_written,
    ]
}

const SLICES: &str = "  publish: slices\n";
const OWN: &str = "mysql-external-ipv4-1";

async fn start_served(fixture: &Fixture) -> Daemon {
    let daemon = fixture.start_with(SLICES).await;
    fixture.expect_slices(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    daemon
}

async fn own(fixture: &Fixture) -> Option<EndpointSlice> {
    fixture.namespace.api().get_opt(OWN).await.expect("reading an EndpointSlice")
}

async fn merge<K>(fixture: &Fixture, name: &str, patch: Value)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = fixture.namespace.api();
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
}

async fn slices_have_all_fields_that_clients_need() {
    let fixture = Fixture::without_service("slices").await;
    let service = fixture.namespace.create_service("mysql", &[("", 3306)]).await;
    let [a, b, c] = [0, 1, 2].map(|index: usize| fixture.databases[index].ip.to_string());
    let list = format!(
        "{a}, {{address: {b}, hostname: db-b, zone: dc-west}}, {{address: {c}, zone: dc-east}}"
    );
    let yaml = config(&fixture.namespace.name, &list, CHECK, SLICES);
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_slices(&[0, 1, 2]).await;
    assert_eq!(
        fixture.expect_condition(&daemon, "Published").await,
        fixture.ips(&[0, 1, 2]).join(", ")
    );
    let slice = own(&fixture).await.expect("our slice");
    let value = serde_json::to_value(&slice).expect("JSON");
    assert_eq!(
        value["metadata"]["labels"],
        json!({
            "kubernetes.io/service-name": "mysql",
            "endpointslice.kubernetes.io/managed-by": "external-endpoints",
        })
    );
    let owner = json!({
        "apiVersion": "v1", "kind": "Service", "name": "mysql",
        "uid": service.uid(), "blockOwnerDeletion": false,
    });
    assert_eq!(value["metadata"]["ownerReferences"], json!([owner]));
    assert_eq!(value["ports"], json!([{"name": "", "port": 3306, "protocol": "TCP"}]));
    let endpoint = |ip: &str| {
        let all = value["endpoints"].as_array().expect("endpoints");
        all.iter()
            .find(|endpoint| endpoint["addresses"] == json!([ip]))
            .expect("an endpoint")
            .clone()
    };
    let conditions = json!({"ready": true, "serving": true});
    assert_eq!(endpoint(&a), json!({"addresses": [a], "conditions": conditions}));
    let with_both =
        json!({"addresses": [b], "conditions": conditions, "hostname": "db-b", "zone": "dc-west"});
    assert_eq!(endpoint(&b), with_both);
    assert!(fixture.namespace.endpoints("mysql").await.is_none(), "slices alone");

    let described =
        shared().kubectl(&["-n", &fixture.namespace.name, "describe", "endpointslice", OWN]).await;
    assert!(described.status.success(), "{described:?}");
    let traffic = Traffic::start(
        fixture.namespace.cluster_ip("mysql").await,
        3306,
        Duration::from_millis(50),
    );
    for database in &fixture.databases {
        eventually(TIMEOUT, "each gets connections", async || {
            traffic.tally_all().contains_key(&ConnectOutcome::Reached(database.ip))
        })
        .await;
    }
}

async fn a_flip_writes_one_slice_once() {
    let mut fixture = Fixture::new("slice-flip").await;
    let daemon = start_served(&fixture).await;
    let writes =
        async || daemon.metric("external_endpoints_writes_total", &[]).await.expect("writes");
    assert_eq!(writes().await, 2.0, "created and written");
    fixture.databases[1].stop().await;
    fixture.expect_slices(&[0, 2]).await;
    let version = own(&fixture).await.expect("our slice").resource_version();
    wait_for_checks(&daemon, 8).await;
    assert_eq!(own(&fixture).await.expect("our slice").resource_version(), version);
    assert_eq!(writes().await, 3.0);
    fixture.databases[0].stop().await;
    fixture.databases[2].stop().await;
    fixture.expect_slices(&[]).await;
    assert!(own(&fixture).await.is_some(), "none healthy is a slice that says so");
    // A restart alone changes nothing.
    let version = own(&fixture).await.and_then(|slice| slice.resource_version());
    drop(daemon);
    let daemon = fixture.start_with(SLICES).await;
    fixture.expect_condition(&daemon, "Published").await;
    wait_for_checks(&daemon, 4).await;
    assert_eq!(own(&fixture).await.and_then(|slice| slice.resource_version()), version);
}

async fn outside_changes_of_a_slice_are_repaired() {
    let fixture = Fixture::new("slice-edit").await;
    let daemon = start_served(&fixture).await;
    let as_written = |slice: &EndpointSlice| {
        (slice.endpoints.clone(), slice.ports.clone(), slice.labels().clone())
    };
    let before = as_written(&own(&fixture).await.expect("our slice"));
    let stranger = json!({"addresses": ["192.0.2.99"], "conditions": {"ready": true}});
    for edit in [
        json!({"endpoints": [stranger]}),
        json!({"ports": [{"name": "x", "port": 1}]}),
        json!({"metadata": {"labels": {"kubernetes.io/service-name": null}}}),
        json!({"metadata": {"labels": {"kubernetes.io/service-name": "other"}}}),
        json!({"metadata": {"labels": {"endpointslice.kubernetes.io/managed-by": null}}}),
        json!({"metadata": {"ownerReferences": null}}),
    ] {
        merge::<EndpointSlice>(&fixture, OWN, edit.clone()).await;
        eventually(TIMEOUT, &format!("{edit} is repaired"), async || {
            let slice = own(&fixture).await.unwrap_or_default();
            if as_written(&slice) == before && slice.owner_references().len() == 1 {
                Ok(())
            } else {
                Err(format!("{slice:?}"))
            }
        })
        .await;
    }
    let deleted = Instant::now();
    fixture.namespace.delete::<EndpointSlice>(OWN).await;
    fixture.expect_slices(&[0, 1, 2]).await;
    assert!(deleted.elapsed() < TIMEOUT / 3, "by watch: {:?}", deleted.elapsed());
    eventually(TIMEOUT, "the repair is reported", async || {
        daemon
            .logs()
            .iter()
            .any(|line| line["message"] == "an outside change of an EndpointSlice was repaired")
    })
    .await;
    // What others add is theirs.
    merge::<EndpointSlice>(&fixture, OWN, json!({"metadata": {"labels": {"team": "orders"}}}))
        .await;
    let version = own(&fixture).await.and_then(|slice| slice.resource_version());
    wait_for_checks(&daemon, 4).await;
    assert_eq!(own(&fixture).await.and_then(|slice| slice.resource_version()), version);
}

/// Creates a Pod whose status says that it is ready. The cluster has no kubelet to run it.
async fn create_pod(fixture: &Fixture, ip: IpAddr) {
    eventually(TIMEOUT, "the namespace has its ServiceAccount", async || {
        let api: Api<k8s_openapi::api::core::v1::ServiceAccount> = fixture.namespace.api();
        api.get_opt("default").await.expect("reading").is_some()
    })
    .await;
    let spec = json!({"nodeName": "node1", "containers": [{"name": "mysql", "image": "mysql"}]});
    let metadata = json!({"name": "mysql-0", "labels": {"app": "mysql"}});
    fixture.namespace.create_object::<Pod>(json!({"metadata": metadata, "spec": spec})).await;
    let status = json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    let api: Api<Pod> = fixture.namespace.api();
    api.patch_status("mysql-0", &PatchParams::default(), &Patch::Merge(status))
        .await
        .expect("a status");
}

fn selector(app: Option<&str>) -> Value {
    json!({"spec": {"selector": app.map(|app| json!({"app": app}))}})
}

/// Returns the foreign slices with their resource versions and their numbers of endpoints.
async fn others(fixture: &Fixture) -> Vec<(String, Option<String>, usize)> {
    let slices = fixture.namespace.slices("mysql").await;
    let others = slices.iter().filter(|slice| slice.name_any() != OWN);
    others
        .map(|slice| (slice.name_any(), slice.resource_version(), slice.endpoints.len()))
        .collect()
}

async fn a_service_that_gains_a_selector_loses_only_our_slices() {
    let mut fixture = Fixture::new("slice-selector").await;
    let daemon = start_served(&fixture).await;
    let ip: IpAddr = addresses::allocate(1)[0];
    create_pod(&fixture, ip).await;
    merge::<Service>(&fixture, "mysql", selector(Some("mysql"))).await;
    fixture.expect_condition(&daemon, "ServiceHasSelector").await;
    eventually(TIMEOUT, "ours are gone, the Pod's are there", async || {
        let served = fixture.namespace.slice_ips("mysql").await;
        if served == [ip.to_string()] { Ok(()) } else { Err(format!("{served:?}")) }
    })
    .await;
    let before = others(&fixture).await;
    let endpoints = fixture.namespace.resource_version("mysql").await;
    fixture.databases[0].stop().await;
    eventually(TIMEOUT, "the dead one is down", async || {
        daemon.metric("external_endpoints_target_healthy", &[]).await == Some(2.0)
    })
    .await;
    wait_for_checks(&daemon, 3).await;
    assert!(own(&fixture).await.is_none());
    assert_eq!(
        (others(&fixture).await, fixture.namespace.resource_version("mysql").await),
        (before.clone(), endpoints)
    );

    // Kubernetes leaves the Endpoints behind and mirrors them. They block publishing, and the
    // condition names the slices.
    merge::<Service>(&fixture, "mysql", selector(None)).await;
    let reason =
        fixture.expect_condition_with(&daemon, "NotOurs", "from when it had one are left").await;
    assert!(
        reason.contains("were written by Kubernetes while the Service had a selector"),
        "{reason}"
    );
    assert!(own(&fixture).await.is_none());
    // Both ways out that the reason names.
    fixture.namespace.delete::<Endpoints>("mysql").await;
    fixture.namespace.delete::<Pod>("mysql-0").await;
    for (name, ..) in before {
        fixture.namespace.delete::<EndpointSlice>(&name).await;
    }
    fixture.expect_slices(&[1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

async fn slices_of_pods_that_are_left_behind_are_reported() {
    let fixture = Fixture::new("left-behind").await;
    let daemon = fixture.start_published().await;
    let ip: IpAddr = addresses::allocate(1)[0];
    create_pod(&fixture, ip).await;
    merge::<Service>(&fixture, "mysql", selector(Some("mysql"))).await;
    fixture.expect_condition(&daemon, "ServiceHasSelector").await;
    eventually(TIMEOUT, "the Pod serves", async || {
        fixture.namespace.slice_ips("mysql").await == [ip.to_string()]
    })
    .await;
    merge::<Service>(&fixture, "mysql", selector(None)).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let reason = fixture.expect_condition(&daemon, "SlicesLeftBehind").await;
    let labels =
        [("namespace", fixture.namespace.name.as_str()), ("condition", "SlicesLeftBehind")];
    assert_eq!(daemon.metric("external_endpoints_database_condition", &labels).await, Some(1.0));
    // The command that the reason ends with is the way out.
    let command = reason.split("kubectl ").nth(1).expect("a command");
    let output = shared().kubectl(&command.split(' ').collect::<Vec<_>>()).await;
    assert!(output.status.success(), "{output:?}");
    fixture.expect_condition(&daemon, "Published").await;
    fixture.expect_slices(&[0, 1, 2]).await;
}

async fn slices_are_deleted_and_created_again_with_their_service() {
    let fixture = Fixture::new("slice-owner").await;
    let daemon = start_served(&fixture).await;
    let before = own(&fixture).await.expect("our slice").owner_references()[0].uid.clone();
    fixture.namespace.delete::<Service>("mysql").await;
    fixture.expect_condition(&daemon, "WaitingForService").await;
    eventually(TIMEOUT, "Kubernetes collects the slice", async || own(&fixture).await.is_none())
        .await;
    wait_for_checks(&daemon, 3).await;
    assert!(
        own(&fixture).await.is_none() && fixture.namespace.endpoints("mysql").await.is_none(),
        "nothing without a Service"
    );
    let service = fixture.namespace.create_service("mysql", &[("sql", 3306)]).await;
    fixture.expect_slices(&[0, 1, 2]).await;
    let slice = own(&fixture).await.expect("our slice");
    let uids: Vec<_> = slice.owner_references().iter().map(|owner| owner.uid.clone()).collect();
    assert_eq!(uids, [service.uid().expect("a UID")]);
    assert_ne!(uids, [before]);
    assert_eq!(slice.ports.unwrap_or_default()[0].name.as_deref(), Some("sql"));
}

async fn ports_are_matched_by_name() {
    let fixture = Fixture::without_service("slice-ports").await;
    fixture.namespace.create_service("mysql", &[("metrics", 9104), ("sql", 33)]).await;
    let yaml = replace_in(
        &fixture.config_with(SLICES),
        "  port: 3306\n",
        "  ports: [{name: sql, port: 3306}, {name: metrics, port: 9999}]\n",
    );
    let _daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_slices(&[0, 1, 2]).await;
    let ports = serde_json::to_value(own(&fixture).await.expect("our slice").ports).expect("JSON");
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "TCP"});
    assert_eq!(ports, json!([port("sql", 3306), port("metrics", 9999)]));
    let traffic =
        Traffic::start(fixture.namespace.cluster_ip("mysql").await, 33, Duration::from_millis(50));
    eventually(TIMEOUT, "a connection by the Service's own number arrives", async || {
        let tally = traffic.tally_all();
        if fixture
            .databases
            .iter()
            .any(|database| tally.contains_key(&ConnectOutcome::Reached(database.ip)))
        {
            Ok(())
        } else {
            Err(format!("{tally:?}"))
        }
    })
    .await;
}

async fn each_ip_family_of_the_service_has_a_slice() {
    let fixture = Fixture::without_service("families").await;
    let six = addresses::allocate_v6(1)[0];
    let _six = Database::start(six, 3306).await;
    let ports = json!([{"port": 3306}]);
    let both = json!({
        "metadata": {"name": "mysql"},
        "spec": {"ports": ports, "ipFamilyPolicy": "RequireDualStack"},
    });
    fixture.namespace.create_object::<Service>(both).await;
    let list = format!("{}, \"{six}\"", fixture.ips(&[0, 1, 2]).join(", "));
    let yaml = config(&fixture.namespace.name, &list, CHECK, SLICES);
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_condition_with(&daemon, "Published", &six.to_string()).await;
    let by_family = async || {
        let mut slices: Vec<_> = fixture.namespace.slices("mysql").await.into_iter().collect();
        slices.sort_by_key(|slice| slice.name_any());
        slices
            .into_iter()
            .map(|slice| (slice.name_any(), slice.address_type, slice.endpoints.len()))
            .collect::<Vec<_>>()
    };
    let slice =
        |name: &str, family: &str, count: usize| (name.to_owned(), family.to_owned(), count);
    let v4 = slice(OWN, "IPv4", 3);
    assert_eq!(by_family().await, [v4.clone(), slice("mysql-external-ipv6-1", "IPv6", 1)]);
    // A Service of one family can't use the addresses of the other. The status reports them.
    let service: Service = fixture.namespace.api().get("mysql").await.expect("a Service");
    let first = service.spec.and_then(|spec| spec.cluster_ip).expect("a ClusterIP");
    let single = json!({
        "spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": [first]},
    });
    merge::<Service>(&fixture, "mysql", single).await;
    eventually(TIMEOUT, "the slice of the other family is gone", async || {
        let there = by_family().await;
        if there == [v4.clone()] { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    fixture
        .expect_condition_with(
            &daemon,
            "Published",
            &format!("does not have the IP family of {six}"),
        )
        .await;
}

async fn foreign_endpoints_beside_slices_are_never_written() {
    let mut fixture = Fixture::new("slice-beside").await;
    // As someone who means to fill them later.
    let empty = json!({"metadata": {"name": "mysql", "labels": {"team": "orders"}}});
    let made: Endpoints = fixture.namespace.create_object(empty).await;
    let daemon = start_served(&fixture).await;
    wait_for_checks(&daemon, 3).await;
    assert_eq!(fixture.namespace.resource_version("mysql").await, made.resource_version());
    let filled =
        json!({"subsets": [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 3306}]}]});
    merge::<Endpoints>(&fixture, "mysql", filled).await;
    let reason = fixture.expect_condition(&daemon, "NotOurs").await;
    assert!(reason.contains("were written by field manager "), "{reason}");
    // What is ours is still kept up.
    fixture.databases[0].stop().await;
    eventually(TIMEOUT, "the dead one is out of our slice", async || {
        own(&fixture).await.is_some_and(|slice| slice.endpoints.len() == 2)
    })
    .await;
    assert_eq!(fixture.namespace.endpoint_ips("mysql").await, ["192.0.2.9"]);
    fixture.expect_condition(&daemon, "NotOurs").await;
    fixture.namespace.delete::<Endpoints>("mysql").await;
    fixture.expect_condition(&daemon, "Published").await;
    fixture.expect_slices(&[1, 2]).await;
}

async fn a_foreign_slice_with_our_name_is_not_written() {
    let fixture = Fixture::new("slice-foreign").await;
    let slice = json!({
        "metadata": {"name": OWN},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.9"]}],
    });
    let made: EndpointSlice = fixture.namespace.create_object(slice).await;
    let daemon = fixture.start_with(SLICES).await;
    let reason = fixture.expect_condition(&daemon, "NotOurs").await;
    assert!(reason.contains("field manager ") && reason.ends_with("; delete it"), "{reason}");
    wait_for_checks(&daemon, 4).await;
    assert_eq!(
        own(&fixture).await.and_then(|slice| slice.resource_version()),
        made.resource_version()
    );
    fixture.namespace.delete::<EndpointSlice>(OWN).await;
    fixture.expect_slices(&[0, 1, 2]).await;
}

async fn a_thousand_and_one_addresses_are_in_slices_of_a_hundred() {
    let fixture = Fixture::without_service("thousand").await;
    // Headless, so that kube-proxy ignores it. In nftables mode, kube-proxy 1.33 stops all routing
    // with this many addresses.
    fixture.namespace.create_headless_service("mysql", &[("", 3306)]).await;
    let port = addresses::allocate_port();
    // One listener for all of them.
    let all = Database::start(Ipv4Addr::UNSPECIFIED.into(), port).await;
    let ips: Vec<String> = addresses::allocate(1001).iter().map(ToString::to_string).collect();
    let check = format!("{{tcp: {{port: {port}}}, interval: 5s}}");
    let yaml = config(&fixture.namespace.name, &ips.join(", "), &check, "");
    let mut refused = Daemon::spawn(&yaml, Some(&shared().kubeconfig()), &[]);
    assert_eq!(refused.wait().await.code(), Some(78));
    let said = eventually(TIMEOUT, "it says why", async || {
        refused
            .lines()
            .into_iter()
            .find(|line| line.contains("1001 addresses; Kubernetes copies only 1000"))
    });
    assert!(said.await.contains("publish: slices"));

    let yaml = config(&fixture.namespace.name, &ips.join(", "), &check, SLICES);
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    let sizes = async || {
        let slices = fixture.namespace.slices("mysql").await;
        let mut sizes: Vec<usize> = slices.iter().map(|slice| slice.endpoints.len()).collect();
        sizes.sort();
        sizes
    };
    eventually(TIMEOUT, "ten slices of a hundred and one of one", async || {
        let there = sizes().await;
        let status = crate::cluster::fixture::database(&daemon.status().await);
        let out = status["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|target| target["health"] != "up");
        let out: Vec<_> = out.map(Value::to_string).take(3).collect();
        if there == [&[1][..], &[100; 10]].concat() {
            Ok(())
        } else {
            Err(format!("{there:?}; {out:?} {}", status["condition"]))
        }
    })
    .await;
    fixture.expect_condition(&daemon, "Published").await;
    let versions = async || -> Vec<Option<String>> {
        let mut slices = fixture.namespace.slices("mysql").await;
        slices.sort_by_key(|slice| slice.name_any());
        slices.iter().map(kube::ResourceExt::resource_version).collect()
    };
    let before = versions().await;
    // A single listener serves all addresses. Only a changed config can therefore lose one of them.
    drop(daemon);
    let yaml = config(&fixture.namespace.name, &ips[..1000].join(", "), &check, SLICES);
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_condition(&daemon, "Published").await;
    eventually(TIMEOUT, "one is gone", async || sizes().await.iter().sum::<usize>() == 1000).await;
    let after = versions().await;
    let kept = before.iter().filter(|version| after.contains(version)).count();
    assert_eq!(kept, 10, "only the slice that it was in changed: {before:?} {after:?}");
    drop(all);
}
