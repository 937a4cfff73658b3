use super::*;

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const ALLOW: &[&str] = &["127.0.0.0/8", "::1/128", "192.0.2.0/24"];
const TRUSTED: &[&str] = &["10.0.0.0/8", "fd00::/8"];

fn judge(peer: &str, lines: &[&str], otherwise: bool) -> Result<(), Denied> {
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    let origin = Origin {
        peer: Some(ip(peer)),
        forwarded_for: &lines,
        forwarded_otherwise: otherwise,
    };
    may_read_status(origin, &nets(ALLOW), &nets(TRUSTED))
}

#[test]
fn a_direct_client_is_judged_by_its_own_address() {
    for peer in [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "192.0.2.7",
        "::ffff:127.0.0.1",
        "::ffff:192.0.2.1",
    ] {
        assert_eq!(judge(peer, &[], false), Ok(()), "{peer}");
    }
    for peer in ["198.51.100.1", "10.0.0.1", "::2", "::ffff:198.51.100.1"] {
        let client = ip(peer).to_canonical();
        assert_eq!(
            judge(peer, &[], false),
            Err(Denied::NotListed { client }),
            "{peer}"
        );
    }
    let local = Origin {
        peer: None,
        forwarded_for: &[],
        forwarded_otherwise: false,
    };
    assert_eq!(may_read_status(local, &nets(ALLOW), &[]), Ok(()));
    assert!(may_read_status(local, &nets(&["192.0.2.0/24"]), &[]).is_err());
}

#[test]
fn a_forwarding_header_of_an_untrusted_peer_is_refused_whatever_it_says() {
    for lines in [&["127.0.0.1"][..], &[""], &["192.0.2.1, 127.0.0.1"]] {
        let peer = ip("127.0.0.1");
        assert_eq!(
            judge("127.0.0.1", lines, false),
            Err(Denied::UntrustedProxy { peer })
        );
    }
    assert!(judge("127.0.0.1", &[], true).is_err());
}

#[test]
fn behind_a_trusted_proxy_the_rightmost_untrusted_address_counts() {
    for lines in [
        &["192.0.2.1"][..],
        &["198.51.100.9, 192.0.2.1"],
        &["198.51.100.9", "192.0.2.1, 10.9.9.9"],
        &["192.0.2.1:4711 ,10.0.0.2"],
        &["[::1]:80, [fd00::1]"],
        &["::ffff:192.0.2.1"],
        &["junk, 192.0.2.1"],
    ] {
        assert_eq!(judge("10.0.0.1", lines, false), Ok(()), "{lines:?}");
    }
    for lines in [
        &["192.0.2.1, 198.51.100.9"][..],
        &["127.0.0.1", "198.51.100.9"],
    ] {
        assert_eq!(
            judge("10.0.0.1", lines, true),
            Err(Denied::NotListed {
                client: ip("198.51.100.9")
            }),
            "{lines:?}"
        );
    }
    // All are proxies: the first of them asks for itself.
    assert_eq!(
        judge("10.0.0.1", &["10.0.0.3, 10.0.0.2"], false),
        Err(Denied::NotListed {
            client: ip("10.0.0.3")
        })
    );
}

#[test]
fn a_trusted_proxy_that_does_not_say_for_whom_is_refused() {
    let peer = ip("10.0.0.1");
    for lines in [
        &["unknown"][..],
        &[""],
        &["192.0.2.1, unknown"],
        &["192.0.2.1,"],
        &["192.0.2.1", ""],
    ] {
        assert_eq!(
            judge("10.0.0.1", lines, false),
            Err(Denied::UnknownClient { peer }),
            "{lines:?}"
        );
    }
    assert_eq!(
        judge("10.0.0.1", &[], true),
        Err(Denied::UnknownClient { peer })
    );
}

#[test]
fn the_address_for_logs_is_never_one_that_an_untrusted_peer_chose() {
    let address = |peer: &str, lines: &[&str]| {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        let origin = Origin {
            peer: Some(ip(peer)),
            forwarded_for: &lines,
            forwarded_otherwise: false,
        };
        client_address(origin, &nets(TRUSTED))
    };
    assert_eq!(
        address("198.51.100.1", &["127.0.0.1"]),
        Some(ip("198.51.100.1"))
    );
    assert_eq!(
        address("10.0.0.1", &["127.0.0.1, 198.51.100.1"]),
        Some(ip("198.51.100.1"))
    );
    assert_eq!(
        address("10.0.0.1", &["unknown, 10.0.0.2"]),
        Some(ip("10.0.0.2"))
    );
    assert_eq!(address("10.0.0.1", &["unknown"]), Some(ip("10.0.0.1")));
    assert_eq!(address("::ffff:10.0.0.1", &[]), Some(ip("10.0.0.1")));
}

#[test]
fn a_unix_socket_has_an_address_only_where_a_trusted_proxy_gives_one() {
    let address = |lines: &[&[u8]], trusted: &[&str]| {
        let origin = Origin {
            peer: None,
            forwarded_for: lines,
            forwarded_otherwise: false,
        };
        client_address(origin, &nets(trusted))
    };
    assert_eq!(address(&[], &["127.0.0.0/8"]), None);
    assert_eq!(address(&[b"198.51.100.1"], &[]), None);
    let forwarded = address(&[b"198.51.100.1"], &["127.0.0.0/8"]);
    assert_eq!(forwarded, Some(ip("198.51.100.1")));
}

#[test]
fn a_refusal_names_the_address_and_the_key() {
    let denied = judge("198.51.100.1", &[], false).unwrap_err();
    assert_eq!(
        (denied.address(), denied.key()),
        (ip("198.51.100.1"), "status_allow")
    );
    assert_eq!(denied.to_string(), "198.51.100.1 is not in `status_allow`");
    assert_eq!(
        judge("198.51.100.1", &["1.2.3.4"], false)
            .unwrap_err()
            .key(),
        "trusted_proxies"
    );
}
