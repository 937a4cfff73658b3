use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::parse::{self, Node, Value};
use super::schema::{self, KEYS};
use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

fn config(text: &str) -> Config {
    parse_str(text, "test.yaml", Path::new("/etc/sluicegate"), &|name| {
        Some(format!("value-of-{name}"))
    })
    .unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes(text: &str) -> String {
    parse_str(text, "test.yaml", Path::new("/etc/sluicegate"), &no_env)
        .expect_err("a mistake")
        .to_string()
}

fn reference() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/reference.yaml");
    std::fs::read_to_string(path).expect("conf/reference.yaml")
}

/// The schema's paths of every key beneath `node`.
fn paths(node: &Node, schema: &str, found: &mut BTreeSet<String>) {
    match &node.value {
        Value::Scalar(_) => {}
        Value::List(items) => {
            for item in items {
                paths(item, &format!("{schema}[]"), found);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let name = match schema {
                    "pools" => "*",
                    _ => &*entry.key,
                };
                let path = match schema {
                    "" => name.to_owned(),
                    _ => format!("{schema}.{name}"),
                };
                paths(&entry.node, &path, found);
                found.insert(path);
            }
        }
    }
}

#[test]
fn two_lines_are_a_whole_configuration() {
    let config = config("listen: 80\nendpoints: [node0:8000, node1:8000]\n");
    assert_eq!(config.listen[0].address.to_string(), "0.0.0.0:80");
    assert_eq!(
        config.admin[1].address.to_string(),
        "unix:/run/sluicegate/admin.sock"
    );
    assert_eq!(&*config.pools[0].name, "default");
    assert_eq!(
        config.pools[0].endpoints[1].url.to_string(),
        "http://node1:8000"
    );
    assert_eq!(
        config.pools[0].timeouts.first_byte,
        Duration::from_secs(300)
    );
    assert_eq!(config.limits.body, 64 << 20);
    assert_eq!(config.expose, Expose::Inference { extra: vec![] });
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let text = reference();
    let (tree, _) = parse::tree(&text).expect("YAML");
    let mut found = BTreeSet::new();
    paths(&tree, "", &mut found);
    for key in KEYS {
        let name = schema::split(key.path).1;
        // What has no default can only be shown in a comment.
        let commented = key.default.is_none()
            && text.lines().any(|line| {
                line.split_once('#')
                    .is_some_and(|(_, comment)| comment.contains(&format!("{name}:")))
            });
        assert!(
            found.remove(key.path) || commented,
            "{} is missing",
            key.path
        );
    }
    assert!(found.is_empty(), "{found:?} are no keys");
}

#[test]
fn the_reference_holds_the_defaults() {
    assert_eq!(config(&reference()), config("endpoints: [node0:8000]"));
}

#[test]
fn the_reference_explains_every_key() {
    let text = reference();
    let mut above = false;
    for line in text.lines() {
        let content = line.trim();
        let explained = content.contains('#') || above || content.ends_with(':');
        let obvious =
            content.is_empty() || content.starts_with("- ") || content.starts_with("path: /");
        assert!(explained || obvious, "no comment: {line}");
        above = content.starts_with('#');
    }
}

const EVERYTHING: &str = r##"
listen:
  - :8080
  - "[::1]:8081"
  - unix:gateway.sock
  - { address: 127.0.0.1:8443, tls: { certificate: certs/a.pem, key: /k.pem } }
  - { address: 127.0.0.1:8444, tls: { certificate: a, key: b }, http2: false }
admin: null
status_allow: [10.1.2.3/8, "fd00::/8", 192.0.2.1]
trusted_proxies: [10.0.0.0/8]
threads: 3
pid_file: null
resolve: 1500ms
shutdown_grace: 0
log: { level: debug, format: json }
access_log: { path: 'log "x" $${HOME} ä 	é.log', format: combined }
expose: ["GET /version", /x, "/internal/*"]
limits: { connections: 10, connections_per_client: 5, header: 1KiB, body: 1025B, response_header: 2KiB,
          answer: 0, event: 4KiB, body_memory: 1MiB }
client: { header_timeout: 1ms, body_timeout: 61s, send_timeout: 2m, idle_timeout: 1h }
timeouts: { connect: 1s, read: 3s }
keepalive: { idle: 1s, connections: 0 }
pools:
  big:
    endpoints:
      - { url: "https://Node0", weight: 7, max_in_flight: 9, backup: true, api_key: "${KEY}" }
      - "[::1]:9000"
      - { url: unix:/run/a.sock, api_key: plain-secret }
    policy: round_robin
    max_in_flight: 12
    retries: 0
    retry_budget: { ratio: 0.125, min_per_second: 0 }
    tls: { ca: ca.pem, verify: false, server_name: Engines.internal }
    health: { path: "/x?y=1", interval: 1s, timeout: 500ms, fall: 1, rise: 1, eject_after: 1, eject_for: 1s }
    timeouts: { read: 4s, send: 5s }
"##;

