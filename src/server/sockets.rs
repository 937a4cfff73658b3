//! The listening sockets that a configuration asks for.

use log::warn;

use crate::config::{Config, ListenAddress};
use crate::listener::handover::Inherited;
use crate::listener::{self, BindError, Bound, Role};

/// A socket for every listener: one of the process before where there is one, else a new one.
///
/// # Errors
/// An address is taken, or may not be had. Only an admin socket on the file system is done without then.
pub(super) fn bind(config: &Config, inherited: &mut Inherited) -> Result<Vec<Bound>, BindError> {
    let mut bound = Vec::new();
    // What is inherited is taken first: what is left may be in the way of what is new.
    let mut missing = Vec::new();
    let public = config.listen.iter().map(|listen| (listen, Role::Public));
    let admin = config.admin.iter().map(|listen| (listen, Role::Admin));
    for (place, (listen, role)) in public.chain(admin).enumerate() {
        match inherited.take(listen, role) {
            Some(one) => bound.push((place, one)),
            None => missing.push((place, listen, role)),
        }
    }
    for (place, listen, role) in missing {
        if role == Role::Admin
            && let ListenAddress::Unix(path) = &listen.address
            && let Some(directory) = path.parent()
            && !directory.exists()
            // Under systemd the directory is there already; elsewhere the socket is a convenience.
            && let Err(e) = std::fs::create_dir(directory)
        {
            warn!(
                "no admin socket at {}: {}: {e}",
                path.display(),
                directory.display()
            );
            continue;
        }
        match listener::bind(listen, role) {
            Ok(one) => bound.push((place, one)),
            Err(e)
                if role == Role::Admin
                    && matches!(listen.address, ListenAddress::Unix(_))
                    && e.is_permission() =>
            {
                warn!("no admin socket: {e}");
            }
            Err(e) => return Err(e.taken_by(inherited.excluding(&listen.address))),
        }
    }
    // As the configuration lists them.
    bound.sort_by_key(|(place, _)| *place);
    Ok(bound.into_iter().map(|(_, one)| one).collect())
}
