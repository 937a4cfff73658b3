//! An engine's `/metrics`: Prometheus' text format, of which the few figures that say how loaded it is are taken.

use super::load::{Load, add, fuller};

/// A line that is longer is passed over: it holds at most one line's worth, however long the page.
const LONGEST_LINE: usize = 16 << 10;

#[derive(Debug, Clone, Copy)]
enum Figure {
    Running,
    Waiting,
    PromptTokens,
    GenerationTokens,
    KvUsage,
}

/// vLLM's and SGLang's, which some builds write with `_` for `:`.
const PREFIXES: [&str; 4] = ["vllm:", "sglang:", "vllm_", "sglang_"];

/// The names behind the prefix, by any version.
const FIGURES: [(&str, Figure); 10] = [
    ("num_requests_running", Figure::Running),
    ("num_running_reqs", Figure::Running),
    ("num_requests_waiting", Figure::Waiting),
    ("num_queue_reqs", Figure::Waiting),
    ("prompt_tokens_total", Figure::PromptTokens),
    ("generation_tokens_total", Figure::GenerationTokens),
    ("kv_cache_usage_perc", Figure::KvUsage),
    // Until vLLM 0.10.
    ("gpu_cache_usage_perc", Figure::KvUsage),
    ("token_usage", Figure::KvUsage),
    ("full_token_usage", Figure::KvUsage),
];

/// A page of `/metrics`, read as it comes. Any bytes are a page; what is no sample is passed over.
#[derive(Debug, Default)]
pub struct Exposition {
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// The line is too long, up to its end.
    skips: bool,
    load: Load,
}

impl Exposition {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the page.
    pub fn feed(&mut self, mut piece: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            piece = rest;
            if self.partial.is_empty() && !self.skips {
                take(&mut self.load, line);
            } else {
                self.extend(line);
                self.end_line();
            }
        }
        self.extend(piece);
    }

    /// The page has ended.
    pub fn finish(mut self) -> Load {
        self.end_line();
        self.load
    }

    fn extend(&mut self, part: &[u8]) {
        if self.skips || self.partial.len() + part.len() > LONGEST_LINE {
            self.skips = true;
            self.partial.clear();
        } else {
            self.partial.extend_from_slice(part);
        }
    }

    fn end_line(&mut self) {
        if !std::mem::take(&mut self.skips) {
            take(&mut self.load, &self.partial);
        }
        self.partial.clear();
    }
}

/// Adds what a line says.
fn take(load: &mut Load, line: &[u8]) {
    if line.len() > LONGEST_LINE {
        return;
    }
    let Some((figure, rest)) = figure_of(line) else {
        return;
    };
    let Some(value) = value_of(rest) else {
        return;
    };
    match figure {
        Figure::Running => add(&mut load.running, Some(value)),
        Figure::Waiting => add(&mut load.waiting, Some(value)),
        Figure::PromptTokens => add(&mut load.prompt_tokens, Some(value)),
        Figure::GenerationTokens => add(&mut load.generation_tokens, Some(value)),
        Figure::KvUsage => fuller(&mut load.kv_usage, Some(value)),
    }
}

/// What the line is of, and what stands behind the name.
fn figure_of(line: &[u8]) -> Option<(Figure, &[u8])> {
    let line = line.trim_ascii_start();
    let end = line
        .iter()
        .position(|byte| matches!(byte, b'{' | b' ' | b'\t'))?;
    let (name, rest) = line.split_at(end);
    let name = PREFIXES
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix.as_bytes()))?;
    let known = FIGURES.iter().find(|(known, _)| known.as_bytes() == name)?;
    Some((known.1, rest))
}

