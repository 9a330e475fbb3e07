//! The cluster that members are published in, and the right to change it.

use kube::Client;

/// The cluster that members are published in.
#[derive(Clone)]
pub enum Cluster {
    /// The cluster is read and written.
    Write(Client),
    /// The cluster is only read: a dry run shows the writes that it leaves out.
    Read(Client),
    /// There is no cluster: a dry run shows the decisions.
    None,
}

impl Cluster {
    /// Returns the client, if there is a cluster.
    pub(crate) fn client(&self) -> Option<&Client> {
        match self {
            Cluster::Write(client) | Cluster::Read(client) => Some(client),
            Cluster::None => None,
        }
    }
}
