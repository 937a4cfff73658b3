use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::parse::{self, Node, Value};
use super::schema::{self, KEYS};
use super::*;

/// Of `secret`.
const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

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

/// The sections of the reference that have no default and stand in comments.
fn commented_sections() -> String {
    let reference = reference();
    let mut text = String::new();
    let mut within = false;
    for line in reference.lines() {
        let content = line.strip_prefix("# ");
        within = content.is_some_and(|c| within || c == "models:" || c == "keys:");
        if let (true, Some(content)) = (within, content) {
            text.push_str(content);
            text.push('\n');
        }
    }
    text
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
                    "pools" | "models" => "*",
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
    let mut found = BTreeSet::new();
    for text in [&text, &commented_sections()] {
        let (tree, _) = parse::tree(text).expect("YAML");
        paths(&tree, "", &mut found);
    }
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
fn what_the_reference_has_in_comments_is_valid_and_holds_the_defaults() {
    let sections = commented_sections();
    let config = config(&format!("{}\n{sections}", reference()));
    let models = &config.models;
    assert_eq!((models.list.len(), models.aliases.len()), (1, 1));
    assert!(models.wildcard.is_some());
    let keys = config.keys.as_deref().expect("keys");
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0].models, KeyModels::All);
    // What is shown of a key or a model and has a default, has that.
    let (tree, _) = parse::tree(&sections).expect("YAML");
    let Value::Map(sections) = &tree.value else {
        panic!("no mapping")
    };
    let first = |node: &Node| match &node.value {
        Value::Map(entries) => entries[0].node.clone(),
        Value::List(items) => items[0].clone(),
        Value::Scalar(_) => panic!("a scalar"),
    };
    let mut compared = 0;
    for (section, schema) in sections.iter().zip(["models.*", "keys[]"]) {
        let Value::Map(entries) = first(&section.node).value else {
            panic!("no mapping")
        };
        for entry in entries {
            let key = schema::find(schema, &entry.key).expect("a key");
            if let Some(default) = schema::default_node(key) {
                let shown = |node: &Node| format!("{:?}", node.value);
                let (written, wanted) = (shown(&entry.node), shown(default));
                assert_eq!(places_removed(&written), places_removed(&wanted));
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 7);
}

/// A tree as text, without where everything stands.
fn places_removed(tree: &str) -> String {
    let mut parts = tree.split("at: Position {");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('}').map_or("", |(_, rest)| rest)
    })
}

#[test]
fn the_reference_explains_every_key() {
    let text = format!("{}\n{}", reference(), commented_sections());
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
          answer: 0, event: 4KiB, body_memory: 1MiB, n: 3 }
client: { header_timeout: 1ms, body_timeout: 61s, send_timeout: 2m, idle_timeout: 1h }
timeouts: { connect: 1s, read: 3s }
keepalive: { idle: 1s, connections: 0 }
pools:
  big:
    endpoints:
      - { url: "https://Node0", weight: 7, max_in_flight: 9, backup: true, drain: true, api_key: "${KEY}", model: "own $${x}" }
      - "[::1]:9000"
      - { url: unix:/run/a.sock, api_key: plain-secret }
    policy: round_robin
    max_in_flight: 12
    queue: { size: 7, timeout: 250ms }
    retries: 0
    drain_timeout: 0
    heartbeat: 20s
    continue_streams: text
    retry_budget: { ratio: 0.125, min_per_second: 0 }
    tls: { ca: ca.pem, verify: false, server_name: Engines.internal }
    health: { path: "/x?y=1", interval: 1s, timeout: 500ms, fall: 1, rise: 1, eject_after: 1, eject_for: 1s, stall: 1s }
    timeouts: { read: 4s, send: 5s }
  small: { endpoints: [node9:8000] }
models:
  DeepSeek-R1: { pool: big, upstream_model: "deepseek-ai/${OWNER}", rename_response: true }
  "${x} \"ü\"": { pool: small }
  r1: DeepSeek-R1
  "second: name": "$${x} \"ü\""
  "*": { pool: small, upstream_model: any }
