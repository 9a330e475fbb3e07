//! Objects of other controllers, and the databases that they become.

use super::*;
use crate::cli::import::entry::document;

fn text(found: Found) -> String {
    document("test", &[found])
}

fn object(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).expect("YAML")
}

#[test]
fn a_cluster_endpoint_is_a_database() {
    let object = object(
        "\
apiVersion: sealos.io/v1beta1
kind: ClusterEndpoint
metadata: {name: wordpress, namespace: prod}
spec:
  periodSeconds: 10
  ports:
  - {name: https, hosts: [10.33.40.151, 10.33.40.152], port: 1, targetPort: 443,
     tcpSocket: {enable: true}, timeoutSeconds: 1, failureThreshold: 3, successThreshold: 1}
  - {name: http, hosts: [10.33.40.151, 10.33.40.152], port: 2, targetPort: 80,
     httpGet: {path: /healthz, scheme: http, httpHeaders: [{name: Host, value: db.example},
     {name: X-Probe, value: 'a: b'}]}, timeoutSeconds: 2, failureThreshold: 5}
",
    );
    assert_eq!(
        text(cluster_endpoint(&object, None)),
        "\
# Imported by external-endpoints from test.
# Found: 1, left out: 0.
databases:
# stop endpoints-operator before this daemon runs; then delete the ClusterEndpoint with
# --cascade=orphan, or its Service is deleted too
# the probe of port 443 is left out
- service: wordpress
  namespace: prod
  ports: [{name: https, port: 443}, {name: http, port: 80}]
  addresses: [10.33.40.151, 10.33.40.152]
  adopt: true  # its Endpoints are endpoints-operator's
  check:
    http: {path: /healthz, port: 80, headers: {X-Probe: \"a: b\"}, host: db.example}
    interval: 10s
    timeout: 2s
    healthyThreshold: 1
    unhealthyThreshold: 5
"
    );
}

#[test]
fn a_cluster_endpoint_of_old_has_one_list_of_hosts() {
    let object = object(
        "\
apiVersion: sealyun.com/v1beta1
metadata: {name: dmz-kube}
spec:
  clusterIP: 10.96.0.100
  hosts: [10.0.112.255]
  ports: [{name: https, port: 6443, protocol: TCP, targetPort: 6443}]
",
    );
    let text = text(cluster_endpoint(&object, Some("default")));
    assert!(text.contains("  port: 6443\n  addresses: [10.0.112.255]\n  adopt: true"), "{text}");
    assert!(text.contains("    tcp: {}\n    interval: 10s\n    timeout: 1s\n"), "{text}");
}

#[test]
fn a_cluster_endpoint_that_no_config_can_describe_is_left_out() {
    let of =
        |hosts: &str, port: &str| format!("{{hosts: [{hosts}], ports: [{{port: 1, {port}}}]}}");
    let different = "{ports: [{port: 1, targetPort: 1, hosts: [10.0.0.1]}, \
                     {port: 2, targetPort: 2, name: b, hosts: [10.0.0.2]}]}";
    let udp = "targetPort: 1, protocol: UDP, udpSocket: {enable: true}";
    for (spec, words) in [
        (different.to_owned(), "different hosts"),
        ("{}".to_owned(), "it has no ports"),
        (of("", "targetPort: 1"), "the list is empty"),
        (of("127.0.0.1", "targetPort: 1"), "loopback"),
        (of("10.0.0.1", udp), "UDP"),
        (of("10.0.0.1", "name: a"), "it can't be read: missing field `targetPort`"),
        (of("10.0.0.1", "targetPort: 99999"), "it can't be read"),
        ("[]".to_owned(), "it can't be read"),
        (of("\"x\\n- y\"", "targetPort: 1"), "left out: 1"),
    ] {
        let object = object(&format!("{{metadata: {{name: a, namespace: prod}}, spec: {spec}}}"));
        let text = text(cluster_endpoint(&object, None));
        assert!(text.contains("left out: 1.\n# - prod/a: ") && text.contains(words), "{text}");
    }
    let nameless = text(cluster_endpoint(&Value::Null, None));
    assert!(nameless.contains("left out: 1"), "{nameless}");
}

#[test]
fn a_discovered_service_is_published_by_slices() {
    let object = object(
        "\
apiVersion: discovery.k8sready.com/v1alpha1
kind: DiscoveredService
metadata: {name: tomcat, namespace: erp}
spec:
  discovery: {static: {addresses: [10.140.0.11, 10.140.0.12]}}
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]
  healthCheck: {type: HTTPS, port: 8443, path: /up, host: erp.example, expectedStatuses: [200, 204],
    interval: 1m30s, failureThreshold: 2}
",
    );
    let text = text(discovered_service(&object, None));
    let body = &text[text.find("- service:").expect("a database")..];
    assert_eq!(
        body,
        "\
- service: tomcat
  namespace: erp
  port: 8080
  addresses: [10.140.0.11, 10.140.0.12]
  publish: slices
  check:
    http: {path: /up, port: 8443, expectedStatuses: [200, 204], host: erp.example, \
scheme: https, tls: {serverName: erp.example}}
    interval: 1m30s
    timeout: 3s
    healthyThreshold: 1
    unhealthyThreshold: 2
"
    );
}

#[test]
fn a_discovered_service_by_dns_follows_its_names() {
    let object = object(
        "\
metadata: {name: tomcat, namespace: erp}
spec:
  discovery: {dns: {names: [tomcat.corp.example]}}
  ports: [{name: http, port: 8080}, {name: admin, port: 9000}]
",
    );
    let text = text(discovered_service(&object, None));
    assert!(text.contains("addresses: [tomcat.corp.example]"), "{text}");
    assert!(text.contains("dns: {families: [IPv4]}"), "{text}");
    assert!(text.contains("# it had no check; here its addresses are checked"), "{text}");
    assert!(
        text.contains("ports: [{name: http, port: 8080}, {name: admin, port: 9000}]"),
        "{text}"
    );
}
