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
pub(crate) use expectation::Expectation;
pub(crate) use request::{AGENT, RequestTemplate};
pub(crate) use response::{ResponseChecker, ResponseReader};

impl NewProber for HttpCheck {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber> {
        match self.scheme {
            Scheme::Http => Box::new(plain::HttpProber::new(self, target)),
            Scheme::Https => Box::new(https::HttpsProber::new(self, target)),
        }
    }
}
