//! Where the values of Secrets and ConfigMaps come from when a probe needs them.

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::check::{Reason, Reference};

/// The value of a reference, or the local reason it could not be had for and a message that holds none of it.
pub type ReferenceResult = Result<Bytes, (Reason, String)>;

/// Hands out the values that probes refer to.
pub trait References: Send + Sync + 'static {
    /// The value `reference` names in `namespace`. The attempt's deadline covers the wait.
    fn get<'a>(&'a self, namespace: &'a str, reference: &'a Reference) -> BoxFuture<'a, ReferenceResult>;
}

/// Without a cluster there is nothing to refer to.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReferences;

impl References for NoReferences {
    fn get<'a>(&'a self, _namespace: &'a str, reference: &'a Reference) -> BoxFuture<'a, ReferenceResult> {
        let message = format!(
            "{} '{}' cannot be read without a cluster; write the value itself",
            reference.kind.as_str(),
            reference.name
        );
        Box::pin(std::future::ready(Err((Reason::SecretMissing, message))))
    }
}
