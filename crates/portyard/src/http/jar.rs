//! Cookies (RFC 6265), and the file that keeps them from one call to the next.
//!
//! The file has the form that curl, wget and Python's `MozillaCookieJar` read and write: a line a
//! cookie, with seven fields between tabs.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use cookie_store::{Cookie, CookieDomain, CookieExpiration, CookieStore, RawCookie};
use portyard_core::exit::{Exit, Fatal};
use time::OffsetDateTime;
use url::Url;

use crate::save::{self, Existing, Lock, Saved};

/// The cookies of a call, and of the calls before it if there is a file.
pub struct Jar {
    store: CookieStore,
    file: Option<PathBuf>,
    /// What was set in this call, to be set once more in what the file holds by its end.
    set: Vec<(RawCookie<'static>, Url)>,
}

impl Jar {
    /// What the file holds, which need not be there; without one, no cookies.
    pub fn open(file: Option<&Path>) -> Result<Self, Fatal> {
        let mut store = CookieStore::default();
        if let Some(list) = suffixes() {
            store = match list.parse() {
                Ok(list) => store.with_suffix_list(list),
                Err(_) => store,
            };
        }
        if let Some(path) = file {
            load(&mut store, path)?;
        }
        Ok(Self {
            store,
            file: file.map(Path::to_owned),
            set: Vec::new(),
        })
    }

    /// The value of `Cookie` for a request.
    pub fn cookies(&self, url: &Url) -> Option<String> {
        let mut cookies = self.store.matches(url);
        // RFC 6265, 5.4: the longer paths first. The names make the order the same every time.
        cookies.sort_by(|a, b| {
            let length = |cookie: &Cookie<'_>| String::from(&cookie.path).len();
            (length(b), a.name()).cmp(&(length(a), b.name()))
        });
        let pairs: Vec<String> = cookies
            .iter()
            .map(|cookie| format!("{}={}", cookie.name(), cookie.value()))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// Takes one `Set-Cookie` of an answer; an error says why not.
    pub fn set(&mut self, field: &str, url: &Url) -> Result<(), &'static str> {
        if field.len() > COOKIE_MAX {
            return Err("it is larger than 4096 bytes");
        }
        let Ok(raw) = RawCookie::parse(field.to_owned()) else {
            return Err("it is malformed");
        };
        check(&raw, url)?;
        if self.store.iter_any().count() >= COOKIES_MAX {
            return Err("there are too many cookies");
        }
        put(&mut self.store, &raw, url)?;
        self.set.push((raw, url.clone()));
        Ok(())
    }

    /// Writes what was set into the file, beside what other runs have written meanwhile.
    pub fn save(&self) -> Result<(), Fatal> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        if self.set.is_empty() {
            return Ok(());
        }
        let _lock = lock(path)?;
        let mut now = Self::open(Some(path))?;
        for (raw, url) in &self.set {
            // One that ends a cookie which is gone already is an error.
            let _ = put(&mut now.store, raw, url);
        }
        let text = now.text();
        let saved = Saved {
            path,
            bytes: text.as_bytes(),
            secret: true,
        };
        save::all(&[saved], Existing::Replaced)
    }

    fn text(&self) -> String {
        let mut lines: Vec<String> = self.store.iter_unexpired().filter_map(line).collect();
        lines.sort();
        format!("# Netscape HTTP Cookie File\n\n{}", lines.concat())
    }
}

