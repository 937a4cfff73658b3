//! LiteLLM's configurations: every `litellm/files/NAME.yaml` gives exactly `NAME.sluicegate.yaml` and
//! `NAME.stderr`, every file of `litellm/broken/` exactly the message beside it.

use sluicegate::import::litellm::import;

use super::*;

const FILES: &str = "tests/import/litellm/files";
const BROKEN: &str = "tests/import/litellm/broken";
/// What the files have in place of passwords.
const SECRET: &str = "hunter2";

fn inputs(directory: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.ends_with(".yaml") && !name.ends_with(".sluicegate.yaml")
        })
        .collect();
    files.sort();
    files
}

/// A value that an address as well as a secret may have.
fn variable(name: &str) -> Option<String> {
    Some(format!("http://{}:8000", name.to_lowercase()))
}

#[test]
fn every_file_gives_its_configuration_and_what_was_not_carried() {
    let mut wrong = Vec::new();
    let files = inputs(FILES);
    assert!(files.len() >= 9, "{}", files.len());
    for path in &files {
        let imported = import(path).unwrap_or_else(|broken| panic!("{}", broken.lines.join("\n")));
        let expected = path.with_extension("sluicegate.yaml");
        compare(&expected, &imported.yaml, &mut wrong);
        let notes = lines(&imported.notes);
        compare(&path.with_extension("stderr"), &notes, &mut wrong);
        let name = path.display().to_string();
        assert!(!notes.contains(SECRET), "{notes}");
        if let Err(mistakes) = config::parse_str(&imported.yaml, &name, Path::new("/"), &variable) {
            panic!("{mistakes}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_broken_file_fails_with_its_exact_message() {
    let mut wrong = Vec::new();
    let files = inputs(BROKEN);
    assert!(files.len() >= 15, "{}", files.len());
    for path in &files {
        let said = match import(path) {
            Ok(_) => panic!("{} is imported", path.display()),
            Err(broken) => lines(&broken.lines),
        };
        assert!(!said.contains(SECRET), "{said}");
        compare(&path.with_extension("stderr"), &said, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_expected_of_a_file_that_is_not_there() {
    for directory in [FILES, BROKEN] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            for end in [".sluicegate.yaml", ".stderr"] {
                if let Some(input) = name.strip_suffix(end) {
                    assert!(Path::new(&format!("{input}.yaml")).exists(), "{name}");
                }
            }
        }
    }
}

/// The example beside the Compose file that takes the place of the guide's LiteLLM.
#[test]
fn the_guides_file_is_what_the_gateway_in_its_place_has() {
    let guide = Path::new(FILES).join("guide.yaml");
    let text = fs::read_to_string(guide).unwrap();
    let scratch = Scratch::new("litellm-guide");
    let text = text.replace("vllm-model", "node");
    let imported = import(&scratch.write("config.yaml", text)).unwrap();
    let ours = Path::new("conf/gateway/config/sluicegate.llm.yaml");
    let ours = fs::read_to_string(ours).unwrap();
    let mut ours = config::parse_str(&ours, "", Path::new("/"), &variable).unwrap();
    let made = config::parse_str(&imported.yaml, "", Path::new("/"), &variable).unwrap();
    // Who else may read its counts.
    ours.status_allow.clone_from(&made.status_allow);
    assert_eq!(ours, made);
}

/// Whatever the outcome, it is one that can be shown.
fn check(path: &Path) {
    match import(path) {
        Ok(imported) => {
            let read = config::parse_str(&imported.yaml, "", Path::new("/"), &variable);
            assert!(read.is_ok(), "{}", imported.yaml);
            assert!(imported.notes.iter().all(|note| is_one_line(note)));
        }
        Err(broken) => {
            assert!(!broken.lines.is_empty());
            assert!(
                broken.lines.iter().all(|line| is_one_line(line)),
                "{broken:?}"
            );
        }
    }
}

fn is_one_line(line: &str) -> bool {
    (line.contains("config.yaml") || line.starts_with("and ")) && !line.contains(['\n', '\r', '\0'])
}

#[test]
fn random_bytes_and_mutated_files_get_an_answer() {
    let scratch = Scratch::new("litellm-mutated");
    let seeds: Vec<Vec<u8>> = [inputs(FILES), inputs(BROKEN)]
        .concat()
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    let words = [
        "{",
        "}",
        "[",
        "]",
        ":",
        "\"",
        "- ",
        "  ",
        "\n",
        "\0",
        "&a ",
        "*a ",
        "null",
        "os.environ/X",
        "os.environ/",
        "${X}",
        "*",
        "/",
        "1e400",
        "-0",
        "http://",
        "include: [config.yaml]\n",
    ];
    let mutation = (0_usize..1000, 0_usize..6, any::<u16>(), any::<u16>());
    let strategy = (
        0..seeds.len(),
        prop::collection::vec(mutation, 1..6),
        prop::collection::vec(any::<u8>(), 0..200),
    );
    proptest!(ProptestConfig::with_cases(512), |((seed, mutations, bytes) in strategy)| {
        check(&scratch.write("config.yaml", &bytes));
        let mut text = seeds[seed].clone();
        for (word, kind, from, to) in mutations {
            if text.is_empty() {
                break;
            }
            let from = usize::from(from) % text.len();
            let to = (from + usize::from(to) % 64).min(text.len());
            match kind {
                0 => drop(text.drain(from..to)),
                1 => drop(text.splice(from..from, words[word % words.len()].bytes())),
                2 => text.truncate(from),
                3 => text[from] = (word % 256) as u8,
                4 => {
                    let twice = text[from..to].to_vec();
                    drop(text.splice(from..from, twice));
                }
                _ => text.swap(from, to.saturating_sub(1).max(from)),
            }
        }
        check(&scratch.write("config.yaml", &text));
    });
}

#[test]
fn files_that_are_too_much_are_refused_with_a_message() {
    let scratch = Scratch::new("litellm-large");
    let said = |content: &str| {
        let broken = import(&scratch.write("config.yaml", content)).unwrap_err();
        lines(&broken.lines).replace(&format!("{}/", scratch.0.display()), "")
    };
    assert_eq!(
        said(&" ".repeat((8 << 20) + 1)),
        "config.yaml:1:1: the file has 8388609 bytes; it may have 8388608\n"
    );
    let said_deep = said(&format!("a: {}", "[".repeat(100_000)));
    assert_eq!(said_deep.lines().count(), 1, "{said_deep}");
    // Circles end, and so does a chain.
    scratch.write("a.yaml", "include: [config.yaml, a.yaml, b.yaml]\n");
    scratch.write("b.yaml", "include: [a.yaml]\n");
    assert_eq!(
        said("include: [a.yaml]\nmodel_list: []\n"),
        "config.yaml: no deployment of model_list can be an endpoint\n"
    );
    for n in 0..200 {
        scratch.write(&format!("{n}.yaml"), format!("include: [{}.yaml]\n", n + 1));
    }
    assert_eq!(
        said("include: [0.yaml]\n"),
        "99.yaml:1: include: more than 100 files are included\n"
    );
    assert_eq!(
        said("include: [/dev/zero]\n"),
        "config.yaml:1: include: /dev/zero: cannot be read: it is no regular file\n"
    );
    let broken = import(Path::new("tests/import/none.yaml")).unwrap_err();
    assert_eq!(
        broken.lines,
        ["tests/import/none.yaml: cannot be read: No such file or directory (os error 2)"]
    );
    // Nearly the most that one pool takes, in a time that one can wait for.
    let mut many = String::from("model_list:\n");
    for n in 0..4000 {
        writeln!(
            many,
            "  - {{ model_name: m{}, litellm_params: {{ model: openai/x, api_base: 'http://h{n}:1/v1', rpm: {n} }} }}",
            n % 2
        )
        .unwrap();
    }
    let begun = std::time::Instant::now();
    let imported = import(&scratch.write("config.yaml", many)).unwrap();
    assert!(imported.yaml.contains("h3999:1"));
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}
