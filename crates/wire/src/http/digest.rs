//! Digest authentication (RFC 7616), the client's side: from a challenge to `Authorization`.

use std::fmt::Write as _;

use md5::{Digest as _, Md5};
use sha2::{Sha256, Sha512, Sha512_256};

use super::Challenge;

/// A hash that digests are made with. The later is the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RFC 1321; broken, but all that many servers know.
    Md5,
    /// FIPS 180-4.
    Sha256,
    /// Not in the RFC, but spoken by some.
    Sha512,
    /// FIPS 180-4, 5.3.6.
    Sha512_256,
}

/// Why a server cannot be shown who we are by digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// It demands something else.
    #[error("the server does not ask for digest authentication")]
    NotAsked,
    /// Only algorithms that are not known here.
    #[error("the server asks for a digest by an algorithm that is not known here")]
    Algorithm,
    /// Only by ways that are not known here.
    #[error(
        "the server wants a digest of neither the request (qop=auth) nor its body too (qop=auth-int)"
    )]
    Quality,
    /// A realm or a nonce is missing, or holds what no field can hold.
    #[error("the server's digest challenge is malformed")]
    Malformed,
}

/// What a server wants to be shown, and how often it was. Good for many requests to one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestSession {
    algorithm: Algorithm,
    /// How the server spells it; `None`: it does not.
    spelled: Option<String>,
    is_session: bool,
    realm: String,
    nonce: String,
    opaque: Option<String>,
    quality: Quality,
    userhash: bool,
    count: u32,
}

/// What a digest covers (RFC 7616, 3.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quality {
    /// The request, as RFC 2069 has it: without a count.
    Old,
    /// The request.
    Auth,
    /// The request and its body.
    AuthInt,
}

/// The hash of a body, piece by piece.
#[derive(Debug, Clone)]
pub struct BodyHash(Hasher);

#[derive(Debug, Clone)]
enum Hasher {
    Md5(Md5),
    Sha256(Sha256),
    Sha512(Sha512),
    Sha512_256(Sha512_256),
}

/// A request, and who makes it.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// The user.
    pub user: &'a str,
    /// The password.
    pub password: &'a str,
    /// The method.
    pub method: &'a str,
    /// The target as it stands in the request: path and query.
    pub target: &'a str,
    /// What [`BodyHash::finish`] says of the body, where [`DigestSession::body_hash`] wants it; else anything.
    pub body: &'a str,
    /// Fresh randomness that nobody guesses, as text without quotes; the same for all requests of a
    /// session.
    pub cnonce: &'a str,
}

impl Algorithm {
    /// By its name in a challenge, in any case, and whether it is the variant for a session.
    pub fn named(name: &str) -> Option<(Self, bool)> {
        let lower = name.to_ascii_lowercase();
        let (plain, is_session) = match lower.strip_suffix("-sess") {
            Some(plain) => (plain, true),
            None => (lower.as_str(), false),
        };
        let algorithm = match plain {
            "md5" => Self::Md5,
            "sha-256" => Self::Sha256,
            "sha-512" => Self::Sha512,
            "sha-512-256" => Self::Sha512_256,
            _ => return None,
        };
        Some((algorithm, is_session))
    }

    fn hash(self, text: &str) -> String {
        let mut hash = BodyHash::new(self);
        hash.update(text.as_bytes());
        hash.finish()
    }
}

impl BodyHash {
    fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Md5 => Hasher::Md5(Md5::new()),
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
            Algorithm::Sha512_256 => Hasher::Sha512_256(Sha512_256::new()),
        })
    }

    /// Takes the bytes that come next.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hasher::Md5(hash) => hash.update(bytes),
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::Sha512(hash) => hash.update(bytes),
            Hasher::Sha512_256(hash) => hash.update(bytes),
        }
    }

    /// What is written of all of them.
    pub fn finish(self) -> String {
        match self.0 {
            Hasher::Md5(hash) => hex(&hash.finalize()),
            Hasher::Sha256(hash) => hex(&hash.finalize()),
            Hasher::Sha512(hash) => hex(&hash.finalize()),
            Hasher::Sha512_256(hash) => hex(&hash.finalize()),
        }
    }
}

impl DigestSession {
    /// Of the challenge with the strongest algorithm that is known here.
    pub fn new(challenges: &[Challenge]) -> Result<Self, DigestError> {
        let mut best: Option<Self> = None;
        let mut error = DigestError::NotAsked;
        for challenge in challenges.iter().filter(|challenge| challenge.is("digest")) {
            match Self::of(challenge) {
                Ok(session)
                    if best
                        .as_ref()
                        .is_none_or(|b| b.algorithm < session.algorithm) =>
                {
                    best = Some(session);
                }
                Ok(_) => {}
                Err(why) => error = why,
            }
        }
        best.ok_or(error)
    }