/// What RFC 6265bis (5.7) demands beyond the store.
fn check(raw: &RawCookie<'_>, url: &Url) -> Result<(), &'static str> {
    let is_secure = url.scheme() == "https";
    let says_secure = raw.secure() == Some(true);
    if says_secure && !is_secure && !is_loopback(url) {
        return Err("only https may set a Secure cookie");
    }
    let begins = |prefix: &str| {
        let name = raw.name().as_bytes();
        name.len() >= prefix.len() && name[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes())
    };
    if begins("__Secure-") && !(says_secure && is_secure) {
        return Err("a __Secure- cookie must be Secure, and set by https");
    }
    let is_hosts = raw.domain().is_none() && raw.path() == Some("/");
    if begins("__Host-") && !(says_secure && is_secure && is_hosts) {
        return Err("a __Host- cookie must be Secure, for the path / and for no domain");
    }
    let has_control = |text: &str| text.contains(char::is_control);
    if has_control(raw.name()) || has_control(raw.value()) || raw.path().is_some_and(has_control) {
        return Err("it holds control characters");
    }
    if let Some(domain) = raw.domain()
        && !domain.trim_matches('.').contains('.')
        && url.host_str() != Some(domain)
    {
        return Err("a whole top-level domain has no cookies");
    }
    Ok(())
}

fn put(store: &mut CookieStore, raw: &RawCookie<'static>, url: &Url) -> Result<(), &'static str> {
    use cookie_store::CookieError as Error;
    match store.insert_raw(raw, url) {
        // Setting a cookie in the past ends it, whether it is there or not.
        Ok(_) | Err(Error::Expired) => Ok(()),
        Err(Error::DomainMismatch) => Err("it is for another domain"),
        Err(Error::PublicSuffix) => Err("it is for a public suffix"),
        Err(_) => Err("it is malformed"),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// The line of a cookie; `None` where a tab or a line end would tear it apart.
fn line(cookie: &Cookie<'_>) -> Option<String> {
    let (domain, with_subdomains) = match &cookie.domain {
        CookieDomain::HostOnly(host) => (host.clone(), "FALSE"),
        CookieDomain::Suffix(domain) => (format!(".{domain}"), "TRUE"),
        _ => return None,
    };
    let hidden = match cookie.http_only() {
        Some(true) => "#HttpOnly_",
        _ => "",
    };
    let secure = match cookie.secure() {
        Some(true) => "TRUE",
        _ => "FALSE",
    };
    let expires = match cookie.expires {
        CookieExpiration::AtUtc(at) => at.unix_timestamp(),
        CookieExpiration::SessionEnd => 0,
    };
    let path = String::from(&cookie.path);
    let (name, value) = cookie.name_value();
    let texts = [&*domain, &path, name, value];
    if texts.iter().any(|text| text.contains(char::is_control)) {
        return None;
    }
    Some(format!(
        "{hidden}{domain}\t{with_subdomains}\t{path}\t{secure}\t{expires}\t{name}\t{value}\n"
    ))
}

fn load(store: &mut CookieStore, path: &Path) -> Result<(), Fatal> {
    let shown = path.display();
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let message = format!("cannot read the cookies in {shown}: {error}");
            return Err(Fatal::new(Exit::from_io(&error), message));
        }
    };
    for (number, text) in text.lines().enumerate() {
        let line = match text.strip_prefix("#HttpOnly_") {
            None if text.trim().is_empty() || text.starts_with('#') => continue,
            hidden => (hidden.unwrap_or(text), hidden.is_some()),
        };
        let Some((raw, url)) = parse(line) else {
            let message = format!(
                "{shown}, line {}: this is no cookie in Netscape's form (seven fields between \
                 tabs); name another --jar",
                number + 1
            );
            return Err(Fatal::new(Exit::Config, message));
        };
        // One that has expired is left out.
        let _ = store.insert_raw(&raw, &url);
    }
    Ok(())
}

/// A line without its mark for HttpOnly, and whether it had one.
fn parse((line, is_hidden): (&str, bool)) -> Option<(RawCookie<'static>, Url)> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [domain, with_subdomains, path, secure, expires, name, value] = fields[..] else {
        return None;
    };
    let host = domain.strip_prefix('.').unwrap_or(domain);
    let url = Url::parse(&format!("https://{host}/")).ok()?;
    // Python leaves it empty, the others write 0 for a cookie that lasts for a session.
    let expires: i64 = match expires {
        "" => 0,
        number => number.parse().ok()?,
    };
    let mut raw = RawCookie::new(name.to_owned(), value.to_owned());
    raw.set_path(path.to_owned());
    if with_subdomains == "TRUE" {
        raw.set_domain(host.to_owned());
    }
    if secure == "TRUE" {
        raw.set_secure(true);
    }
    if is_hidden {
        raw.set_http_only(true);
    }
    if expires != 0 {
        raw.set_expires(OffsetDateTime::from_unix_timestamp(expires).ok()?);
    }
    Some((raw, url))
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(FILE_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// Another run has the directory for a moment only.
fn lock(path: &Path) -> Result<Lock, Fatal> {
    let mut tries = 0;
    loop {
        match Lock::beside(path) {
            Err(fatal) if fatal.exit == Exit::TempFail && tries < LOCK_TRIES => {
                tries += 1;
                thread::sleep(LOCK_WAIT);
            }
            other => return other,
        }
    }
}

/// The list of public suffixes, such as co.uk, where this system has one.
fn suffixes() -> Option<String> {
    fs::read_to_string("/usr/share/publicsuffix/public_suffix_list.dat").ok()
}

/// RFC 6265, 6.1.
const COOKIE_MAX: usize = 4096;
const COOKIES_MAX: usize = 3000;
const FILE_MAX: u64 = 16 << 20;
const LOCK_TRIES: u32 = 250;
const LOCK_WAIT: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn jar() -> Jar {
        Jar::open(None).unwrap()
    }

    #[test]
    fn a_cookie_goes_where_domain_path_and_scheme_say() {
        let mut jar = jar();
        let from = url("https://www.a.example/x/y");
        for field in [
            "host=1",
            "wide=2; Domain=a.example; Path=/",
            "deep=3; Path=/x/y/z",
            "safe=4; Secure; Path=/",
        ] {
            jar.set(field, &from).unwrap();
        }
        let sent = |text| jar.cookies(&url(text));
        assert_eq!(
            sent("https://www.a.example/x/y/z").as_deref(),
            Some("deep=3; host=1; safe=4; wide=2")
        );
        assert_eq!(sent("http://www.a.example/").as_deref(), Some("wide=2"));
        assert_eq!(sent("http://b.a.example/x").as_deref(), Some("wide=2"));
        assert_eq!(sent("http://aa.example/"), None);
        assert_eq!(sent("http://example/"), None);
    }

    #[test]
    fn what_is_not_ones_own_to_set_is_not_set() {
        let mut jar = jar();
        for (field, from) in [
            ("a=1; Domain=b.example", "http://a.example/"),
            ("a=1; Domain=x.a.example", "http://a.example/"),
            ("a=1; Domain=example", "http://a.example/"),
            ("a=1; Domain=.0.0.1", "http://127.0.0.1/"),
            ("a=1; Secure", "http://a.example/"),
            ("__Secure-a=1", "https://a.example/"),
            (
                "__Host-a=1; Secure; Path=/; Domain=a.example",
                "https://a.example/",
            ),
            ("__host-a=1; Path=/", "https://a.example/"),
            ("a=\u{7f}", "http://a.example/"),
        ] {
            assert!(jar.set(field, &url(from)).is_err(), "{field} {from}");
        }
        let long = format!("a={}", "x".repeat(COOKIE_MAX));
        assert!(jar.set(&long, &url("http://a.example/")).is_err());
        assert_eq!(jar.cookies(&url("https://a.example/")), None);
        jar.set("__Host-a=1; Secure; Path=/", &url("https://a.example/"))
            .unwrap();
        for n in 0..COOKIES_MAX {
            let _ = jar.set(&format!("a{n}=1"), &url("http://a.example/"));
        }
        assert!(jar.set("more=1", &url("http://a.example/")).is_err());
    }

    #[test]
    fn a_jar_keeps_all_of_a_cookie_and_drops_it_when_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jar");
        let from = url("https://a.example/");
        let mut first = Jar::open(Some(&path)).unwrap();
        let mut other = Jar::open(Some(&path)).unwrap();
        first
            .set("a=1; Secure; HttpOnly; Max-Age=1000", &from)
            .unwrap();
        first.set("b=2; Domain=a.example; Path=/x", &from).unwrap();
        first.save().unwrap();
        // What another run set meanwhile stays.
        other.set("c=3", &from).unwrap();
        other.save().unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o7777, 0o600);
        let mut again = Jar::open(Some(&path)).unwrap();
        assert_eq!(
            again.cookies(&url("https://a.example/x")).as_deref(),
            Some("b=2; a=1; c=3")
        );
        assert_eq!(
            again.cookies(&url("http://a.example/")).as_deref(),
            Some("c=3")
        );
        assert_eq!(
            again.cookies(&url("http://s.a.example/x")).as_deref(),
            Some("b=2")
        );
        again.set("a=; Max-Age=0", &from).unwrap();
        again.save().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("\ta\t"), "{text}");
        assert!(text.contains("\tc\t"), "{text}");
    }

    #[test]
    fn what_is_no_jar_is_not_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jar");
        for text in ["x", "a\tTRUE\t/\tFALSE\tnever\tn\tv", "a\tb\n"] {
            fs::write(&path, text).unwrap();
            let error = Jar::open(Some(&path)).err().unwrap();
            assert_eq!(error.exit, Exit::Config, "{error}");
        }
    }
}
