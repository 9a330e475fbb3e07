//! The config: reads the file and makes a [`Spec`] of it, in which every default is filled in and
//! every value is checked.
//!
//! ```text
//! file --load--> text --yaml--> tree --language--> records --compile--> Spec
//!                                                                        |
//!                         the whole config, with every default <--explain-+
//! ```
//!
//! Each stage collects mistakes and continues, so that all mistakes of a file are shown at once.
//! Only bad YAML ends the reading early.
//!
//! A key is declared in one place, with its help, type and default: those of a kind of check in
//! `kinds/`, those that all checks share in `check`, those of a policy in `policy`, those of names
//! in `dns`, and all others in `records`. The JSON Schema (config/schema.json) and
//! docs/reference/config.md are generated from there.

mod check;
mod compile;
mod dns;
mod dns_name;
mod excerpt;
mod explain;
mod invisible;
mod ip;
mod kinds;
mod language;
mod load;
mod manifest;
mod names;
mod policy;
mod problem;
mod records;
mod reference;
mod schema;
mod spec;
mod yaml;

pub use compile::Options;
pub use dns_name::NameKind;
pub use explain::explain;
pub(crate) use invisible::{first as first_invisible, is_invisible};
pub use ip::AllowedNetworks;
#[allow(unused_imports, reason = "only the tests use it yet")]
pub(crate) use kinds::check_kinds;
pub use kinds::http::Scheme;
pub(crate) use kinds::login::{MAX_PASSWORD_LENGTH, MAX_USER_LENGTH};
pub use kinds::role::Role;
pub use kinds::tls::Tls;
pub use kinds::{CHECK_KINDS, CheckKind};
pub use language::bytes::ExpectedContent;
pub use language::scalars::{Protocol, PublishMode};
pub use language::value::ValueSource;
pub(crate) use load::is_inherited;
pub use load::{LoadedConfig, ReadError, load, parse, parse_bytes, read_file};
pub use manifest::{Choice, FoundConfig, parse_all};
pub use names::{validate_namespace, validate_object, validate_service};
pub use problem::{Position, Problem, Problems};
pub use reference::reference;
pub use schema::schema;
pub use spec::{
    Address, Check, CreateService, Database, DatabaseId, NameEntry, Port, RejectedAddress, Spec,
};

/// Exports the checked form of each kind: `TcpCheck`, `HttpCheck` and so on.
macro_rules! export_checks {
    ($($module:ident => $record:ident($check:ident),)*) => { $(pub use kinds::$check;)* };
}

check_kinds!(export_checks);