    fn of(challenge: &Challenge) -> Result<Self, DigestError> {
        let text = |name| challenge.get(name);
        let spelled = text("algorithm");
        let (algorithm, is_session) =
            Algorithm::named(spelled.unwrap_or("MD5")).ok_or(DigestError::Algorithm)?;
        let quality = match text("qop") {
            None => Quality::Old,
            // A body need not be read twice then.
            Some(list) if has(list, "auth") => Quality::Auth,
            Some(list) if has(list, "auth-int") => Quality::AuthInt,
            Some(_) => return Err(DigestError::Quality),
        };
        let (realm, nonce) = text("realm")
            .zip(text("nonce"))
            .ok_or(DigestError::Malformed)?;
        let opaque = text("opaque");
        let texts = [Some(realm), Some(nonce), opaque];
        if texts
            .into_iter()
            .flatten()
            .any(|text| text.contains(char::is_control))
        {
            return Err(DigestError::Malformed);
        }
        Ok(Self {
            algorithm,
            spelled: spelled.map(String::from),
            is_session,
            realm: realm.into(),
            nonce: nonce.into(),
            opaque: opaque.map(String::from),
            quality,
            userhash: text("userhash").is_some_and(|value| value.eq_ignore_ascii_case("true")),
            count: 0,
        })
    }

