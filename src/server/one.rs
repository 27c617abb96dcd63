//! A single listener, for a command that has an answer of its own to everything.

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Limits, ServerError, accept::Accepting, bind, serve};

/// One listener, bound and not yet served; with the same care for its clients as the other two.
pub struct OneListener {
    listener: serve::Listener,
    address: SocketAddr,
}

impl fmt::Debug for OneListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneListener").field("address", &self.address).finish()
    }
}

impl OneListener {
    /// Takes hold of `address`, which `flag` named, for what `router` answers. `name` stands in the access log.
    ///
    /// # Errors
    /// Names the flag and the mend when the address cannot be listened on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(
        name: &'static str,
        flag: &'static str,
        address: SocketAddr,
        limits: Limits,
        router: Router,
    ) -> Result<Self, ServerError> {
        let socket = bind::listen(flag, address)?;
        // A bound socket has an address; should the kernel not tell it, the one asked for is the best answer.
        let address = socket.local_addr().unwrap_or(address);
        let socket = TcpListener::from_std(socket).map_err(ServerError::Thread)?;
        let app = serve::App {
            listener: name,
            router,
            access_log_skip: Arc::new([]),
            max_body: limits.body,
            large_bodies: None,
        };
        let accepting = Accepting { name, socket, tls: None, limits };
        Ok(Self { listener: serve::Listener { accepting, app }, address })
    }

    /// Keeps requests of `path` out of the access log.
    #[must_use]
    pub fn silent_on(mut self, path: &str) -> Self {
        self.listener.app.access_log_skip = Arc::new([path.to_owned()]);
        self
    }

    /// Where it is, with the port that was found where 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; returns within [`Limits::drain`] after it.
    pub async fn serve(self, stop: CancellationToken) {
        self.listener.serve(stop).await;
    }
}
