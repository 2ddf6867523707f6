//! The body of a request: what it is made of, and how it is handed to the connection.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Instant;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use indicatif::ProgressBar;
use portyard_core::exit::{Exit, Fatal};
use tokio::sync::mpsc;

/// A body as it is asked for; each sending opens it anew.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Its pieces, one after the other. None: there is no body at all.
    pub pieces: Vec<Piece>,
    /// What it is.
    pub content_type: Option<String>,
}

/// A part of a body.
#[derive(Debug, Clone)]
pub enum Piece {
    /// These bytes.
    Whole(Bytes),
    /// A file; its length if it is a regular one.
    File(PathBuf, Option<u64>),
    /// Standard input to its end.
    Stdin,
}

/// A body that is being sent.
pub struct Outgoing {
    source: Source,
    bar: ProgressBar,
    feed: Rc<Feed>,
}

/// What is known of a body that is being sent, or could not be.
#[derive(Debug, Default)]
pub struct Feed {
    /// When a piece of it was taken last.
    pub taken: Cell<Option<Instant>>,
    /// Why it could not be read.
    pub trouble: RefCell<Option<String>>,
}

enum Source {
    Whole(Option<Bytes>),
    Fed {
        pieces: mpsc::Receiver<Result<Bytes, String>>,
        /// Bytes to come, if that is known.
        left: Option<u64>,
    },
}

impl Content {
    /// One piece of bytes.
    pub fn whole(bytes: impl Into<Bytes>, content_type: impl Into<String>) -> Self {
        Self {
            pieces: vec![Piece::Whole(bytes.into())],
            content_type: Some(content_type.into()),
        }
    }

    /// Whether there is a body.
    pub fn is_some(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Its length, if that is known before it is read.
    pub fn length(&self) -> Option<u64> {
        self.pieces.iter().try_fold(0_u64, |sum, piece| {
            sum.checked_add(match piece {
                Piece::Whole(bytes) => bytes.len() as u64,
                Piece::File(_, length) => (*length)?,
                Piece::Stdin => return None,
            })
        })
    }

    /// Whether it can be sent twice: what is not from a regular file is gone once it was read.
    pub fn is_repeatable(&self) -> bool {
        self.length().is_some()
    }

    /// Whether it is worth a bar.
    pub fn is_large(&self) -> bool {
        let whole = |piece: &Piece| matches!(piece, Piece::Whole(_));
        !self.pieces.iter().all(whole)
    }

    /// Reads it, as it will be sent.
    pub async fn read(&self, mut take: impl FnMut(&[u8])) -> Result<(), Fatal> {
        let mut body = self.open(ProgressBar::hidden())?;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| Fatal::new(Exit::Io, error.to_string()))?;
            take(&frame.into_data().unwrap_or_default());
        }
        Ok(())
    }

    /// Begins to send it. Files are read by a thread, so that a slow one holds no deadline up.
    pub fn open(&self, bar: ProgressBar) -> Result<Outgoing, Fatal> {
        let source = match &self.pieces[..] {
            [] => Source::Whole(None),
            [Piece::Whole(bytes)] => Source::Whole(Some(bytes.clone())),
            pieces => {
                let (sender, receiver) = mpsc::channel(QUEUE);
                let pieces = pieces.to_vec();
                thread::Builder::new()
                    .name("body".into())
                    .spawn(move || feed(&pieces, &sender))
                    .map_err(|error| {
                        let message = format!("cannot read the body: {error}");
                        Fatal::new(Exit::OsError, message)
                    })?;
                Source::Fed {
                    pieces: receiver,
                    left: self.length(),
                }
            }
        };
        Ok(Outgoing {
            source,
            bar,
            feed: Rc::default(),
        })
    }
}

impl Piece {
    /// A file that can be read, or standard input for `-`.
    pub fn of_file(path: &Path) -> Result<Self, Fatal> {
        if path == Path::new("-") {
            return Ok(Self::Stdin);
        }
        let metadata = File::open(path).and_then(|file| file.metadata());
        let metadata = metadata.map_err(|error| unreadable(path, &error))?;
        if metadata.is_dir() {
            let message = format!("{} is a directory; name a file", path.display());
            return Err(Fatal::new(Exit::Usage, message));
        }
        let length = metadata.is_file().then_some(metadata.len());
        Ok(Self::File(path.into(), length))
    }
}

/// What to tell when a file cannot be read.
pub fn unreadable(path: &Path, error: &io::Error) -> Fatal {
    let exit = match error.kind() {
        ErrorKind::NotFound => Exit::Usage,
        ErrorKind::PermissionDenied => Exit::NoPermission,
        _ => Exit::Io,
    };
    Fatal::new(exit, format!("cannot read {}: {error}", path.display()))
}

