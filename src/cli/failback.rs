//! `failback`: lets a database's preferred tier serve again. It changes an annotation of the
//! Service, which the daemon in the cluster watches.

use std::process::ExitCode;

use super::args::parse_database_id;
use super::cluster::ClusterArgs;
use super::console::{Console, Reported, print};
use super::service::ServiceObject;
use crate::annotations::FAILBACK;
use crate::clock;
use crate::config::DatabaseId;

#[derive(clap::Args)]
pub(super) struct Failback {
    /// The database's Service
    #[arg(value_name = "NAMESPACE/SERVICE", value_parser = parse_database_id)]
    service: DatabaseId,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Failback {
    /// Requests the failback. The exit status is 0 once the request is stored in the cluster.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        super::runtime(console)?
            .block_on(self.set_annotation())
            .map_err(|error| console.fail(&error))?;
        print(&format!(
            "requested a failback of {}; its preferred tiers take over if they are healthy\n",
            self.service
        ))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Sets the annotation to the present time. The daemon acts on any change of the value, and
    /// never compares it with its own clock.
    async fn set_annotation(&self) -> anyhow::Result<()> {
        let cluster = self.cluster.open().await?;
        let now = clock::rfc3339_millis(clock::to_wall_clock(clock::now()));
        ServiceObject::new(&cluster, &self.service).set_annotation(FAILBACK, &now).await
    }
}
