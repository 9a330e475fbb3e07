//! The names of databases as metrics. Their labels are those of the config, so their number does
//! not grow with what DNS says.

use super::encoder::Encoder;
use crate::monitor::DatabaseSnapshot;
use crate::names::{Backing, LookupResult};

pub(super) fn configured_addresses(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    let of_file = database.targets.iter().filter(|target| target.origin.entry.is_none()).count();
    encoder.sample(&[], of_file + database.refused.len() + database.names.len());
}

pub(super) fn refused_addresses(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    let by_dns = database.names.iter().map(|name| name.refused.len()).sum::<usize>();
    encoder.sample(&[], database.refused.len() + by_dns);
}

pub(super) fn resolved(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    for name in &database.names {
        let is_resolved = name.result == Some(LookupResult::Good);
        encoder.sample(&[("name", &name.name)], u8::from(is_resolved));
    }
}

pub(super) fn kept_addresses(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    for name in &database.names {
        let is_kept = |(_, backing): &&_| *backing != Backing::Current;
        let kept = name.addresses.iter().filter(is_kept).count() + name.lent;
        if kept > 0 {
            encoder.sample(&[("name", &name.name)], kept);
        }
    }
}

pub(super) fn changes(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    for name in database.names.iter().filter(|name| name.changes > 0) {
        encoder.sample(&[("name", &name.name)], name.changes);
    }
}
