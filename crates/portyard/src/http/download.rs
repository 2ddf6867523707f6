//! An answer's body into a file, which is there whole or not at all.
//!
//! What comes is written to `FILE.part`, which is renamed when it is complete. Beside it `FILE.part.from`
//! ([`source`]) says of what it is a part, so that a later run can ask for the rest, and only for the rest of
//! that.

mod sink;
mod source;

use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG};
use hyper::{HeaderMap, StatusCode};
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::http::ContentRange;
use url::Url;

use self::sink::{Sink, beside, failure, remove};
use self::source::{Source, text};
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
            sink: Sink::open(place, force)?,
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
        match Source::read(&beside(&self.place, ".part.from")) {
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
        let (Some(validator), Sink::Part(_)) = (Source::validator(fields), &self.sink) else {
            return Ok(());
        };
        let source = Source {
            url: self.url.clone(),
            validator,
            length,
        };
        source
            .write(&beside(&self.place, ".part.from"))
            .map_err(|error| self.failure(&error))?;
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
        self.sink.keep(&self.place, self.force)
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

fn odd(how: &str) -> Fatal {
    let message = format!("the server answers {how}; what is there is left as it was");
    Fatal::new(Exit::Data, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
