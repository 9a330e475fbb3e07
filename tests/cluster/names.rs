//! Databases behind names: DNS adds addresses, and takes one away only in exchange for another of
//! the same name that is Up.

use libtest_mimic::Trial;

mod answers;
pub(crate) mod fixture;
mod hostile;
mod moves;
mod outages;
mod queries;
mod refusals;
mod reports;
mod restarts;
pub(crate) mod rotating;
mod services;
mod sharing;

pub(crate) fn cases() -> Vec<Trial> {
    [
        // The longest first, so that the others run beside them.
        reports::cases(),
        hostile::cases(),
        outages::cases(),
        rotating::cases(),
        moves::cases(),
        answers::cases(),
        refusals::cases(),
        restarts::cases(),
        services::cases(),
        sharing::cases(),
        queries::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
