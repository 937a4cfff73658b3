//! Configuration files as operators write them: `valid/` and everything under `conf/` load,
//! `invalid/` fails with exactly the message beside each file.
//!
//! `BLESS=1` writes the messages anew; read the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::too_many_lines, reason = "tables of cases are long")]

use std::path::{Path, PathBuf};

use sluicegate::config::{self, Config, Diagnostics};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "ENGINE_KEY" => "sk-of-the-engine",
        "SLUICEGATE_TLS_DIR" => "/etc/sluicegate/tls",
        "SLUICEGATE_MASTER_KEY" => "sk-Hq3vX9mT2bLw7RzC",
        "NOTHING" => "",
        "BROKEN" => "sk-that must not be shown",
        _ => return None,
    };
    Some(value.to_owned())
}

fn load(path: &Path) -> Result<Config, Diagnostics> {
    config::load(path, &environment)
}

fn yaml_files(directory: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join(directory))
        .expect(directory)
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{directory} is empty");
    files
}

#[test]
fn every_shipped_file_loads_and_says_what_it_is_for() {
    let mut files = yaml_files("conf");
    files.extend(yaml_files("conf/examples"));
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(text.starts_with("# "), "{}", path.display());
        if let Err(mistakes) = load(&path) {
            panic!("{mistakes}");
        }
    }
}

#[test]
fn every_valid_file_loads_and_shows_itself_as_it_is() {
    for path in yaml_files("tests/config/valid") {
        let config = load(&path).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let shown = config.to_yaml();
        let base = path.parent().expect("a directory");
        let filled = shown.replace("key: \"***", "key: \"filled-in");
        let mut again = config::parse_str(&filled, "shown", base, &|_| None)
            .unwrap_or_else(|mistakes| panic!("{mistakes}\n{shown}"));
        again.file.clone_from(&config.file);
        for (pool, was) in again.pools.iter_mut().zip(&config.pools) {
            for (endpoint, was) in pool.endpoints.iter_mut().zip(&was.endpoints) {
                endpoint.api_key.clone_from(&was.api_key);
            }
        }
        for (key, was) in (again.keys.iter_mut().flatten()).zip(config.keys.iter().flatten()) {
            key.hash = was.hash;
        }
        assert_eq!(again, config, "{}", path.display());
    }
}

#[test]
fn every_invalid_file_fails_with_its_exact_message() {
    let mut wrong = Vec::new();
    let files = yaml_files("tests/config/invalid");
    for path in &files {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let said = match load(path) {
            Ok(_) => format!("{name}: loads\n"),
            // The file's directory is not part of the message that is expected.
            Err(mistakes) => {
                let directory = format!("{}/", path.parent().expect("a directory").display());
                format!("{mistakes}\n").replace(&directory, "")
            }
        };
        let expected = path.with_extension("stderr");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&expected, &said).expect("written");
        }
        let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
        if said != wanted {
            wrong.push(format!("{name}\n--- expected\n{wanted}+++ said\n{said}"));
        }
        assert!(!said.contains("must not be shown"), "{said}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files.len() >= 50);
}

#[test]
fn no_message_is_left_without_its_file() {
    for entry in std::fs::read_dir(root().join("tests/config/invalid")).expect("a directory") {
        let path = entry.expect("an entry").path();
        assert!(path.with_extension("yaml").exists(), "{}", path.display());
    }
}

#[test]
fn the_guides_gateway_is_what_its_nginx_conf_says() {
    let config = load(&root().join("conf/examples/guide.yaml")).expect("the example");
    assert_eq!(config.expose, config::Expose::All);
    assert_eq!(config.listen[0].address.to_string(), "0.0.0.0:80");
    assert_eq!(config.pools[0].policy, config::PolicyName::LeastInflight);
    let urls: Vec<_> = (config.pools[0].endpoints.iter())
        .map(|endpoint| endpoint.url.to_string())
        .collect();
    assert_eq!(urls, ["http://node0:8000", "http://node1:8000"]);
}

#[test]
fn the_examples_of_models_and_keys_are_what_they_say() {
    let example = |name: &str| {
        let path = root().join("conf/examples").join(name);
        load(&path).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    };
    let models = example("models.yaml");
    let names: Vec<&str> = models.models.list.iter().map(|m| &*m.name).collect();
    assert_eq!(names, ["DeepSeek-R1", "gpt-oss-20b"]);
    assert_eq!(&*models.models.aliases[0].name, "r1");
    let own = &models.pools[1].endpoints[1].model;
    assert_eq!(own.as_deref(), Some("gpt-oss-20b-awq"));
    for (name, expected) in [
        ("keys.yaml", ["team-a", "operators"]),
        ("keys-in-a-file.yaml", ["team-a", "team-b"]),
    ] {
        let keys = example(name).keys.expect("keys");
        let names: Vec<&str> = keys.iter().map(|key| &*key.name).collect();
        assert_eq!(names, expected, "{name}");
    }
    // None of them teaches a key that others have read, or that is written in the open.
    for name in ["models.yaml", "keys.yaml", "keys-in-a-file.yaml"] {
        let remarks = example(name).remarks;
        let told: Vec<String> = remarks.iter().map(ToString::to_string).collect();
        assert!(
            told.iter()
                .all(|line| line.contains("can be read by everyone")),
            "{told:?}"
        );
    }
}

#[test]
fn the_packaged_configuration_logs_to_its_own_file() {
    let config = load(&root().join("conf/sluicegate.yaml")).expect("the packaged file");
    let log = config.access_log.expect("an access log");
    assert_eq!(
        log.path.as_deref(),
        Some(Path::new("/var/log/sluicegate/access.log"))
    );
}
