//! Names that were probably meant, for messages about names that do not exist.

/// Names that are looked at: a client may ask for what does not exist as often as it likes.
const LOOKED_AT: usize = 1000;
/// Comparisons that take time by the square of the length.
const COMPARED: usize = 200;
/// Of a text that is compared, in bytes.
const LONGEST: usize = 128;

/// At most `most` of `names` that `text` was probably meant to be, the nearest first. Neither the
/// case nor what stands before the last `/` (as in `deepseek-ai/DeepSeek-R1`) has to be right. The
/// work is bounded: among many names not every near one is found.
pub(crate) fn similar<'a>(
    text: &str,
    names: impl Iterator<Item = &'a str>,
    most: usize,
) -> Vec<&'a str> {
    if text.is_empty() || text.len() > LONGEST {
        return Vec::new();
    }
    let text = text.to_lowercase();
    let length = text.chars().count();
    let mut compared = 0;
    let mut found: Vec<(usize, &str)> = Vec::new();
    for name in names.take(LOOKED_AT) {
        if name.len() > LONGEST {
            continue;
        }
        let lower = name.to_lowercase();
        let distance = if lower == text {
            0
        } else if last_part(&lower) == last_part(&text) {
            1
        } else {
            let longest = lower.chars().count();
            let tolerated = (length.min(longest) / 3).min(3);
            if length.abs_diff(longest) > tolerated || compared >= COMPARED {
                continue;
            }
            compared += 1;
            let distance = strsim::osa_distance(&text, &lower);
            if distance > tolerated {
                continue;
            }
            distance
        };
        found.push((distance, name));
    }
    found.sort_by_key(|(distance, _)| *distance);
    found.into_iter().take(most).map(|(_, name)| name).collect()
}

fn last_part(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["DeepSeek-R1", "DeepSeek-V3", "gpt-oss-120b", "r1", "*"];

    fn found(text: &str) -> Vec<&'static str> {
        similar(text, NAMES.into_iter(), 3)
    }

    #[test]
    fn finds_slips_other_cases_and_other_owners() {
        assert_eq!(found("deepseek-r1"), ["DeepSeek-R1", "DeepSeek-V3"]);
        assert_eq!(found("deepseek-ai/DeepSeek-V3"), ["DeepSeek-V3"]);
        assert_eq!(found("DeepSek-V3"), ["DeepSeek-V3", "DeepSeek-R1"]);
        assert_eq!(found("gpt-oss-20b"), ["gpt-oss-120b"]);
        assert_eq!(found("llama"), [""; 0]);
        assert_eq!(found(""), [""; 0]);
    }

    #[test]
    fn the_nearest_come_first_and_are_few() {
        let names = ["aaaaaaaaab", "aaaaaaaabb", "aaaaaaaabc", "aaaaaaaaaa"];
        assert_eq!(
            similar("aaaaaaaaaa", names.into_iter(), 3),
            ["aaaaaaaaaa", "aaaaaaaaab", "aaaaaaaabb"]
        );
    }

    #[test]
    fn the_work_has_an_end() {
        assert!(similar(&"x".repeat(1 << 20), NAMES.into_iter(), 3).is_empty());
        let mut looked_at = 0;
        let names = std::iter::repeat_with(|| "model-of-somebody").take(100_000);
        let _ = similar("model-of-anybody", names.inspect(|_| looked_at += 1), 3);
        assert_eq!(looked_at, LOOKED_AT);
    }
}
