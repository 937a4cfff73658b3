//! The body as an engine gets it: the client's bytes, but for the few that the gateway must change.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::openai::Rename;
use crate::openai::request::{Edit, Peeked, apply};
use crate::pool::{Endpoint, Pool};
use crate::routing::Route;

use super::body::Body;
use super::continuing;
use super::events::UsageAsked;
use super::peek::Asked;

/// What the endpoints of a pool are sent.
pub trait Bodies: Sync {
    /// The body for this endpoint.
    fn for_endpoint(&self, endpoint: &Endpoint) -> Sent<'_>;

    /// Whether there is one for this endpoint.
    fn is_for(&self, _pool: &Pool, _endpoint: &Endpoint) -> bool {
        true
    }

    /// The client's own body, of a request that nothing has been shown of yet; else nothing.
    fn original(&self) -> &[Bytes] {
        &[]
    }
}

/// What every endpoint's body is made of.
pub struct Payload<'a> {
    pieces: &'a [Bytes],
    len: usize,
    names: Names<'a>,
    /// The client's own name for the model is put back into the answer.
    restores: bool,
    usage: Vec<Edit>,
    usage_asked: UsageAsked,
    /// For endpoints that give the ids of tokens: the pool, so that it can tell which.
    ids: Option<(&'a Pool, Edit)>,
}

/// What the endpoints call the model.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    asked: &'a Asked,
    /// But for endpoints that have a name of their own.
    upstream_model: Option<&'a Arc<str>>,
}

impl<'a> Names<'a> {
    pub fn new(asked: &'a Asked, route: &Route<'a>) -> Self {
        Self {
            asked,
            upstream_model: route.upstream_model,
        }
    }

    /// As the client calls it.
    pub fn public(&self) -> Option<&'a str> {
        self.asked.model()
    }

    /// As this endpoint does, where that is another name.
    pub fn for_endpoint<'e>(&self, endpoint: &'e Endpoint) -> Option<&'e str>
    where
        'a: 'e,
    {
        let public = self.public();
        let upstream = endpoint.model.as_ref().or(self.upstream_model);
        upstream
            .map(|name| &**name)
            .filter(|&name| public.is_some_and(|public| public != name))
    }
}

/// The body for one endpoint.
pub struct Sent<'a> {
    pub pieces: Cow<'a, [Bytes]>,
    pub len: usize,
    /// Undoes the change of the name in the answer.
    pub rename: Option<Rename>,
}

impl<'a> Payload<'a> {
    /// `counts`: the gateway asks for the count of tokens of a stream that the client did not ask for. `ids_in`: it
    /// asks for the ids of the tokens, in this pool.
    pub fn new(
        body: &'a Body,
        asked: &'a Asked,
        route: &Route<'a>,
        counts: bool,
        ids_in: Option<&'a Pool>,
    ) -> Self {
        let read = asked.json();
        let usage = read
            .filter(|read| counts && read.stream == Some(true))
            .map_or_else(Vec::new, |read| read.ask_for_usage());
        let usage_asked = if !usage.is_empty() {
            UsageAsked::ByGateway
        } else if read.is_some_and(|read| matches!(read.continuous_usage, Some((true, _)))) {
            UsageAsked::InEveryEvent
        } else {
            UsageAsked::AsItComes
        };
        Self {
            pieces: &body.pieces,
            len: body.len,
            names: Names::new(asked, route),
            restores: route.rename_response,
            usage,
            usage_asked,
            ids: ids_in.zip(read.map(Peeked::ask_for_token_ids)),
        }
    }

    /// Whose wish the count of tokens in a stream is.
    pub fn usage_asked(&self) -> UsageAsked {
        self.usage_asked
    }
}

impl Bodies for Payload<'_> {
    fn original(&self) -> &[Bytes] {
        self.pieces
    }

    fn for_endpoint(&self, endpoint: &Endpoint) -> Sent<'_> {
        let public = self.names.public();
        let upstream = self.names.for_endpoint(endpoint);
        let name = upstream.and_then(|name| self.names.asked.rename(name));
        let ids = self.ids.as_ref();
        let ids = ids.filter(|(pool, _)| continuing::gives_ids(pool, endpoint));
        let rename = match (upstream, public) {
            (Some(upstream), Some(public)) if self.restores => Rename::new(upstream, public),
            _ => None,
        };
        let ids = ids.map(|(_, edit)| edit.clone());
        let edits = name
            .into_iter()
            .chain(self.usage.iter().cloned())
            .chain(ids);
        let mut edits: Vec<Edit> = edits.collect();
        if edits.is_empty() {
            return Sent {
                pieces: Cow::Borrowed(self.pieces),
                len: self.len,
                rename,
            };
        }
        edits.sort_by_key(|edit| edit.range.start);
        let (pieces, len) = apply(self.pieces, &edits);
        Sent {
            pieces: Cow::Owned(pieces),
            len,
            rename,
        }
    }
}
