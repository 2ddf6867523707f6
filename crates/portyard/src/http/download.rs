//! An answer's body into a file, which is there whole or not at all.
//!
//! What comes is written to `FILE.part`, which is renamed when it is complete. Beside it `FILE.part.from`
//! says of what it is a part, so that a later run can ask for the rest, and only for the rest of that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderName, LAST_MODIFIED};
use hyper::{HeaderMap, StatusCode};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::http::ContentRange;
use serde::{Deserialize, Serialize};
use url::Url;

use super::session::Field;
use crate::out::complain;

/// A file that is being fetched.
pub struct Download {
    place: PathBuf,
    url: String,
    force: bool,
    sink: Sink,
    /// Bytes that are there.
    have: u64,
    /// Of what they are a part, if more of it can be asked for.
    source: Option<Source>,
}

enum Sink {
    /// `FILE.part`, which is ours as long as it is locked.
    Part(Flock<File>),
    /// A device or a pipe.
    Stream(File),
}

/// What a part is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    url: String,
    /// An entity tag, or a date: what `If-Range` says.
    validator: String,
    length: Option<u64>,
}

/// What an answer brings.
#[derive(Debug, PartialEq, Eq)]
pub enum Brings {
    /// Bytes to be written; how many will be there in the end, and how many are there already.
    Bytes {
        /// `None`: nobody knows.
        total: Option<u64>,
        /// Those that need not come again.
        have: u64,
    },
    /// Nothing: the file is complete.
    Nothing,
}

impl Download {
    /// To `place`. What is there stays unless `force`; with `resume` what an earlier run has left
    /// of the same URL need not come again.
    pub fn begin(place: &Path, url: &Url, force: bool, resume: bool) -> Result<Self, Fatal> {
        let mut url = url.clone();
        url.set_fragment(None);
        let mut download = Self {
            place: place.into(),
            url: url.into(),
            force,
            sink: open(place, force)?,
            have: 0,
            source: None,
        };
        if resume {
            download.look_back()?;
        }
        Ok(download)
    }

    /// What an earlier run has left.
    fn look_back(&mut self) -> Result<(), Fatal> {
        let Sink::Part(part) = &self.sink else {
            return Ok(());
        };
        let length = part.metadata().map_err(|error| self.failure(&error))?.len();
        if length == 0 {
            return Ok(());
        }
        match read_source(&beside(&self.place, ".part.from")) {
            Some(source) if source.url == self.url => {
                self.have = length;
                self.source = Some(source);
            }
            Some(_) => complain("what is there is of another URL; starting over"),
            None => complain(
                "nothing says of what the part is that is there, or the server gave it no tag; \
                 starting over",
            ),
        }
        Ok(())
    }

    /// What to add to the request.
    pub fn fields(&self) -> Vec<Field> {
        let field = |name: &str, value: String| Field {
            name: name.into(),
            value: value.into(),
            is_given: false,
        };
        let mut fields = Vec::new();
        if let Some(source) = &self.source
            && self.have > 0
        {
            fields.push(field("Range", format!("bytes={}-", self.have)));
            fields.push(field("If-Range", source.validator.clone()));
        }
        fields
    }

    /// Whether the rest can be asked for when the connection breaks now.
    pub fn can_go_on(&self) -> bool {
        self.have == 0 || self.source.is_some()
    }

    /// Bytes that are there.
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Looks at an answer that is no failure, and makes ready for its body, whose length is `length`.
    pub fn accept(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
        length: Option<u64>,
    ) -> Result<Brings, Fatal> {
        let asked = !self.fields().is_empty();
        let range = fields.get(CONTENT_RANGE).map(|value| {
            let text = value.to_str().unwrap_or_default();
            ContentRange::parse(text).ok_or_else(|| odd(&format!("with Content-Range: {text}")))
        });
        match status {
            StatusCode::PARTIAL_CONTENT if asked => {
                let (first, last, total) = match range.transpose()? {
                    Some(ContentRange::Part {
                        first,
                        last,
                        length,
                    }) => (first, last, length),
                    _ if text(fields, &CONTENT_TYPE).starts_with("multipart/") => {
                        return Err(odd("with several parts"));
                    }
                    _ => return Err(odd("without a Content-Range")),
                };
                self.check_part(first, last, total, length, fields)?;
                Ok(Brings::Bytes {
                    total,
                    have: self.have,
                })
            }
            StatusCode::RANGE_NOT_SATISFIABLE if asked => match range.transpose()? {
                Some(ContentRange::Unsatisfied { length }) if length == self.have => {
                    Ok(Brings::Nothing)
                }
                _ => Err(Fatal::new(
                    Exit::Data,
                    format!(
                        "the server has not more than the {} bytes that are there, and another \
                         file; leave out --resume to start over",
                        self.have
                    ),
                )),
            },
            StatusCode::PARTIAL_CONTENT => Err(odd("with a part, and the whole was asked for")),
            _ => {
                if self.have > 0 {
                    complain(
                        "the server has another file by now, or sends no parts; starting over",
                    );
                }
                self.start_over()?;
                self.remember(fields, length)?;
                Ok(Brings::Bytes {
                    total: length,
                    have: 0,
                })
            }
        }
    }

