//! io_uring forbidden by a seccomp filter, as the default profiles of container engines do: the error must say who
//! forbids it and what helps. The filter is set on a thread of the test's own, and goes with it.

use echometer_ring::{Config, Ring, SetupError};

#[test]
fn a_seccomp_filter_is_named_with_its_cure() {
    let denied = std::thread::spawn(|| {
        forbid_io_uring_setup();
        Ring::new(&Config::default()).map(drop)
    });
    let error = denied.join().expect("the thread ends").unwrap_err();
    assert!(matches!(error, SetupError::Denied { .. }), "{error:?}");
    assert!(error.is_unavailable(), "so that auto falls back");
    let text = error.to_string();
    assert!(
        text.contains("seccomp") && text.contains("seccomp=unconfined"),
        "{text}"
    );
}

/// Makes `io_uring_setup` answer EPERM on this thread (seccomp(2), filters on the call's number).
fn forbid_io_uring_setup() {
    let jump = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut filter = [
        // The first word of `struct seccomp_data` is the number of the call.
        jump(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        jump(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::SYS_io_uring_setup as u32,
            0,
            1,
        ),
        jump(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
            0,
            0,
        ),
        jump(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: both calls only change what this thread may do; the program and its filter outlive the second, which
    // copies them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program),
            0
        );
    }
}