keys:
  - { name: "Team A", key: "${KEY}", models: [r1, anything], requests_per_minute: 1, tokens_per_minute: 2,
      max_in_flight: 3 }
  - { name: "2", sha256: "sha256:2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B", models: "*" }
  - { name: admins, key: another-plain-secret, models: [], admin: true }
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
        let read = |text: &str| parse_str(text, "shown", Path::new("/elsewhere"), &no_env);
        if shown.contains(HIDDEN) {
            let mistakes = read(&shown).unwrap_err().to_string();
            assert!(mistakes.contains(OF_A_DUMP), "{mistakes}");
        }
        let mut again = read(&shown.replace("key: \"***", "key: \"filled-in"))
            .unwrap_or_else(|mistakes| panic!("{mistakes}\n{shown}"));
        for (endpoint, was) in
            (again.pools[0].endpoints.iter_mut()).zip(&original.pools[0].endpoints)
        {
            endpoint.api_key.clone_from(&was.api_key);
        }
        let keys = again.keys.iter_mut().flatten();
        for (key, was) in keys.zip(original.keys.iter().flatten()) {
            key.hash = was.hash;
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
        // Keys are shown in place of their file, and no secret by its hash.
        if matches!(key.path, "keys.file" | "keys[].sha256") {
            continue;
        }
        assert!(found.contains(key.path), "{}", key.path);
    }
}

