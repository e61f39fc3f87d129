//! How daemons behave to those who start and watch them.

mod config;
mod health;
mod process;
mod serve;
