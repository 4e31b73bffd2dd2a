//! The io_uring engine as an ordinary user runs it. Root is exempt from the limit on locked memory, so as root these
//! tests start the server as another user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Process, close, connect_to, echo};

/// Nobody, as distributions have it.
const NOBODY: u32 = 65_534;

#[test]
fn eight_mebibytes_and_a_thousand_descriptors_are_enough() {
    let server = Nobody::new("ulimit -l 8192 && ulimit -n 1024");
    let process = Process::spawn(server.command(), &["--engine", "uring", "--threads", "2"]);
    let mut streams: Vec<_> = (0..200).map(|_| connect_to(process.address)).collect();
    for stream in &mut streams {
        echo(stream, b"an ordinary user's");
    }
    streams.iter_mut().for_each(close);
}

#[test]
fn too_little_locked_memory_is_an_error_that_names_the_limit() {
    let server = Nobody::new("ulimit -l 16");
    let output = server
        .command()
        .args([
            "--engine",
            "uring",
            "--listen",
            "127.0.0.1:0",
            "--threads",
            "1",
        ])
        .output()
        .expect("the binary is built");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("memlock")
            && stderr.contains("16384 now")
            && stderr.contains("bytes are needed"),
        "{stderr}"
    );
    assert!(output.stdout.is_empty() && !stderr.contains("panicked"));
}

/// The server's binary where another user can run it, and how.
struct Nobody {
    _folder: tempfile::TempDir,
    binary: PathBuf,
    limits: &'static str,
}

impl Nobody {
    fn new(limits: &'static str) -> Nobody {
        let folder = tempfile::tempdir().expect("a folder");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open).expect("ours");
        let binary = folder.path().join("echometer-server");
        fs::copy(env!("CARGO_BIN_EXE_echometer-server"), &binary).expect("room");
        Nobody {
            _folder: folder,
            binary,
            limits,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{} && exec \"$@\"", self.limits), "sh"]);
        command.arg(&self.binary).current_dir("/");
        if rustix::process::getuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}
