//! Answers with a file, or with the files of a directory.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::StatusCode;
use hyper::header::{
    CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED, LOCATION, VARY,
};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use portyard_core::offload::Offload;
use serde_json::json;

use super::config::{DirectoryConfig, FileConfig};
use super::pattern::{Captures, Pattern};
use crate::http::{
    Answer, Body, Offer, Problem, Request, Response, choose, escape_html, rank_codings, respond,
};

/// The handler.
pub struct Files {
    root: Arc<Root>,
    content_type: Option<HeaderValue>,
    index: String,
    listing: bool,
    hidden: bool,
    precompressed: bool,
    /// The one file that is served, or none for all of them.
    only: Option<String>,
}

/// A directory that is held open: what happens to its path later does not matter.
struct Root(File);

/// What a name has turned out to be.
enum Found {
    File(Content),
    Directory(OwnedFd),
}

/// A file that is open.
struct Content {
    file: File,
    length: u64,
    modified: Option<SystemTime>,
    etag: String,
    /// All of it, where it is small.
    bytes: Option<Vec<u8>>,
    coding: Option<&'static str>,
}

impl Files {
    /// One file.
    pub fn file(config: &FileConfig) -> Result<Self, String> {
        let wrong = |why: &str| format!("file.path = \"{}\" {why}", config.path.display());
        // A link is followed now; where it leads later is not looked at.
        let path = config.path.canonicalize();
        let path = path.map_err(|error| wrong(&format!("cannot be opened: {error}")))?;
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| wrong("does not name a file"))?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        // Only to find the file by; nobody lists the directory.
        let root =
            Root::open(directory, OFlag::O_PATH).map_err(|why| format!("file.path: {why}"))?;
        match root.find(name) {
            Ok(Found::File(_)) => {}
            Ok(Found::Directory(_)) => {
                return Err(wrong(
                    "is a directory; write directory = { path = … } for its files",
                ));
            }
            Err(error) => return Err(wrong(&error.to_string())),
        }
        let content_type = config
            .content_type
            .as_deref()
            .map(HeaderValue::from_str)
            .transpose();
        Ok(Self {
            root: Arc::new(root),
            content_type: content_type
                .map_err(|_| "file.content_type is no media type".to_owned())?,
            index: String::new(),
            listing: false,
            hidden: true,
            precompressed: false,
            only: Some(name.into()),
        })
    }

    /// All files of a directory.
    pub fn directory(config: &DirectoryConfig, pattern: &Pattern) -> Result<Self, String> {
        if !pattern.text().ends_with("..}") {
            return Err(
                "directory needs a path that ends in a parameter for the name, such as \
                        \"/files/{name..}\""
                    .into(),
            );
        }
        Ok(Self {
            root: Arc::new(
                Root::open(&config.path, OFlag::empty())
                    .map_err(|why| format!("directory.path: {why}"))?,
            ),
            content_type: None,
            index: config.index.clone(),
            listing: config.listing,
            hidden: config.hidden,
            precompressed: config.precompressed,
            only: None,
        })
    }

    /// Answers.
    pub async fn answer(&self, request: &Request, captures: &Captures) -> Answer {
        let name = match &self.only {
            Some(name) => name.as_str(),
            // The last parameter is the name.
            None => captures.last().map_or("", |(_, name)| name.as_str()),
        };
        let is_hidden = |part: &str| part.starts_with('.') && part != ".well-known";
        if name.contains('\0') || (!self.hidden && name.split('/').any(is_hidden)) {
            return Err(Problem::not_found());
        }
        let offload = request.client.home.offload.clone();
        let codings = if self.precompressed {
            rank_codings(&request.headers, &["zstd", "br", "gzip"])
        } else {
            Vec::new()
        };
        let wanted = name.trim_end_matches('/').to_owned();
        let found = find(&offload, &self.root, wanted.clone(), codings.clone()).await?;
        let (name, content) = match found {
            Found::File(content) if !name.ends_with('/') => (wanted, content),
            Found::File(_) => return Err(Problem::not_found()),
            Found::Directory(directory) => {
                if !request.path().ends_with('/') {
                    return Ok(to_directory(request));
                }
                let index = if self.index.is_empty() {
                    Err(Problem::not_found())
                } else {
                    let path = if wanted.is_empty() {
                        self.index.clone()
                    } else {
                        format!("{wanted}/{}", self.index)
                    };
                    find(&offload, &self.root, path, codings).await
                };
                match index {
                    Ok(Found::File(content)) => (self.index.clone(), content),
                    _ if self.listing => return self.list(request, &offload, directory).await,
                    _ => return Err(Problem::not_found()),
                }
            }
        };
        let content_type = match &self.content_type {
            Some(content_type) => content_type.clone(),
            None => HeaderValue::from_static(type_of(&name)),
        };
        Ok(self.give(offload, content, content_type))
    }

    /// A file. As far as the client wants it is looked at where all answers go out.
    fn give(&self, offload: Offload, content: Content, content_type: HeaderValue) -> Response {
        let body = if let Some(bytes) = content.bytes {
            Body::from(bytes)
        } else {
            let file = Arc::new(content.file);
            Body::cuttable(content.length, move |span| {
                stream(offload.clone(), file.clone(), span)
            })
        };
        let mut response = Response::new(body);
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, content_type);
        if let Some(coding) = content.coding {
            fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        if self.precompressed {
            // Also where nothing lies beside it: something may tomorrow.
            fields.append(VARY, HeaderValue::from_static("accept-encoding"));
        }
        if let Ok(etag) = HeaderValue::from_str(&content.etag) {
            fields.insert(ETAG, etag);
        }
        let date = content.modified.map(httpdate::fmt_http_date);
        if let Some(Ok(date)) = date.as_deref().map(HeaderValue::from_str) {
            fields.insert(LAST_MODIFIED, date);
        }
        response
    }

    async fn list(&self, request: &Request, offload: &Offload, directory: OwnedFd) -> Answer {
        let hidden = self.hidden;
        let form = choose(&request.headers, LISTINGS);
        let form = form.ok_or_else(|| Problem::not_acceptable(LISTINGS))?;
        let names = offload.run(move || names(directory, hidden)).await;
        let names = names.map_err(busy_problem)?;
        let names = names.map_err(|_| Problem::not_found())?;
        let text = if form == 1 {
            format!("{}\n", json!(names))
        } else {
            let item = |name: &String| {
                let shown = escape_html(name);
                let link = super::template::Escape::Url.apply(name.trim_end_matches('/'));
                let slash = if name.ends_with('/') { "/" } else { "" };
                format!("<li><a href=\"./{link}{slash}\">{shown}</a></li>\n")
            };
            let items: String = names.iter().map(item).collect();
            let more = if names.len() == LISTED_MAX {
                "<p>There may be more: no list has more than 10 000 names.</p>\n"
            } else {
                ""
            };
            format!(
                "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Files</title>\n\
                 <ul>\n{items}</ul>\n{more}</html>\n"
            )
        };
        let mut response = respond(StatusCode::OK, LISTINGS[form].content_type, text);
        response
            .headers_mut()
            .append(VARY, HeaderValue::from_static("accept"));
        Ok(response)
    }
}

