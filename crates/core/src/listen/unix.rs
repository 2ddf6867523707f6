//! Unix sockets: created with the right mode from the first moment, never stolen from a live
//! server, removed only if they are still ours.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::{Mode, fchmod, umask};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Bound, ListenError, Shape, kernel_error};
use crate::config::SocketOptions;
use crate::endpoint::{Endpoint, Transport};

/// The file of a Unix socket that we bound. Dropping it removes the file, unless somebody has put
/// another one in its place.
#[derive(Debug)]
pub struct UnixFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    charge: Charge,
}

/// Whether this process is in charge of the sockets that a predecessor had bound. Until it is, their
/// files are the predecessor's, who may have to go on.
#[derive(Debug, Clone, Default)]
pub struct Charge(Arc<AtomicBool>);

impl Charge {
    /// From here on it is.
    pub fn take(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn taken() -> Self {
        let charge = Self::default();
        charge.take();
        charge
    }
}

pub(super) fn bind_path(
    endpoint: &Endpoint,
    path: &Path,
    transport: Transport,
    options: &SocketOptions,
) -> Result<Vec<Bound>, ListenError> {
    let kernel = |error| kernel_error(endpoint, error);
    if let Some(parent) = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty() && !p.exists())
    {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(kernel)?;
    }
    clear_stale(endpoint, path, transport)?;
    let socket = new_socket(transport).map_err(kernel)?;
    let address = SockAddr::unix(path).map_err(kernel)?;
    // The file has its mode from its first moment: a chmod behind the bind would leave a time between
    // (CVE-2023-45145 was that race), and the sandbox knows no chmod. bind(2) takes the mode of the
    // socket without the bits of the mask, or of the directory's default access list where it has one.
    let mode = Mode::from_bits_truncate(options.mode.0);
    fchmod(&socket, mode).map_err(|errno| kernel(errno.into()))?;
    let previous = umask(Mode::from_bits_truncate(0o777).difference(mode));
    let result = socket.bind(&address);
    umask(previous);
    result.map_err(kernel)?;
    let file = UnixFile::new(path).map_err(kernel)?;
    finish(endpoint, socket, transport, options, Some(file)).map_err(kernel)
}

pub(super) fn bind_abstract(
    endpoint: &Endpoint,
    name: &str,
    transport: Transport,
    options: &SocketOptions,
) -> Result<Vec<Bound>, ListenError> {
    let kernel = |error| kernel_error(endpoint, error);
    let socket = new_socket(transport).map_err(kernel)?;
    // A path that starts with a NUL byte is an abstract name (unix(7)).
    let address = SockAddr::unix(format!("\0{name}")).map_err(kernel)?;
    socket.bind(&address).map_err(kernel)?;
    finish(endpoint, socket, transport, options, None).map_err(kernel)
}

fn finish(
    endpoint: &Endpoint,
    socket: Socket,
    transport: Transport,
    options: &SocketOptions,
    file: Option<UnixFile>,
) -> io::Result<Vec<Bound>> {
    let shape = match transport {
        Transport::Stream | Transport::SeqPacket => {
            socket.listen(i32::try_from(options.backlog.get()).unwrap_or(i32::MAX))?;
            Shape::Listening
        }
        Transport::Datagram => Shape::Datagram,
    };
    Ok(vec![Bound {
        endpoint: endpoint.clone(),
        socket,
        shape,
        inherited: false,
        file,
    }])
}

/// Removes a socket file behind which nobody answers; refuses everything else that is in the way.
fn clear_stale(endpoint: &Endpoint, path: &Path, transport: Transport) -> Result<(), ListenError> {
    let kernel = |error| kernel_error(endpoint, error);
    let before = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(kernel(error)),
    };
    if !before.file_type().is_socket() {
        return Err(ListenError::Taken(
            endpoint.clone(),
            "a file that is not a socket is in its place; move it away or choose another path",
        ));
    }
    let probe = new_socket(transport).map_err(kernel)?;
    let address = SockAddr::unix(path).map_err(kernel)?;
    match probe.connect(&address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Connected, a full backlog (WouldBlock) or the wrong type: somebody lives there.
        _ => {
            return Err(ListenError::Taken(
                endpoint.clone(),
                "another program answers there; stop it or choose another path",
            ));
        }
    }
    let file = UnixFile {
        path: path.into(),
        device: before.dev(),
        inode: before.ino(),
        charge: Charge::taken(),
    };
    drop(file);
    Ok(())
}

fn new_socket(transport: Transport) -> io::Result<Socket> {
    let kind = match transport {
        Transport::Stream => Type::STREAM,
        Transport::SeqPacket => Type::SEQPACKET,
        Transport::Datagram => Type::DGRAM,
    };
    Socket::new(Domain::UNIX, kind.nonblocking(), None)
}

impl UnixFile {
    /// The file of a socket that a predecessor had bound here, if it is still there.
    pub(super) fn find(path: &Path, charge: &Charge) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        let is_socket = metadata.file_type().is_socket();
        let mut file = is_socket.then(|| Self::new(path).ok()).flatten()?;
        file.charge = charge.clone();
        Some(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the file where it is: another process serves the socket from here on.
    pub fn leave(mut self) {
        self.path = PathBuf::new();
    }

    fn new(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.into(),
            device: metadata.dev(),
            inode: metadata.ino(),
            charge: Charge::taken(),
        })
    }
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path)
            .is_ok_and(|now| now.dev() == self.device && now.ino() == self.inode);
        if same && self.charge.is_taken() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::{Inherited, open};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    fn listen(path: &Path) -> Result<Vec<Bound>, ListenError> {
        open(
            &Endpoint::Unix(path.into()),
            Transport::Stream,
            &SocketOptions::default(),
            &mut Inherited::none(),
            2,
            None,
        )
    }

    #[test]
    fn a_live_server_and_a_plain_file_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let live = dir.path().join("live.sock");
        let _server = UnixListener::bind(&live).unwrap();
        assert!(
            listen(&live)
                .unwrap_err()
                .to_string()
                .contains("another program answers")
        );
        let plain = dir.path().join("plain");
        fs::write(&plain, "keep").unwrap();
        assert!(
            listen(&plain)
                .unwrap_err()
                .to_string()
                .contains("not a socket")
        );
        assert_eq!(fs::read_to_string(&plain).unwrap(), "keep");
    }

    #[test]
    fn a_stale_socket_is_replaced_and_ours_is_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/dir/x.sock");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        let bound = listen(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_missing_directory_is_made_for_us_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/x.sock");
        let _bound = listen(&path).unwrap();
        let mode = fs::metadata(path.parent().unwrap())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn somebody_elses_file_in_our_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let bound = listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "other").unwrap();
        drop(bound);
        assert!(path.exists());
    }
}