/// The value behind the labels, if it is one to be counted.
fn value_of(rest: &[u8]) -> Option<f64> {
    let mut rest = rest.trim_ascii_start();
    if let Some(labels) = rest.strip_prefix(b"{") {
        let mut labels = Labels(labels);
        for (name, value) in labels.by_ref() {
            // Ranks that work on the same requests say the same, and the first one speaks for them.
            if matches!(name, b"tp_rank" | b"pp_rank") && value != b"0" {
                return None;
            }
        }
        rest = labels.0.strip_prefix(b"}")?;
    }
    let value = rest
        .trim_ascii_start()
        .split(u8::is_ascii_whitespace)
        .next()?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What is left of a list of labels, as names and values; ends at what is no label, which is `}` in a good line.
struct Labels<'a>(&'a [u8]);

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.0 = self.0.trim_ascii_start();
        if self.0.first() == Some(&b'}') {
            return None;
        }
        let name_end = memchr::memchr(b'=', self.0)?;
        let name = self.0[..name_end].trim_ascii();
        let text = self.0[name_end + 1..].trim_ascii_start();
        let text = text.strip_prefix(b"\"")?;
        let mut end = 0;
        loop {
            match text.get(end)? {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        let rest = text[end + 1..].trim_ascii_start();
        self.0 = rest.strip_prefix(b",").unwrap_or(rest);
        Some((name, &text[..end]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(page: &str) -> Load {
        in_pieces(page.as_bytes(), page.len().max(1))
    }

    fn in_pieces(page: &[u8], size: usize) -> Load {
        let mut reading = Exposition::new();
        for piece in page.chunks(size) {
            reading.feed(piece);
        }
        reading.finish()
    }

    #[test]
    fn a_page_of_vllm() {
        let page = "# HELP vllm:num_requests_running Number of requests in model execution batches.\n\
            # TYPE vllm:num_requests_running gauge\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"DeepSeek-R1\"} 12.0\n\
            vllm:num_requests_waiting{engine=\"0\",model_name=\"DeepSeek-R1\"} 3.0\n\
            vllm:num_requests_waiting_by_reason{engine=\"0\",reason=\"capacity\"} 2.0\n\
            vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"DeepSeek-R1\"} 0.4375\n\
            vllm:prompt_tokens_total{engine=\"0\",model_name=\"DeepSeek-R1\"} 1.234567e+06\n\
            vllm:prompt_tokens_created{engine=\"0\",model_name=\"DeepSeek-R1\"} 1.7955e+09\n\
            vllm:prompt_tokens_by_source_total{engine=\"0\",source=\"computed\"} 7.0\n\
            vllm:generation_tokens_total{engine=\"0\",model_name=\"DeepSeek-R1\"} 98765.0\n\
            vllm:request_prompt_tokens_bucket{le=\"1.0\"} 5.0\n";
        let expected = Load {
            running: Some(12),
            waiting: Some(3),
            prompt_tokens: Some(1_234_567),
            generation_tokens: Some(98_765),
            kv_usage: Some(0.4375),
        };
        assert_eq!(read(page), expected);
        // Older names, and no labels at all.
        let old = "vllm:num_requests_running 1\nvllm:gpu_cache_usage_perc 0.25 1795509909123\r\n\
            vllm:generation_tokens_total{model_name=\"a\\\"}\\\\\"} 5";
        let load = read(old);
        assert_eq!((load.running, load.kv_usage), (Some(1), Some(0.25)));
        assert_eq!((load.generation_tokens, load.waiting), (Some(5), None));
    }

    #[test]
    fn a_page_of_sglang() {
        let page = "sglang:num_running_reqs{dp_rank=\"0\",tp_rank=\"0\"} 2\n\
            sglang:num_running_reqs{dp_rank=\"1\",tp_rank=\"0\"} 5\n\
            sglang:num_running_reqs{dp_rank=\"1\",tp_rank=\"1\"} 5\n\
            sglang:num_running_reqs{dp_rank=\"1\",tp_rank=\"0\",pp_rank=\"3\"} 5\n\
            sglang:num_queue_reqs{dp_rank=\"0\"} 1\n\
            sglang:token_usage{dp_rank=\"0\"} 0.41\n\
            sglang:token_usage{dp_rank=\"1\"} 0.93\n\
            sglang_prompt_tokens_total 10\n\
            sglang:generation_tokens_total 20\n";
        assert_eq!(
            read(page),
            Load {
                running: Some(7),
                waiting: Some(1),
                prompt_tokens: Some(10),
                generation_tokens: Some(20),
                kv_usage: Some(0.93),
            }
        );
    }

    #[test]
    fn a_server_without_statistics_says_nothing() {
        assert_eq!(read(""), Load::default());
        assert_eq!(
            read("python_info{version=\"3.12\"} 1.0\nprocess_cpu_seconds_total 5\n"),
            Load::default()
        );
    }

    #[test]
    fn garbage_is_passed_over() {
        let huge = format!(
            "vllm:num_requests_running{{x=\"{}\"}} 4\n",
            "y".repeat(20_000)
        );
        for page in [
            "vllm:num_requests_running",
            "vllm:num_requests_running NaN",
            "vllm:num_requests_running +Inf",
            "vllm:num_requests_running -1",
            "vllm:num_requests_running{",
            "vllm:num_requests_running{a=\"b",
            "vllm:num_requests_running{a=\"b\\",
            "vllm:num_requests_running{a=\"b\"",
            "vllm:num_requests_running{a} 4",
            "vllm:num_requests_running{a=\"b\"}",
            "vllm:num_requests_running x",
            "num_requests_running 4",
            "other:num_requests_running 4",
            &huge,
        ] {
            assert_eq!(read(page), Load::default(), "{page}");
        }
        let mixed = "vllm:num_requests_running NaN\n\u{0}\n\nvllm:num_requests_running 1e300\n\
            vllm:num_requests_running 1\nvllm:kv_cache_usage_perc 17\n";
        let load = read(mixed);
        assert_eq!((load.running, load.kv_usage), (Some(u64::MAX), Some(1.0)));
        let after = format!("{huge}vllm:num_requests_waiting 2\n");
        for size in [1, 100, 20_000, 1 << 20] {
            let load = in_pieces(after.as_bytes(), size);
            assert_eq!((load.running, load.waiting), (None, Some(2)), "{size}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            lines in prop::collection::vec(
                prop_oneof![
                    "vllm:(num_requests_running|prompt_tokens_total)(\\{[a-z]*=\"[a-z\\\\\"]*\"\\})? [0-9.e+-]{0,6}",
                    "[ -~]{0,40}",
                ],
                0..12,
            ),
            size in 1_usize..50,
        ) {
            let page = lines.join("\n");
            prop_assert_eq!(in_pieces(page.as_bytes(), size), read(&page));
        }
    }
}
