//! core
pub mod access;
pub mod config;
pub mod endpoint;
pub mod exit;
pub mod listen;
pub mod sys;
