//! The gateway as Pingora calls it: each hook is one call.
//!
//! `request_filter` relays the request itself and returns `Ok(true)`: Pingora's own upstream loop can
//! neither replay a body of any size, nor notice a client that leaves while we connect, nor move a
//! request to another endpoint. Pingora keeps the client's side: sessions, framing, TLS, h2.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::modules::http::HttpModules;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use tokio::time::Instant;

use crate::relay::{self, RequestCtx};
use crate::server::Shared;

/// The only `ProxyHttp`.
pub struct Gateway {
    shared: Arc<Shared>,
}

impl Gateway {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed: Pingora's futures hold several copies of it for every open request.
    type CTX = Box<RequestCtx>;

    fn new_ctx(&self) -> Box<RequestCtx> {
        Box::new(RequestCtx::new(Instant::now()))
    }

    /// None: the default would set up a compression context for every request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<()> {
        relay::start(&self.shared, session, ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        relay::serve(&self.shared, session, ctx)
            .await
            .map(|()| true)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut Self::CTX,
    ) -> Result<Box<HttpPeer>> {
        Error::e_explain(
            ErrorType::InternalError,
            "every request is relayed by request_filter",
        )
    }

    async fn fail_to_proxy(
        &self,
        _session: &mut Session,
        _error: &Error,
        _ctx: &mut Self::CTX,
    ) -> FailToProxy {
        // Whatever could be said to the client has been said.
        FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        }
    }

    /// Not called when a request's task is cancelled: what must be given back is given back by `Drop`.
    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Self::CTX) {
        relay::finish(&self.shared, session, error, ctx);
    }

    fn persist_connection_context(
        &self,
        _session: &Session,
        _ctx: &Self::CTX,
    ) -> Option<Box<dyn Any + Send + Sync>> {
        None
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Self::CTX, _error: &Error) -> bool {
        true
    }
}
