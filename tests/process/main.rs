//! The program itself, as a process: bad input byte by byte, signals, the command line, real clients.

mod bad_requests;
mod gateway;
mod recorder;
mod wire;
