//! Sluicegate, the gateway in front of a pool of LLM inference servers.
//!
//! Modules in the order a newcomer should read them. Each may use those above it.

pub mod config;

pub mod openai;

pub mod engine;

pub mod upstream;

pub mod pool;

pub mod balance;

pub mod routing;

pub mod telemetry;

pub mod admission;

pub mod snapshot;

pub mod listener;

pub mod relay;

pub mod local;

pub mod proxy;

pub mod tasks;

pub mod server;

pub mod run;

pub mod import;

pub mod key;

pub mod ask;

pub mod drain;

pub mod ready;

pub mod demo;

pub mod generate;

pub mod cli;
