//! One step towards the desired state: the only thing that is done between two decisions.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::inputs::Inputs;
use crate::endpoints;
use crate::publish::cache::orphans::ObjectKind;
use crate::publish::condition::Condition;

/// The next step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Nothing may be written.
    Blocked(Condition),
    /// Nothing needs to be written.
    InSync,
    /// Creates a placeholder, so that the write after it has a resourceVersion to stand on.
    Create(Box<Endpoints>),
    Write(Box<Endpoints>),
    /// Creates a placeholder for a slice.
    CreateSlice(Box<EndpointSlice>),
    WriteSlice(Box<EndpointSlice>),
    DeleteSlice(Box<EndpointSlice>),
    CreateService(Box<Service>),
}

impl Step {
    /// Returns whether it only creates an object that another step will fill.
    pub(crate) fn is_placeholder(&self) -> bool {
        matches!(self, Step::Create(_) | Step::CreateSlice(_) | Step::CreateService(_))
    }

    /// Returns the name of the object that is to be written.
    pub(crate) fn object_name(&self) -> Option<&str> {
        let metadata = match self {
            Step::Create(endpoints) | Step::Write(endpoints) => &endpoints.metadata,
            Step::CreateSlice(slice) | Step::WriteSlice(slice) | Step::DeleteSlice(slice) => {
                &slice.metadata
            }
            Step::CreateService(service) => &service.metadata,
            Step::Blocked(_) | Step::InSync => return None,
        };
        metadata.name.as_deref()
    }

    /// Returns whether the Service must be read again before the step is carried out.
    ///
    /// The cached Service may be stale while its watch does not run. A fresh one is also needed
    /// where something is created or deleted because of it, and where Endpoints without the
    /// daemon's label may be the first sign of a change of the Service.
    pub(crate) fn needs_fresh_service(&self, inputs: &Inputs) -> bool {
        let unlabelled =
            || inputs.endpoints().and_then(endpoints::managed_by) != Some(endpoints::FIELD_MANAGER);
        inputs.existing.watch(ObjectKind::Service).error.is_some()
            || match self {
                Step::Create(_) | Step::Write(_) => unlabelled(),
                Step::CreateSlice(_) | Step::DeleteSlice(_) => true,
                // Creating a Service that exists changes nothing.
                Step::WriteSlice(_) | Step::CreateService(_) | Step::InSync | Step::Blocked(_) => {
                    false
                }
            }
    }
}
