//! The body as an engine gets it: the client's bytes, but for the few that the gateway must change.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::openai::Rename;
use crate::openai::request::{Edit, apply};
use crate::pool::Endpoint;
use crate::routing::Route;

use super::body::Body;
use super::events::UsageAsked;
use super::peek::Asked;

/// What every endpoint's body is made of.
pub struct Payload<'a> {
    pieces: &'a [Bytes],
    len: usize,
    asked: &'a Asked,
    /// What the engines call the model, but for endpoints that have a name of their own.
    upstream_model: Option<&'a Arc<str>>,
    /// The client's own name for it is put back into the answer.
    restores: bool,
    usage: Vec<Edit>,
    usage_asked: UsageAsked,
}

/// The body for one endpoint.
pub struct Sent<'a> {
    pub pieces: Cow<'a, [Bytes]>,
    pub len: usize,
    /// Undoes the change of the name in the answer.
    pub rename: Option<Rename>,
}

impl<'a> Payload<'a> {
    /// `counts`: the gateway asks for the count of tokens of a stream that the client did not ask for.
    pub fn new(body: &'a Body, asked: &'a Asked, route: &Route<'a>, counts: bool) -> Self {
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
            asked,
            upstream_model: route.upstream_model,
            restores: route.rename_response,
            usage,
            usage_asked,
        }
    }

    /// Whose wish the count of tokens in a stream is.
    pub fn usage_asked(&self) -> UsageAsked {
        self.usage_asked
    }

    /// The body for this endpoint.
    pub fn for_endpoint(&self, endpoint: &Endpoint) -> Sent<'a> {
        let public = self.asked.model();
        let upstream = endpoint.model.as_ref().or(self.upstream_model);
        let upstream = upstream
            .map(|name| &**name)
            .filter(|&name| public.is_some_and(|public| public != name));
        let name = upstream.and_then(|name| self.asked.rename(name));
        let rename = match (upstream, public) {
            (Some(upstream), Some(public)) if self.restores => Rename::new(upstream, public),
            _ => None,
        };
        let mut edits: Vec<Edit> = name.into_iter().chain(self.usage.iter().cloned()).collect();
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
