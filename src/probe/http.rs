//! The HTTP check: one request on a connection of its own, and what its answer must be.

mod body;
mod expectation;
mod head;
mod http1;
mod http2;
mod https;
mod plain;
mod request;
mod response;

use super::kind::{CheckProber, NewProber};
use super::target::Target;
use crate::config::{HttpCheck, Scheme};
pub(crate) use expectation::Wanted;
pub(crate) use request::Ask;
pub(crate) use response::{Answer, Judge};

impl NewProber for HttpCheck {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber> {
        match self.scheme {
            Scheme::Http => Box::new(plain::Http::new(self, target.ip)),
            Scheme::Https => Box::new(https::Https::new(self, target.ip)),
        }
    }
}
