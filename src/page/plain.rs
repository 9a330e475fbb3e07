//! The page of one database as plain text, for terminals.

use std::fmt::Write as _;

use super::text::{between, duration, visible, visible_sentence};
use crate::status::{ChangeStatus, DatabaseStatus, TargetMark, TargetStatus, Time};

/// Returns the lines of a database with these of its targets.
pub(super) fn database(database: &DatabaseStatus, selected: &[usize], now: Time) -> String {
    let DatabaseStatus { namespace, service, condition, reason, targets, .. } = database;
    let condition = condition.as_deref().unwrap_or("Unknown");
    let published = database.published_targets();
    let mut text =
        format!("\n{namespace}/{service}: {condition}, {published} of {}", targets.len());
    let reason = reason.as_deref().filter(|reason| !reason.is_empty());
    let shown = if database.has_condition_of_trouble() { visible_sentence } else { visible };
    let others = database.other_published().map(|others| format!(", and also {others}"));
    let _ = writeln!(
        text,
        " published{}{}",
        others.unwrap_or_default(),
        reason.map(|reason| format!(": {}", shown(reason))).unwrap_or_default()
    );
    for note in &database.policy {
        let _ = writeln!(text, "  {}", visible_sentence(note));
    }
    let failing = database.names.iter().filter(|name| name.failing_since.is_some());
    for name in failing {
        let result = name.result.as_deref().unwrap_or("no answer yet");
        let _ = writeln!(text, "  {}: {}", visible(&name.name), visible(result));
    }
    selected.iter().for_each(|index| target(&mut text, &targets[*index], now));
    text
}

/// Returns the lines of the newest changes, the newest first.
pub(super) fn changes(changes: &[ChangeStatus]) -> String {
    let mut text = String::new();
    for change in changes.iter().rev() {
        let ChangeStatus { at, address, change, reason } = change;
        let reason = reason.as_deref().map(|it| format!(": {}", visible(it))).unwrap_or_default();
        let _ = writeln!(text, "  {at} {address} {}{reason}", visible(change));
    }
    text
}

fn target(text: &mut String, target: &TargetStatus, now: Time) {
    let mark = target.mark();
    let since = duration(between(target.since.0, now.0));
    let _ = write!(text, "  {} {} {}", mark.symbol(), target.address, mark.word());
    let _ = match mark {
        TargetMark::Maintenance | TargetMark::Flapping => {
            write!(text, ", {} for {since}", target.health)
        }
        TargetMark::Down | TargetMark::Unknown | TargetMark::Up => write!(text, " for {since}"),
    };
    if !target.published {
        text.push_str(", not published");
    }
    let reason = match mark {
        TargetMark::Maintenance => target.maintenance.as_deref(),
        _ => target.reason.as_deref(),
    };
    let _ = writeln!(text, "{}", reason.map(|it| format!(": {}", visible(it))).unwrap_or_default());
    let details = target.observation.as_ref().map(|it| it.describe()).unwrap_or_default();
    if !details.is_empty() {
        let _ = writeln!(text, "    server: {details}");
    }
    if let Some(membership) = target.membership.as_ref().filter(|_| !target.published) {
        let planned = if target.planned() == Some(true) { "planned, but not in yet: " } else { "" };
        let (why, until) = (visible_sentence(&membership.why), visible_sentence(&membership.until));
        let label = membership.until_label();
        let _ = writeln!(text, "    {planned}{why}; {label} {until}");
    }
}
