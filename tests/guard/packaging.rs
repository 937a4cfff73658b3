//! What holds the image and the Debian package to the rest: versions, times, and the files an image is built from.

use std::path::{Component, Path, PathBuf};

use crate::{read, root, sources};

const DOCKERFILE: &str = "conf/gateway/Dockerfile";
const COMPOSE: &str = "conf/gateway/docker-compose.yml";
const UNIT: &str = "systemd/sluicegate.service";

/// What the Dockerfile copies out of the repository.
fn copied() -> Vec<String> {
    let text = read(DOCKERFILE);
    let copies = text
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--from"));
    let mut found = Vec::new();
    for copy in copies {
        let mut names: Vec<String> = copy.split_whitespace().map(str::to_owned).collect();
        names.pop();
        found.extend(names);
    }
    assert!(found.len() > 4, "{found:?}");
    found
}

/// The value behind `key` in `text`, to the end of its line.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key}")).trim()
}

#[test]
fn the_image_is_built_from_files_that_exist_and_are_not_ignored() {
    let mut let_through: Vec<String> = read(".dockerignore")
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .map(str::to_owned)
        .collect();
    let mut copied = copied();
    for name in &copied {
        assert!(root().join(name).exists(), "{DOCKERFILE} copies {name}");
    }
    copied.sort();
    let_through.sort();
    assert_eq!(let_through, copied, ".dockerignore against {DOCKERFILE}");
}

/// `path` without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn the_image_is_built_with_every_file_that_the_source_includes() {
    let copied = copied();
    for path in sources("src").into_iter().chain(sources("loadtest/src")) {
        // The image runs no tests.
        if path.ends_with("tests.rs") {
            continue;
        }
        let text = read(&path);
        for rest in ["include_str!(\"", "include_bytes!(\""]
            .iter()
            .flat_map(|include| text.split(include).skip(1))
        {
            let name = rest.split('"').next().unwrap_or_default();
            let included = plain(&path.parent().expect("a directory").join(name));
            assert!(
                copied.iter().any(|name| included.starts_with(name)),
                "{} includes {}, which {DOCKERFILE} does not copy",
                path.display(),
                included.display()
            );
        }
    }
}

#[test]
fn image_and_package_are_built_as_the_docs_say() {
    assert!(read("docs/operations.md").contains("`cargo build --profile dist`"));
    for path in [DOCKERFILE, "systemd/debian/build"] {
        let text = read(path);
        assert!(
            text.contains("cargo build --locked --profile dist"),
            "{path}"
        );
    }
}

#[test]
fn image_and_package_have_the_version_of_the_source() {
    let version = env!("CARGO_PKG_VERSION");
    let tag = format!("sluicegate:{version}");
    assert_eq!(value(&read(COMPOSE), "image:"), tag);
    assert!(
        read(DOCKERFILE).contains(&format!("-t {tag} ")),
        "{DOCKERFILE}"
    );
    let changelog = read("systemd/debian/changelog");
    assert!(
        changelog.starts_with(&format!("sluicegate ({version}-")),
        "systemd/debian/changelog begins with another version than {version}"
    );
}

#[test]
fn container_and_service_wait_as_long_for_the_gateway_and_let_it_open_as_much() {
    let (unit, compose) = (read(UNIT), read(COMPOSE));
    let wait = value(&unit, "TimeoutStopSec=");
    assert_eq!(value(&compose, "stop_grace_period:"), format!("{wait}s"));
    let grace = read("conf/reference.yaml");
    let grace = value(&grace, "shutdown_grace:")
        .split('s')
        .next()
        .expect("seconds");
    let seconds = |text: &str| text.parse::<u64>().expect("seconds");
    assert!(seconds(wait) > seconds(grace), "{wait} against {grace}");
    let files = value(&unit, "LimitNOFILE=");
    assert_eq!(
        value(&compose, "nofile:"),
        format!("{{ soft: {files}, hard: {files} }}")
    );
}
