//! Pages of a status in which everything is there at once: each state of a target, each banner, and
//! what is refused or left behind. No real cluster can be in all of these states.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use external_endpoints::page::{self, CONTENT_SECURITY_POLICY, Query, Survey};
use external_endpoints::status::DaemonStatus;
use serde_json::{Value, json};

const NOW: &str = "2026-11-28T14:00:00.000Z";
const BEFORE: &str = "2026-11-28T13:44:00.000Z";
const LATER: &str = "2026-11-28T14:09:00.000Z";

/// Returns a target with these fields besides the usual ones.
fn target(address: &str, fields: Value) -> Value {
    let mut target = json!({
        "address": address, "tier": 0, "health": "up", "passes": 9, "failures": 0,
        "since": BEFORE, "reason": null, "lastCheck": NOW, "lastDurationSeconds": 0.0012,
        "published": true, "lastHour": "pppppppp..ppffdddddpp",
    });
    let usual = target.as_object_mut().expect("an object");
    usual.extend(fields.as_object().expect("an object").clone());
    target
}

/// Returns the status.
pub(crate) fn status() -> DaemonStatus {
    let targets = [
        target("10.20.1.20", json!({"hostname": "mysql-0"})),
        target(
            "10.20.1.21",
            json!({
                "maintenance": "disk swap", "maintenanceSource": "annotation",
                "maintenanceUntil": LATER, "published": false,
                "membership": {"planned": false, "reason": "maintenance", "at": LATER,
                    "why": "it is in maintenance: disk swap; apart from that, it is up",
                    "until": "it ends by itself at 14:09"},
            }),
        ),
        target("10.20.1.22", json!({"flappingUntil": LATER, "published": false})),
        target(
            "10.20.1.23",
            json!({
                "health": "down", "passes": 0, "failures": 180, "published": false,
                "reason": "connect: no answer in 2s", "nextCheck": LATER,
            "membership": {"planned": false, "reason": "down",
                "why": "its check failed 180 times in a row: connect: no answer in 2s",
                "until": "2 checks in a row pass, so 5 s after it is well at the earliest"},
            "check": {"summary": "GET http://10.20.1.23:8008/primary", "intervalSeconds": 5.0,
                "recheckSeconds": 1.0, "timeoutSeconds": 2.0, "healthyThreshold": 2,
                "unhealthyThreshold": 3},
            }),
        ),
        target("10.20.1.24", json!({"tier": 1, "published": false})),
        target(
            "2001:db8:1234:5678:9abc:def0:1234:5678",
            json!({
                "health": "unknown", "passes": 0, "name": "db.example.com", "dns": "current",
                "lastCheck": null, "lastDurationSeconds": null, "published": false, "lastHour": "",
            }),
        ),
        target(
            "10.20.1.25",
            json!({
                "inconclusiveSince": BEFORE, "reason": "connect: no route from this host",
            }),
        ),
    ];
    let changes =
        ["up", "down", "maintenanceBegan", "maintenanceEnded", "published", "unpublished"];
    let changes = changes.map(|change| {
        json!({"at": BEFORE, "address": "10.20.1.23", "change": change, "reason": "x ".repeat(150)})
    });
    let names = json!([{
        "name": "db.example.com", "result": "no such name", "resolved": false,
        "failingSince": BEFORE, "lastLookup": BEFORE, "nextLookup": LATER, "addresses": [],
        "refused": [{"address": "127.0.0.1", "reason": "it is a loopback address"}],
    }]);
    let database = |service: &str, condition: &str, targets: Value| {
        json!({
            "namespace": "prod", "service": service, "condition": condition,
            "reason": "Endpoints were written by another", "since": BEFORE,
            "policy": ["tier 1 serves"], "splitBrain": false, "failbackAt": LATER,
            "planned": ["10.20.1.20"], "published": ["10.20.1.20"], "targets": targets,
            "lastWrite": {"object": "Endpoints", "resourceVersion": "4711", "at": BEFORE},
            "names": names, "refused": [{"address": "0.0.0.0", "reason": "it is no address"}],
            "changes": changes,
        })
    };
    let fine = json!([target("10.20.2.1", json!({}))]);
    serde_json::from_value(json!({
        "version": "0.0.0", "now": NOW, "role": "standby",
        "lease": {"name": "infra/external-endpoints", "identity": "pod-b_2", "held": false,
            "holder": "pod-a_1", "trouble": "may not get leases"},
        "frozen": {"since": BEFORE, "until": LATER, "failed": 7, "published": 9},
        "config": {"file": "/etc/external-endpoints/config.yaml", "since": BEFORE,
            "problems": ["config.yaml:14:15: `prot` is no key; did you mean `port`?"]},
        "leftBehind": [{"namespace": "old", "service": "db", "addresses": ["10.0.0.9"]}],
        "databases": [
            database("orders", "Published", targets.into_iter().collect()),
            database("crm", "NotOurs", fine.clone()),
            database("redis", "Published", fine),
        ],
    }))
    .expect("a status")
}

/// Returns the pages of a status by their paths.
fn pages(status: DaemonStatus) -> Vec<(String, String)> {
    let DaemonStatus { replica, databases } = status;
    let (query, mut survey) = (Query::default(), Survey::default());
    databases.iter().enumerate().for_each(|(index, it)| survey.add(&query, index, it));
    let mut pages = Vec::new();
    for database in databases.clone() {
        let path = format!("/databases/{}/{}", database.namespace, database.service);
        pages.push((path, page::database(&replica, &query, database).collect()));
    }
    let overview = page::overview(replica, query, survey, |index| databases[index].clone());
    pages.push(("/".to_owned(), overview.collect()));
    pages
}

/// Serves the pages of a status without end, with the policy of the daemon.
pub(crate) fn serve(status: DaemonStatus) -> SocketAddr {
    serve_pages(pages(status))
}

/// Serves pages by their paths without end.
pub(crate) fn serve_pages(pages: Vec<(String, String)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let pages = Arc::new(pages);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, pages) = (stream.expect("a connection"), pages.clone());
            // A browser opens connections that it may not use.
            thread::spawn(move || answer(stream, &pages));
        }
    });
    address
}

fn answer(mut stream: TcpStream, pages: &[(String, String)]) {
    let lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)) else { return };
    let path = path.split('?').next().unwrap_or_default();
    let page = pages.iter().find(|(known, _)| known == path);
    let (status, page) = page.map_or(("404 Not Found", ""), |(_, page)| ("200 OK", page));
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Content-Security-Policy: {}\r\nConnection: close\r\n\r\n{page}",
        page.len(),
        &**CONTENT_SECURITY_POLICY,
    );
}
