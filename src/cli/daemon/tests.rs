use serde_json::json;

use super::*;

const UID: &str = "3f2b8c1e-7d4a-4c0e-9b1f-2a6d5e8c7f90";

fn pod(name: &str, uid: &str, ready: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": uid},
        "spec": {"containers": [
            {"name": "sidecar", "ports": [{"containerPort": 9}]},
            {"name": "daemon", "ports": [{"name": "admin", "containerPort": 9090}]},
        ]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }))
    .expect("a Pod")
}

fn asked(identity: Option<&str>, pods: &[Pod]) -> (Vec<String>, Option<String>) {
    let (candidates, holder) = candidates(identity, pods);
    let shown = candidates.iter().map(|replica| format!("{}:{}", replica.pod, replica.port));
    (shown.collect(), holder)
}

#[test]
fn the_holder_of_the_lease_is_asked_first() {
    let pods = [pod("a", "1", "True"), pod("b", UID, "False"), pod("c", "3", "True")];
    let all = ["b:9090", "a:9090", "c:9090"].map(str::to_owned).to_vec();
    let b = Some("b".to_owned());
    assert_eq!(asked(Some(&format!("b_{UID}")), &pods), (all.clone(), b.clone()));
    // On the node's network the name of the host is not that of the Pod.
    assert_eq!(asked(Some(&format!("node-1_{UID}")), &pods), (all, b));
    // Pods that can't be listed.
    assert_eq!(asked(Some("b_x"), &[]), (vec!["b:8080".to_owned()], Some("b".to_owned())));
    assert_eq!(asked(Some("b"), &[]), (vec!["b:8080".to_owned()], Some("b".to_owned())));
}

#[test]
fn without_a_holder_the_ready_pods_are_asked() {
    let pods = [pod("a", "1", "False"), pod("c", "3", "True")];
    let ready = (vec!["c:9090".to_owned()], None);
    assert_eq!(asked(None, &pods), ready);
    assert_eq!(asked(Some(""), &pods), ready);
    // Anyone who may write the Lease can give it any holder.
    for hostile in ["../../secrets/x_9", "a/b", "a b", "A", "..", "-a", "%2e", "a?b", "a#b"] {
        assert_eq!(asked(Some(hostile), &pods), ready, "{hostile}");
    }
    assert_eq!(asked(None, &[]), (Vec::new(), None));
}

#[test]
fn a_url_needs_a_scheme_and_a_host() {
    for good in ["http://127.0.0.1:8080", "https://status.example.com/daemon/"] {
        assert!(parse_url(good).is_ok(), "{good}");
    }
    for bad in ["", "127.0.0.1:8080", "ftp://a", "http://", "http:///x", "http://a?b=c", "a b"] {
        let error = parse_url(bad).expect_err(bad);
        assert!(error.contains("write http://HOST:PORT"), "{error}");
    }
}

#[test]
fn errors_of_the_proxy_say_what_to_do() {
    let error = |code: u16, message: &str| {
        let status = kube::core::Status {
            code,
            message: message.to_owned(),
            ..kube::core::Status::default()
        };
        let error = anyhow::Error::new(kube::Error::Api(status.boxed()));
        proxy_error(&error, "ops", "x-1").to_string()
    };
    assert!(error(403, "no").contains("deploy/reader"));
    assert!(error(404, "no").contains("another replica takes over"));
    let down = error(503, "error trying to reach service: connection refused");
    assert!(down.contains("connection refused; see `kubectl -n ops logs x-1`"), "{down}");
    let hostile = error(500, "\u{1b}[2J\u{202e}x");
    assert!(!hostile.contains(['\u{1b}', '\u{202e}']), "{hostile}");
    let other = proxy_error(&anyhow!("no answer in 15s"), "ops", "x-1").to_string();
    assert_eq!(other, "can't ask Pod ops/x-1: no answer in 15s");
}

#[test]
fn an_answer_of_another_program_is_no_status() {
    for text in ["", "<html>", "{}", "[]", "{\"databases\": 1}"] {
        let error = DaemonReport::read(text.as_bytes(), table::Replicas::default(), Vec::new())
            .expect_err(text);
        assert!(error.to_string().contains("no status of external-endpoints"), "{error}");
    }
}

#[test]
fn no_error_shows_the_password_of_a_url() {
    let url = parse_url("http://u:s3cret@127.0.0.1:8080/x").expect("a URL");
    assert_eq!(url.to_string(), "http://127.0.0.1:8080/x");
    assert_eq!(parse_url("http://[::1]:1").expect("a URL").to_string(), "http://[::1]:1/");
}
