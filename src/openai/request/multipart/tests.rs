use proptest::collection::vec;
use proptest::prelude::*;

use super::super::forms::{broken, read};
use super::*;

const TYPE: &str = "multipart/form-data; boundary=XYZ";

fn one(body: &[u8]) -> Result<Form, BodyFault> {
    if let Some(promise) = broken(TYPE.as_bytes(), body) {
        panic!("{}: {promise}", body.escape_ascii());
    }
    read(TYPE.as_bytes(), [body]).unwrap()
}

fn taken(body: &str) -> Form {
    one(body.as_bytes()).unwrap_or_else(|fault| panic!("{body}: {fault}"))
}

/// What is wrong, and where.
fn refused(body: &str) -> (usize, &'static str) {
    match one(body.as_bytes()) {
        Err(BodyFault::Form { at, problem }) => (at, problem),
        other => panic!("{body}: {other:?}"),
    }
}

fn field(name: &str, value: &str) -> String {
    format!("--XYZ\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn with_head(head: &str, value: &str) -> String {
    format!("--XYZ\r\n{head}\r\n\r\n{value}\r\n--XYZ--\r\n")
}

const END: &str = "--XYZ--\r\n";

#[test]
fn the_sdks_form_is_read() {
    let file = "--XYZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model.mp3\"\r\nContent-Type: \
                audio/mpeg\r\n\r\n\0\u{1}\r\n\r\n--XY\r--XYZ\r\n-\r\n";
    for body in [
        field("model", "whisper-1") + &field("stream", "true") + file + END,
        file.to_owned() + &field("model", "whisper-1") + &field("stream", "True") + END,
        format!(
            "\r\n{}",
            field("stream", "1") + &field("model", "whisper-1") + "--XYZ--"
        ),
    ] {
        let form = taken(&body);
        let model = form.model.unwrap();
        assert_eq!(model.value, "whisper-1");
        assert_eq!(&body[model.range], "whisper-1");
        assert_eq!((form.stream, form.steering), (Some(true), None));
    }
    assert_eq!(taken(&(file.to_owned() + END)), Form::default());
    assert_eq!(taken(&(field("stream", "") + END)).stream, None);
    assert_eq!(
        taken(&(field("rid", "a") + &field("lora_path", "b") + END)).steering,
        Some("rid")
    );
}

#[test]
fn only_the_name_is_changed() {
    let body = field("language", "en") + &field("model", "a") + END;
    let form = taken(&body);
    let edit = form.rename("b/c").unwrap();
    let mut renamed = body.clone();
    renamed.replace_range(edit.range, "b/c");
    assert_eq!(edit.with, "b/c");
    assert_eq!(
        renamed,
        field("language", "en") + &field("model", "b/c") + END
    );
    assert_eq!(form.rename("a"), None);
    assert_eq!(form.rename("b\r\n--XYZ--"), None);
}

#[test]
fn heads_may_be_written_in_several_ways() {
    for head in [
        "content-disposition:form-data;name=model",
        "CONTENT-DISPOSITION: Form-Data; Name=\"model\";",
        "X: \"\r\nContent-Disposition: form-data; ; name=\"model\" ; x=y",
        "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=\"model\"",
        "Content-Transfer-Encoding: 8BIT\r\nContent-Disposition: form-data; name=\"model\"",
    ] {
        let form = taken(&with_head(head, "a"));
        assert_eq!(
            form.model.map(|model| model.value).as_deref(),
            Some("a"),
            "{head}"
        );
    }
    for head in [
        "Content-Disposition: form-data; name=\"\"",
        "Content-Disposition: form-data; name=\"model \"",
        "Content-Disposition: form-data; name=\"mod%65l\"",
        "Content-Disposition: form-data; name=\"x\"; filename=\"; name=model\"",
        "Content-Disposition: form-data; name=\"x\"; filename*=utf-8''name%3dmodel",
        "Content-Disposition: form-data; name=\"x\"; filename=\"C:\\\\model\\\\\"",
    ] {
        assert_eq!(taken(&with_head(head, "a")).model, None, "{head}");
    }
}

#[test]
fn heads_that_are_read_in_two_ways_are_refused() {
    for head in [
        "Content-Disposition: form-data",
        "Content-Disposition: attachment; name=\"model\"",
        "Content-Disposition: form-data; name=\"x\"; name=\"model\"",
        "Content-Disposition: form-data; name*=utf-8''model",
        "Content-Disposition: form-data; name*0=\"mo\"; name*1=\"del\"",
        "Content-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"model\"",
        "Content-Disposition: form-data; name=\"x\"\r\n ; name=\"model\"",
        "Content-Disposition: form-data; filename=\"\\\"; name=\"x\"; y=\"\"",
        "Content-Disposition: form-data; name=\"mo\\del\"",
        "Content-Disposition: form-data; name=\"model",
        "Content-Disposition: form-data; name = \"model\"",
        "Content-Disposition: form-data; name=\"model\"x",
        "Content-Disposition: form-data; name=",
        "Content-Disposition: form-data; name",
        "Content-Disposition : form-data; name=\"model\"",
        "Content-Disposition: form-data; name=\"x\"\nContent-Disposition: form-data; name=\"model\"",
        "Content-Disposition: form-data; name=\"x\"\rY: z",
        "Content-Type: text/plain",
        ": x",
        "x",
        // A wanted field that is no plain one.
        "Content-Disposition: form-data; name=\"model\"; filename=\"a\"",
        "Content-Disposition: form-data; name=\"model\"; filename*=utf-8''a",
        "Content-Disposition: form-data; name=\"stream\"; filename=\"\"",
        "Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: base64",
    ] {
        assert_eq!(refused(&with_head(head, "a")).0, 7, "{head}");
    }
    let other_case = with_head("Content-Disposition: form-data; name=\"Model\"", "a");
    assert_eq!(
        one(other_case.as_bytes()),
        Err(BodyFault::ModelInOtherCase { at: 7 })
    );
}

#[test]
fn a_second_model_is_refused() {
    let first = field("model", "a");
    let body = first.clone() + &field("x", "y") + &field("model", "b") + END;
    let (at, problem) = refused(&body);
    assert_eq!(at, body.rfind("Content").unwrap());
    assert!(problem.contains("second"), "{problem}");
    refused(&(field("stream", "true") + &field("stream", "true") + END));
}

#[test]
fn values_are_bounded_and_text() {
    let body = |value: &str| field("model", value) + END;
    let at = field("model", "").len() - 2;
    let name = "é".repeat(512);
    assert_eq!(taken(&body(&name)).model.unwrap().value, name);
    let too_long = BodyFault::TooLong {
        at,
        field: "model",
        limit: 1024,
    };
    for length in [1025, 1 << 20] {
        assert_eq!(one(body(&"a".repeat(length)).as_bytes()), Err(too_long));
    }
    assert_eq!(refused(&body("a\nb")).0, at);
    assert_eq!(refused(&body("a\r\n")).0, at);
    let latin1 = [&body("").as_bytes()[..at], b"\xe9\r\n--XYZ--"].concat();
    assert_eq!(
        one(&latin1),
        Err(BodyFault::NotUnicode { at, field: "model" })
    );
    let wrong = one((field("stream", "perhaps") + END).as_bytes()).unwrap_err();
    assert_eq!(
        (wrong.param(), wrong.code()),
        (Some("stream"), "invalid_value")
    );
    // Others are not.
    taken(&(field("prompt", &"a\r\n".repeat(10_000)) + END));
}

#[test]
fn boundaries_stand_where_every_reader_looks_for_them() {
    let whole = field("model", "a") + END;
    for length in 0..whole.len() - 2 {
        let (at, problem) = refused(&whole[..length]);
        assert!(
            at == length && problem.contains("ends"),
            "{length}: {at} {problem}"
        );
    }
    for (body, at) in [
        ("preamble\r\n".to_owned() + &whole, 0),
        ("\n".to_owned() + &whole, 0),
        ("\r\n\r\n".to_owned() + &whole, 2),
        ("--XYA".to_owned(), 4),
        ("--XYZ \r\n".to_owned(), 5),
        ("--XYZ\n".to_owned(), 5),
        ("--XYZ-\r\n".to_owned(), 6),
        (
            field("x", "\r\n--XYZabc") + END,
            field("x", "\r\n--XYZ").len() - 2,
        ),
        (field("x", "--XYZ--") + END, field("x", "--XYZ").len() - 3),
        (whole.clone() + "\r\n " + &whole, whole.len() + 3),
    ] {
        assert_eq!(refused(&body).0, at, "{body}");
    }
    let no_data = "--XYZ\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n--XYZ--\r\n";
    assert!(refused(no_data).1.contains("begins with the boundary"));
    assert_eq!(taken(END), Form::default());
}

#[test]
fn the_head_of_a_part_is_bounded() {
    let head = |length: usize| {
        let field = "Content-Disposition: form-data; name=\"model\"\r\nX: ";
        format!("{field}{}", "y".repeat(length - field.len() - 4))
    };
    taken(&with_head(&head(HEAD_LIMIT), "a"));
    let (at, problem) = refused(&with_head(&head(HEAD_LIMIT + 1), "a"));
    assert_eq!(at, 7 + HEAD_LIMIT - 1);
    assert!(problem.contains("8 KiB"));
}

#[test]
fn the_boundary_is_taken_from_the_content_type() {
    let found = |content_type: &str| match head::boundary(content_type.as_bytes()) {
        None => None,
        Some(Ok(boundary)) => Some(Ok(String::from_utf8(boundary.to_vec()).unwrap())),
        Some(Err(fault)) => Some(Err(fault.to_string())),
    };
    for other in [
        "",
        "application/json",
        "multipart/mixed; boundary=a",
        "multipart/form-datax; boundary=a",
    ] {
        assert_eq!(found(other), None);
    }
    let longest = "b".repeat(70);
    for (content_type, boundary) in [
        (
            "multipart/form-data; boundary=----WebKitFormBoundaryAb3",
            "----WebKitFormBoundaryAb3",
        ),
        (
            "Multipart/Form-Data ;charset=utf-8; BOUNDARY=\"a b:c\" ; x=y",
            "a b:c",
        ),
        ("multipart/form-data;boundary='a'", "'a'"),
        (
            &format!("multipart/form-data; boundary={longest}"),
            &longest,
        ),
    ] {
        assert_eq!(found(content_type), Some(Ok(boundary.to_owned())));
    }
    for content_type in [
        "multipart/form-data",
        "multipart/form-data; charset=utf-8",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=\"a",
        "multipart/form-data; boundary=\"a \"",
        "multipart/form-data; boundary=\"a\\b\"",
        "multipart/form-data; boundary=a:b",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary*=utf-8''a",
        "multipart/form-data; boundary=a, multipart/form-data; boundary=b",
        &format!("multipart/form-data; boundary={longest}b"),
    ] {
        let fault = found(content_type).unwrap().unwrap_err();
        assert!(fault.contains("Content-Type"), "{content_type}: {fault}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Data that nearly is the delimiter, in every cutting.
    #[test]
    fn every_form_is_read_as_it_was_written(
        parts in vec(("[a-z]{1,3}", any::<bool>(), vec(prop::sample::select(vec![
            "\r", "\n", "\r\n", "-", "--", "X", "XY", "\r\n--", "\r\n--X", "\r\n--XY", "a", "--XY",
        ]), 0..9)), 0..5),
        model in proptest::option::of(("[ -~]{0,20}", any::<prop::sample::Index>())),
        cuts in vec(any::<prop::sample::Index>(), 0..9),
    ) {
        let mut written: Vec<String> = parts
            .iter()
            .map(|(name, is_file, data)| {
                let file = if *is_file { "; filename=\"f\"" } else { "" };
                let head = format!("--XYZ\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
                head + &data.concat() + "\r\n"
            })
            .collect();
        if let Some((name, place)) = &model {
            let place = place.index(written.len() + 1);
            written.insert(place, field("model", name));
        }
        let body = written.concat() + END;
        let body = body.as_bytes();
        prop_assert_eq!(broken(TYPE.as_bytes(), body), None);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let form = read(TYPE.as_bytes(), cuts.windows(2).map(|cut| &body[cut[0]..cut[1]])).unwrap().unwrap();
        prop_assert_eq!(form.model.map(|found| found.value), model.map(|(name, _)| name));
    }

    #[test]
    fn any_bytes_have_one_reading(
        head in "[ -~]{0,40}",
        tail in vec(prop_oneof![any::<u8>(), prop::sample::select(b"\r\n-XYZ\"=;: ".to_vec())], 0..80),
    ) {
        let start = format!("--XYZ\r\nContent-Disposition: form-data; name=\"model\"{head}");
        let body = [start.as_bytes(), &tail].concat();
        prop_assert_eq!(broken(TYPE.as_bytes(), &body), None);
        prop_assert_eq!(broken(head.as_bytes(), &body), None);
    }
}
