//! The program itself, as a process: bad input byte by byte, signals, the command line, real clients.

mod bad_engines;
mod bad_http2;
mod bad_requests;
mod certificates;
mod command_line;
mod gateway;
mod real_clients;
mod recorder;
mod reload_storm;
mod signals;
mod slow_clients;
mod starved;
mod systemd;
mod wire;