    /// Whether these challenges say that only the nonce is too old, so that the same password may be
    /// shown once more.
    pub fn is_stale(challenges: &[Challenge]) -> bool {
        let digests = challenges.iter().filter(|challenge| challenge.is("digest"));
        digests
            .filter_map(|challenge| challenge.get("stale"))
            .any(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Goes on with another nonce, as `Authentication-Info` may say (RFC 7616, 3.5).
    pub fn renew(&mut self, nonce: &str) {
        if !nonce.contains(char::is_control) {
            self.nonce = nonce.into();
            self.count = 0;
        }
    }

    /// The hash that the body of a request has to go through before it is claimed; `None`: the body does not count.
    pub fn body_hash(&self) -> Option<BodyHash> {
        (self.quality == Quality::AuthInt).then(|| BodyHash::new(self.algorithm))
    }

    /// The value of `Authorization` for the next request.
    pub fn authorize(&mut self, claim: Claim<'_>) -> String {
        self.count = self.count.saturating_add(1);
        let Claim {
            user,
            password,
            method,
            target,
            body,
            cnonce,
        } = claim;
        let hash = |text: &str| self.algorithm.hash(text);
        let (realm, nonce) = (&self.realm, &self.nonce);
        let mut secret = hash(&format!("{user}:{realm}:{password}"));
        if self.is_session {
            secret = hash(&format!("{secret}:{nonce}:{cnonce}"));
        }
        let (quality, request) = match self.quality {
            Quality::Old => (None, format!("{method}:{target}")),
            Quality::Auth => (Some("auth"), format!("{method}:{target}")),
            Quality::AuthInt => (Some("auth-int"), format!("{method}:{target}:{body}")),
        };
        let request = hash(&request);
        let count = format!("{:08x}", self.count);
        let response = match quality {
            Some(quality) => hash(&format!(
                "{secret}:{nonce}:{count}:{cnonce}:{quality}:{request}"
            )),
            None => hash(&format!("{secret}:{nonce}:{request}")),
        };
        let mut out = String::from("Digest ");
        if self.userhash {
            let hashed = hash(&format!("{user}:{realm}"));
            let _ = write!(out, "username=\"{hashed}\", userhash=true");
        } else if user.is_ascii() && !user.contains(char::is_control) {
            let _ = write!(out, "username=\"{}\"", quote(user));
        } else {
            // RFC 8187, 3.2.
            let _ = write!(out, "username*=UTF-8''{}", percent(user));
        }
        let _ = write!(
            out,
            ", realm=\"{}\", uri=\"{}\", nonce=\"{}\", response=\"{response}\"",
            quote(realm),
            quote(target),
            quote(nonce)
        );
        if let Some(name) = &self.spelled {
            let _ = write!(out, ", algorithm={name}");
        }
        if let Some(quality) = quality {
            let _ = write!(out, ", qop={quality}, nc={count}");
        }
        if quality.is_some() || self.is_session {
            let _ = write!(out, ", cnonce=\"{}\"", quote(cnonce));
        }
        if let Some(opaque) = &self.opaque {
            let _ = write!(out, ", opaque=\"{}\"", quote(opaque));
        }
        out
    }
}

/// Whether a list has an item, in any case.
fn has(list: &str, item: &str) -> bool {
    list.split(',')
        .any(|other| other.trim().eq_ignore_ascii_case(item))
}

fn quote(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616, 3.9.1.
    const FIELD: &str = r#"Digest realm="http-auth@example.org", qop="auth, auth-int",
        algorithm=SHA-256, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
        Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5,
        nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#;

    const MUFASA: Claim<'_> = Claim {
        user: "Mufasa",
        password: "Circle of Life",
        method: "GET",
        target: "/dir/index.html",
        body: "",
        cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    };

    fn session(field: &str) -> Result<DigestSession, DigestError> {
        DigestSession::new(&Challenge::list(field))
    }

    fn get(authorization: &str, name: &str) -> Option<String> {
        let list = Challenge::list(authorization);
        list[0].get(name).map(String::from)
    }

    #[test]
    fn the_rfcs_examples_come_out() {
        let said = session(FIELD).unwrap().authorize(MUFASA);
        assert_eq!(
            get(&said, "response").unwrap(),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        );
        assert_eq!(get(&said, "nc").unwrap(), "00000001");
        assert_eq!(get(&said, "algorithm").unwrap(), "SHA-256");
        let md5 = FIELD.replace("SHA-256", "unknown");
        let said = session(&md5).unwrap().authorize(MUFASA);
        assert_eq!(
            get(&said, "response").unwrap(),
            "8ca523f5e9506fed4657c9700eebdbec"
        );
    }

    #[test]
    fn a_body_counts_where_nothing_less_is_wanted() {
        assert!(session(FIELD).unwrap().body_hash().is_none());
        let field = FIELD.replace("auth, auth-int", "auth-int");
        let mut session = session(&field).unwrap();
        let mut hash = session.body_hash().unwrap();
        hash.update(b"name=");
        hash.update(b"lamp");
        let body = hash.finish();
        let said = session.authorize(Claim {
            method: "POST",
            body: &body,
            ..MUFASA
        });
        assert_eq!(get(&said, "qop").unwrap(), "auth-int");
        // What Python's hashlib makes of it.
        assert_eq!(
            get(&said, "response").unwrap(),
            "d831a84cec516beee2fb8ea5b149de238b600bb06a107bacc69e24ef7feed32c"
        );
    }

    #[test]
    fn a_hidden_user_is_hashed_and_another_than_ascii_is_encoded() {
        // The inputs of RFC 7616, 3.9.2, whose own digests are of another hash (its errata); these are
        // what Python's hashlib makes of them.
        let field = r#"Digest realm="api@example.org", qop="auth", algorithm=SHA-512-256,
            nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", userhash=true,
            opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS", charset=UTF-8"#;
        let claim = Claim {
            user: "J\u{e4}s\u{f8}n Doe",
            password: "Secret, or not?",
            method: "GET",
            target: "/doe.json",
            body: "",
            cnonce: "NTg6RKcb9boFIAS3KrFK9BGeh+niz/sm",
        };
        let said = session(field).unwrap().authorize(claim);
        assert_eq!(
            get(&said, "username").unwrap(),
            "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"
        );
        assert_eq!(
            get(&said, "response").unwrap(),
            "7a4e1192babbba02e91182d2895bfdbf7adafc6e48d4e517ca301974843d840c"
        );
        let plain = field.replace("userhash=true", "userhash=false");
        let said = session(&plain).unwrap().authorize(claim);
        assert!(
            said.contains("username*=UTF-8''J%C3%A4s%C3%B8n%20Doe"),
            "{said}"
        );
    }

    #[test]
    fn each_use_of_a_nonce_is_counted_and_a_new_one_counts_anew() {
        let mut session = session(FIELD).unwrap();
        for count in ["00000001", "00000002"] {
            assert_eq!(get(&session.authorize(MUFASA), "nc").unwrap(), count);
        }
        session.renew("other");
        let said = session.authorize(MUFASA);
        assert_eq!(get(&said, "nc").unwrap(), "00000001");
        assert_eq!(get(&said, "nonce").unwrap(), "other");
    }

    #[test]
    fn what_cannot_be_answered_says_why() {
        for (field, error) in [
            ("Basic realm=x", DigestError::NotAsked),
            (
                "Digest realm=x, nonce=y, algorithm=crc",
                DigestError::Algorithm,
            ),
            ("Digest realm=x, nonce=y, qop=other", DigestError::Quality),
            ("Digest realm=x", DigestError::Malformed),
            ("Digest realm=\"x\u{7f}\", nonce=y", DigestError::Malformed),
        ] {
            assert_eq!(session(field).unwrap_err(), error, "{field}");
        }
    }

    #[test]
    fn quotes_of_a_server_cannot_end_ours() {
        let mut session = session(r#"Digest realm="a\"b", nonce="n\\", opaque="o""#).unwrap();
        let said = session.authorize(MUFASA);
        assert_eq!(get(&said, "realm").unwrap(), "a\"b");
        assert_eq!(get(&said, "nonce").unwrap(), "n\\");
        // RFC 2069: no qop, no count.
        assert_eq!(get(&said, "nc"), None);
    }

    #[test]
    fn a_stale_nonce_is_no_refusal() {
        let stale = |field: &str| DigestSession::is_stale(&Challenge::list(field));
        assert!(stale("Digest realm=x, nonce=y, stale=TRUE"));
        assert!(!stale("Digest realm=x, nonce=y, stale=false"));
        assert!(!stale("Digest realm=x, nonce=y"));
    }
}