impl Outgoing {
    /// What is known of it while it is sent.
    pub fn feed(&self) -> Rc<Feed> {
        Rc::clone(&self.feed)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let bytes = match &mut this.source {
            Source::Whole(bytes) => bytes.take(),
            Source::Fed { pieces, left } => match ready!(pieces.poll_recv(cx)) {
                Some(Ok(bytes)) => {
                    if let Some(left) = left {
                        *left = left.saturating_sub(bytes.len() as u64);
                    }
                    Some(bytes)
                }
                Some(Err(why)) => {
                    *this.feed.trouble.borrow_mut() = Some(why.clone());
                    return Poll::Ready(Some(Err(io::Error::other(why))));
                }
                None => None,
            },
        };
        this.feed.taken.set(Some(Instant::now()));
        if let Some(bytes) = &bytes {
            this.bar.inc(bytes.len() as u64);
        }
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(
            &self.source,
            Source::Whole(None) | Source::Fed { left: Some(0), .. }
        )
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Fed {
                left: Some(left), ..
            } => SizeHint::with_exact(*left),
            Source::Fed { left: None, .. } => SizeHint::default(),
        }
    }
}

/// Reads all pieces, until nobody wants them any more.
fn feed(pieces: &[Piece], sender: &mpsc::Sender<Result<Bytes, String>>) {
    for piece in pieces {
        let fed = match piece {
            Piece::Whole(bytes) => sender
                .blocking_send(Ok(bytes.clone()))
                .map_err(|_| None::<String>),
            Piece::File(path, length) => match File::open(path) {
                Ok(file) => pump(file, *length, &path.display().to_string(), sender),
                Err(error) => Err(Some(unreadable(path, &error).to_string())),
            },
            Piece::Stdin => pump(io::stdin().lock(), None, "standard input", sender),
        };
        match fed {
            Ok(()) => {}
            Err(Some(why)) => return drop(sender.blocking_send(Err(why))),
            Err(None) => return,
        }
    }
}

/// Passes on what a reader has, up to a length if there is one; `Err(None)`: nobody wants it.
fn pump(
    mut reader: impl Read,
    length: Option<u64>,
    shown: &str,
    sender: &mpsc::Sender<Result<Bytes, String>>,
) -> Result<(), Option<String>> {
    let mut left = length.unwrap_or(u64::MAX);
    let mut buffer = vec![0; PIECE];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        match reader.read(&mut buffer[..most]) {
            Ok(0) if length.is_some() => {
                return Err(Some(format!(
                    "{shown} has become shorter while it was sent"
                )));
            }
            Ok(0) => break,
            Ok(read) => {
                left -= read as u64;
                let bytes = Bytes::copy_from_slice(&buffer[..read]);
                sender.blocking_send(Ok(bytes)).map_err(|_| None)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Some(format!("cannot read {shown}: {error}"))),
        }
    }
    Ok(())
}

const PIECE: usize = 64 << 10;
/// Pieces that are read ahead.
const QUEUE: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    fn collect(content: &Content) -> Result<Vec<u8>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let outgoing = content.open(ProgressBar::hidden()).unwrap();
        let collected = runtime.block_on(outgoing.collect());
        let collected = collected.map_err(|error| error.to_string())?;
        Ok(collected.to_bytes().to_vec())
    }

    #[test]
    fn pieces_are_sent_in_their_order_with_their_length_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let large = vec![7; 200_000];
        std::fs::write(&path, &large).unwrap();
        let content = Content {
            pieces: vec![
                Piece::Whole("a".into()),
                Piece::of_file(&path).unwrap(),
                Piece::Whole("b".into()),
            ],
            content_type: None,
        };
        assert_eq!(content.length(), Some(200_002));
        assert!(content.is_repeatable() && content.is_large());
        for _ in 0..2 {
            let all = collect(&content).unwrap();
            assert!(all == [&b"a"[..], &large, b"b"].concat());
        }
        // What it grows by later was not announced.
        std::fs::write(&path, vec![7; 300_000]).unwrap();
        assert_eq!(collect(&content).unwrap().len(), 200_002);
        std::fs::write(&path, "short").unwrap();
        assert!(collect(&content).unwrap_err().contains("shorter"));
        std::fs::remove_file(&path).unwrap();
        assert!(collect(&content).unwrap_err().contains("cannot read"));
    }

    #[test]
    fn standard_input_can_be_sent_once() {
        let content = Content {
            pieces: vec![Piece::of_file(Path::new("-")).unwrap()],
            content_type: None,
        };
        assert_eq!(content.length(), None);
        assert!(!content.is_repeatable());
        assert!(Piece::of_file(Path::new("/nonexistent")).is_err());
        assert!(Piece::of_file(Path::new("/")).is_err());
    }
}