#[test]
fn a_pool_takes_what_it_does_not_set_from_above() {
    let timeouts = &config(EVERYTHING).pools[0].timeouts;
    assert_eq!(timeouts.connect, Duration::from_secs(1));
    assert_eq!(timeouts.first_byte, Duration::from_secs(300));
    assert_eq!(timeouts.read, Duration::from_secs(4));
    let endpoints = &config(EVERYTHING).pools[0].endpoints;
    let caps: Vec<_> = endpoints.iter().map(|e| e.max_in_flight).collect();
    assert_eq!(caps, [Some(9), Some(12), Some(12)]);
}

#[test]
fn the_effective_configuration_reads_back_as_the_same() {
    for text in [EVERYTHING.to_owned(), reference()] {
        let original = config(&text);
        let shown = original.to_yaml();
        let mut again = parse_str(&shown, "shown", Path::new("/elsewhere"), &no_env)
            .unwrap_or_else(|mistakes| panic!("{mistakes}\n{shown}"));
        for (endpoint, was) in
            (again.pools[0].endpoints.iter_mut()).zip(&original.pools[0].endpoints)
        {
            endpoint.api_key.clone_from(&was.api_key);
        }
        assert_eq!(again, original, "{shown}");
        assert_eq!(again.to_yaml(), shown);
    }
}

#[test]
fn the_effective_configuration_has_every_key() {
    let (tree, _) = parse::tree(&config(EVERYTHING).to_yaml()).expect("YAML");
    let mut found = BTreeSet::new();
    paths(&tree, "", &mut found);
    for key in KEYS {
        // Each pool has the effective ones; `endpoints` is short for a pool.
        if key.path.starts_with("timeouts") || key.path == "endpoints" {
            continue;
        }
        assert!(found.contains(key.path), "{}", key.path);
    }
}

#[test]
fn secrets_appear_nowhere() {
    let config = config(EVERYTHING);
    for shown in [config.to_yaml(), format!("{config:?}")] {
        assert!(
            !shown.contains("plain-secret") && !shown.contains("value-of-KEY"),
            "{shown}"
        );
    }
    for text in [
        "endpoints: [{ url: a:1, api_key: plain secret }]",
        "endpoints: [{ url: a:1, api_key: [plain secret] }]",
        "endpoints: [{ url: a:1, api_key: \"plain secret ${NONE}\" }]",
        "endpoints: [\"http://me:plain secret@a:1/\"]",
        "endpoints: [\"grpc://me:plain secret@a:1/\"]",
    ] {
        assert!(
            !mistakes(text).contains("plain secret"),
            "{}",
            mistakes(text)
        );
    }
}

