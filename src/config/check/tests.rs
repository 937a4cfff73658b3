use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::*;
use crate::config::parse_str;

/// A directory with `good.pem` and `good.key`, valid for 2030, and `other.key`.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sluicegate-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params =
            rcgen::CertificateParams::new(vec!["gateway".to_owned()]).expect("parameters");
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(2031, 1, 1);
        let certificate = params.self_signed(&key).expect("a certificate");
        let directory = Self(path);
        directory.write("good.pem", &certificate.pem());
        directory.write("good.key", &key.serialize_pem());
        let other = rcgen::KeyPair::generate().expect("a key");
        directory.write("other.key", &other.serialize_pem());
        directory.write("empty.pem", "");
        directory.write(
            "garbage.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
        directory
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("permissions");
    }

    /// What is found on `day` of 2030, one line each, without the directory's name.
    fn findings(&self, text: &str, day: u64) -> Vec<String> {
        let config = parse_str(text, "t.yaml", &self.0, &|_| None).expect("a configuration");
        // 2030-01-01T00:00:00Z and half a day.
        let now =
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000 + 43_200 + day * 86_400);
        let look_up = |host: &str, _: u16| match host {
            "known" => Ok(2),
            "nothing" => Ok(0),
            _ => Err(io::Error::other("no such name")),
        };
        let directory = format!("{}/", self.0.display());
        (config.check(now, &look_up).iter())
            .map(|finding| finding.to_string().replace(&directory, ""))
            .collect()
    }

    fn listener(&self, certificate: &str, key: &str, day: u64) -> Vec<String> {
        let text = format!(
            "endpoints: [known:1]\nlisten:\n  address: 443\n  tls: {{ certificate: {certificate}, key: {key} }}\n"
        );
        self.findings(&text, day)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_good_certificate_is_not_worth_a_word() {
    let directory = Directory::new("good");
    assert_eq!(directory.listener("good.pem", "good.key", 100), [""; 0]);
}

#[test]
fn certificates_are_reported_before_and_after_their_time() {
    let directory = Directory::new("time");
    for (day, said) in [(340, "expires in 24 days"), (367, "expired 2 days ago")] {
        assert_eq!(
            directory.listener("good.pem", "good.key", day),
            [format!(
                "command line:4:23: warning: listen.tls.certificate: good.pem {said}; \
                 renew it; a reload takes the new one"
            )]
        );
    }
    let text = "endpoints: [known:1]\nlisten: { address: 443, tls: { certificate: good.pem, key: good.key } }\n";
    let config = parse_str(text, "t", &directory.0, &|_| None).expect("a configuration");
    let early = config.check(SystemTime::UNIX_EPOCH, &|_, _| Ok(1));
    assert!(early.to_string().contains("is not valid yet"), "{early}");
}

#[test]
fn a_certificate_that_cannot_serve_is_an_error() {
    let directory = Directory::new("bad");
    for (certificate, key, said) in [
        ("missing.pem", "good.key", "missing.pem cannot be used: "),
        ("empty.pem", "good.key", "empty.pem holds no certificate"),
        (
            "garbage.pem",
            "good.key",
            "garbage.pem holds no valid certificate",
        ),
        ("good.key", "good.key", "good.key holds no certificate"),
        ("good.pem", "missing.key", "missing.key cannot be used: "),
        ("good.pem", "good.pem", "good.pem cannot be used: "),
        (
            "good.pem",
            "other.key",
            "other.key does not belong to the certificate",
        ),
    ] {
        let findings = directory.listener(certificate, key, 100);
        assert!(
            findings.iter().any(|f| f.contains(said)),
            "{said}: {findings:?}"
        );
        assert!(!findings[0].contains("warning"), "{findings:?}");
    }
}

#[test]
fn a_key_for_everyone_to_read_is_warned_of() {
    let directory = Directory::new("mode");
    let key = directory.0.join("good.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("permissions");
    let findings = directory.listener("good.pem", "good.key", 100);
    assert!(findings[0].contains("good.key can be read by everyone; take the right away"));
}

#[test]
fn names_that_do_not_resolve_are_warned_of_once() {
    let directory = Directory::new("names");
    let text =
        "pools:\n  p:\n    endpoints: [known:1, gone:1, https://gone:1, nothing:1, 127.0.0.1:1]\n";
    let findings = directory.findings(text, 100);
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings[0].contains(
        "3:26: warning: pools.p.endpoints[1]: the name gone does not resolve: no such name;"
    ));
    assert!(findings[1].contains("the name nothing does not resolve;"));
}

#[test]
fn dangerous_settings_are_warned_of() {
    let directory = Directory::new("settings");
    let text = "admin: [127.0.0.1:9180, 0.0.0.0:9181]\ntrusted_proxies: [0.0.0.0/0]\n\
        access_log: { path: /nowhere/at/all/access.log }\npools:\n  p:\n    endpoints: [https://known]\n    \
        tls: { verify: false, ca: missing.pem }\n";
    let findings = directory.findings(text, 100);
    for (finding, said) in findings.iter().zip([
        "warning: admin[1]: 0.0.0.0:9181 can be reached from other machines",
        "warning: trusted_proxies: every client may say that it is another",
        "warning: access_log.path: there is no directory /nowhere/at/all",
        "warning: pools.p.tls.verify: anyone between here and the engines",
        "pools.p.tls.ca: missing.pem cannot be used",
    ]) {
        assert!(finding.contains(said), "{finding}");
    }
    assert_eq!(findings.len(), 5, "{findings:?}");
    let text = "pools: { p: { endpoints: [known:1], tls: { server_name: a } } }";
    assert!(
        directory.findings(text, 100)[0]
            .contains("has no effect: no endpoint of this pool is https")
    );
}

/// What is found in `keys` and `models`, without the file's name and the advice.
fn said(directory: &Directory, text: &str) -> Vec<String> {
    (directory.findings(text, 0).iter())
        .filter_map(|line| {
            let (_, said) = line.split_once(": warning: ")?;
            Some(said.split("; ").next()?.to_owned())
        })
        .collect()
}

#[test]
fn weak_keys_are_told_however_they_are_written() {
    let directory = Directory::new("weak");
    let keys = |keys: &str| {
        let text = format!("endpoints: [known:1]\nadmin: null\nkeys: [{keys}]");
        said(&directory, &text)
    };
    let published = "the secret of \"a\" is a key that documents show and people try first";
    assert_eq!(
        keys("{ name: a, key: sk-1234 }"),
        [format!("keys[0].key: {published}")]
    );
    // Of "sk-1234".
    let hash = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b";
    assert_eq!(
        keys(&format!("{{ name: a, sha256: {hash} }}")),
        [format!("keys[0].sha256: {published}")]
    );
    assert_eq!(
        keys("{ name: a, key: 9f8e7d6c5b4a392 }"),
        ["keys[0].key: the secret of \"a\" is shorter than 16 characters, which can be guessed"]
    );
    assert_eq!(keys("{ name: a, key: 9f8e7d6c5b4a3921 }"), [""; 0]);
}

#[test]
fn a_file_of_keys_is_for_the_gateways_user_alone() {
    let directory = Directory::new("keys");
    let text = "endpoints: [known:1]\nadmin: null\nkeys: { file: keys.yaml }";
    directory.write("keys.yaml", "- { name: a, key: 9f8e7d6c5b4a3921 }\n");
    assert_eq!(directory.findings(text, 0), [""; 0]);
    let path = directory.0.join("keys.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("permissions");
    assert_eq!(
        directory.findings(text, 0),
        [
            "t.yaml:3:15: warning: keys.file: \"keys.yaml\" can be read by everyone; take the right away: chmod o-r"
        ]
    );
    directory.write("keys.yaml", "# One.\n- { name: a, key: changeme }\n");
    let found = directory.findings(text, 0);
    assert!(
        found[0].starts_with("keys.yaml:2:19: warning: keys[0].key: the secret of \"a\" is a key"),
        "{found:?}"
    );
}

#[test]
fn pools_without_a_model_and_endpoints_with_one_for_many_are_told() {
    let directory = Directory::new("models");
    let models = |models: &str| {
        let text = format!(
            "admin: null\nmodels: {models}\npools:\n  large: {{ endpoints: [known:1] }}\n  \
             small: {{ endpoints: [known:2, {{ url: known:3, model: x }}] }}"
        );
        said(&directory, &text)
    };
    assert_eq!(
        models("{ a: { pool: large }, b: { pool: small } }"),
        [""; 0]
    );
    assert_eq!(
        models("{ a: { pool: small }, b: a }"),
        ["pools.large: no model is served by this pool"]
    );
    let for_many = "pools.small.endpoints[1].model: every request to this endpoint names this model, \
                    whichever of the pool's models it was for";
    for two in [
        "{ a: { pool: small }, b: { pool: small }, c: { pool: large } }",
        "{ \"*\": { pool: small }, c: { pool: large } }",
    ] {
        assert_eq!(models(two), [for_many]);
    }
}
