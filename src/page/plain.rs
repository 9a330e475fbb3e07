//! The page of one database as plain text, for terminals.

use std::fmt::Write as _;

use super::text::{between, duration, visible};
use crate::status::{ChangeStatus, DatabaseStatus, TargetMark, TargetStatus, Time};

/// Returns the lines of a database with these of its targets.
pub(super) fn database(database: &DatabaseStatus, selected: &[usize], now: Time) -> String {
    let DatabaseStatus { namespace, service, condition, reason, targets, .. } = database;
    let condition = condition.as_deref().unwrap_or("Unknown");
    let published = targets.iter().filter(|target| target.published).count();
    let mut text =
        format!("\n{namespace}/{service}: {condition}, {published} of {}", targets.len());
    let reason = reason.as_deref().filter(|reason| !reason.is_empty());
    let _ = writeln!(
        text,
        " published{}",
        reason.map(|it| format!(": {}", visible(it))).unwrap_or_default()
    );
    for note in &database.policy {
        let _ = writeln!(text, "  {}", visible(note));
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
    let _ = write!(text, "  {} {} {} for {since}", mark.symbol(), target.address, mark.word());
    if !target.published {
        text.push_str(", not published");
    }
    let reason = match mark {
        TargetMark::Maintenance => target.maintenance.as_deref(),
        _ => target.reason.as_deref(),
    };
    let _ = writeln!(text, "{}", reason.map(|it| format!(": {}", visible(it))).unwrap_or_default());
    if let Some(membership) = target.membership.as_ref().filter(|_| !target.published) {
        let until = visible(&membership.until);
        let _ = writeln!(text, "    {}; comes back when {until}", visible(&membership.why));
    }
}
