//! The newest known version of one object, from events and from responses that come in any order.

use std::sync::Arc;

use kube::Resource;

/// The objects of one kind that are cached for one database.
///
/// Events of a watch come in order. Responses to the daemon's own calls may come before or after
/// the events that they belong to, and count only if they are newer than everything known. `epoch`
/// is the number of the list that the object comes from or after. A list is the whole truth: it may
/// go back in time, as after a restore of etcd, and nothing older may come after it.
pub(crate) trait Store<K> {
    /// Applies an object of a list. Returns whether anything changed, as all of these do.
    fn init_apply(&mut self, object: K, epoch: u64) -> bool;

    /// Ends a list: objects that it did not show are gone.
    fn init_done(&mut self, epoch: u64) -> bool;

    /// Applies an event, or a response: the object as it is now.
    fn apply(&mut self, object: K, epoch: u64) -> bool;

    /// Applies the event of a deletion, with the object as it was last.
    fn delete(&mut self, object: K, epoch: u64) -> bool;
}

/// The newest known version of one object.
#[derive(Debug, Clone)]
pub(crate) struct CachedObject<K> {
    /// The object; none if it does not exist, or has not been listed yet.
    pub object: Option<Arc<K>>,
    /// The epoch in which the object was applied or deleted last.
    epoch: u64,
    /// The newest known version in that epoch, the version of a deletion included.
    resource_version: Option<u64>,
}

impl<K> Default for CachedObject<K> {
    fn default() -> Self {
        Self { object: None, epoch: 0, resource_version: None }
    }
}

impl<K: Resource> CachedObject<K> {
    /// Returns whether the object was applied or deleted in this epoch.
    pub(crate) fn is_of_epoch(&self, epoch: u64) -> bool {
        self.epoch == epoch
    }

    /// Returns whether `object` is newer than everything known in this epoch, and remembers its
    /// version if it is. An object without a version counts as newer.
    fn advance(&mut self, object: &K, epoch: u64) -> bool {
        let known = self.resource_version.filter(|_| self.epoch == epoch);
        let version = resource_version(object);
        let newer = known.zip(version).is_none_or(|(known, version)| version > known);
        if newer {
            (self.resource_version, self.epoch) = (version, epoch);
        }
        newer
    }
}

impl<K: Resource> Store<K> for CachedObject<K> {
    fn init_apply(&mut self, object: K, epoch: u64) -> bool {
        let resource_version = resource_version(&object);
        *self = Self { object: Some(Arc::new(object)), epoch, resource_version };
        true
    }

    fn init_done(&mut self, epoch: u64) -> bool {
        self.epoch != epoch && self.object.take().is_some()
    }

    fn apply(&mut self, object: K, epoch: u64) -> bool {
        let newer = self.advance(&object, epoch);
        if newer {
            self.object = Some(Arc::new(object));
        }
        newer
    }

    fn delete(&mut self, object: K, epoch: u64) -> bool {
        let newer = self.advance(&object, epoch);
        if newer {
            self.object = None;
        }
        newer
    }
}

/// Returns the version of an object. Versions are decimal numbers that grow: etcd has always done
/// so, and Kubernetes guarantees it since 1.35 (KEP-5504).
fn resource_version(object: &impl Resource) -> Option<u64> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests;
