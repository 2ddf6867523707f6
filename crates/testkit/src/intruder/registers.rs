//! Where a processor has a system call's number, arguments and result.

use nix::libc::{self, user_regs_struct};

/// The instruction that makes a call.
#[cfg(target_arch = "x86_64")]
pub(super) const CALL: [u8; 2] = [0x0f, 0x05];

/// Prepares a call by the instruction at an address.
#[cfg(target_arch = "x86_64")]
pub(super) fn set_call(
    registers: &mut user_regs_struct,
    at: u64,
    number: libc::c_long,
    arguments: &[u64],
) {
    let argument = |position: usize| arguments.get(position).copied().unwrap_or(0);
    registers.rip = at;
    registers.rax = number.cast_unsigned();
    // No call is interrupted any more, so none is to be restarted.
    registers.orig_rax = u64::MAX;
    registers.rdi = argument(0);
    registers.rsi = argument(1);
    registers.rdx = argument(2);
    registers.r10 = argument(3);
    registers.r8 = argument(4);
    registers.r9 = argument(5);
}

/// What a call has returned.
#[cfg(target_arch = "x86_64")]
pub(super) fn result(registers: &user_regs_struct) -> i64 {
    registers.rax.cast_signed()
}

/// The address of the next instruction.
#[cfg(target_arch = "x86_64")]
pub(super) fn program_counter(registers: &user_regs_struct) -> u64 {
    registers.rip
}

/// The top of the stack.
#[cfg(target_arch = "x86_64")]
pub(super) fn stack(registers: &user_regs_struct) -> u64 {
    registers.rsp
}

/// The instruction that makes a call.
#[cfg(target_arch = "aarch64")]
pub(super) const CALL: [u8; 4] = [0x01, 0x00, 0x00, 0xd4];

/// Prepares a call by the instruction at an address.
#[cfg(target_arch = "aarch64")]
pub(super) fn set_call(
    registers: &mut user_regs_struct,
    at: u64,
    number: libc::c_long,
    arguments: &[u64],
) {
    registers.pc = at;
    registers.regs[8] = number.cast_unsigned();
    for (position, register) in registers.regs.iter_mut().take(6).enumerate() {
        *register = arguments.get(position).copied().unwrap_or(0);
    }
}

/// What a call has returned.
#[cfg(target_arch = "aarch64")]
pub(super) fn result(registers: &user_regs_struct) -> i64 {
    registers.regs[0].cast_signed()
}

/// The address of the next instruction.
#[cfg(target_arch = "aarch64")]
pub(super) fn program_counter(registers: &user_regs_struct) -> u64 {
    registers.pc
}

/// The top of the stack.
#[cfg(target_arch = "aarch64")]
pub(super) fn stack(registers: &user_regs_struct) -> u64 {
    registers.sp
}
