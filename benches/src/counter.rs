//! Counts the checks that reached the targets.
//!
//! Half-open checks never show up in the targets' `accept()`, so the kernel counts the packets that
//! open a connection. That costs every packet a few dozen nanoseconds, the same for each checker.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::machine;
use crate::namespace::{run, scratch};
use crate::workload::{Kind, port};

pub(crate) fn set_up() -> Result<()> {
    let rules = scratch()?.join("count.nft");
    let (first, last) = (port::DRAIN, port::MONGODB);
    fs::write(
        &rules,
        format!(
            "table ip bench {{
                 counter seen {{ }}
                 chain input {{
                     type filter hook input priority 0; policy accept;
                     tcp flags & (syn | ack) == syn tcp dport {first}-{last} counter name seen
                 }}
             }}"
        ),
    )?;
    run(Command::new("nft").arg("-f").arg(rules))?;
    Ok(())
}

/// Returns the number of checks so far.
pub(crate) fn seen(kind: Kind) -> Result<u64> {
    if kind == Kind::Exec {
        return machine::started();
    }
    let text = run(Command::new("nft").args(["list", "counter", "ip", "bench", "seen"]))?;
    let packets = text.split_once("packets ").and_then(|(_, rest)| rest.split_whitespace().next());
    Ok(packets.with_context(|| format!("nft: {text}"))?.parse()?)
}
