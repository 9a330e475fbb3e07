//! The findings of `check`, and the way they are shown. Pure.

use serde::Serialize;

use crate::cli::output::{Paint, Tone};
use crate::status::text::visible_sentence;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The name of the check, which docs/reference/checks.md explains.
    pub(super) check: &'static str,
    pub(super) outcome: Outcome,
    /// The fact.
    pub(super) text: String,
    /// The step to take, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

/// The outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    Good,
    /// Something that works, and that a person should know.
    Warning,
    Bad,
}

impl Finding {
    pub(super) fn good(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Good, text: text.into(), hint: None }
    }

    pub(super) fn warning(
        check: &'static str,
        text: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let hint = Some(hint.into());
        Self { check, outcome: Outcome::Warning, text: text.into(), hint }
    }

    pub(super) fn bad(
        check: &'static str,
        text: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let hint = Some(hint.into());
        Self { check, outcome: Outcome::Bad, text: text.into(), hint }
    }
}

/// Returns the findings as lines, each category under its name.
pub(super) fn table(findings: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    let mut last = "";
    for finding in findings {
        let category = finding.check.split('-').next().unwrap_or_default();
        if category != last {
            text += &format!("{category}\n");
            last = category;
        }
        let sign = match finding.outcome {
            Outcome::Good => paint.text(Tone::Good, "√"),
            Outcome::Warning => paint.text(Tone::Warning, "‼"),
            Outcome::Bad => paint.text(Tone::Bad, "×"),
        };
        text += &format!("  {sign} {}\n", visible_sentence(&finding.text));
        if let Some(hint) = &finding.hint {
            let check = finding.check;
            text += &format!("      {} (checks.md#{check})\n", visible_sentence(hint));
        }
    }
    let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
    let (bad, warnings) = (count(Outcome::Bad), count(Outcome::Warning));
    text + &format!("{} checks: {bad} bad, {warnings} warnings\n", findings.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every check, with its category in front. docs/reference/checks.md has a section for each.
    const CHECKS: [&str; 13] = [
        "cluster-version",
        "config-valid",
        "config-services",
        "rights-daemon",
        "rights-install",
        "daemon-answers",
        "daemon-version",
        "daemon-replicas",
        "daemon-leader",
        "daemon-config",
        "daemon-freeze",
        "daemon-databases",
        "network-reach",
    ];

    #[test]
    fn categories_are_shown_once_with_signs_and_hints() {
        let findings = [
            Finding::good("cluster-version", "Kubernetes 1.36"),
            Finding::bad("daemon-leader", "nobody\u{1b}[31m leads\u{202e}", "look at the Lease"),
            Finding::warning("daemon-replicas", "1 is ready", "run two"),
        ];
        assert_eq!(
            table(&findings, Paint::Plain),
            "cluster\n  √ Kubernetes 1.36\ndaemon\n  × nobody\\u{1b}[31m leads\\u{202e}\n      \
             look at the Lease (checks.md#daemon-leader)\n  ‼ 1 is ready\n      run two \
             (checks.md#daemon-replicas)\n3 checks: 1 bad, 1 warnings\n"
        );
    }

    #[test]
    fn every_check_has_a_section_in_the_docs() {
        let page = include_str!("../../../docs/reference/checks.md");
        let sections: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, CHECKS);
    }
}
