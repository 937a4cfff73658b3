use std::collections::BTreeSet;

use super::table::Fate;
use super::*;

/// What becomes of a text, which stands for a file.
fn imported(text: &str) -> Result<Imported, Broken> {
    let directory = std::env::temp_dir();
    let thread = format!("{:?}", std::thread::current().id());
    let name: String = thread.chars().filter(char::is_ascii_digit).collect();
    let path = directory.join(format!("nginx-{}-{name}.conf", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let imported = import(&path, None);
    std::fs::remove_file(&path).unwrap();
    imported
}

/// A file with one more directive in a place where nginx takes it.
fn with(place: char, directive: &str) -> String {
    let at = |c| if c == place { directive } else { "" };
    format!(
        "{}events {{ {} }}\nhttp {{ {}\nupstream a {{ server b:1; {} }}\n\
         server {{ listen 80; {}\nlocation / {{ proxy_pass http://a; {} }} }} }}\n",
        at('m'),
        at('e'),
        at('h'),
        at('u'),
        at('s'),
        at('l'),
    )
}

/// Whatever nginx' own modules have: a directive is carried by code that knows it, asks for what is
/// so anyway, or is listed.
#[test]
fn no_directive_is_dropped_in_silence() {
    let carried: BTreeSet<&str> = (table::TABLE.iter())
        .filter(|entry| matches!(entry.fate, Fate::Carried | Fate::Same(..)))
        .map(|entry| entry.name)
        .collect();
    for name in names::all() {
        // Where a return is, nothing is sent on: tests/import/broken/answered-before.conf.
        if carried.contains(name) || matches!(name, "include" | "return") {
            continue;
        }
        let place = match name {
            "ntlm" | "state" => 'u',
            "load_module" | "stream" | "mail" | "user" | "env" | "worker_rlimit_nofile" => 'm',
            _ => 's',
        };
        let block = match name {
            "internal" => ";",
            "proxy_buffers" | "large_client_header_buffers" => "x x;",
            _ if names::is_block(name) => "x { }",
            _ => "x;",
        };
        let said = imported(&with(place, &format!("{name} {block}")))
            .unwrap_or_else(|broken| panic!("{broken:?}"));
        let shown = format!(" {name}: not carried: ");
        let listed = said
            .notes
            .iter()
            .filter(|note| note.contains(&shown))
            .count();
        assert_eq!(listed, 1, "{name}: {:?}", said.notes);
    }
}

#[test]
fn a_value_that_is_not_the_gateways_own_way_is_listed() {
    for entry in table::TABLE {
        let Fate::Same(values, why) = entry.fate else {
            continue;
        };
        let place = match entry.name {
            "daemon" => 'm',
            "use" | "accept_mutex" => 'e',
            _ => 'h',
        };
        let notes = |value: &str| {
            imported(&with(place, &format!("{} {value};", entry.name)))
                .unwrap_or_else(|broken| panic!("{broken:?}"))
                .notes
        };
        let shown = format!(" {}: not carried: {why}", entry.name);
        assert!(
            notes("something_else")
                .iter()
                .any(|note| note.contains(&shown))
        );
        for value in values {
            assert!(
                !notes(value).iter().any(|note| note.contains(&shown)),
                "{shown}"
            );
        }
    }
}

/// What is carried changes the configuration, or is listed, or is what the gateway does anyway.
#[test]
fn every_directive_that_is_carried_shows() {
    let nothing = imported(&with('-', "")).unwrap();
    for (place, directive, needs_line) in [
        ('m', "worker_processes 3;", true),
        ('e', "worker_connections 100000;", true),
        ('m', "worker_shutdown_timeout 10s;", false),
        ('m', "pid /run/x.pid;", false),
        ('m', "error_log /x warn;", true),
        ('s', "error_log /x debug;", true),
        ('s', "listen 81;", false),
        ('l', "proxy_set_header Host $host;", false),
        ('h', "proxy_set_header X-Real-IP x;", true),
        ('h', "proxy_connect_timeout 1s;", false),
        ('s', "proxy_connect_timeout 300s;", true),
        ('l', "proxy_send_timeout 1s;", false),
        ('l', "proxy_read_timeout 1h;", false),
        ('l', "proxy_next_upstream off;", false),
        ('h', "proxy_next_upstream_tries 9;", false),
        ('h', "proxy_next_upstream_tries 0;", true),
        ('l', "rewrite ^/old/(.*) /v1/$1 break;", true),
        ('h', "client_max_body_size 1m;", false),
        ('l', "client_body_timeout 1s;", false),
        ('s', "client_header_timeout 1s;", false),
        ('h', "send_timeout 1s;", false),
        ('s', "keepalive_timeout 1s;", false),
        ('u', "keepalive_timeout 1s;", false),
        ('u', "keepalive 1;", true),
        ('u', "keepalive 1000;", true),
        ('s', "large_client_header_buffers 4 8k;", false),
        (
            's',
            "set_real_ip_from 10.0.0.1; real_ip_header X-Forwarded-For;",
            false,
        ),
        ('s', "set_real_ip_from 10.0.0.1;", true),
        ('s', "real_ip_header X-Real-IP;", true),
        ('h', "resolver 10.0.0.1 valid=1s;", true),
        ('u', "resolver 10.0.0.1;", true),
        ('l', "access_log off;", false),
        ('s', "access_log /x;", true),
        ('h', "log_format x y;", true),
        ('l', "set $a b;", true),
        ('u', "server c:1;", false),
        ('u', "server c:1; least_conn;", false),
        ('u', "ip_hash;", true),
        ('u', "hash $uri;", true),
        ('u', "random;", true),
        ('u', "random two least_conn;", true),
        ('u', "least_time header;", true),
        ('u', "sticky cookie x;", true),
    ] {
        let here = imported(&with(place, directive)).unwrap_or_else(|b| panic!("{b:?}"));
        if needs_line {
            let name = directive.split(' ').next().unwrap().trim_end_matches(';');
            let of = |note: &&String| note.contains(&format!(" {name}"));
            let listed = here.notes.iter().filter(of).count();
            let before = nothing.notes.iter().filter(of).count();
            assert!(listed > before, "{directive}: {:?}", here.notes);
        } else {
            assert!(here != nothing, "{directive} is dropped in silence");
        }
    }
}

#[test]
fn what_is_larger_or_smaller_than_there_is_becomes_what_there_is() {
    for (place, directive, expected) in [
        ('m', "worker_processes 99999;", "threads: 1024\n"),
        (
            'e',
            "worker_connections 999999999;",
            "limits: { connections: 10000000 }\n",
        ),
        (
            'h',
            "large_client_header_buffers 1 1;",
            "limits: { header: 1KiB }\n",
        ),
        (
            'h',
            "large_client_header_buffers 100 1m;",
            "limits: { header: 1MiB }\n",
        ),
        ('h', "client_max_body_size 1;", "limits: { body: 1KiB }\n"),
        (
            'h',
            "client_max_body_size 100000g;",
            "limits: { body: 64GiB, body_memory: 128GiB }\n",
        ),
        ('h', "client_max_body_size 0;", "limits: { body: 512MiB }\n"),
        (
            'l',
            "proxy_read_timeout 30d;",
            "timeouts: { first_byte: 24h, read: 24h }\n",
        ),
        (
            'u',
            "keepalive 1000000;",
            "keepalive: { connections: 65536 }\n",
        ),
        ('h', "proxy_next_upstream_tries 1000;", "retries: 10\n"),
    ] {
        let here = imported(&with(place, directive)).unwrap_or_else(|b| panic!("{b:?}"));
        assert!(here.yaml.contains(expected), "{directive}: {}", here.yaml);
    }
}

/// Somebody who reads only the first lines must see what nobody guards any more.
#[test]
fn what_kept_clients_out_is_listed_before_all_else() {
    for (place, guard) in [
        ('s', "allow 10.0.0.0/8;"),
        ('s', "deny 10.0.0.1;"),
        ('l', "auth_basic engines;"),
        ('s', "auth_request /who;"),
        ('h', "limit_req zone=a;"),
        ('l', "limit_conn a 1;"),
        ('l', "limit_except GET { deny all; }"),
        ('s', "ssl_verify_client on;"),
        ('s', "ssl_protocols TLSv1.3;"),
        ('s', "secure_link $arg_md5;"),
        ('s', "valid_referers none;"),
        ('l', "if ($a) { return 403; }"),
        ('s', "if ($a) { return 444; }"),
    ] {
        let here = imported(&with(place, guard)).unwrap_or_else(|b| panic!("{b:?}"));
        let name = guard.split([' ', ';']).next().unwrap();
        let of = |note: &String| note.contains(&format!(" {name}: "));
        let count = here.notes.iter().filter(|note| of(note)).count();
        assert!(of(&here.notes[0]), "{guard}: {:?}", here.notes);
        assert_eq!(count, 1, "{guard}: {:?}", here.notes);
    }
    let plain = with('l', "if ($a) { return 301 /b; }");
    let notes = imported(&plain).unwrap().notes;
    assert!(!notes[0].contains(" if: "), "{notes:?}");
}

#[test]
fn a_key_of_the_engines_is_in_no_message() {
    let text = with('l', "proxy_set_header Authorization \"Bearer sk-secret\";");
    let here = imported(&text).unwrap();
    assert!(here.yaml.contains("api_key: sk-secret"));
    assert!(here.notes.iter().all(|note| !note.contains("sk-secret")));
}

/// docs/from-nginx.md has a row for everything that is carried.
#[test]
fn the_page_has_every_directive_that_is_carried() {
    let page = include_str!("../../../docs/from-nginx.md");
    for entry in table::TABLE {
        let is_outline = matches!(entry.name, "events" | "http");
        if entry.fate == Fate::Carried && !is_outline {
            assert!(page.contains(&format!("`{}", entry.name)), "{}", entry.name);
        }
    }
}
