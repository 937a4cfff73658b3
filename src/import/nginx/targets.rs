//! The names in `proxy_pass`: whether one was meant for an upstream.

use super::notes::Notes;
use super::site::{Site, Target};
use super::tree::quoted;

/// Comparing takes time by the square of the length.
const LONGEST: usize = 64;
/// Names that are compared, with so many upstreams.
const MOST_NAMES: usize = 100;
const MOST_UPSTREAMS: usize = 1000;

/// Notes names that are nearly an upstream's, and mistakes that nginx would refuse.
pub(super) fn check(site: &Site<'_>, notes: &mut Notes) {
    let mut compared: Vec<&str> = Vec::new();
    let locations = site.servers.iter().flat_map(|server| &server.locations);
    for target in locations.filter_map(|location| location.target.as_ref()) {
        let name = target.authority.as_str();
        if name.starts_with("unix:") || site.upstream(name).is_some() {
            continue;
        }
        if let Some((host, port)) = name.rsplit_once(':')
            && site.upstream(host).is_some()
        {
            let port = quoted(port);
            let what = format!(
                "upstream {} may not have a port here; its servers have theirs: remove :{}",
                quoted(host),
                port.trim_matches('"')
            );
            notes.mistake(target.proxy_pass, what);
            continue;
        }
        let is_bare = name.len() <= LONGEST && !name.contains(['.', ':']);
        if is_bare && compared.len() < MOST_NAMES && !compared.contains(&name) {
            compared.push(name);
            meant(site, target, notes);
        }
    }
}

fn meant(site: &Site<'_>, target: &Target<'_>, notes: &mut Notes) {
    let name = target.authority.to_ascii_lowercase();
    let known = site.upstreams().map(|upstream| upstream.arg(0));
    let nearest = known
        .take(MOST_UPSTREAMS)
        .filter(|known| known.len() <= LONGEST)
        .map(|known| {
            let distance = strsim::damerau_levenshtein(&name, &known.to_ascii_lowercase());
            (distance, known)
        })
        .filter(|(distance, known)| *distance <= (known.len() / 3).min(3))
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, near)) = nearest {
        let port = if target.tls { 443 } else { 80 };
        notes.differs(target.proxy_pass, format!(
            "no upstream is named {}, so it is the host of that name, port {port}; did you mean upstream {}?",
            quoted(&target.authority),
            quoted(near)
        ));
    }
}
