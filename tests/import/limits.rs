//! Inputs too large to keep as files.

use super::*;

#[test]
fn a_megabyte_of_garbage_is_refused_with_its_line() {
    let scratch = Scratch::new("garbage");
    // A linear congruential generator: every byte, the same each time.
    let mut state: u32 = 1;
    let mut garbage = vec![0_u8; 1 << 20];
    for byte in &mut garbage {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let said = scratch.said(&garbage);
    assert!(
        said.starts_with("nginx.conf:") && said.lines().count() == 1,
        "{said}"
    );
    let said = scratch.said(vec![b'x'; 1 << 20]);
    assert_eq!(
        said,
        "nginx.conf:1: a word of more than 4096 bytes begins here; is a quote missing?\n"
    );
    let said = scratch.said("a;\n".repeat(1 << 18));
    assert_eq!(said, "nginx.conf:50001: more than 50000 directives\n");
    let said = scratch.said("a;\n".repeat(500));
    assert_eq!(said.lines().count(), 101);
    assert!(said.ends_with("and 400 more\n"), "{said}");
    let said = scratch.said(vec![b'\n'; (8 << 20) + 1]);
    assert_eq!(said, "nginx.conf: more than 8 MiB of configuration\n");
}

#[test]
fn blocks_end_at_a_depth() {
    let scratch = Scratch::new("deep");
    let said = scratch.said(format!(
        "http {{ server {{\n{}",
        "location / {\n".repeat(100_000)
    ));
    assert_eq!(said, "nginx.conf:20: blocks are nested more than 20 deep\n");
    let said = scratch.said("{".repeat(1 << 20));
    assert_eq!(
        said,
        "nginx.conf:1: unexpected \"{\"; write what block it is\n"
    );
}

#[test]
fn files_that_include_each_other_come_to_an_end() {
    let scratch = Scratch::new("included");
    let said = scratch.said("events {}\ninclude nginx.conf;\n");
    let directory = scratch.0.display().to_string();
    assert_eq!(
        said.replace(&format!("{directory}/"), ""),
        "nginx.conf:2: include: nginx.conf includes itself, by itself or through others\n"
    );
    // A chain that is no circle.
    for n in 0..40 {
        scratch.write(&format!("{n}.conf"), format!("include {}.conf;\n", n + 1));
    }
    let said = scratch.said("include 0.conf;\n");
    assert_eq!(
        said,
        "15.conf:1: include: files include each other more than 16 deep\n".replace("15", "14")
    );
    // Many files that each include many.
    fs::create_dir(scratch.0.join("many")).unwrap();
    for n in 0..1100 {
        scratch.write(&format!("many/{n:04}.conf"), "");
    }
    let said = scratch.said("events {}\ninclude many/*;\n");
    assert_eq!(said, "nginx.conf:2: more than 1000 files are included\n");
}

#[test]
fn what_is_no_file_is_not_read() {
    let scratch = Scratch::new("special");
    let said = scratch.said("include /dev/zero;\n");
    assert_eq!(said, "nginx.conf:1: include: /dev/zero is not a file\n");
    let said = scratch.said("include /;\n");
    assert_eq!(said, "nginx.conf:1: include: / is not a file\n");
    let broken = import(Path::new("/dev/zero"), None).unwrap_err();
    assert_eq!(
        broken.lines,
        ["/dev/zero: more than 8 MiB of configuration"]
    );
    let broken = import(&scratch.0, None).unwrap_err();
    assert!(broken.lines[0].contains("cannot be read"), "{broken:?}");
    let broken = import(Path::new("tests/import/none.conf"), None).unwrap_err();
    assert_eq!(
        broken.lines,
        ["tests/import/none.conf: cannot be read: No such file or directory (os error 2)"]
    );
}

#[test]
fn a_site_of_any_size_comes_to_an_end() {
    let scratch = Scratch::new("large");
    let site = |upstream: &str, server: &str| {
        format!(
            "http {{ upstream a {{ server b:1; {upstream} }} server {{ {server} location / {{ proxy_pass http://a; }} }} }}"
        )
    };
    let many =
        |count: usize, line: &dyn Fn(usize) -> String| -> String { (0..count).map(line).collect() };
    let servers = many(40_000, &|n| format!("server h{n}:1;"));
    assert_eq!(
        scratch.said(site(&servers, "")),
        "nginx.conf:1: upstream a: has more than 5000 servers\n"
    );
    let listens = many(10_000, &|n| {
        format!("listen 127.0.{}.{}:1-100;", n / 250, n % 250 + 1)
    });
    assert_eq!(
        scratch.said(site("", &listens)),
        "nginx.conf:1: listen: is more than 1000 addresses to listen on\n"
    );
    let locations = many(10_000, &|n| {
        format!("location /{n} {{ proxy_pass http://a; }}")
    });
    assert_eq!(
        scratch.said(site("", &locations)),
        "nginx.conf:1: http: has 1000 locations or more\n"
    );
    // Nearly the most that is taken, in a time that one can wait for.
    let servers = many(4_000, &|n| format!("server h{n}:1;"));
    let locations = many(900, &|n| {
        format!(
            "location /{n} {{ proxy_pass http://a; proxy_read_timeout {}; }}",
            n + 1
        )
    });
    let large = site(
        &servers,
        &(many(30_000, &|_| "gzip on;".to_owned()) + &locations),
    );
    let path = scratch.write("nginx.conf", large);
    let begun = std::time::Instant::now();
    let imported = import(&path, None).unwrap();
    assert!(imported.yaml.contains("h3999:1"));
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}
