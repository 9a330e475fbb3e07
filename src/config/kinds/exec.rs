//! The kind `exec`: a program whose exit status is the verdict.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::kind::{CheckContext, KindRecord, items, new_list, non_empty_list};
use crate::config::language::reader::FromNode as _;
use crate::config::language::record::{Record as _, record};
use crate::config::language::scalars::{
    non_empty_text, range_ends, scalar, serialize_range, text, without_nul,
};
use crate::config::language::spanned::{Field, Spanned};
use crate::config::language::templates;
use crate::config::language::value::{NamedValues, ValueName, ValueSource};
use crate::config::problem::{Collector, Location, Reported, quote};
use crate::config::yaml::node::Scalar;

record! {
    /// A check by a program, which is started without a shell. It passes when the program exits
    /// with status 0.
    Exec requires [] {
        /// The program and its arguments. `$(TARGET_IP)`, `$(TARGET_NAME)`, `$(TARGET_PORT)`,
        /// `$(TARGET_HOST)`, `$(SERVICE)`, `$(NAMESPACE)` and the names in `env` are replaced by
        /// their values. The program must connect to TARGET_IP: a second lookup of the name may
        /// lead elsewhere.
        #[schemars(length(min = 1))]
        command: Vec<Field<Argument>>,
        /// Variables in the environment of the program. Beside them it has only TARGET_IP,
        /// TARGET_NAME (the host name that DNS gives the IP for, else the IP), TARGET_PORT,
        /// TARGET_HOST (the `hostname` of the address, if it has one), SERVICE and NAMESPACE.
        env: NamedValues<VariableName>,
        /// The directory in which the program runs: an absolute path. Default: the directory of
        /// the daemon.
        working_directory: AbsoluteDir,
        /// The exit statuses that say nothing about the address, as 3 does in Nagios plugins:
        /// numbers, or ranges like `64-78`. Such a check is inconclusive and changes nothing. So is
        /// one that exits with 126 or 127, with which a shell says that it can't run a command.
        inconclusive_statuses: Vec<Field<ExitStatusRange>> = Vec::<Field<ExitStatusRange>>::new(),
    }
}

/// A checked check by a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecCheck {
    /// The program and its arguments, in which `$(NAME)` is not yet replaced.
    pub command: Vec<String>,
    /// The variables in the environment of the program.
    pub env: Vec<(String, ValueSource)>,
    /// The directory in which the program runs.
    pub working_directory: Option<PathBuf>,
    /// The exit statuses that say nothing about the target.
    pub inconclusive_statuses: Vec<RangeInclusive<u8>>,
}

impl KindRecord for Exec {
    type Check = ExecCheck;

    const EXAMPLE: &'static str = r#"databases:
- service: postgres
  port: 5432
  addresses: [10.20.0.11, 10.20.0.12]
  check:
    interval: 10s
    timeout: 5s
    exec:
      command: [psql, -h, $(TARGET_IP), -U, probe, -c, "select 1", orders]
      env: {PGPASSWORD: {file: /etc/secrets/probe}, PGCONNECT_TIMEOUT: "4"}
"#;

    fn compile(
        written: &Spanned<Self>,
        context: &CheckContext,
        problems: &mut Collector,
    ) -> Result<ExecCheck, Reported> {
        let exec = written.value.overlay(&Exec::built_in());
        let location = context.blame(&written.location);
        let command = compile_command(&exec, location, problems);
        let env = exec.env.or(NamedValues(Vec::new())).and_then(|env| env.pairs());
        let statuses = exec.inconclusive_statuses.required().and_then(|list| items(&list));
        let (command, env) = (command?, env?);
        let names: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
        let known = [&BUILTIN_VARIABLES[..], &names].concat();
        for argument in exec.command.value().into_iter().flatten().filter_map(Field::given) {
            for message in templates::unknown_names(&argument.value.0, &known) {
                problems.warn_at(&argument.location, message);
            }
        }
        Ok(ExecCheck {
            command,
            env,
            working_directory: exec.working_directory.optional()?.map(|path| path.0),
            inconclusive_statuses: statuses?.into_iter().map(|range| range.0).collect(),
        })
    }

    fn explain(check: &ExecCheck) -> Self {
        Exec {
            command: new_list(&check.command, |argument| Argument(argument.clone())),
            env: Field::new(NamedValues::new(&check.env, VariableName)),
            working_directory: Field::from_option(check.working_directory.clone().map(AbsoluteDir)),
            inconclusive_statuses: new_list(&check.inconclusive_statuses, |range| {
                ExitStatusRange(range.clone())
            }),
        }
    }