impl Root {
    fn open(path: &Path, flags: OFlag) -> Result<Self, String> {
        let mut options = OpenOptions::new();
        let opened = options.read(true).custom_flags(flags.bits()).open(path);
        let file =
            opened.map_err(|error| format!("{} cannot be opened: {error}", path.display()))?;
        match file.metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(Self(file)),
            _ => Err(format!("{} is not a directory", path.display())),
        }
    }

    /// Opens what a name stands for. The kernel itself refuses every way out (openat2(2)).
    fn find(&self, name: &str) -> io::Result<Found> {
        let how = OpenHow::new()
            // Not to wait for the writer of a FIFO.
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let name = if name.is_empty() { "." } else { name };
        let file = File::from(openat2(self.0.as_fd(), name, how)?);
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Ok(Found::Directory(file.into()));
        }
        if !metadata.is_file() {
            return Err(Errno::ENOENT.into());
        }
        let etag = format!(
            "\"{:x}-{:x}{:08x}\"",
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        Ok(Found::File(Content {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            etag,
            bytes: None,
            coding: None,
            file,
        }))
    }

    /// As [`Root::find`], or what lies beside it in the first of these codings that is there; small files are read.
    fn find_coded(&self, name: &str, codings: &[&'static str]) -> io::Result<Found> {
        let mut found = self.find(name)?;
        for coding in codings.iter().filter(|_| matches!(found, Found::File(_))) {
            let suffix = match *coding {
                "zstd" => "zst",
                "gzip" => "gz",
                other => other,
            };
            if let Ok(Found::File(mut coded)) = self.find(&format!("{name}.{suffix}")) {
                coded.coding = Some(coding);
                found = Found::File(coded);
                break;
            }
        }
        if let Found::File(content) = &mut found
            && content.length <= SMALL
        {
            // It may grow while we read; what was there counts.
            let mut bytes = vec![0; usize::try_from(content.length).unwrap_or(0)];
            content.file.read_exact_at(&mut bytes, 0)?;
            content.bytes = Some(bytes);
        }
        Ok(found)
    }
}

