//! Installs a filter program.

use rustix::io::Errno;

use super::exec::check;

/// One instruction of a classic BPF program.
pub(crate) type Instruction = libc::sock_filter;

/// Puts `program` in force for the calling thread and all it becomes. Needs `no_new_privs` or `CAP_SYS_ADMIN`.
pub(crate) fn install(program: &[Instruction]) -> Result<(), Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    // The kernel only reads; the field is a mutable pointer for historical reasons.
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `filter` describes `program`, which is valid for reads during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0 as libc::c_uint, &raw const filter)
    };
    check(result).map(drop)
}
