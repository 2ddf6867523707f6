//! Everything of Portyard that touches the operating system, once.
//!
//! A daemon's `main` is one call of [`daemon::run`], which reads in boot order: the command line
//! ([`cli`]), one TOML file ([`config`]), the log ([`observe`]), the sockets ([`endpoint`],
//! [`listen`]), the [`sandbox`], then a control thread and one [`event_loop`] per core, READY
//! ([`life`]), and in the end the drain.
//!
//! What arrives at a socket flows one of two ways. A stream goes through [`serve`]: accept, permit
//! ([`limits`], [`listener`]), access list ([`access`]), service. A datagram goes through
//! [`datagram`]: batch, source guard, access list, rate, service, batch. Services answer with the
//! pure protocols of [`wire`]; what would stall a loop goes to the [`offload`] pool.
//!
//! What one process opens, another can use: [`fdpass`] passes descriptors between them, and
//! [`sockdiag`] asks the kernel what became of them. [`worker`] is what a program needs to be
//! given connections by fd-broker.
//!
//! [`sys`] is the one module with `unsafe`.

pub mod access;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod datagram;
pub mod endpoint;
pub mod event_loop;
pub mod exit;
pub mod fdpass;
pub mod files;
pub mod holding;
pub mod life;
pub mod limits;
pub mod listen;
pub mod listener;
pub mod observe;
pub mod offload;
pub mod sandbox;
pub mod serve;
pub mod sockdiag;
pub mod sys;
pub mod tls;
pub mod worker;

pub use portyard_wire as wire;

/// An idle connection is a few blocks of memory with odd alignments; this allocator packs them 17 %
/// tighter than glibc's and is no slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