    /// Whether what comes fits behind what is there.
    fn check_part(
        &self,
        first: u64,
        last: u64,
        total: Option<u64>,
        length: Option<u64>,
        fields: &HeaderMap,
    ) -> Result<(), Fatal> {
        if first != self.have {
            return Err(odd(&format!(
                "with the bytes from {first}, and those from {} were asked for",
                self.have
            )));
        }
        if total.is_some_and(|total| last + 1 != total) {
            return Err(odd("with less than the rest"));
        }
        if length.is_some_and(|length| length != last - first + 1) {
            return Err(odd("with another length than its range has"));
        }
        let known = self.source.as_ref();
        let known_length = known.and_then(|source| source.length);
        if total
            .zip(known_length)
            .is_some_and(|(now, then)| now != then)
        {
            return Err(odd("with a part of a file of another length"));
        }
        // RFC 9110, 15.3.7: it must be there, and the same.
        let tag = text(fields, &ETAG);
        let then = known.map_or("", |source| &source.validator);
        if then.starts_with('"') && !tag.is_empty() && tag != then {
            return Err(odd("with a part of another version of the file"));
        }
        Ok(())
    }

    fn start_over(&mut self) -> Result<(), Fatal> {
        self.have = 0;
        self.source = None;
        if let Sink::Part(part) = &mut self.sink {
            let emptied = part.set_len(0).and_then(|()| part.seek(SeekFrom::Start(0)));
            emptied.map_err(|error| failure(&self.place, &error))?;
            remove(&beside(&self.place, ".part.from"));
        }
        Ok(())
    }

    /// Writes down what the part will be a part of.
    fn remember(&mut self, fields: &HeaderMap, length: Option<u64>) -> Result<(), Fatal> {
        let (Some(validator), Sink::Part(_)) = (validator(fields), &self.sink) else {
            return Ok(());
        };
        let source = Source {
            url: self.url.clone(),
            validator,
            length,
        };
        let text = serde_json::to_string(&source)
            .map_err(|error| Fatal::new(Exit::Software, format!("cannot write JSON: {error}")))?;
        // A URL may hold a key.
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(beside(&self.place, ".part.from"))
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| self.failure(&error))?;
        self.source = Some(source);
        Ok(())
    }

    /// Writes what has come.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Fatal> {
        let written = match &mut self.sink {
            Sink::Part(part) => {
                // Behind what is there, wherever the file stood before.
                let at = part.seek(SeekFrom::Start(self.have));
                at.and_then(|_| part.write_all(bytes))
            }
            Sink::Stream(stream) => stream.write_all(bytes),
        };
        written.map_err(|error| self.failure(&error))?;
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// Gives the file its name, after it is on the disk.
    pub fn keep(self) -> Result<(), Fatal> {
        let Sink::Part(part) = &self.sink else {
            return Ok(());
        };
        let path = beside(&self.place, ".part");
        part.sync_all().map_err(|error| self.failure(&error))?;
        let renamed = if self.force {
            fs::rename(&path, &self.place)
        } else {
            let flags = RenameFlags::RENAME_NOREPLACE;
            match renameat2(AT_FDCWD, &path, AT_FDCWD, &self.place, flags) {
                // A file system that cannot tell.
                Err(Errno::EINVAL) if !self.place.exists() => fs::rename(&path, &self.place),
                other => other.map_err(io::Error::from),
            }
        };
        renamed.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(&self.place),
            _ => self.failure(&error),
        })?;
        remove(&beside(&self.place, ".part.from"));
        let directory = directory_of(&self.place);
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| self.failure(&error))
    }

    /// Drops what is there when it is worth nothing to a later run; says what it can do otherwise.
    pub fn leave(self) {
        let Sink::Part(_) = &self.sink else {
            return;
        };
        let part = beside(&self.place, ".part");
        if self.source.is_some() && self.have > 0 {
            complain(&format!(
                "{} bytes are in {}; with --resume only the rest is fetched",
                self.have,
                part.display()
            ));
        } else {
            remove(&beside(&self.place, ".part.from"));
            remove(&part);
        }
    }

    fn failure(&self, error: &io::Error) -> Fatal {
        failure(&self.place, error)
    }
}

