//! The one place with `unsafe`: the few system calls that no safe wrapper offers as we need them.
//!
//! Everything here is a thin, checked step, in one file for each noun: this process, a socket, a
//! message with descriptors, a file, a child, a denied call, a batch of datagrams.
#![expect(
    unsafe_code,
    reason = "the only module of the workspace that may use it"
)]

mod batch;
mod child;
mod denied;
mod file;
mod message;
mod process;
mod socket;

use std::mem::size_of;

pub use batch::{Batch, Datagram, Reply};
pub use child::{ChildSetup, ChildStep, ChildUser, child_descriptor, child_fault, set_up_child};
pub use denied::answer_denied_calls;
pub use file::{Unnamed, Window, populate, send_file};
pub use message::{DESCRIPTORS_MAX, Incoming, receive_message, send_message};
pub use process::{adopt, forget_variables, give_memory_back};
pub use socket::{
    read_option, register, register_descriptor, register_for, register_owned, set_defer_accept,
    set_filter, set_pass_rights, unread, unsent,
};

fn length_of<T>() -> libc::socklen_t {
    // The structures of the socket API are far below 4 GiB.
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}
