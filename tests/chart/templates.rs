//! The templates: each value has its effect, and values that contradict each other are refused with
//! words.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::chart::helm::{HOME, all, one, refused, rendered, rules, small};

pub(crate) fn cases() -> Vec<Trial> {
    let trial = |name: &str, body: fn()| {
        Trial::test(format!("templates::{name}"), move || {
            body();
            Ok(())
        })
    };
    vec![
        trial("values_have_their_effect", values_have_their_effect),
        trial("further_objects_follow_their_values", further_objects_follow_their_values),
        trial("contradictions_are_refused_with_words", contradictions_are_refused_with_words),
        trial("mistakes_are_found_by_the_schema", mistakes_are_found_by_the_schema),
        trial("all_objects_have_the_common_labels", all_objects_have_the_common_labels),
        trial("names_that_yaml_could_mistake_are_texts", names_that_yaml_could_mistake_are_texts),
        trial("an_existing_config_map_gets_named_rights", an_existing_config_map_gets_named_rights),
        trial("permitted_databases_get_rights_too", permitted_databases_get_rights_too),
        trial("monitors_keep_the_labels_of_the_series", monitors_keep_the_labels_of_the_series),
        trial("alerts_are_changed_one_by_one", alerts_are_changed_one_by_one),
    ]
}

/// Renders with values as `--set-json` takes them. Returns what stands at a place of one object.
fn at(values: Value, kind: &str, pointer: &str) -> Value {
    let objects = rendered(&small(&values));
    one(&objects, kind).pointer(pointer).cloned().unwrap_or(Value::Null)
}

const CONTAINER: &str = "/spec/template/spec/containers/0";

/// Checks values of the Deployment against what they become.
fn values_have_their_effect() {
    let of_pod = |key: &str| format!("/spec/template/spec/{key}");
    let of_container = |key: &str| format!("{CONTAINER}/{key}");
    let digest = format!("sha256:{}", "a".repeat(64));
    let rows: Vec<(Value, String, Value)> = vec![
        (json!({}), of_container("image"), json!("external-endpoints:0.1.0")),
        (json!({"image": {"tag": "1"}}), of_container("image"), json!("external-endpoints:1")),
        (
            json!({"image": {"digest": digest, "repository": "r.example/ee"}}),
            of_container("image"),
            json!(format!("r.example/ee@{digest}")),
        ),
        (json!({"replicaCount": 3}), "/spec/replicas".into(), json!(3)),
        (json!({"revisionHistoryLimit": 0}), "/spec/revisionHistoryLimit".into(), json!(0)),
        (json!({"priorityClassName": "high"}), of_pod("priorityClassName"), json!("high")),
        (json!({"runtimeClassName": "gvisor"}), of_pod("runtimeClassName"), json!("gvisor")),
        (json!({"dnsPolicy": "None"}), of_pod("dnsPolicy"), json!("None")),
        (json!({"nodeSelector": {"a": "b"}}), of_pod("nodeSelector/a"), json!("b")),
        (json!({"tolerations": [{"key": "a"}]}), of_pod("tolerations/0/key"), json!("a")),
        (
            json!({"affinity": {"nodeAffinity": {}}}),
            of_pod("affinity"),
            json!({"nodeAffinity": {}}),
        ),
        (
            json!({"topologySpreadConstraints": []}),
            of_pod("topologySpreadConstraints"),
            Value::Null,
        ),
        (json!({"hostAliases": [{"ip": "::1"}]}), of_pod("hostAliases/0/ip"), json!("::1")),
        (
            json!({"imagePullSecrets": [{"name": "s"}]}),
            of_pod("imagePullSecrets/0/name"),
            json!("s"),
        ),
        (json!({"initContainers": [{"name": "i"}]}), of_pod("initContainers/0/name"), json!("i")),
        (json!({"extraContainers": [{"name": "x"}]}), of_pod("containers/1/name"), json!("x")),
        (json!({"extraVolumes": [{"name": "v"}]}), of_pod("volumes/1/name"), json!("v")),
        (
            json!({"extraVolumeMounts": [{"name": "v"}]}),
            of_container("volumeMounts/1/name"),
            json!("v"),
        ),
        (json!({"extraEnv": [{"name": "A"}]}), of_container("env/1/name"), json!("A")),
        (json!({"log": {"level": "debug"}}), of_container("env/1/value"), json!("debug")),
        (json!({"livenessProbe": null}), of_container("livenessProbe"), Value::Null),
        (json!({"resources": {"limits": null}}), of_container("resources/limits"), Value::Null),
        (json!({"listen": "[::]:9090"}), of_container("ports/0/containerPort"), json!(9090)),
        (
            json!({"serviceAccount": {"create": false, "name": "mine"}}),
            of_pod("serviceAccountName"),
            json!("mine"),
        ),
        (
            json!({"serviceAccount": {"create": false}}),
            of_pod("serviceAccountName"),
            json!("default"),
        ),
        (
            json!({"podAnnotations": {"a": "b"}}),
            "/spec/template/metadata/annotations/a".into(),
            json!("b"),
        ),
        (
            json!({"podMonitor": {"enabled": true}}),
            "/spec/template/metadata/annotations/prometheus.io~1scrape".into(),
            Value::Null,
        ),
    ];
    for (values, pointer, expected) in rows {
        let found = at(values.clone(), "Deployment", &pointer);
        assert_eq!(found, expected, "{pointer} with {values}");
    }
    let arguments = |values: Value| -> Vec<String> {
        serde_json::from_value(at(values, "Deployment", &format!("{CONTAINER}/args")))
            .expect("args")
    };
    for (values, argument) in [
        (json!({"allowCidrs": ["10.0.0.0/8", "fd00::/8"]}), "--allow-cidr=fd00::/8"),
        (json!({"freeze": {"maxUnhealthy": "30%"}}), "--max-unhealthy=30%"),
        (json!({"freeze": {"timeout": "0s"}}), "--freeze-timeout=0s"),
        (json!({"log": {"format": "human"}}), "--log-format=human"),
        (json!({"listen": "[::]:9090"}), "--listen=[::]:9090"),
        (json!({"leaderElection": {"lease": "mine"}}), "--lease=external-endpoints/mine"),
        (json!({"extraArgs": ["--dns-qps=7"]}), "--dns-qps=7"),
        (json!({"replicaCount": 1, "leaderElection": {"enabled": false}}), "--no-leader-election"),
    ] {
        let arguments = arguments(values.clone());
        assert!(arguments.iter().any(|given| given == argument), "{values}: {arguments:?}");
    }
}

