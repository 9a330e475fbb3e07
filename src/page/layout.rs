//! The frame of each page: its head, the replica, the banners and the filters.

use std::borrow::Cow;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::query::{Filter, Query, Refresh};
use super::text::{calendar, foreign, sentence, since, until};
use crate::status::{LeftBehind, ReplicaStatus, host_of};

const STYLE: &str = include_str!("style.css");

/// The policy that lets the browser use the one style of the page, and nothing else: no script, no
/// image, no frame, and no form that leads elsewhere.
pub static CONTENT_SECURITY_POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors \
         'none'; base-uri 'none'"
    )
});

/// The numbers of the page, which are its filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub databases: usize,
    pub trouble: usize,
    pub targets: usize,
    pub published: usize,
    pub down: usize,
    pub maintenance: usize,
}

/// Returns the start of a page, up to its content.
pub(super) fn start(title: &str) -> String {
    // maud writes whole elements only, and the content of these is streamed.
    let head = html! {
        (DOCTYPE)
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        title { (title) }
        style { (PreEscaped(STYLE)) }
    };
    head.into_string().replacen("<meta", "<html lang=\"en\"><head><meta", 1) + "</head><body>"
}

/// The end of each page.
pub(super) const END: &str = "</main></body></html>\n";

/// Renders the replica, and the banners that concern all databases.
pub(super) fn header(replica: &ReplicaStatus) -> Markup {
    let now = replica.now;
    html! {
        header {
            p {
                strong { "external-endpoints " (replica.version) }
                " · " (role(replica)) " · "
                span class="soft" {
                    "config " (foreign(&replica.config.file)) " loaded "
                    (since(replica.config.since, now)) " ago · as of " (calendar(now))
                }
            }
            (frozen(replica))
            (standby(replica))
            (config(replica))
        }
    }
}

fn role(replica: &ReplicaStatus) -> Markup {
    let identity = replica.lease.as_ref().map(|lease| host_of(&lease.identity));
    html! {
        @if let Some(identity) = identity { (foreign(identity)) ", " }
        (replica.role.as_str())
        @if let Some(lease) = replica.lease.as_ref().filter(|lease| lease.held) {
            " by the Lease " (foreign(&lease.name))
        }
    }
}

fn frozen(replica: &ReplicaStatus) -> Markup {
    let now = replica.now;
    html! {
        @if let Some(freeze) = &replica.frozen {
            p class="banner" {
                strong { "Frozen for " (since(freeze.since, now)) ": " }
                (freeze.failed) " of " (freeze.published) " published targets fail together, so "
                "the fault is probably this daemon's own network. Nothing is taken out"
                @if let Some(end) = freeze.until {
                    ", for " (until(end, now)) " more at the most; then all that are down leave"
                }
                ". Connect to one of them from another machine: if it answers there, mend the "
                "network of this daemon."
            }
        }
    }
}

fn standby(replica: &ReplicaStatus) -> Markup {
    let Some(lease) = &replica.lease else { return html! {} };
    html! {
        @if !lease.held {
            p class="banner" {
                strong { "This replica does not write. " }
                @if let Some(trouble) = &lease.trouble {
                    "Lease " (foreign(&lease.name)) ": " (sentence(trouble)) ". "
                }
                @match &lease.holder {
                    Some(holder) => {
                        @let namespace = lease.name.split('/').next().unwrap_or_default();
                        "The holder of the Lease is " (foreign(host_of(holder))) "; its page: "
                        code {
                            "kubectl -n " (namespace) " port-forward pod/" (host_of(holder)) " 8080"
                        }
                    }
                    None => "Nobody is known to hold the Lease, so no change is written.",
                }
            }
        }
    }
}

fn config(replica: &ReplicaStatus) -> Markup {
    html! {
        @if !replica.config.problems.is_empty() {
            div class="banner" {
                strong {
                    "The config file has mistakes. The last good config stays in force until they "
                    "are put right:"
                }
                ul { @for problem in &replica.config.problems { li { (sentence(problem)) } } }
            }
        }
    }
}

/// Renders the counts, which are filters, the search and the pause.
pub(super) fn controls(query: &Query, counts: Counts, interval: u32) -> Markup {
    let filters = Filter::ALL.map(|filter| (filter, label(filter, counts)));
    html! {
        nav aria-label="Filters" {
            ul {
                @for (filter, label) in filters {
                    @let current = (filter == query.filter).then_some("true");
                    li {
                        a href=(query.with_filter(filter).link()) aria-current=[current] { (label) }
                    }
                }
            }
        }
        form role="search" action="./" {
            @for (name, value) in query.fields().filter(|(name, _)| *name != "q") {
                input type="hidden" name=(name) value=(value);
            }
            label for="q" { "Find" }
            input id="q" name="q" type="search" maxlength="200" value=(query.search);
            button { "Search" }
            (pause(query, interval))
        }
    }
}

/// Renders the link that ends or begins the renewal.
pub(super) fn pause(query: &Query, interval: u32) -> Markup {
    html! {
        span class="soft" {
            @match query.refresh {
                Refresh::On => {
                    "Loaded again each " (interval) " s. "
                    a href=(query.with_refresh(Refresh::Paused).link()) { "Pause" }
                }
                Refresh::Paused => {
                    "Paused. " a href=(query.with_refresh(Refresh::On).link()) { "Continue" }
                }
            }
        }
    }
}

fn label(filter: Filter, counts: Counts) -> Cow<'static, str> {
    let Counts { databases, trouble, targets, down, maintenance, published } = counts;
    let text = match filter {
        Filter::Trouble => format!("{trouble} of {databases} databases in trouble"),
        Filter::Down => format!("▼ {down} down"),
        Filter::Maintenance => format!("■ {maintenance} in maintenance"),
        Filter::All => format!("All: {published} of {targets} addresses published"),
    };
    text.into()
}

/// Renders what is published for databases that the config does not have.
pub(super) fn left_behind(left_behind: &[LeftBehind]) -> Markup {
    html! {
        @if !left_behind.is_empty() {
            section class="trouble" {
                h2 { "Left behind" }
                p {
                    "These are published by this daemon, and the config no longer has their "
                    "databases. Nobody checks them."
                }
                ul {
                    @for LeftBehind { namespace, service, addresses } in left_behind {
                        li { (namespace) "/" (service) ": " (addresses.join(", ")) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_allows_the_style_and_nothing_else() {
        let policy = &*CONTENT_SECURITY_POLICY;
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
        let start = start("</title><script>");
        assert!(start.contains("<title>&lt;/title&gt;&lt;script&gt;</title>"), "{start}");
        assert!(start.starts_with("<!DOCTYPE html><html lang=\"en\"><head><meta"), "{start}");
        // A style element ends at the first of these, whatever the CSS means by it.
        assert!(!STYLE.contains("</") && start.contains(STYLE));
    }
}