async fn find(
    offload: &Offload,
    root: &Arc<Root>,
    name: String,
    codings: Vec<&'static str>,
) -> Result<Found, Problem> {
    let root = root.clone();
    // A file may be on a disk that takes its time.
    let found = offload.run(move || root.find_coded(&name, &codings)).await;
    let found = found.map_err(busy_problem)?;
    found.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES) => Problem::new(StatusCode::FORBIDDEN, "this file may not be read"),
        Some(Errno::EMFILE | Errno::ENFILE) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no descriptor is left; try again later",
        ),
        _ => Problem::not_found(),
    })
}

fn busy_problem(busy: portyard_core::offload::Busy) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, busy.to_string())
        .with(hyper::header::RETRY_AFTER, HeaderValue::from_static("1"))
}

/// These bytes of a file, read piece by piece on the pool.
fn stream(offload: Offload, file: Arc<File>, span: Range<u64>) -> Body {
    let length = span.end - span.start;
    Body::produce(Some(length), move |mut sender| async move {
        let mut at = span.start;
        while at < span.end {
            let (file, wanted) = (file.clone(), (span.end - at).min(PIECE));
            let read = offload.go_on(move || {
                let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(0)];
                // A file that has shrunk cannot keep what its length promised.
                file.read_exact_at(&mut bytes, at).map(|()| bytes)
            });
            let bytes = read.await.map_err(io::Error::other)??;
            at += bytes.len() as u64;
            sender.send(bytes).await;
        }
        Ok(())
    })
}

/// The names in a directory, sorted, directories with a slash.
fn names(directory: OwnedFd, hidden: bool) -> nix::Result<Vec<String>> {
    let mut directory = Dir::from_fd(directory)?;
    let mut names = Vec::new();
    for entry in directory.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let is_self = name == b"." || name == b"..";
        // What is no UTF-8 has no link.
        let Ok(text) = std::str::from_utf8(name) else {
            continue;
        };
        if is_self || (!hidden && text.starts_with('.')) {
            continue;
        }
        let is_directory = entry.file_type() == Some(Type::Directory);
        names.push(format!("{text}{}", if is_directory { "/" } else { "" }));
        if names.len() == LISTED_MAX {
            break;
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The address of a directory ends in a slash, or links in it lead astray.
fn to_directory(request: &Request) -> Response {
    let query = request
        .uri
        .query()
        .map_or(String::new(), |query| format!("?{query}"));
    // One slash at the front: two would name a host.
    let path = request.path().trim_start_matches('/');
    let to = format!("/{path}/{query}");
    let mut response = respond(
        StatusCode::MOVED_PERMANENTLY,
        "text/plain; charset=utf-8",
        format!("{to}\n"),
    );
    if let Ok(to) = HeaderValue::from_str(&to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

/// What a file's name says of its content.
fn type_of(name: &str) -> &'static str {
    let suffix = Path::new(name).extension().map(OsStr::to_ascii_lowercase);
    let suffix = suffix.as_deref().map(OsStr::as_bytes).unwrap_or_default();
    let found = TYPES.iter().find(|(known, _)| known.as_bytes() == suffix);
    found.map_or("application/octet-stream", |(_, name)| name)
}

const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("xml", "application/xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("ico", "image/x-icon"),
    ("pdf", "application/pdf"),
    ("wasm", "application/wasm"),
    ("woff2", "font/woff2"),
    ("woff", "font/woff"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("tar", "application/x-tar"),
];
const LISTINGS: &[Offer] = &[
    Offer::new("text/html; charset=utf-8", &[]),
    Offer::new("application/json", &[]),
];
/// Read in one go, and compressed where that is liked.
const SMALL: u64 = 256 << 10;
const PIECE: u64 = 256 << 10;
const LISTED_MAX: usize = 10_000;
