//! Compiles the ports of a database.

use std::collections::BTreeMap;

use crate::config::language::reader::FromNode as _;
use crate::config::language::record::Record as _;
use crate::config::language::scalars::Protocol;
use crate::config::language::spanned::{Field, Spanned};
use crate::config::problem::{Collector, Reported};
use crate::config::records;
use crate::config::spec::Port;

/// Returns the ports of `port` or `ports`, of which a database has exactly one.
pub(super) fn compile(
    database: &Spanned<records::Database>,
    problems: &mut Collector,
) -> Result<Vec<Port>, Reported> {
    match (&database.value.port, &database.value.ports) {
        (Field::Absent, Field::Absent) => {
            let message = "the key `port` is missing; write `port: 3306`, or \
                           `ports: [{name: …, port: …}]`";
            Err(problems.error_at(&database.location, message))
        }
        (Field::Given(_), Field::Given(ports)) => {
            let message = "`port` is short for one of `ports`; remove `port` or `ports`";
            Err(problems.error_at_key(&ports.location, message))
        }
        (Field::Given(port), Field::Absent) => {
            Ok(vec![Port { name: None, number: port.value.0, protocol: Protocol::Tcp }])
        }
        (Field::Absent, Field::Given(ports)) => compile_list(ports, problems),
        _ => Err(Reported),
    }
}

fn compile_list(
    ports: &Spanned<Vec<Field<records::Port>>>,
    problems: &mut Collector,
) -> Result<Vec<Port>, Reported> {
    if ports.value.is_empty() {
        let message = "the list is empty; write at least one port, as in `[{port: 3306}]`";
        return Err(problems.error_at(&ports.location, message));
    }
    // The names so far, with their lines.
    let mut names: BTreeMap<String, u32> = BTreeMap::new();
    let mut list = Vec::new();
    for port in ports.value.iter().filter_map(Field::given) {
        reject_name(port, ports.value.len(), &mut names, problems);
        list.extend(compile_port(&port.value));
    }
    if list.len() == ports.value.len() { Ok(list) } else { Err(Reported) }
}

/// Reports a name that another port has, and a missing name if there are several ports.
fn reject_name(
    port: &Spanned<records::Port>,
    count: usize,
    names: &mut BTreeMap<String, u32>,
    problems: &mut Collector,
) {
    match &port.value.name {
        Field::Given(name) => match names.get(&name.value.0) {
            Some(first) => {
                let message =
                    format!("the port on line {first} has this name too; give each port its own");
                problems.error_at(&name.location, message);
            }
            None => {
                names.insert(name.value.0.clone(), name.location.span.line);
            }
        },
        Field::Absent if count > 1 => {
            let message = "with several ports, each needs the name that it has in the Service; \
                           write `name: …`";
            problems.error_at(&port.location, message);
        }
        _ => {}
    }
}

fn compile_port(port: &records::Port) -> Result<Port, Reported> {
    let port = port.overlay(&records::Port::built_in());
    Ok(Port {
        name: port.name.optional()?.map(|name| name.0),
        number: port.port.required()?.0,
        protocol: port.protocol.required()?,
    })
}
