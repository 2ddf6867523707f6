//! Forms: multipart/form-data (RFC 7578), and what a file is by its name.

use std::path::Path;

use hyper::body::Bytes;
use portyard_core::exit::{Exit, Fatal};

use super::content::{Content, Piece};

/// A form whose parts are sent one after the other.
pub struct Multipart {
    boundary: String,
    pieces: Vec<Piece>,
}

impl Multipart {
    /// A form without parts, between which a fresh boundary will stand.
    pub fn new() -> Result<Self, Fatal> {
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|error| {
            Fatal::new(Exit::OsError, format!("no randomness for a form: {error}"))
        })?;
        let random = random.map(|byte| format!("{byte:02x}")).concat();
        Ok(Self {
            boundary: format!("portyard-{random}"),
            pieces: Vec::new(),
        })
    }

    /// Adds a field.
    pub fn field(&mut self, name: &str, value: &str) {
        let head = self.head(&format!("name=\"{}\"", escape(name)), None);
        let part = format!("{head}{value}\r\n");
        self.pieces.push(Piece::Whole(Bytes::from(part)));
    }

    /// Adds a file under this name and type.
    pub fn file(&mut self, name: &str, filename: &str, content_type: &str, file: Piece) {
        let what = format!(
            "name=\"{}\"; filename=\"{}\"",
            escape(name),
            escape(filename)
        );
        let head = self.head(&what, Some(content_type));
        self.pieces.push(Piece::Whole(Bytes::from(head)));
        self.pieces.push(file);
        self.pieces.push(Piece::Whole(Bytes::from_static(b"\r\n")));
    }

    /// The whole form.
    pub fn finish(mut self) -> Content {
        let end = format!("--{}--\r\n", self.boundary);
        self.pieces.push(Piece::Whole(Bytes::from(end)));
        Content {
            content_type: Some(format!("multipart/form-data; boundary={}", self.boundary)),
            pieces: self.pieces,
        }
    }

    fn head(&self, what: &str, content_type: Option<&str>) -> String {
        let mut head = format!(
            "--{}\r\nContent-Disposition: form-data; {what}\r\n",
            self.boundary
        );
        if let Some(content_type) = content_type {
            head.push_str("Content-Type: ");
            head.push_str(content_type);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head
    }
}

/// As browsers do (WHATWG HTML, 4.10.21.8).
fn escape(name: &str) -> String {
    name.replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// The media type that the name of a file suggests.
pub fn type_of(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let extension = extension.unwrap_or_default().to_ascii_lowercase();
    let known = TYPES.iter().find(|(known, _)| *known == extension);
    known.map_or("application/octet-stream", |(_, kind)| kind)
}

const TYPES: &[(&str, &str)] = &[
    ("avif", "image/avif"),
    ("bin", "application/octet-stream"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("log", "text/plain"),
    ("md", "text/markdown"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("toml", "application/toml"),
    ("txt", "text/plain"),
    ("webp", "image/webp"),
    ("xml", "application/xml"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_end_their_line_or_their_quotes() {
        let mut form = Multipart::new().unwrap();
        form.field("a\"\r\nX: y", "v\"\r\n");
        let content = form.finish();
        let Piece::Whole(bytes) = &content.pieces[0] else {
            panic!("a field is whole");
        };
        let text = std::str::from_utf8(bytes).unwrap();
        let (head, value) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.ends_with("form-data; name=\"a%22%0D%0AX: y\""),
            "{head}"
        );
        assert_eq!(value, "v\"\r\n\r\n");
    }

    #[test]
    fn a_file_stands_between_its_head_and_a_line_end() {
        let mut form = Multipart::new().unwrap();
        form.file("f", "x\"y.png", "image/png", Piece::Whole("data".into()));
        let content = form.finish();
        let all = content.pieces.iter().flat_map(|piece| match piece {
            Piece::Whole(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        });
        let all = String::from_utf8(all.collect()).unwrap();
        let boundary = content.content_type.unwrap();
        let boundary = boundary.split_once("boundary=").unwrap().1.to_owned();
        let expected = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x%22y.png\"\r\n\
             Content-Type: image/png\r\n\r\ndata\r\n--{boundary}--\r\n"
        );
        assert_eq!(all, expected);
    }

    #[test]
    fn a_file_is_what_its_name_says() {
        assert_eq!(type_of(Path::new("a/b.PNG")), "image/png");
        assert_eq!(type_of(Path::new("a.tar.gz")), "application/gzip");
        assert_eq!(type_of(Path::new("png")), "application/octet-stream");
    }

    #[test]
    fn no_two_forms_have_one_boundary() {
        let boundary = || Multipart::new().unwrap().boundary;
        assert_ne!(boundary(), boundary());
    }
}
