//! Services with their Endpoints, and the databases that they become.

use super::*;
use crate::cli::import::entry::document;

/// Returns the text for a Service `prod/mysql` with these objects.
fn imported(service: Value, endpoints: Option<Value>, slices: &[Value]) -> String {
    let metadata = |mut object: Value| {
        for (key, value) in [("name", "mysql"), ("namespace", "prod")] {
            let metadata = object["metadata"].as_object().cloned().unwrap_or_default();
            if !metadata.contains_key(key) {
                object["metadata"][key] = json!(value);
            }
        }
        object
    };
    let read = |object| serde_json::from_value(metadata(object)).expect("a Service");
    let objects = Objects {
        services: vec![read(json!({"spec": service}))],
        endpoints: endpoints
            .into_iter()
            .map(|it| serde_json::from_value(metadata(it)).expect("Endpoints"))
            .collect(),
        slices: slices
            .iter()
            .map(|it| serde_json::from_value(metadata(it.clone())).expect("a slice"))
            .collect(),
    };
    document("test", &databases(&objects))
}

/// Joins the lines of comments.
fn unwrapped(text: &str) -> String {
    text.replace("\n#   ", " ").replace("\n# ", " ")
}

fn one_port() -> Value {
    json!({"ports": [{"name": "sql", "port": 3306, "targetPort": 3306, "protocol": "TCP"}]})
}

fn subset(ips: &[&str], ports: Value) -> Value {
    let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"addresses": addresses, "ports": ports})
}

fn sql() -> Value {
    json!([{"name": "sql", "port": 3306, "protocol": "TCP"}])
}

#[test]
fn hand_written_endpoints_are_a_database_to_adopt() {
    let fields = json!([
        {"manager": "kube-controller-manager", "fieldsV1": {"f:metadata": {}}},
        {"manager": "kubectl-client-side-apply", "fieldsV1": {"f:subsets": {}}},
    ]);
    let subsets = [subset(&["10.1.0.18"], sql()), subset(&["10.1.0.17"], sql())];
    let endpoints = json!({"metadata": {"managedFields": fields}, "subsets": subsets});
    assert_eq!(
        imported(one_port(), Some(endpoints), &[]),
        "\
# Imported by external-endpoints from test.
# Found: 1, left out: 0.
databases:
- service: mysql
  namespace: prod
  port: 3306
  addresses: [10.1.0.17, 10.1.0.18]
  adopt: true  # written by kubectl-client-side-apply; nothing is written until an address fails
  check: {tcp: {}}  # 3306 is MySQL's: {mysql: {user: NAME}} asks more
"
    );
}

#[test]
fn labels_and_addresses_that_are_not_ready_are_kept() {
    let ports = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]);
    let service = json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]});
    let addresses = json!([{"ip": "10.1.0.17", "hostname": "db-0", "nodeName": "n"}]);
    let not_ready = json!([{"ip": "10.1.0.18"}]);
    let subset = json!({"addresses": addresses, "notReadyAddresses": not_ready, "ports": ports});
    let text = imported(service, Some(json!({"subsets": [subset]})), &[]);
    assert!(text.contains("  ports: [{name: a, port: 1}, {name: b, port: 2}]\n"), "{text}");
    assert!(text.contains("{address: 10.1.0.17, hostname: db-0}"), "{text}");
    let maintenance = "maintenance: \"not ready in the Endpoints that were imported\"";
    assert!(text.contains("10.1.0.18") && text.contains(maintenance), "{text}");
    assert!(text.contains("# its addresses have a nodeName"), "{text}");
    assert!(text.contains("left out: 0"), "{text}");
}

#[test]
fn endpoints_that_would_be_changed_at_once_are_a_draft() {
    let other_name = json!([{"name": "other", "port": 3306, "protocol": "TCP"}]);
    let by_kubernetes = json!({"endpoints.kubernetes.io/managed-by": "endpoint-controller"});
    let labelled =
        json!({"metadata": {"labels": by_kubernetes}, "subsets": [subset(&["10.1.0.17"], sql())]});
    let two_ports = json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]});
    for (service, endpoints, words) in [
        (
            one_port(),
            json!({"subsets": [subset(&["10.1.0.17"], other_name)]}),
            "the daemon would change names or ports in its Endpoints at once",
        ),
        (one_port(), labelled, "the daemon would change names or ports in its Endpoints at once"),
        (
            two_ports,
            json!({"subsets": [subset(&["10.1.0.17"], sql())]}),
            "the database's ports [unnamed (3306/TCP)] do not match",
        ),
    ] {
        let text = imported(service, Some(endpoints), &[]);
        assert!(
            text.contains("left out: 1.\n# - prod/mysql: ") && unwrapped(&text).contains(words),
            "{text}"
        );
        assert!(text.contains("# - service: mysql\n"), "{text}");
    }
}

#[test]
fn services_that_are_no_database_are_left_out() {
    let serving = || json!({"subsets": [subset(&["10.1.0.17"], sql())]});
    let with =
        |metadata: Value| Some(json!({"metadata": metadata, "subsets": serving()["subsets"]}));
    let leader = json!({"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}});
    let ours = json!({"labels": {"endpoints.kubernetes.io/managed-by": "external-endpoints"}});
    let different = json!({"subsets": [
        subset(&["10.1.0.17"], sql()), subset(&["10.1.0.18"], json!([{"port": 1}])),
    ]});
    for (endpoints, words) in [
        (None, "it has no addresses"),
        (Some(json!({"subsets": []})), "it has no addresses"),
        (with(leader), "a lock of leader election (control-plane.alpha.kubernetes.io/leader)"),
        (with(ours), "its Endpoints are this daemon's already"),
        (Some(different), "its addresses have different ports"),
        (Some(json!({"subsets": [subset(&["10.1.0.17"], json!([]))]})), "have no ports"),
    ] {
        let text = imported(one_port(), endpoints, &[]);
        assert!(unwrapped(&text).contains(words), "{text}");
        assert!(!text.contains("databases:"), "{text}");
    }
    for service in [
        json!({"selector": {"app": "x"}, "ports": [{"port": 1}]}),
        json!({"type": "ExternalName", "externalName": "db.example"}),
    ] {
        assert!(imported(service, Some(serving()), &[]).contains("Found: 0"));
    }
}

#[test]
fn slices_that_someone_wrote_are_a_draft_with_the_way_to_move() {
    let slice = |manager: Value| {
        json!({
            "metadata": {
                "name": "mysql-1",
                "labels": {
                    "kubernetes.io/service-name": "mysql",
                    "endpointslice.kubernetes.io/managed-by": manager,
                },
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.1.0.17"]}],
            "ports": [{"name": "sql", "port": 3306, "protocol": "TCP"}],
        })
    };
    let text = imported(one_port(), None, &[slice(json!("me"))]);
    assert!(unwrapped(&text).contains("kubectl -n prod delete endpointslices mysql-1"), "{text}");
    assert!(text.contains("#   addresses: [10.1.0.17]\n#   publish: slices\n"), "{text}");
    let mirrored = slice(json!("endpointslicemirroring-controller.k8s.io"));
    assert!(imported(one_port(), None, &[mirrored]).contains("it has no addresses"));
    // Beside Endpoints they are named.
    let endpoints = json!({"subsets": [subset(&["10.1.0.17"], sql())]});
    let text = imported(one_port(), Some(endpoints), &[slice(json!("me"))]);
    assert!(text.contains("# EndpointSlice mysql-1 sends clients to 1 addresses too"), "{text}");
}
