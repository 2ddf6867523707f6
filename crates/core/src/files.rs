//! Files that a configuration names beside itself: keys, certificates, lists.
//!
//! A [`FilePlace`] is a path, or `credential:NAME` for a file that systemd or a container runtime has
//! put into `$CREDENTIALS_DIRECTORY`. What must stay secret is read with [`FilePlace::read_secret`],
//! which refuses a file that others could read or replace.

use std::env;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::sandbox::hint;

/// Where a file is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum FilePlace {
    /// A path, relative to the working directory when it does not begin with `/`.
    Path(PathBuf),
    /// The name of a file in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// Whether a secret may be reached through a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// The last part of the path may be a link, as in certbot's `live` directories; the file that it
    /// leads to is checked.
    Followed,
    /// The file itself must stand there.
    Refused,
}

/// Why a file cannot be used, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system says no.
    #[error("{path} cannot be read: {error}{hint}", hint = hint(error))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A symbolic link where none may be.
    #[error("{0} is a symbolic link, which somebody else could turn; name the file itself")]
    Link(PathBuf),
    /// A directory, a device, a socket.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// Over the cap.
    #[error("{path} is larger than {cap} bytes; is it the right file?")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The cap.
        cap: u64,
    },
    /// Group or others have rights to it.
    #[error("{path} has mode {mode:04o}; a secret is for its owner alone: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user, who could change it.
    #[error(
        "{path} belongs to uid {owner}; a secret must belong to the user that runs this or to root"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// `credential:` without a directory of credentials.
    #[error(
        "credential:{0} is named, but $CREDENTIALS_DIRECTORY is not set; start with \
         LoadCredential={0}:/PATH (systemd) or write the path"
    )]
    NoCredentials(String),
}

/// `credential:` is followed by something that is not a file name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' does not name a file; write a path or credential:NAME")]
pub struct PlaceError(String);

impl FilePlace {
    /// The path behind it.
    pub fn path(&self) -> Result<PathBuf, FileError> {
        match self {
            Self::Path(path) => Ok(path.clone()),
            Self::Credential(name) => match env::var_os("CREDENTIALS_DIRECTORY") {
                Some(directory) => Ok(Path::new(&directory).join(name)),
                None => Err(FileError::NoCredentials(name.clone())),
            },
        }
    }

    /// Reads a file that anybody may know, of at most `cap` bytes.
    pub fn read(&self, cap: u64) -> Result<Vec<u8>, FileError> {
        let path = self.path()?;
        let (file, _) = open(&path, 0)?;
        read_up_to(file, &path, cap)
    }

    /// Reads a file that nobody else may know, of at most `cap` bytes: a regular file without any
    /// rights for group and others, that belongs to us or to root.
    ///
    /// What systemd passes in `$CREDENTIALS_DIRECTORY` may show rights for its group: there they are
    /// the mask of an access list that names our user alone, in a directory that is closed to others.
    pub fn read_secret(&self, links: Links, cap: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
        let path = self.path()?;
        let flags = match links {
            Links::Followed => 0,
            Links::Refused => libc::O_NOFOLLOW,
        };
        let (file, metadata) = open(&path, flags)?;
        let forbidden = match self {
            Self::Path(_) => 0o077,
            Self::Credential(_) => 0o007,
        };
        let mode = metadata.mode() & 0o7777;
        if mode & forbidden != 0 {
            return Err(FileError::Exposed { path, mode });
        }
        let owner = metadata.uid();
        if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
            return Err(FileError::Foreign { path, owner });
        }
        read_up_to(file, &path, cap).map(Zeroizing::new)
    }
}

fn open(path: &Path, flags: i32) -> Result<(File, Metadata), FileError> {
    let unreadable = |error: io::Error| {
        if error.raw_os_error() == Some(libc::ELOOP) {
            FileError::Link(path.into())
        } else {
            let path = path.into();
            FileError::Unreadable { path, error }
        }
    };
    // A FIFO would make us wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile(path.into()));
    }
    Ok((file, metadata))
}

fn read_up_to(file: File, path: &Path, cap: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    if let Err(error) = file.take(cap + 1).read_to_end(&mut bytes) {
        let path = path.into();
        return Err(FileError::Unreadable { path, error });
    }
    if bytes.len() as u64 > cap {
        let path = path.into();
        return Err(FileError::TooLarge { path, cap });
    }
    Ok(bytes)
}

impl FromStr for FilePlace {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        match text.strip_prefix("credential:") {
            // A name with a slash would lead out of the directory.
            Some(name) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
                Err(PlaceError(text.into()))
            }
            Some(name) => Ok(Self::Credential(name.into())),
            None if text.is_empty() => Err(PlaceError(text.into())),
            None => Ok(Self::Path(text.into())),
        }
    }
}

impl TryFrom<String> for FilePlace {
    type Error = PlaceError;

    fn try_from(text: String) -> Result<Self, PlaceError> {
        text.parse()
    }
}

impl From<FilePlace> for String {
    fn from(place: FilePlace) -> Self {
        place.to_string()
    }
}

impl fmt::Display for FilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Credential(name) => write!(f, "credential:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn secret(directory: &Path, name: &str, mode: u32) -> FilePlace {
        let path = directory.join(name);
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        FilePlace::Path(path)
    }

    #[test]
    fn a_secret_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let good = secret(directory.path(), "good", 0o600);
        assert_eq!(&**good.read_secret(Links::Refused, 6).unwrap(), b"secret");
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601] {
            let place = secret(directory.path(), "open", mode);
            let error = place.read_secret(Links::Refused, 6).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn links_and_other_things_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let good = secret(directory.path(), "good", 0o600);
        let link = directory.path().join("link");
        symlink(good.path().unwrap(), &link).unwrap();
        let link = FilePlace::Path(link);
        assert!(link.read_secret(Links::Followed, 6).is_ok());
        assert!(matches!(
            link.read_secret(Links::Refused, 6),
            Err(FileError::Link(_))
        ));
        let directory = FilePlace::Path(directory.path().into());
        assert!(matches!(directory.read(6), Err(FileError::NotAFile(_))));
    }

    #[test]
    fn nothing_over_the_cap_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let place = secret(directory.path(), "large", 0o600);
        assert!(place.read(6).is_ok());
        assert!(matches!(
            place.read(5),
            Err(FileError::TooLarge { cap: 5, .. })
        ));
    }

    #[test]
    fn a_place_is_spelled_one_way() {
        for text in ["/etc/key", "key", "credential:key"] {
            assert_eq!(text.parse::<FilePlace>().unwrap().to_string(), text);
        }
        for text in ["", "credential:", "credential:../key", "credential:a/b"] {
            assert!(text.parse::<FilePlace>().is_err(), "{text}");
        }
    }
}
