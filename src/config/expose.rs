//! Extra paths: `[METHOD ]/path`, or `/path/*` for all that begins so.

use std::fmt;

use super::ExtraPath;
use super::diagnostic::Fault;

pub(super) const FORM: &str =
    "write all, inference, or a list of \"/path\", \"METHOD /path\" or \"/path/*\"";

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

pub(super) fn parse(text: &str) -> Result<ExtraPath, Fault> {
    let (method, path) = match text.split_once(' ') {
        Some((method, path)) => (Some(method), path.trim_start()),
        None => (None, text),
    };
    if let Some(method) = method
        && !METHODS.contains(&method)
    {
        let fault = Fault::new("has an unknown method");
        let upper = method.to_ascii_uppercase();
        return Err(if METHODS.contains(&upper.as_str()) {
            fault.fix(format!("write it in capitals: {upper}"))
        } else {
            fault.fix(format!("the methods are {}", METHODS.join(", ")))
        });
    }
    if !path.starts_with('/') {
        return Err(match path {
            "all" | "inference" => {
                Fault::new("is no path").fix(format!("write expose: {path}, without a list"))
            }
            _ => Fault::new("has a path that does not begin with \"/\""),
        });
    }
    let (stem, prefix) = match path.strip_suffix("/*") {
        Some(stem) => (&path[..=stem.len()], true),
        None => (path, false),
    };
    // A request's path is matched as it came, and with any of these it is refused before that.
    if let Some(bad) = stem
        .chars()
        .find(|c| !c.is_ascii_graphic() || "%;\\?#*\"<>^`{|}".contains(*c))
    {
        return Err(match bad {
            '*' => Fault::new("has a \"*\" that is not at its end, after a \"/\""),
            '?' => Fault::new("has a query: only the path is matched"),
            _ => Fault::new("has a character that no request's path may have here"),
        });
    }
    if stem.contains("//") || stem.split('/').any(|part| part == "." || part == "..") {
        return Err(Fault::new(
            "has \"//\", \".\" or \"..\", which no request's path may have here",
        ));
    }
    Ok(ExtraPath {
        method: method.map(str::to_owned),
        path: stem.to_owned(),
        prefix,
    })
}

/// Whether `text` is a path, as another configuration may have it.
pub(crate) fn is_extra_path(text: &str) -> bool {
    parse(text).is_ok()
}

/// As it is written in the file.
impl fmt::Display for ExtraPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = &self.method {
            write!(f, "{method} ")?;
        }
        f.write_str(&self.path)?;
        if self.prefix {
            f.write_str("*")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_methods_paths_and_prefixes() {
        for text in ["/v1/load", "GET /v1/load", "/internal/*", "POST /*", "/"] {
            assert_eq!(parse(text).map(|p| p.to_string()).as_deref(), Ok(text));
        }
        let prefix = parse("/internal/*").expect("a prefix");
        assert_eq!((prefix.path.as_str(), prefix.prefix), ("/internal/", true));
    }

    #[test]
    fn refuses_what_could_never_match() {
        for text in [
            "", "v1/load", "get /x", "FETCH /x", "all", "/a*", "/a/*/b", "/a?b=1", "/a%20b",
            "/a;b", "/a//b", "/a/../b", "/ä", "/a b", "/*/", "GET",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_accepted_reads_back_as_the_same(text in "([A-Z]{3,7} )?/[ -~]{0,12}") {
            if let Ok(path) = parse(&text) {
                proptest::prop_assert_eq!(parse(&path.to_string()), Ok(path));
            }
        }
    }
}
