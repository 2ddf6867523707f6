//! Who we are to a server: basic (RFC 7617), bearer (RFC 6750) and digest (RFC 7616) authentication.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::WWW_AUTHENTICATE;
use portyard_core::exit::{Exit, Fatal};
use portyard_core::files::{FilePlace, Links};
use portyard_wire::http::challenge::{Challenge, parameters};
use portyard_wire::http::digest::{BodyHash, Claim, DigestError, DigestSession};
use rustyline::config::Behavior;
use rustyline::highlight::Highlighter;
use rustyline::{Config, Editor, Helper};
use zeroize::Zeroizing;

/// Credentials for one origin.
pub enum Login {
    /// Shown with every request.
    Fixed(Zeroizing<String>),
    /// Shown when the server has said what it wants, and then with every request.
    Digest(Box<Digest>),
}

/// A user whose password is proved, not sent.
pub struct Digest {
    user: String,
    password: Zeroizing<String>,
    cnonce: String,
    session: Option<DigestSession>,
    /// Nonces in a row that were too old at once.
    stale: u32,
}

impl Login {
    /// A key that whoever has it may use.
    pub fn bearer(token: &str) -> Self {
        Self::Fixed(format!("Bearer {token}").into())
    }

    /// A name and a password as they are.
    pub fn basic(user: &str, password: &str) -> Result<Self, Fatal> {
        if user.contains(':') {
            let message = "basic authentication has no user with a colon in the name";
            return Err(Fatal::new(Exit::Usage, message));
        }
        let both = Zeroizing::new(format!("{user}:{password}"));
        Ok(Self::Fixed(
            format!("Basic {}", STANDARD.encode(both.as_bytes())).into(),
        ))
    }

    /// A name and a proof of the password.
    pub fn digest(user: String, password: Zeroizing<String>) -> Result<Self, Fatal> {
        let mut random = [0; 24];
        getrandom::fill(&mut random).map_err(|error| {
            Fatal::new(Exit::OsError, format!("no randomness for a proof: {error}"))
        })?;
        Ok(Self::Digest(Box::new(Digest {
            user,
            password,
            cnonce: STANDARD.encode(random),
            session: None,
            stale: 0,
        })))
    }

    /// The hash that the body has to go through before a request is authorized; `None`: it does not count.
    pub fn body_hash(&self) -> Option<BodyHash> {
        match self {
            Self::Fixed(_) => None,
            Self::Digest(digest) => digest.session.as_ref()?.body_hash(),
        }
    }

    /// The value of `Authorization` for the next request, whose body has that hash if one is wanted.
    pub fn authorization(&mut self, method: &str, target: &str, body: &str) -> Option<String> {
        match self {
            Self::Fixed(value) => Some(value.to_string()),
            Self::Digest(digest) => {
                let session = digest.session.as_mut()?;
                Some(session.authorize(Claim {
                    user: &digest.user,
                    password: &digest.password,
                    method,
                    target,
                    body,
                    cnonce: &digest.cnonce,
                }))
            }
        }
    }

    /// Whether the request may be made once more after an answer with 401: the server has said for
    /// the first time what it wants, or only its nonce was too old.
    pub fn challenged(&mut self, fields: &HeaderMap) -> Result<bool, DigestError> {
        let Self::Digest(digest) = self else {
            return Ok(false);
        };
        let challenges: Vec<Challenge> = fields
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
            .flat_map(Challenge::list)
            .collect();
        if digest.session.is_some() {
            digest.stale += 1;
            if !DigestSession::is_stale(&challenges) || digest.stale > STALE_MAX {
                return Ok(false);
            }
        }
        digest.session = Some(DigestSession::new(&challenges)?);
        Ok(true)
    }

    /// Takes note of an answer that was no refusal.
    pub fn accepted(&mut self, fields: &HeaderMap) {
        if let Self::Digest(digest) = self {
            digest.stale = 0;
            let info = fields.get("authentication-info");
            let info = info
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let next = parameters(info)
                .into_iter()
                .find(|(name, _)| name == "nextnonce");
            if let (Some((_, nonce)), Some(session)) = (next, &mut digest.session) {
                session.renew(&nonce);
            }
        }
    }
}

/// The key in a file: one line of ASCII.
pub fn token(place: &FilePlace) -> Result<Zeroizing<String>, Fatal> {
    let wrong = |why: String| Fatal::new(Exit::Config, format!("--token: {why}"));
    let bytes = place
        .read_secret(Links::Followed, TOKEN_MAX)
        .map_err(|error| wrong(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    if text.is_empty() || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(wrong(format!(
            "{place} does not hold a key as one line of ASCII"
        )));
    }
    Ok(text.to_owned().into())
}

/// Asks the person at the terminal for a password, which is not shown.
pub fn ask_password(user: &str) -> Result<Zeroizing<String>, Fatal> {
    let failed = |error: rustyline::error::ReadlineError| {
        let message = format!(
            "no password for {user} ({error}); give --password-file FILE, or --user NAME:PASSWORD"
        );
        Fatal::new(Exit::Usage, message)
    };
    // Standard output is for the answer.
    let config = Config::builder().behavior(Behavior::PreferTerm).build();
    let mut editor: Editor<Hidden, rustyline::history::DefaultHistory> =
        Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Hidden));
    let prompt = format!("Password for {user}: ");
    editor.readline(&prompt).map(Zeroizing::new).map_err(failed)
}

/// Shows nothing of what is typed.
struct Hidden;

impl Helper for Hidden {}
impl rustyline::hint::Hinter for Hidden {
    type Hint = String;
}
impl rustyline::validate::Validator for Hidden {}
impl rustyline::completion::Completer for Hidden {
    type Candidate = String;
}

impl Highlighter for Hidden {
    fn highlight<'l>(&self, _: &'l str, _: usize) -> std::borrow::Cow<'l, str> {
        "".into()
    }

    fn highlight_char(&self, _: &str, _: usize, _: rustyline::highlight::CmdKind) -> bool {
        true
    }
}

const TOKEN_MAX: u64 = 4096;
/// Then its clock is broken, or it does not want us.
const STALE_MAX: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(challenge: &'static str) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
        fields
    }

    #[test]
    fn a_password_is_proved_once_and_again_only_for_a_new_nonce() {
        let mut login = Login::digest("u".into(), String::from("p").into()).unwrap();
        assert_eq!(login.authorization("GET", "/", ""), None);
        let first = fields("Digest realm=r, nonce=n, qop=auth");
        assert_eq!(login.challenged(&first), Ok(true));
        let said = login.authorization("GET", "/", "").unwrap();
        assert!(said.starts_with("Digest username=\"u\""), "{said}");
        // The password is wrong.
        assert_eq!(login.challenged(&first), Ok(false));
        login.accepted(&HeaderMap::new());
        let stale = fields("Digest realm=r, nonce=m, qop=auth, stale=true");
        for again in [true, true, false] {
            assert_eq!(login.challenged(&stale), Ok(again));
        }
    }

    #[test]
    fn a_password_as_it_is_is_never_shown_twice() {
        let mut login = Login::basic("Aladdin", "open sesame").unwrap();
        // RFC 7617, 2.
        let said = login.authorization("GET", "/", "").unwrap();
        assert_eq!(said, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(login.challenged(&fields("Basic realm=r")), Ok(false));
        assert!(Login::basic("a:b", "c").is_err());
    }
}
