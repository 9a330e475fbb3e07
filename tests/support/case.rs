//! Trials: asynchronous test functions as `libtest-mimic` wants them, each with a limit on its time.

use std::time::Duration;

use libtest_mimic::Trial;

use super::{runtime, with_timeout};

/// Far more than any test takes on a busy machine; one that hangs must not hang the run.
const LIMIT: Duration = Duration::from_secs(240);

/// Use [`cases!`], which finds the name.
pub(crate) fn case<F>(
    module: &str,
    function: &str,
    body: impl FnOnce() -> F + Send + 'static,
) -> Trial
where
    F: Future<Output = ()>,
{
    // `cluster::cluster::sandbox` says nothing that `sandbox` doesn't.
    let module = module.rsplit("::").next().unwrap_or(module);
    let name = format!("{module}::{function}");
    let what = name.clone();
    Trial::test(name, move || {
        runtime().block_on(with_timeout(LIMIT, &what, body()));
        Ok(())
    })
}

/// Makes a list of tests of asynchronous functions without arguments.
macro_rules! cases {
    ($($function:ident),+ $(,)?) => {
        vec![$($crate::support::case::case(module_path!(), stringify!($function), $function)),+]
    };
}
pub(crate) use cases;
