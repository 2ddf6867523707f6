//! kv-rpc, a durable key/value store behind several RPC protocols: its parts.

pub mod store;
