//! Names of objects.

use std::{fmt, ops::Deref, sync::Arc};

use super::{Text, shared};

/// The namespace and name of a HealthCheck. Cheap to clone; ordered by namespace, then name. One word, as every check is
/// in half a dozen tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Arc<Name>);

/// What an [`ObjectKey`] says.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub namespace: Text,
    pub name: Text,
}

impl Deref for ObjectKey {
    type Target = Name;

    fn deref(&self) -> &Name {
        &self.0
    }
}

impl ObjectKey {
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self::of(namespace.into(), name.into())
    }

    #[must_use]
    pub fn of(namespace: Text, name: Text) -> Self {
        Self(Arc::new(Name { namespace, name }))
    }

    /// The same for a name that is kept: its namespace is one value for all of them.
    #[must_use]
    pub fn shared(namespace: &str, name: &str) -> Self {
        Self::of(shared::text(namespace), name.into())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
