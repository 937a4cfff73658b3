//! Requests of the gateway's own to its endpoints.

use crate::pool::EndpointState;
use crate::upstream::{HeadError, RequestHead};

/// The head of a GET that ends its connection, with the endpoint's key.
///
/// # Errors
/// `path` or the key cannot stand in a head.
pub fn get(endpoint: &EndpointState, path: &str, accept: &str) -> Result<Vec<u8>, HeadError> {
    let settings = endpoint.settings();
    let mut head = RequestHead::start(Vec::new(), "GET", path.as_bytes())?;
    head.field("Host", &endpoint.target.authority)?;
    head.field("User-Agent", "sluicegate")?;
    head.field("Accept", accept)?;
    head.field("Connection", "close")?;
    if let Some(key) = &settings.api_key {
        head.field("Authorization", format!("Bearer {}", key.reveal()))?;
    }
    Ok(head.finish(None))
}