#[test]
fn secrets_appear_nowhere() {
    let config = config(EVERYTHING);
    for shown in [config.to_yaml(), format!("{config:?}")] {
        for secret in ["plain-secret", "value-of-KEY", &HASH[..16]] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    for text in [
        "endpoints: [{ url: a:1, api_key: plain secret }]",
        "endpoints: [{ url: a:1, api_key: [plain secret] }]",
        "endpoints: [{ url: a:1, api_key: \"plain secret ${NONE}\" }]",
        "endpoints: [\"http://me:plain secret@a:1/\"]",
        "endpoints: [a:1]\nkeys: [{ name: a, key: plain secret }]",
        "endpoints: [a:1]\nkeys: [{ name: a, sha256: plain secret }]",
        "endpoints: [a:1]\nkeys: [{ name: a, key: \"plain secret ${NONE}\" }]",
        "endpoints: [a:1]\nkeys: [{ name: a, key: { plain secret: x } }]",
        "endpoints: [a:1]\nkeys: [plain secret]",
        "endpoints: [a:1]\nkeys: plain secret",
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
fn a_reload_names_the_models_and_keys_that_changed() {
    let with = |rest: &str| {
        config(&format!(
            "pools: {{ a: {{ endpoints: [a:1] }}, b: {{ endpoints: [b:1] }} }}\n{rest}"
        ))
    };
    let old = with(
        "models: { m: { pool: a }, n: { pool: a }, o: { pool: b }, p: m }\n\
         keys: [{ name: x, key: secret-x }, { name: y, key: secret-y }, { name: z, key: secret-z }]",
    );
    let new = with(
        "models: { o: { pool: b }, m: { pool: b }, p: o, q: { pool: a }, \"*\": { pool: a } }\n\
         keys: [{ name: z, key: secret-z }, { name: y, key: other }, { name: w, key: secret-w }]",
    );
    assert_eq!(
        changed_names(&old, &new),
        [
            "+model q", "+model *", "-model n", "model m", "model p", "+key w", "-key x", "key y"
        ]
    );
    assert!(changed_names(&old, &old).is_empty());
    let open = config("endpoints: [a:1]");
    assert_eq!(
        changed_names(
            &open,
            &config("endpoints: [a:1]\nkeys: [{ name: x, key: secret-x }]")
        ),
        ["keys: nobody without one may send requests", "+key x"]
    );
    let many = |count: usize| {
        let models: Vec<String> = (0..count).map(|i| format!("m{i}: {{ pool: a }}")).collect();
        with(&format!("models: {{ {} }}", models.join(", ")))
    };
    let changes = changed_names(&many(1), &many(1001));
    assert_eq!(changes.len(), 17);
    assert_eq!(changes[16], "+984 more models");
    assert_eq!(
        changed_names(&old, &many(1)).last().map(String::as_str),
        Some("keys: everybody may send requests")
    );
}

#[test]
fn the_order_of_pools_changes_no_model() {
    let of = |pools: &str| {
        config(&format!(
            "pools: {{ {pools} }}\nmodels: {{ m: {{ pool: b }} }}"
        ))
    };
    let (a, b) = ("a: { endpoints: [a:1] }", "b: { endpoints: [b:1] }");
    let old = of(&format!("{a}, {b}"));
    let new = of(&format!("{b}, {a}"));
    assert_ne!(old.models, new.models);
    assert!(changed_names(&old, &new).is_empty());
}

#[test]
fn keys_are_kept_by_their_hash_alone() {
    let keys = config(EVERYTHING).keys.expect("keys");
    let hex = |hash: [u8; 32]| {
        hash.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    // Of "value-of-KEY".
    assert_eq!(
        hex(keys[0].hash),
        "39df1c8a6183813d4a86578f63c16cac1c217db7cf799e59113f54bb69bb02d1"
    );
    assert_eq!(hex(keys[1].hash), HASH);
    assert_eq!(
        keys[0].models,
        KeyModels::Some(vec!["r1".to_owned(), "anything".to_owned()])
    );
    assert_eq!(keys[1].models, KeyModels::All);
    assert_eq!(keys[2].models, KeyModels::Some(Vec::new()));
    let limits = (keys[0].requests_per_minute, keys[0].tokens_per_minute);
    assert_eq!(
        (limits, keys[0].max_in_flight),
        ((Some(1), Some(2)), Some(3))
    );
    assert!(keys[2].admin && !keys[0].admin);
}

#[test]
fn models_and_aliases_are_found_in_their_pools() {
    let models = config(EVERYTHING).models;
    let told: Vec<_> = (models.list.iter().chain(&models.wildcard))
        .map(|model| (&*model.name, model.pool, model.upstream_model.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            ("DeepSeek-R1", 0, Some("deepseek-ai/value-of-OWNER")),
            ("${x} \"ü\"", 1, None),
            ("*", 1, Some("any")),
        ]
    );
    let aliases: Vec<_> = (models.aliases.iter())
        .map(|alias| (&*alias.name, alias.model))
        .collect();
    assert_eq!(aliases, [("r1", 0), ("second: name", 1)]);
    assert!(models.list[0].rename_response && !models.list[1].rename_response);
    let endpoint = &config(EVERYTHING).pools[0].endpoints[0];
    assert_eq!(endpoint.model.as_deref(), Some("own ${x}"));
}

#[test]
fn ten_thousand_keys_and_models_are_read() {
    let hash = |i: usize| format!("{i:064x}");
    let models: Vec<String> = (1..=10_000).map(|i| format!("  m{i}: {{}}\n")).collect();
    let keys: Vec<String> = (1..=6_000)
        .map(|i| format!("- {{name: k{i}, sha256: {}, models: m{i}}}\n", hash(i)))
        .collect();
    let whole =
        |models: &str, keys: &str| format!("endpoints: [a:1]\nmodels:\n{models}keys:\n{keys}");
    let config = config(&whole(&models.concat(), &keys.concat()));
    assert_eq!(config.models.list.len(), 10_000);
    assert_eq!(config.keys.map(|keys| keys.len()), Some(6_000));
    let said = mistakes(&whole(&format!("{}  more: {{}}\n", models.concat()), "- 1"));
    assert!(said.contains("models: has 10001 names; write at most 10000"));
    // As many names that are wrong: each is looked for among all that exist.
    let wrong = keys.concat().replace("models: m", "models: n");
    assert!(mistakes(&whole(&models.concat(), &wrong)).ends_with("and 5000 more"));
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
        let mut text = format!("{}\n{}", reference(), commented_sections()).into_bytes();
        for (at, cut, insert) in edits {
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, insert.bytes());
        }
        prop_assert_eq!(promises::broken(&text), None);
    }
}
