//! The interface of a check kind to the rest of the config.

use crate::config::language::record::Record;
use crate::config::language::scalars::{PortNumber, Protocol};
use crate::config::language::spanned::{Field, Spanned};
use crate::config::language::value::ValueSource;
use crate::config::problem::{Collector, Location, Reported};

/// The keys of one kind of check, as they are written in the config.
pub(crate) trait KindRecord: Record + Sized {
    /// The checked form, with every default filled in.
    type Check;

    /// A database with such a check, for the docs. It must be a good config.
    const EXAMPLE: &'static str;

    /// Returns the checked form. Reports what is wrong with single keys and with their combination.
    fn compile(
        written: &Spanned<Self>,
        context: &CheckContext,
        problems: &mut Collector,
    ) -> Result<Self::Check, Reported>;

    /// Returns the keys of a checked form, with every default written out.
    fn explain(check: &Self::Check) -> Self;

    /// Returns the check of an address in a few words, without what may be secret: a query or the
    /// arguments of a program.
    fn summary(check: &Self::Check, host: &str) -> String;

    /// Returns the values that may be secrets.
    fn values(check: &Self::Check) -> Vec<&ValueSource>;

    /// Returns the texts in which `$(TARGET_IP)` is replaced, for warnings that need the address.
    fn templates(&self) -> Vec<(&str, &Location)> {
        Vec::new()
    }
}

/// The surroundings of a check.
pub(crate) struct CheckContext<'a> {
    /// The database's first port, or None if it is invalid.
    pub port: Option<ServicePort>,
    /// The location to report where the check itself stands in `defaults`.
    pub location: &'a Location,
}

/// The number and the protocol of a port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServicePort {
    pub number: u16,
    pub protocol: Protocol,
}

impl CheckContext<'_> {
    /// Returns the port to connect to: the check's own, or else the database's first one.
    pub(super) fn port(
        &self,
        kind: &str,
        own: &Field<PortNumber>,
        location: &Location,
        problems: &mut Collector,
    ) -> Result<u16, Reported> {
        if let Some(port) = own.optional()? {
            return Ok(port.0);
        }
        let port = self.port.ok_or(Reported)?;
        if port.protocol == Protocol::Tcp {
            return Ok(port.number);
        }
        let protocol = if port.protocol == Protocol::Udp { "a UDP" } else { "an SCTP" };
        let message = format!(
            "the database's first port, {}, is {protocol} port, which `{kind}` can't check; \
             set check.{kind}.port to a TCP port",
            port.number
        );
        Err(problems.error_at_key(self.blame(location), message))
    }

    /// Returns the location to report: that of the kind if it stands in the database, and else
    /// that of the database, because `defaults` is right for other databases.
    pub(super) fn blame<'b>(&'b self, location: &'b Location) -> &'b Location {
        if location.path.starts_with("defaults") { self.location } else { location }
    }
}

/// Returns the items of a list that may be absent but not empty.
pub(crate) fn non_empty_list<T: Clone>(
    list: &Field<Vec<Field<T>>>,
    advice: &str,
    problems: &mut Collector,
) -> Result<Option<Vec<T>>, Reported> {
    let list = match list {
        Field::Absent => return Ok(None),
        Field::Invalid => return Err(Reported),
        Field::Given(list) => list,
    };
    if list.value.is_empty() {
        return Err(problems.error_at(&list.location, format!("the list is empty; {advice}")));
    }
    items(&list.value).map(Some)
}

/// Returns the items of a list if all of them are good.
pub(super) fn items<T: Clone>(list: &[Field<T>]) -> Result<Vec<T>, Reported> {
    list.iter().map(Field::required).collect()
}

/// Wraps the items of a list that comes from no file.
pub(crate) fn new_list<T, R>(list: &[T], wrap: impl Fn(&T) -> R) -> Field<Vec<Field<R>>> {
    Field::new(list.iter().map(|item| Field::new(wrap(item))).collect())
}