/// The name that the last part of a URL's path is for a file.
pub fn name_of(url: &Url) -> Result<PathBuf, Fatal> {
    let last = url.path_segments().and_then(|mut parts| parts.next_back());
    let name: String = last.unwrap_or_default().into();
    // Percent-encoding stays, so it has no slash, no control character, and is not "..".
    if name.is_empty() || name.starts_with('.') || name.starts_with('-') {
        return Err(Fatal::new(
            Exit::Usage,
            "the URL does not end in the name of a file; say with --output how to call it",
        ));
    }
    Ok(name.into())
}

fn open(place: &Path, force: bool) -> Result<Sink, Fatal> {
    match fs::metadata(place) {
        Ok(there) if there.file_type().is_char_device() || there.file_type().is_fifo() => {
            let stream = OpenOptions::new().write(true).open(place);
            return stream
                .map(Sink::Stream)
                .map_err(|error| failure(place, &error));
        }
        Ok(there) if !there.is_file() => {
            let message = format!("{} is not a regular file", place.display());
            return Err(Fatal::new(Exit::Usage, message));
        }
        Ok(_) if !force => return Err(exists(place)),
        _ => {}
    }
    let path = beside(place, ".part");
    let failed = |error: io::Error| failure(&path, &error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        let message = format!("{} is not a regular file; remove it", path.display());
        return Err(Fatal::new(Exit::Usage, message));
    }
    let busy = || {
        let message = format!("another run fetches {} at this moment", place.display());
        Fatal::new(Exit::TempFail, message)
    };
    let part = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(part) => part,
        Err((_, Errno::EWOULDBLOCK)) => return Err(busy()),
        Err((_, errno)) => return Err(failed(errno.into())),
    };
    // Who had it before may have given it its final name meanwhile.
    let ours = part.metadata().map_err(failed)?;
    match fs::symlink_metadata(&path) {
        Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => Ok(Sink::Part(part)),
        _ => Err(busy()),
    }
}

/// What `If-Range` may say later: something that changes whenever a byte does (RFC 9110, 8.8.1).
fn validator(fields: &HeaderMap) -> Option<String> {
    let tag = text(fields, &ETAG);
    if tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"') {
        return Some(tag);
    }
    // A date tells nothing of what happened within its second (8.8.2.2).
    let modified = text(fields, &LAST_MODIFIED);
    let [at, now] = [&modified, &text(fields, &DATE)].map(|text| httpdate::parse_http_date(text));
    (at.ok()? < now.ok()?).then_some(modified)
}

fn text(fields: &HeaderMap, name: &HeaderName) -> String {
    let value = fields.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().trim().into()
}

fn read_source(path: &Path) -> Option<Source> {
    let mut text = String::new();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    file.ok()?.take(SOURCE_MAX).read_to_string(&mut text).ok()?;
    let source: Source = serde_json::from_str(&text).ok()?;
    let is_clean = !source.validator.contains(char::is_control);
    is_clean.then_some(source)
}

