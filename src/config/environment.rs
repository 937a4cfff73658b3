//! `${NAME}` in a value is replaced by the environment's; `$${` stands for `${`.

use std::borrow::Cow;

use super::diagnostic::Fault;

/// `text` with its variables filled in: owned exactly when something came from the environment.
/// Works on a parsed value, so that what a variable holds can never change the file's structure.
pub(super) fn expand<'a>(
    text: &'a str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Cow<'a, str>, Vec<Fault>> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let mut value = String::with_capacity(text.len());
    let mut faults = Vec::new();
    let mut rest = text;
    while let Some(i) = rest.find("${") {
        if rest[..i].ends_with('$') {
            value.push_str(&rest[..i - 1]);
            value.push_str("${");
            rest = &rest[i + 2..];
            continue;
        }
        value.push_str(&rest[..i]);
        let after = &rest[i + 2..];
        let Some(end) = after.find('}') else {
            faults
                .push(Fault::new("has a \"${\" that is never closed").fix(
                    "close it with \"}\", or write \"$${\" for the two characters themselves",
                ));
            break;
        };
        let name = &after[..end];
        rest = &after[end + 1..];
        if !is_name(name) {
            faults.push(
                Fault::new("has a \"${…}\" that names no variable").fix(
                    "a name has letters, digits and \"_\"; write \"$${\" for the two characters themselves",
                ),
            );
        } else if let Some(found) = env(name) {
            value.push_str(&found);
        } else {
            faults.push(
                Fault::new(format!("needs the environment variable {name}, which is not set"))
                    .fix(format!("set {name} for the gateway (systemd: EnvironmentFile=), or write the value here")),
            );
        }
    }
    if faults.is_empty() {
        value.push_str(rest);
        Ok(Cow::Owned(value))
    } else if text.contains('@') {
        // A URL may have a password before it.
        Err(faults.into_iter().map(Fault::hide).collect())
    } else {
        Err(faults)
    }
}

/// The opposite: a value as it must be written to be read back.
pub(crate) fn escape(value: &str) -> Cow<'_, str> {
    if value.contains("${") {
        Cow::Owned(value.replace("${", "$${"))
    } else {
        Cow::Borrowed(value)
    }
}

/// Whether `${name}` can be written.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, Vec<String>> {
        let env = |name: &str| (name == "HOST").then(|| "node0 # ${HOST}".to_owned());
        expand(text, &env)
            .map(Cow::into_owned)
            .map_err(|faults| faults.into_iter().map(|f| f.what).collect())
    }

    #[test]
    fn fills_in_variables_once() {
        assert_eq!(expanded("${HOST}:80").unwrap(), "node0 # ${HOST}:80");
        assert_eq!(expanded("$HOST $ {} $$").unwrap(), "$HOST $ {} $$");
    }

    #[test]
    fn two_dollars_escape() {
        assert_eq!(expanded("$${HOST}").unwrap(), "${HOST}");
        assert_eq!(expanded("$${ ${HOST}").unwrap(), "${ node0 # ${HOST}");
    }

    #[test]
    fn what_may_hold_a_password_is_not_quoted() {
        let hidden = |text: &str| expand(text, &|_| None).unwrap_err().iter().all(|f| f.hide);
        assert!(hidden("http://me:secret@node0${") && hidden("http://${USER}:secret@node0"));
        assert!(!hidden("node0:${PORT}"));
    }

    #[test]
    fn names_every_variable_that_is_not_set() {
        let faults = expanded("${A}${B_2}").unwrap_err();
        assert!(faults[0].contains(" A,") && faults[1].contains(" B_2,"));
        for text in ["${", "${A", "${}", "${A:-b}", "${1}", "${a b}"] {
            assert_eq!(expanded(text).unwrap_err().len(), 1, "{text}");
        }
    }

    #[test]
    fn what_was_escaped_reads_back() {
        for text in ["${HOST}", "$${HOST}", "$$${", "a$", "${${", "$"] {
            assert_eq!(expanded(&escape(text)).unwrap(), text);
        }
    }
}
