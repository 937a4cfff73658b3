//! nginx's `stub_status`, to the byte.

use bytes::Bytes;

use crate::telemetry::connections::Connections;

pub const CONTENT_TYPE: &str = "text/plain";

/// The text that prometheus-nginx-exporter and every other reader of nginx's status expects,
/// trailing blanks included.
pub fn render(now: Connections) -> Bytes {
    let Connections {
        accepts,
        handled,
        requests,
        active,
        reading,
        writing,
        waiting,
    } = now;
    Bytes::from(format!(
        "Active connections: {active} \nserver accepts handled requests\n {accepts} {handled} {requests} \n\
         Reading: {reading} Writing: {writing} Waiting: {waiting} \n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_nginxs() {
        let now = Connections {
            accepts: 62,
            handled: 62,
            requests: 59,
            active: 9,
            reading: 1,
            writing: 3,
            waiting: 5,
        };
        assert_eq!(
            &render(now)[..],
            b"Active connections: 9 \nserver accepts handled requests\n 62 62 59 \nReading: 1 Writing: 3 Waiting: 5 \n"
        );
    }
}