fn beside(place: &Path, ending: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn directory_of(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// It is in nobody's way if it stays.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

fn odd(how: &str) -> Fatal {
    let message = format!("the server answers {how}; what is there is left as it was");
    Fatal::new(Exit::Data, message)
}

fn exists(place: &Path) -> Fatal {
    let message = format!(
        "{} exists; name another file, or replace it with --force",
        place.display()
    );
    Fatal::new(Exit::Usage, message)
}

fn failure(place: &Path, error: &io::Error) -> Fatal {
    let exit = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Exit::Usage,
        ErrorKind::PermissionDenied => Exit::NoPermission,
        _ => Exit::Io,
    };
    Fatal::new(exit, format!("cannot write {}: {error}", place.display()))
}

const SOURCE_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            fields.append(*name, value.parse().unwrap());
        }
        fields
    }

    fn url() -> Url {
        "http://a.example/f#x".parse().unwrap()
    }

    fn begin(place: &Path, resume: bool) -> Download {
        Download::begin(place, &url(), false, resume).unwrap()
    }

    /// A part of four bytes of eight.
    fn broken_off(place: &Path) {
        let mut download = begin(place, false);
        let head = fields(&[("etag", "\"a\"")]);
        let brings = download.accept(StatusCode::OK, &head, Some(8)).unwrap();
        let bytes = Brings::Bytes {
            total: Some(8),
            have: 0,
        };
        assert_eq!(brings, bytes);
        download.write(b"0123").unwrap();
        download.leave();
        assert!(!place.exists());
    }

    #[test]
    fn the_rest_is_put_behind_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("f");
        broken_off(&place);
        let mut download = begin(&place, true);
        let asked: Vec<_> = download.fields();
        assert_eq!(asked[0].value, b"bytes=4-");
        assert_eq!(asked[1].value, b"\"a\"");
        let head = fields(&[("content-range", "bytes 4-7/8"), ("etag", "\"a\"")]);
        download
            .accept(StatusCode::PARTIAL_CONTENT, &head, Some(4))
            .unwrap();
        download.write(b"4567").unwrap();
        download.keep().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"01234567");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(Download::begin(&place, &url(), false, true).is_err());
    }

    #[test]
    fn a_part_that_does_not_fit_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("f");
        broken_off(&place);
        for (status, pairs, length) in [
            (206, vec![("content-range", "bytes 0-7/8")], Some(8)),
            (206, vec![("content-range", "bytes 5-7/8")], Some(3)),
            (206, vec![("content-range", "bytes 4-6/8")], Some(3)),
            (206, vec![("content-range", "bytes 4-8/9")], Some(5)),
            (206, vec![("content-range", "bytes 4-7/8")], Some(9)),
            (
                206,
                vec![("content-range", "bytes 4-7/8"), ("etag", "\"b\"")],
                Some(4),
            ),
            (206, vec![("content-range", "lines 4-7/8")], Some(4)),
            (206, vec![("content-type", "multipart/byteranges")], Some(4)),
            (206, vec![], None),
            (416, vec![("content-range", "bytes */3")], Some(0)),
            (416, vec![], Some(0)),
        ] {
            let mut download = begin(&place, true);
            let status = StatusCode::from_u16(status).unwrap();
            let error = download
                .accept(status, &fields(&pairs), length)
                .unwrap_err();
            assert_eq!(error.exit, Exit::Data, "{pairs:?}");
        }
        assert_eq!(fs::read(directory.path().join("f.part")).unwrap(), b"0123");
        let mut download = begin(&place, true);
        let all = fields(&[("content-range", "bytes */4")]);
        let brings = download.accept(StatusCode::RANGE_NOT_SATISFIABLE, &all, None);
        assert_eq!(brings.unwrap(), Brings::Nothing);
    }

    #[test]
    fn another_file_or_url_is_fetched_from_its_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("f");
        broken_off(&place);
        let other = "http://b.example/f".parse().unwrap();
        let download = Download::begin(&place, &other, false, true).unwrap();
        assert!(download.fields().is_empty());
        drop(download);
        let mut download = begin(&place, true);
        download.accept(StatusCode::OK, &fields(&[]), None).unwrap();
        download.write(b"new").unwrap();
        download.keep().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
    }

    #[test]
    fn only_what_changes_with_every_byte_is_a_validator() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let later = "Sun, 06 Nov 1994 08:49:38 GMT";
        let of = |pairs: &[(&'static str, &str)]| validator(&fields(pairs));
        assert_eq!(
            of(&[("etag", "\"a\""), ("last-modified", date)]).unwrap(),
            "\"a\""
        );
        assert_eq!(
            of(&[
                ("etag", "W/\"a\""),
                ("last-modified", date),
                ("date", later)
            ])
            .unwrap(),
            date
        );
        assert_eq!(of(&[("last-modified", date), ("date", date)]), None);
        assert_eq!(of(&[("etag", "a")]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn two_runs_do_not_write_to_one_part_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("f");
        let first = begin(&place, false);
        let error = Download::begin(&place, &url(), false, false).err().unwrap();
        assert_eq!(error.exit, Exit::TempFail);
        first.leave();
        let secret = directory.path().join("secret");
        fs::write(&secret, "s").unwrap();
        std::os::unix::fs::symlink(&secret, directory.path().join("f.part")).unwrap();
        assert!(Download::begin(&place, &url(), false, false).is_err());
        assert_eq!(fs::read(&secret).unwrap(), b"s");
    }

    #[test]
    fn a_url_names_a_file_or_none() {
        let name = |text: &str| name_of(&text.parse().unwrap()).ok();
        assert_eq!(name("http://a/b/c.tar?x#y"), Some("c.tar".into()));
        assert_eq!(name("http://a/..%2Fx"), None);
        for text in [
            "http://a/",
            "http://a/b/",
            "http://a/.bashrc",
            "http://a/-rf",
        ] {
            assert_eq!(name(text), None, "{text}");
        }
    }
}
