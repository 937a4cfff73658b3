//! The program itself, as a process: bad input byte by byte, signals, the command line, real clients.

mod bad_engines;
mod bad_requests;
mod bad_http2;
mod certificates;
mod gateway;
mod recorder;
mod slow_clients;
mod wire;