#[test]
fn what_came_from_the_environment_is_not_quoted() {
    let everywhere = "listen: ${X}\nadmin: ${X}\nstatus_allow: [\"${X}\"]\nthreads: ${X}\n\
        resolve: ${X}\nlog: { level: \"${X}\" }\nexpose: ${X}\nlimits: { body: \"${X}\" }\npools:\n  p:\n    \
        endpoints: [\"${X}\"]\n    retry_budget: { ratio: \"${X}\" }\n    tls: { verify: \"${X}\", \
        server_name: \"${X}\" }\n    health: { path: \"${X}\" }\n";
    for value in [
        "hunter2 /x",
        "localhost:hunter2",
        "hunter2://x",
        "7hunter2",
        "hunter2",
    ] {
        let said = parse_str(everywhere, "t", Path::new("/"), &|_| Some(value.to_owned()))
            .expect_err("mistakes")
            .to_string();
        assert!(said.lines().count() >= 9, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_variable_cannot_change_the_structure() {
    let env = |_: &str| Some("a:1, b:2]\nlisten: 1".to_owned());
    let said =
        parse_str("endpoints: [\"${X}\"]", "t", Path::new("/"), &env).expect_err("a mistake");
    assert_eq!(said.len(), 1);
    let number = |_: &str| Some("7".to_owned());
    let config = parse_str(
        "threads: ${N}\nendpoints: [a:1]",
        "t",
        Path::new("/"),
        &number,
    );
    assert_eq!(config.expect("a configuration").threads, Some(7));
}

#[test]
fn the_command_line_is_a_configuration_too() {
    let words = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
    let config = from_command_line(&words(&[":8080"]), &words(&["node0:8000", "unix:/a"]), None)
        .expect("a configuration");
    assert_eq!(config.listen[0].address.to_string(), "0.0.0.0:8080");
    assert_eq!(config.admin[0].address.to_string(), "127.0.0.1:0");
    assert_eq!(config.pid_file, None);
    assert_eq!(config.pools[0].endpoints.len(), 2);
    let off =
        from_command_line(&[], &words(&["node0:8000"]), Some("off")).expect("a configuration");
    assert!(off.admin.is_empty());

    let said = |listen: &[&str], endpoints: &[&str], admin| {
        from_command_line(&words(listen), &words(endpoints), admin)
            .expect_err("a mistake")
            .to_string()
    };
    assert_eq!(
        said(&["http://x"], &["node0", "${HOME}:1"], Some("9180")),
        "command line: --admin: \"9180\" has no address; write 127.0.0.1:9180 for this machine alone, \
         0.0.0.0:9180 for everyone\n\
         command line: --listen: \"http://x\" is a URL; write ADDRESS:PORT; TLS is switched on by tls\n\
         command line: endpoints[0]: \"node0\" has no port; write node0:8000, or whatever port the engine \
         listens on\n\
         command line: endpoints[1]: \"${HOME}:1\" has a host that is neither a name nor an address; \
         write HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:/path"
    );
    assert!(said(&[], &[], None).contains("there are no endpoints"));
}

#[test]
fn a_reload_names_what_needs_a_restart() {
    let old = config(EVERYTHING);
    assert!(restart_needed(&old, &old).is_empty());
    let mut new = old.clone();
    new.listen.reverse();
    new.listen[0].tls = Some(ListenTls {
        certificate: "other.pem".into(),
        key: "other.key".into(),
    });
    new.limits.body = 1;
    assert!(restart_needed(&old, &new).is_empty());
    new.listen[0].tls = None;
    new.threads = None;
    new.pid_file = Some(PathBuf::from("/x"));
    new.admin = config("endpoints: [a:1]").admin;
    assert_eq!(
        restart_needed(&old, &new),
        ["listen", "admin", "threads", "pid_file"]
    );
}

#[test]
fn a_file_of_mistakes_is_reported_within_bounds() {
    let mut text = String::new();
    for i in 0..20_000 {
        text.push_str(&format!("key{i}: 1\n"));
    }
    let said = mistakes(&text);
    assert!(said.lines().count() <= 1001);
    assert!(said.ends_with("more"));
}

#[test]
fn unreadable_files_are_mistakes_with_a_place() {
    let directory = std::env::temp_dir().join(format!("sluicegate-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("bad.yaml");
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("a file");
        let said = load(&path, &no_env).expect_err("a mistake").to_string();
        said.strip_prefix(&path.display().to_string())
            .expect("the file's name")
            .to_owned()
    };
    assert!(said(b"listen: 80\n# \xc3\xa4\xff").starts_with(":2:4: is not UTF-8 here"));
    assert!(said(&vec![b'#'; 2 << 20]).contains("it may have 1048576"));
    assert!(said(b"").contains("there are no endpoints"));
    std::fs::write(&path, "endpoints: [unix:a.sock]").expect("a file");
    let config = load(&path, &no_env).expect("a configuration");
    assert_eq!(config.file.as_deref(), Some(path.as_path()));
    assert_eq!(
        config.pools[0].endpoints[0].url,
        Url::Unix(directory.join("a.sock"))
    );
    std::fs::remove_dir_all(&directory).expect("removed");
    let said = load(&path, &no_env).expect_err("a mistake").to_string();
    assert!(
        said.contains("cannot be read") && said.contains("-c"),
        "{said}"
    );
}

#[test]
fn lists_that_are_compared_are_bounded() {
    let many = |item: &dyn Fn(usize) -> String, count| {
        let items: Vec<String> = (0..count).map(item).collect();
        items.join(", ")
    };
    let said = mistakes(&format!(
        "listen: [{}]\npools: {{ {} }}\n",
        many(&|i| format!("{}", i + 1), 300),
        many(&|i| format!("p{i}: {{ endpoints: [a:1] }}"), 300),
    ));
    for wanted in [
        "listen: has 300 items; write at most 256",
        "pools: has 300 pools; write at most 256",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let endpoints = many(&|i| format!("a{i}:1"), 5000);
    assert_eq!(
        mistakes(&format!("endpoints: [{endpoints}]")),
        "test.yaml:1:12: endpoints: has 5000 items; write at most 4096"
    );
}

#[test]
fn every_seed_of_the_fuzzer_keeps_the_promises() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/config");
    let mut marked = 0;
    for entry in std::fs::read_dir(&seeds).expect("seeds") {
        let path = entry.expect("a seed").path();
        let file = std::fs::read(&path).expect("a file");
        assert_eq!(promises::broken(&file), None, "{}", path.display());
        marked += usize::from(promises::hides_secrets(&file));
    }
    assert!(marked >= 2, "{marked} seeds have secrets in their place");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_break_a_promise(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(promises::broken(&bytes), None);
    }

    #[test]
    fn no_yaml_soup_breaks_a_promise(text in "[-a-c:{}\\[\\],&*!|>'\"#%@`~?<=$ \n\t0-9]{0,120}") {
        prop_assert_eq!(promises::broken(text.as_bytes()), None);
    }

    #[test]
    fn no_mutation_of_the_reference_breaks_a_promise(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..12, "[ -~\n]{0,6}"), 1..8)
    ) {
        let mut text = reference().into_bytes();
        for (at, cut, insert) in edits {
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, insert.bytes());
        }
        prop_assert_eq!(promises::broken(&text), None);
    }
}
