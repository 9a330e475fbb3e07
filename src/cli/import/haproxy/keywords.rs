//! The keywords of HAProxy that take an argument, and those that mean nothing here. Pure.
//!
//! A keyword that is neither translated nor in a list of those without meaning is named in a
//! comment. A new keyword of HAProxy is therefore never lost in silence.

/// The parameters of servers with an argument that are not translated. The argument must not be
/// taken for a parameter.
const WITH_ARGUMENT: [&str; 60] = [
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "alpn",
    "cc",
    "check-alpn",
    "check-pool-conn-name",
    "check-proto",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "cookie",
    "crl-file",
    "curves",
    "downinter",
    "error-limit",
    "guid",
    "hash-key",
    "hash-preserve-affinity",
    "id",
    "idle-ping",
    "init-addr",
    "init-state",
    "interface",
    "ktls",
    "log-bufsize",
    "log-proto",
    "max-reuse",
    "maxconn",
    "maxqueue",
    "minconn",
    "namespace",
    "npn",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-conn-name",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "proto",
    "proxy-v2-options",
    "quic-cc-algo",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "shard",
    "sigalgs",
    "slowstart",
    "socks4",
    "source",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-ut",
    "track",
    "usesrc",
];

/// The parameters of servers that change neither the check nor what is published: names for people,
/// and how HAProxy keeps its own connections.
const SERVER_WITHOUT_MEANING: [&str; 16] = [
    "check-pool-conn-name",
    "check-reuse-pool",
    "guid",
    "id",
    "idle-ping",
    "log-bufsize",
    "log-proto",
    "max-reuse",
    "no-ssl-reuse",
    "no-tls-tickets",
    "pool-conn-name",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "shard",
    "ssl-reuse",
];

/// The lines of sections that change neither the check nor what is published: names for people,
/// logs, statistics, and limits on the connections of clients. Each is the first word or two.
const LINE_WITHOUT_MEANING: [&str; 41] = [
    "description",
    "email-alert",
    "enabled",
    "error-log-format",
    "guid",
    "http-check comment",
    "id",
    "log",
    "log-format",
    "log-format-sd",
    "log-steps",
    "log-tag",
    "mode tcp",
    "option clitcpka",
    "option contstats",
    "option dontlog-normal",
    "option dontlognull",
    "option httplog",
    "option httpslog",
    "option log-health-checks",
    "option log-separate-errors",
    "option logasap",
    "option nolinger",
    "option socket-stats",
    "option splice-auto",
    "option splice-request",
    "option splice-response",
    "option srvtcpka",
    "option tcp-smart-accept",
    "option tcp-smart-connect",
    "option tcpka",
    "option tcplog",
    "stats",
    "tcp-check comment",
    "timeout client",
    "timeout client-fin",
    "timeout http-keep-alive",
    "timeout http-request",
    "timeout queue",
    "timeout server",
    "timeout server-fin",
];

/// Returns whether a parameter of a server has an argument.
pub(super) fn has_argument(parameter: &str) -> bool {
    // As in `set-proxy-v2-tlv-fmt(0x20) %[fc_pp_tlv(0x20)]`.
    WITH_ARGUMENT.contains(&parameter) || parameter.starts_with("set-proxy-v2-tlv-fmt")
}

/// Returns whether a parameter of a server means nothing here.
pub(super) fn is_server_without_meaning(parameter: &str) -> bool {
    SERVER_WITHOUT_MEANING.contains(&parameter)
}

/// Returns whether a line of a section means nothing here.
pub(super) fn is_line_without_meaning(words: &[&str]) -> bool {
    let first = words.first().copied().unwrap_or_default();
    LINE_WITHOUT_MEANING.contains(&first) || LINE_WITHOUT_MEANING.contains(&&*name(words))
}

/// Returns the words that name a line. The others may hold secrets.
pub(super) fn name(words: &[&str]) -> String {
    words.iter().take(2).copied().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted() {
        assert!(WITH_ARGUMENT.is_sorted() && SERVER_WITHOUT_MEANING.is_sorted());
        assert!(LINE_WITHOUT_MEANING.is_sorted());
    }

    #[test]
    fn lines_are_known_by_one_word_or_two() {
        assert!(is_line_without_meaning(&["log", "global"]) && is_line_without_meaning(&["stats"]));
        assert!(is_line_without_meaning(&["timeout", "client", "5s"]));
        assert!(!is_line_without_meaning(&["timeout", "connect", "5s"]));
    }
}