fn further_objects_follow_their_values() {
    let plain = rendered(&small(&json!({})));
    for (values, kind, count) in [
        (json!({"podDisruptionBudget": {"enabled": false}}), "PodDisruptionBudget", 0),
        (json!({"networkPolicy": {"enabled": false}}), "NetworkPolicy", 0),
        (json!({"serviceAccount": {"create": false}}), "ServiceAccount", 0),
        (json!({"rbac": {"create": false}}), "Role", 0),
        (json!({"rbac": {"create": false}}), "RoleBinding", 0),
        (json!({"rbac": {"readerGroup": "ops"}}), "Role", 3),
        (json!({"service": {"enabled": true}}), "Service", 1),
        (json!({"podMonitor": {"enabled": true}}), "PodMonitor", 1),
        (
            json!({"service": {"enabled": true}, "serviceMonitor": {"enabled": true}}),
            "ServiceMonitor",
            1,
        ),
        (
            json!({"service": {"enabled": true},
                   "statusPage": {"ingress": {"enabled": true, "hosts": ["a.example"]}}}),
            "Ingress",
            1,
        ),
        (
            json!({"extraObjects": [
                {"kind": "Secret"}, "kind: Secret\nname: {{ .Release.Name }}\n",
            ]}),
            "Secret",
            2,
        ),
    ] {
        let objects = rendered(&small(&values));
        assert_eq!(all(&objects, kind).len(), count, "{kind} with {values}");
        assert_ne!(all(&plain, kind).len(), count, "{kind} depends on {values}");
    }
    let policy = |values: Value| at(values, "NetworkPolicy", "/spec/egress");
    assert_eq!(policy(json!({"networkPolicy": {"egress": {"enabled": false}}})), Value::Null);
    let api = json!({"networkPolicy": {"egress": {
        "apiServerPorts": [6443], "apiServerCidrs": ["10.9.8.7/8"], "extra": [{"to": []}],
    }}});
    assert_eq!(
        policy(api).as_array().expect("rules")[1..],
        [
            json!({"ports": [{"port": 6443, "protocol": "TCP"}],
                   "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}),
            json!({"to": []}),
        ]
    );
    assert_eq!(
        at(json!({"podDisruptionBudget": {"minAvailable": 1}}), "PodDisruptionBudget", "/spec")
            .as_object()
            .expect("a spec")
            .keys()
            .collect::<Vec<_>>(),
        ["minAvailable", "selector", "unhealthyPodEvictionPolicy"]
    );
}

fn contradictions_are_refused_with_words() {
    let existing = |others: Value| {
        let mut values = others;
        values["config"] = json!({});
        values["existingConfigMap"] = json!("databases");
        values
    };
    for (values, words) in [
        (json!({"config": {}}), "There is no config. Write your databases into `config`"),
        (json!({"existingConfigMap": "x"}), "Both `config` and `existingConfigMap` are set"),
        (existing(json!({})), "Copy its databases into `permittedDatabases`"),
        (existing(json!({"rbac": {"create": false}})), "its NetworkPolicy would block every check"),
        (json!({"rbac": {"namespaces": [{"name": "a"}]}}), "is for `existingConfigMap`"),
        (json!({"leaderElection": {"enabled": false}}), "Set `replicaCount: 1`"),
        (json!({"serviceMonitor": {"enabled": true}}), "Set `service.enabled: true`"),
        (
            json!({"serviceMonitor": {"enabled": true}, "podMonitor": {"enabled": true}}),
            "would be scraped twice",
        ),
        (json!({"statusPage": {"ingress": {"enabled": true}}}), "Set `service.enabled: true`"),
        (
            json!({"service": {"enabled": true}, "statusPage": {"ingress": {"enabled": true}}}),
            "needs a host name",
        ),
        (json!({"serviceAccount": {"name": "default"}}), "exists in every namespace"),
        (json!({"config": "a: ["}), "`config` is not YAML"),
        (json!({"config": "- a"}), "`config` is not YAML"),
        (json!({"config": "databases: 3"}), "`config` is not a config"),
        (json!({"config": "databases: [3]"}), "`config` is not a config"),
        (
            json!({"config": "databases: [{service: a, addresses: [b]}]"}),
            "`config` is not a config",
        ),
        (
            json!({"config": "databases: [{service: a, addresses: [b], port: 65536}]"}),
            "`config` is not a config",
        ),
        (
            json!({"config": "databases: [{service: a, port: 1, addresses: b}]"}),
            "`config` is not a config",
        ),
        (
            json!({"config": "databases: [{service: a, port: 1, addresses: [b], check: 3}]"}),
            "`config` is not a config",
        ),
        (
            json!({"config": "{defaults: 3, databases: [{service: a, port: 1, addresses: [b]}]}"}),
            "`config` is not a config",
        ),
    ] {
        let said = refused(&small(&values));
        assert!(said.contains(words), "{values}: {said}");
    }
}

fn mistakes_are_found_by_the_schema() {
    let config = |database: Value| {
        let mut all = json!({"service": "a", "port": 1, "addresses": ["192.0.2.1"]});
        for (key, value) in database.as_object().expect("a mapping") {
            all[key] = value.clone();
        }
        json!({"config": {"databases": [all]}})
    };
    for (values, words) in [
        (config(json!({"port": 99_999})), "/config/databases/0/port"),
        (config(json!({"chek": {}})), "'chek' not allowed"),
        (config(json!({"addresses": []})), "/config/databases/0/addresses"),
        (config(json!({"check": {"interval": 5}})), "/config/databases/0/check/interval"),
        (json!({"replicas": 3}), "'replicas' not allowed"),
        (json!({"image": {"digest": "sha256:1"}}), "/image/digest"),
        (json!({"allowCidrs": ["10.0.0.1"]}), "/allowCidrs/0"),
        (json!({"freeze": {"maxUnhealthy": "101%"}}), "/freeze/maxUnhealthy"),
        (json!({"permittedDatabases": [{"service": "a"}]}), "/permittedDatabases/0"),
        (json!({"prometheusRule": {"rules": {"A": {"expr": "1"}}}}), "'expr' not allowed"),
        (json!({"fullnameOverride": "Databases"}), "/fullnameOverride"),
    ] {
        let said = refused(&small(&values));
        assert!(said.contains(words), "{values}: {said}");
    }
}

fn all_objects_have_the_common_labels() {
    let values = json!({
        "commonLabels": {"team": "storage", "app.kubernetes.io/name": "not mine"},
        "podLabels": {"app.kubernetes.io/instance": "not mine"},
        "rbac": {"readerGroup": "ops"}, "service": {"enabled": true},
        "serviceMonitor": {"enabled": true},
        "prometheusRule": {"enabled": true},
        "statusPage": {"ingress": {"enabled": true, "hosts": ["a.example"]}},
    });
    let objects = rendered(&small(&values));
    assert!(objects.len() > 13, "{}", objects.len());
    let pods = one(&objects, "Deployment").pointer("/spec/template").expect("a template");
    for object in objects.iter().chain([pods]) {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["team"], "storage", "{object}");
        assert_eq!(labels["app.kubernetes.io/name"], "external-endpoints", "{object}");
        assert_eq!(labels["app.kubernetes.io/instance"], "external-endpoints", "{object}");
    }
    let selector = one(&objects, "Deployment").pointer("/spec/selector/matchLabels");
    let selector = selector.and_then(Value::as_object).expect("labels");
    assert_eq!(selector.len(), 2, "the selector never changes: {selector:?}");
}

fn names_that_yaml_could_mistake_are_texts() {
    for name in ["null", "1e3", "0x1f", "true"] {
        let values = small(&json!({"fullnameOverride": name, "namespaceOverride": name}));
        for object in rendered(&values) {
            let metadata = &object["metadata"];
            assert!(metadata["name"].as_str().is_some_and(|it| it.starts_with(name)), "{metadata}");
            assert!(metadata["namespace"].is_string(), "{metadata}");
        }
    }
    let long = "a".repeat(63);
    let objects = rendered(&small(&json!({"fullnameOverride": long})));
    for object in objects {
        let name = object["metadata"]["name"].as_str().expect("a name");
        assert!(name.len() <= 63, "{name}");
    }
}

fn an_existing_config_map_gets_named_rights() {
    let values = json!({
        "existingConfigMap": "databases",
        "rbac": {"namespaces": [
            {"name": "prod"},
            {"name": "test", "slices": true, "createService": true, "prune": true},
        ]},
        "networkPolicy": {"egress": {"extra": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}},
    });
    let objects = rendered(&values);
    assert_eq!(all(&objects, "ConfigMap").len(), 0);
    let egress = &one(&objects, "NetworkPolicy")["spec"]["egress"];
    assert_eq!(egress[0]["ports"][0], json!({"port": 53, "protocol": "UDP"}), "it may have names");
    let volume =
        one(&objects, "Deployment").pointer("/spec/template/spec/volumes/0/configMap/name");
    assert_eq!(volume, Some(&json!("databases")));
    let lines = |namespace: &str| -> Vec<String> {
        let roles = all(&objects, "Role");
        let role = roles.into_iter().find(|role| role["metadata"]["namespace"] == namespace);
        let rules = rules(role.expect("a Role"));
        let line = |rule: &k8s_openapi::api::rbac::v1::PolicyRule| {
            assert_eq!(rule.resource_names, None);
            format!(
                "{} {}",
                rule.resources.clone().unwrap_or_default().join(","),
                rule.verbs.join(",")
            )
        };
        rules.iter().map(line).collect()
    };
    let read = ["services get,list,watch", "endpoints list,watch", "endpointslices list,watch"];
    let events = "events list,create,patch";
    assert_eq!(lines("prod"), [read[0], read[1], read[2], "endpoints get,create,patch", events]);
    assert_eq!(
        lines("test"),
        [
            read[0],
            read[1],
            read[2],
            "endpoints get,create,patch,delete",
            "endpointslices get,create,patch,delete",
            "services create,delete",
            events
        ]
    );
}

fn permitted_databases_get_rights_too() {
    let former = json!({"service": "old", "namespace": "prod", "port": 5432, "publish": "slices",
                        "addresses": ["192.0.2.9"], "check": {"postgres": {"port": 6432}}});
    let objects = rendered(&small(&json!({"permittedDatabases": [former]})));
    let roles = all(&objects, "Role");
    let prod = roles.iter().find(|role| role["metadata"]["namespace"] == "prod").expect("a Role");
    let named: Vec<_> = rules(prod).into_iter().filter_map(|rule| rule.resource_names).collect();
    assert_eq!(named, [vec!["mysql", "old"], vec!["old-external-ipv4-1"]]);
    let egress = one(&objects, "NetworkPolicy")["spec"]["egress"].to_string();
    assert!(egress.contains("192.0.2.9/32") && egress.contains("6432"), "{egress}");
}

fn monitors_keep_the_labels_of_the_series() {
    let scrape = json!({"enabled": true, "interval": "7s", "scrapeTimeout": "3s", "jobLabel": "a",
                        "relabelings": [{"action": "drop"}], "labels": {"release": "prometheus"}});
    let pods = rendered(&small(&json!({"podMonitor": scrape})));
    let values = json!({"serviceMonitor": scrape, "service": {"enabled": true}});
    let services = rendered(&small(&values));
    for (monitor, endpoints) in [
        (one(&pods, "PodMonitor"), "podMetricsEndpoints"),
        (one(&services, "ServiceMonitor"), "endpoints"),
    ] {
        assert_eq!(
            monitor["spec"][endpoints],
            json!([{"port": "admin", "path": "/metrics", "honorLabels": true, "interval": "7s",
                    "scrapeTimeout": "3s", "relabelings": [{"action": "drop"}]}])
        );
        assert_eq!(monitor["spec"]["jobLabel"], "a");
        assert_eq!(monitor["spec"]["namespaceSelector"], json!({"matchNames": [HOME]}));
        assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    }
    let selected = &one(&pods, "PodMonitor")["spec"]["selector"];
    assert_eq!(selected, &one(&pods, "Deployment")["spec"]["selector"]);
}

fn alerts_are_changed_one_by_one() {
    let rules = |values: Value| -> Vec<Value> {
        let values = small(&json!({"prometheusRule": values}));
        let objects = rendered(&values);
        let groups = one(&objects, "PrometheusRule")["spec"]["groups"].as_array().cloned();
        let groups = groups.unwrap_or_default().into_iter();
        groups.flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    };
    let shipped = rules(json!({"enabled": true}));
    let name = |rule: &Value| rule["alert"].as_str().expect("a name").to_owned();
    let (first, second) = (name(&shipped[0]), name(&shipped[1]));
    assert!(shipped.len() >= 10, "{}", shipped.len());
    let changed = rules(json!({
        "enabled": true,
        "additionalLabels": {"release": "prometheus"},
        "runbookBaseUrl": "https://wiki.example/runbooks/",
        "rules": {&first: {"enabled": false}, &second: {"for": "42m", "labels": {"team": "a"}}},
    }));
    assert_eq!(changed.len(), shipped.len() - 1);
    assert!(changed.iter().all(|rule| name(rule) != first));
    let rule = &changed[0];
    assert_eq!((name(rule), &rule["for"]), (second.clone(), &json!("42m")));
    assert_eq!(rule["labels"]["team"], "a");
    assert_eq!(rule["labels"]["severity"], shipped[1]["labels"]["severity"]);
    assert_eq!(rule["expr"], shipped[1]["expr"]);
    let runbook = format!("https://wiki.example/runbooks/{second}.md");
    assert_eq!(rule["annotations"]["runbook_url"], json!(runbook));
    let unknown = json!({"prometheusRule": {"enabled": true, "rules": {"Nothing": {}}}});
    let said = refused(&small(&unknown));
    assert!(said.contains("there is no such alert") && said.contains(&first), "{said}");
}
