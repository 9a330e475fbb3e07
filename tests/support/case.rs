//! Test cases: asynchronous functions for `libtest-mimic`, each with a time limit.

use std::time::Duration;

use libtest_mimic::Trial;

use super::{runtime, with_timeout};

/// Far longer than any case takes on a busy machine. A case that hangs must not block the run.
const CASE_TIMEOUT: Duration = Duration::from_secs(240);

/// Makes a case of an asynchronous function. Use [`cases!`], which fills in the names.
pub(crate) fn case<F>(
    module: &str,
    function: &str,
    body: impl FnOnce() -> F + Send + 'static,
) -> Trial
where
    F: Future<Output = ()>,
{
    // `cluster::cluster::sandbox` says no more than `sandbox`.
    let module = module.rsplit("::").next().unwrap_or(module);
    let name = format!("{module}::{function}");
    let what = name.clone();
    Trial::test(name, move || {
        runtime().block_on(with_timeout(CASE_TIMEOUT, &what, body()));
        Ok(())
    })
}

/// Makes a list of cases of asynchronous functions without arguments. With `in NAME:` before them
/// the cases have that name in place of the module's, for a subject of several files.
macro_rules! cases {
    (in $module:ident: $($function:ident),+ $(,)?) => {
        vec![$(
            $crate::support::case::case(stringify!($module), stringify!($function), $function)
        ),+]
    };
    ($($function:ident),+ $(,)?) => {
        vec![$($crate::support::case::case(module_path!(), stringify!($function), $function)),+]
    };
}
pub(crate) use cases;
