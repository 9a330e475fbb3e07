//! `$(NAME)` in the command of an exec check: a name that nothing knows is handed to the program as it stands, which few mean.

use super::Value;
use super::leaf::OWN_VARIABLES;
use super::problem::Collector;
use super::read::Place;

pub(super) fn warn_of_unknown(argument: &str, place: &Place, env: &[(String, Value)], problems: &mut Collector) {
    let known: Vec<&str> = OWN_VARIABLES.into_iter().chain(env.iter().map(|(name, _)| name.as_str())).collect();
    for name in references(argument).filter(|name| is_name(name) && !known.contains(name)) {
        let nearest = known.iter().min_by_key(|known| strsim::osa_distance(known, &name.to_uppercase()));
        let message = format!(
            "nothing is known as `$({name})`, so that it stays as it is; write `$({})`, a name in `env`, or `$$({name})` if \
             it is meant as it is",
            nearest.unwrap_or(&OWN_VARIABLES[0])
        );
        problems.warn(place.span, &place.path, message);
    }
}

/// The names in `$(…)`, of which `$$` begins none.
fn references(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            rest = &rest[rest.find('$')? + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                rest = after;
            } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
                rest = after;
                return Some(name);
            }
        }
    })
}

/// Anything else in `$(…)`, as a command of a shell, is no reference to a variable.
fn is_name(name: &str) -> bool {
    let fits = |char: char| char.is_ascii_alphanumeric() || char == '_';
    (1..=40).contains(&name.len()) && name.chars().all(fits) && !name.starts_with(|char: char| char.is_ascii_digit())
}