    fn summary(check: &ExecCheck, _host: &str) -> String {
        let program = check.command.first().map_or("", String::as_str);
        let arguments = if check.command.len() > 1 { " …" } else { "" };
        format!("exec {program}{arguments}")
    }

    fn values(check: &ExecCheck) -> Vec<&ValueSource> {
        check.env.iter().map(|(_, value)| value).collect()
    }

    fn templates(&self) -> Vec<(&str, &Location)> {
        let arguments = self.command.value().into_iter().flatten().filter_map(Field::given);
        arguments.map(|argument| (argument.value.0.as_str(), &argument.location)).collect()
    }
}

/// Returns the program and its arguments.
fn compile_command(
    exec: &Exec,
    location: &Location,
    problems: &mut Collector,
) -> Result<Vec<String>, Reported> {
    if exec.command.is_absent() {
        let message = "the key `command` is missing; write `command: [program, argument]`";
        return Err(problems.error_at_key(location, message));
    }
    if let Some(Field::Given(program)) = exec.command.value().and_then(|command| command.first())
        && program.value.0.is_empty()
    {
        let message = "the program's name is empty; write the path or name of a program";
        problems.error_at(&program.location, message);
    }
    let advice = "write at least one program, as in `[program, argument]`";
    let arguments = non_empty_list(&exec.command, advice, problems)?.unwrap_or_default();
    Ok(arguments.into_iter().map(|argument| argument.0).collect())
}

scalar!(Argument(String), "text", {"type": "string"}, |scalar, expected| {
    Ok(Argument(without_nul(text(scalar, expected)?)?.into()))
});

scalar!(
    AbsoluteDir(PathBuf),
    "the absolute path of a directory",
    {"type": "string", "pattern": "^/"},
    |scalar, expected| {
        let path = without_nul(non_empty_text(scalar, expected)?)?;
        if !path.starts_with('/') {
            let shown = quote(path);
            return Err(format!(
                "{shown} is relative, and the daemon's own directory is not part of the config; \
                 write {expected}"
            ));
        }
        Ok(AbsoluteDir(path.into()))
    }
);

/// The variables that the daemon sets for every exec check.
const BUILTIN_VARIABLES: [&str; 6] =
    ["TARGET_IP", "TARGET_NAME", "TARGET_PORT", "TARGET_HOST", "SERVICE", "NAMESPACE"];

scalar!(
    VariableName(String),
    "the name of a variable",
    {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
    parse_variable_name
);

/// Parses the name of a variable. A wrong name is never quoted, because it may be a secret that
/// lost its key.
fn parse_variable_name(scalar: &Scalar, _: &str) -> Result<VariableName, String> {
    let name = &scalar.text;
    let is_allowed = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let begins_with_digit = name.starts_with(|char: char| char.is_ascii_digit());
    if name.is_empty() || begins_with_digit || !name.chars().all(is_allowed) {
        return Err("this is not the name of a variable; write letters, digits and `_`, as in \
                    `PGPASSWORD: …`"
            .into());
    }
    if BUILTIN_VARIABLES.contains(&name.as_str()) {
        return Err(format!(
            "`{name}` is set for every exec check; remove it, or choose another name"
        ));
    }
    Ok(VariableName(name.clone()))
}

impl ValueName for VariableName {
    fn text(&self) -> &str {
        &self.0
    }

    fn identity(&self) -> String {
        self.0.clone()
    }
}

/// An exit status, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExitStatusRange(pub RangeInclusive<u8>);

scalar!(
    ExitStatusRange,
    "an exit status like `3`, or a range like `64-78`",
    {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 255},
            {"type": "string", "pattern": "^[0-9]{1,3}(-[0-9]{1,3})?$"}
        ]
    },
    parse_exit_statuses
);

fn parse_exit_statuses(scalar: &Scalar, expected: &str) -> Result<ExitStatusRange, String> {
    let (first, last) = range_ends(&scalar.text);
    let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>()) else {
        let shown = quote(&scalar.text);
        return Err(format!("{shown} is not {expected}; write statuses from 1 to 255"));
    };
    if first == 0 || last == 0 {
        return Err("exit status 0 always passes; write statuses from 1 to 255".into());
    }
    match (u8::try_from(first), u8::try_from(last)) {
        (Ok(first), Ok(last)) if first <= last => Ok(ExitStatusRange(first..=last)),
        (Ok(first), Ok(last)) => {
            Err(format!("the range {first}-{last} is empty; write `{last}-{first}`"))
        }
        _ => {
            let largest = first.max(last);
            Err(format!("no program can exit with {largest}; write statuses from 1 to 255"))
        }
    }
}

impl Serialize for ExitStatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_range(*self.0.start(), *self.0.end(), serializer)
    }
}
