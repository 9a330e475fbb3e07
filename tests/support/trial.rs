//! Trials: asynchronous test functions as `libtest-mimic` wants them, each with a limit on its time.

use std::time::Duration;

use libtest_mimic::Trial;

use super::{deadline, runtime};

/// Far more than any trial takes on a busy machine; one that hangs must not hang the run.
const LIMIT: Duration = Duration::from_secs(240);

/// Use [`trials!`], which finds the name.
pub(crate) fn trial<F>(
    module: &str,
    function: &str,
    body: impl FnOnce() -> F + Send + 'static,
) -> Trial
where
    F: Future<Output = ()>,
{
    // `cluster::cluster::bottle` says nothing that `bottle` doesn't.
    let module = module.rsplit("::").next().unwrap_or(module);
    let name = format!("{module}::{function}");
    let what = name.clone();
    Trial::test(name, move || {
        runtime().block_on(deadline(LIMIT, &what, body()));
        Ok(())
    })
}

/// Makes a list of trials of asynchronous functions without arguments.
macro_rules! trials {
    ($($function:ident),+ $(,)?) => {
        vec![$($crate::support::trial::trial(module_path!(), stringify!($function), $function)),+]
    };
}
pub(crate) use trials;
