use super::*;

fn mistake(text: &str) -> String {
    let m = tree(text).expect_err("a mistake");
    format!("{}:{}: {}", m.at.line, m.at.column, m.message)
}

#[test]
fn knows_where_everything_is() {
    let (root, twice) = tree("a: 1\nä: { b: [x, \"null\"] }\n").expect("a tree");
    assert!(twice.is_empty());
    let Value::Map(entries) = root.value else {
        panic!("no mapping")
    };
    let Value::Map(inner) = &entries[1].node.value else {
        panic!("no mapping")
    };
    let Value::List(items) = &inner[0].node.value else {
        panic!("no list")
    };
    assert_eq!(
        items[1].at,
        Position {
            line: 2,
            column: 13
        }
    );
    assert!(!items[1].is_null());
}

#[test]
fn keeps_the_first_of_two_equal_keys_and_reports_the_second() {
    let (root, twice) = tree("a: 1\nb: 2\na: [{ c: 1, c: 2 }]\n").expect("a tree");
    let Value::Map(entries) = root.value else {
        panic!("no mapping")
    };
    assert_eq!(entries.len(), 2);
    let paths: Vec<_> = twice.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(paths, ["a", "a[0].c"]);
}

#[test]
fn aliases_cannot_multiply_a_file() {
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..20 {
        let item = format!("*a{}", i - 1);
        let items = vec![item; 10].join(",");
        text.push_str(&format!("a{i}: &a{i} [{items}]\n"));
    }
    assert!(mistake(&text).contains("beyond measure"));
}

#[test]
fn an_alias_within_its_own_anchor_is_a_mistake() {
    assert!(mistake("a: &a [1, *a]\n").contains("part of"));
}

#[test]
fn nesting_is_bounded_through_aliases_too() {
    assert!(mistake(&"[".repeat(40)).contains("limit"));
    let mut text = String::from("- &a0 [x]\n");
    for i in 1..60 {
        text.push_str(&format!("- &a{i} [*a{}]\n", i - 1));
    }
    assert!(mistake(&text).contains("nested too deeply"));
}

#[test]
fn an_empty_file_is_an_empty_value() {
    for text in ["", "# only a comment\n", "---\n", "\u{feff}"] {
        assert!(tree(text).expect("a tree").0.is_empty(), "{text:?}");
    }
}

#[test]
fn tags_merge_keys_and_second_documents_are_mistakes() {
    assert_eq!(mistake("a: !!str 1\n"), "1:10: a YAML tag is not supported");
    assert!(mistake("a: &a {b: 1}\nc: { <<: *a }\n").contains("merge"));
    assert!(mistake("a: 1\n---\nb: 1\n").contains("second document"));
}
