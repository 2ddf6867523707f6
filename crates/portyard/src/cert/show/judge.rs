//! What would fail with the contents of a file.

use std::time::{Duration, SystemTime};

use portyard_core::tls::{Facts, KeyKind};
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Finding;
use super::item::{Certificate, Contents, Item, List};
use super::trust::{Trust, signed, signed_list};

/// What was asked about the files.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The time.
    pub now: SystemTime,
    /// The host that clients connect to.
    pub name: Option<&'a ServerName<'static>>,
    /// Whom they trust.
    pub trust: Option<&'a Trust>,
    /// The file of the private key.
    pub key: Option<&'a Contents>,
}

/// What is to be said about a file.
pub fn judge(contents: &Contents, question: &Question<'_>) -> Vec<Finding> {
    let mut findings = contents.findings.clone();
    let chain: Vec<_> = contents.certificates().collect();
    for (at, certificate) in chain.iter().enumerate() {
        let each = judge_alone(&certificate.facts, is_root(certificate), question.now);
        findings.extend(each.into_iter().map(|finding| Finding {
            text: numbered(at, chain.len(), &finding.text),
            ..finding
        }));
    }
    if let Some((first, rest)) = chain.split_first() {
        if first.facts.is_ca {
            findings.extend(judge_authorities(&chain, question));
        } else {
            findings.extend(judge_leaf(first, question));
            findings.extend(judge_chain(first, rest));
            findings.extend(judge_trust(&chain, question, &findings));
        }
    }
    for item in &contents.items {
        match item {
            Item::Certificate(_) | Item::Other(_) | Item::Key(Some(_)) => {}
            Item::Key(None) => findings.push(Finding::fails(UNUSABLE_KEY)),
            Item::List(list) => findings.extend(judge_list(list, question)),
            Item::Request { .. } => findings.push(Finding::note(
                "a request is no certificate yet: an authority has to sign it",
            )),
        }
    }
    findings
}

/// What is to be said about the file of `--key`.
pub fn judge_key_file(contents: &Contents) -> Vec<Finding> {
    let mut findings = contents.findings.clone();
    let has_key = |item: &Item| matches!(item, Item::Key(_));
    if contents.private_key().is_none() {
        let text = if contents.items.iter().any(has_key) {
            UNUSABLE_KEY
        } else {
            "it holds no private key that can be used"
        };
        findings.push(Finding::fails(text));
    }
    findings
}

/// What is wrong with a certificate wherever it stands.
fn judge_alone(facts: &Facts, is_root: bool, now: SystemTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (begin, end) = (date(facts.not_before), date(facts.not_after));
    if facts.not_before > now {
        findings.push(Finding::fails(format!(
            "it is not valid before {begin}; is the clock right?"
        )));
    }
    match facts.not_after.duration_since(now) {
        Err(past) => findings.push(Finding::fails(format!(
            "it expired on {end}, {} days ago; make it anew",
            whole_days(past.duration())
        ))),
        Ok(left) if left < SOON => findings.push(Finding::fails(format!(
            "it expires on {end}, in {} days; make it anew",
            whole_days(left)
        ))),
        Ok(_) => {}
    }
    match &facts.key.kind {
        KeyKind::Rsa if facts.key.bits < RSA_MIN => findings.push(Finding::fails(format!(
            "its key is weak: {}; {RSA_MIN} are the least that is accepted",
            facts.key
        ))),
        KeyKind::Other(_) => findings.push(Finding::fails(format!(
            "its key is of a kind that the daemons and this client do not know: {}",
            facts.key
        ))),
        _ => {}
    }
    // Who is trusted is trusted without a look at what he signed himself with.
    if is_weak(&facts.signature) && !is_root {
        findings.push(Finding::fails(format!(
            "its signature is weak: {}; have it signed anew with SHA-256",
            facts.signature
        )));
    }
    findings
}

/// What is wrong with the certificate that a server or client presents as its own.
fn judge_leaf(leaf: &Certificate, question: &Question<'_>) -> Vec<Finding> {
    let facts = &leaf.facts;
    let mut findings = Vec::new();
    let allows = |usage: &str| {
        facts
            .extended_usages
            .as_ref()
            .is_none_or(|usages| usages.iter().any(|given| given == usage || given == "any"))
    };
    let (server, client) = (allows("serverAuth"), allows("clientAuth"));
    if !server && (question.name.is_some() || !client) {
        findings.push(Finding::fails(
            "it is not for servers: its extended key usage lacks serverAuth (for clients: clientAuth)",
        ));
    }
    if facts.extended_usages.is_none() {
        findings.push(Finding::note(
            "it says neither serverAuth nor clientAuth (no extended key usage); some refuse that",
        ));
    }
    let signs = |usages: &Vec<&str>| usages.contains(&"digitalSignature");
    if !facts.usages.as_ref().is_none_or(signs) {
        findings.push(Finding::fails(
            "its key must not sign (the key usage lacks digitalSignature), which TLS 1.3 needs",
        ));
    }
    findings.extend(judge_names(leaf, server, question.name));
    if let Some(contents) = question.key {
        findings.extend(judge_key(leaf, contents));
    }
    findings
}

fn judge_names(
    leaf: &Certificate,
    server: bool,
    wanted: Option<&ServerName<'static>>,
) -> Option<Finding> {
    let names = &leaf.facts.names;
    if names.is_empty() {
        let text = format!(
            "it has no alternative names, and clients do not look at its subject ({}): make it anew \
             with names",
            leaf.facts.subject
        );
        return Some(if server {
            Finding::fails(text)
        } else {
            Finding::note("it has no alternative names; only its subject tells who it is")
        });
    }
    let Some(wanted) = wanted else {
        let missing: Vec<_> = LOCAL
            .iter()
            .filter(|name| !covers(leaf, name))
            .copied()
            .collect();
        return (server && !missing.is_empty()).then(|| {
            Finding::note(format!(
                "it is not good for {}: a client on this machine must use one of its names",
                missing.join(", ")
            ))
        });
    };
    let covered = ParsedCertificate::try_from(&leaf.der)
        .is_ok_and(|parsed| verify_server_name(&parsed, wanted).is_ok());
    (!covered).then(|| {
        Finding::fails(format!(
            "it is not good for {}, only for {}",
            wanted.to_str(),
            names.join(", ")
        ))
    })
}

fn covers(leaf: &Certificate, name: &str) -> bool {
    let parsed = ParsedCertificate::try_from(&leaf.der);
    let name = ServerName::try_from(name);
    matches!((parsed, name), (Ok(parsed), Ok(name)) if verify_server_name(&parsed, &name).is_ok())
}

fn judge_key(leaf: &Certificate, contents: &Contents) -> Option<Finding> {
    // A file without a key is reported with that file.
    let key = contents.private_key()?;
    let same = X509Certificate::from_der(&leaf.der)
        .is_ok_and(|(_, parsed)| parsed.public_key().raw == key.info);
    (!same).then(|| {
        Finding::fails(
            "the private key is that of another certificate; they have to be made together",
        )
    })
}

/// What is wrong with the certificates that follow the first one.
fn judge_chain(leaf: &Certificate, rest: &[&Certificate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut below = leaf;
    for (at, certificate) in rest.iter().enumerate() {
        let number = at + 2;
        if signed(certificate, below) {
            if !certificate.facts.is_ca {
                findings.push(Finding::fails(format!(
                    "certificate {number} signed the one before it, but is no authority's (its CA \
                     flag is missing)"
                )));
            } else if !may_sign(&certificate.facts) {
                findings.push(Finding::fails(format!(
                    "certificate {number} must not sign others (its key usage lacks keyCertSign)"
                )));
            }
        } else {
            let elsewhere = rest.iter().position(|other| signed(other, below));
            findings.push(Finding::fails(match elsewhere {
                Some(other) => format!(
                    "the order is wrong: certificate {} signed certificate {}, and has to follow it",
                    other + 2,
                    number - 1
                ),
                None => format!(
                    "certificate {number} did not sign certificate {}, which is signed by {}",
                    number - 1,
                    below.facts.issuer
                ),
            }));
            return findings;
        }
        below = certificate;
    }
    if rest.last().is_some_and(|last| is_root(last)) {
        findings.push(Finding::note(
            "the last certificate signed itself: who trusts it has it, and need not be sent it",
        ));
    }
    findings
}

/// Whether those who trust `--ca` believe a chain.
fn judge_trust(
    chain: &[&Certificate],
    question: &Question<'_>,
    before: &[Finding],
) -> Option<Finding> {
    let (leaf, last) = (chain.first()?, chain.last()?);
    let Some(trust) = question.trust else {
        return is_root(leaf).then(|| {
            Finding::fails(
                "it is signed by itself: only clients that are given this very file believe it \
                 (check with --ca FILE)",
            )
        });
    };
    if trust.signer(last).is_none() && !chain.iter().any(|one| trust.signer(one).is_some()) {
        let same_name = trust
            .authorities
            .iter()
            .any(|authority| authority.facts.subject == last.facts.issuer);
        let issuer = &last.facts.issuer;
        return Some(Finding::fails(if same_name {
            format!("it is not signed by --ca, but by another authority of the same name, {issuer}")
        } else if is_root(leaf) {
            "it is signed by itself, and is not in --ca".into()
        } else {
            format!(
                "--ca does not have who signed the last certificate, {issuer}: either an \
                 intermediate certificate is missing in this file, or the authority is another one"
            )
        }));
    }
    if before.iter().any(|finding| finding.fails) {
        return None;
    }
    // Only what nothing above has found: name constraints, path lengths, unknown critical extensions.
    let first = leaf.facts.names.iter().find_map(|name| a_server_name(name));
    let server = leaf.facts.extended_usages.as_ref();
    let server = server.is_none_or(|usages| usages.iter().any(|usage| usage == "serverAuth"));
    let name = match question.name {
        Some(name) => Some(name.clone()),
        None if server => Some(first?),
        None => None,
    };
    let why = trust.refusal(chain, name.as_ref(), question.now)?;
    Some(Finding::fails(format!("it is refused: {why}")))
}

/// What is wrong with authorities: each stands for itself.
fn judge_authorities(all: &[&Certificate], question: &Question<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, certificate) in all.iter().enumerate() {
        let mut say = |text: &str| findings.push(Finding::fails(numbered(at, all.len(), text)));
        if !certificate.facts.is_ca {
            say("it is no authority's; what a server presents comes first in its file");
        } else if !may_sign(&certificate.facts) {
            say("it must not sign others (its key usage lacks keyCertSign)");
        }
        if let Some(trust) = question.trust
            && trust.signer(certificate).is_none()
        {
            say("it is neither in --ca nor signed by it");
        }
    }
    if let (Some(first), Some(contents)) = (all.first(), question.key) {
        findings.extend(judge_key(first, contents));
    }
    if question.name.is_some() {
        findings.push(Finding::fails(
            "it is an authority's, not a server's: no name is compared with it",
        ));
    }
    findings
}

fn judge_list(list: &List, question: &Question<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let renew = "make the next one: portyard cert crl --ca DIR";
    match list.next_update.map(moment) {
        None => findings.push(Finding::note("it does not say when the next one comes")),
        Some(next) if next < question.now => findings.push(Finding::fails(format!(
            "it should have been renewed by {}, and nobody is let in with it; {renew}",
            date(next)
        ))),
        Some(next) => {
            let left = next.duration_since(question.now).unwrap_or_default();
            if left < LIST_SOON {
                let (next, days) = (date(next), whole_days(left));
                findings.push(Finding::note(format!(
                    "it must be renewed by {next}, in {days} days; {renew}"
                )));
            }
        }
    }
    if moment(list.this_update) > question.now {
        findings.push(Finding::fails("it is of the future; is the clock right?"));
    }
    if let Some(trust) = question.trust
        && !trust
            .authorities
            .iter()
            .any(|authority| signed_list(authority, &list.der))
    {
        findings.push(Finding::fails("it is not signed by --ca"));
    }
    findings
}

/// A name that the certificate is good for, to try it with.
fn a_server_name(name: &str) -> Option<ServerName<'static>> {
    let (kind, name) = name.split_once(':')?;
    let host = match kind {
        "dns" | "ip" => name.replacen('*', "any", 1),
        _ => return None,
    };
    ServerName::try_from(host).ok()
}

fn is_root(certificate: &Certificate) -> bool {
    signed(certificate, certificate)
}

fn may_sign(facts: &Facts) -> bool {
    let may = |usages: &Vec<&str>| usages.contains(&"keyCertSign");
    facts.usages.as_ref().is_none_or(may)
}

fn is_weak(signature: &str) -> bool {
    let name = signature.to_ascii_lowercase();
    ["md2", "md5", "sha1"]
        .iter()
        .any(|weak| name.contains(weak))
}

fn numbered(at: usize, count: usize, text: &str) -> String {
    if count == 1 {
        text.into()
    } else {
        format!("certificate {}: {text}", at + 1)
    }
}

/// A day, in UTC.
pub fn date(time: SystemTime) -> time::Date {
    OffsetDateTime::from(time).date()
}

/// A time of ASN.1, which lies between the years 0 and 9999.
pub fn moment(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH - distance
    } else {
        SystemTime::UNIX_EPOCH + distance
    }
}

/// Days that are over or left in full.
pub fn whole_days(span: Duration) -> u64 {
    span.as_secs() / 86_400
}

const UNUSABLE_KEY: &str = "the private key is of a kind that the daemons and this client do not \
                            know; make one with 'portyard cert server'";
/// What clients on the same machine say.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Time enough to renew a certificate after a monthly look.
const SOON: Duration = Duration::from_secs(21 * 86_400);
/// A list is renewed more often.
const LIST_SOON: Duration = Duration::from_secs(7 * 86_400);
/// RSA keys of fewer bits are refused by rustls, OpenSSL's defaults and browsers.
const RSA_MIN: usize = 2048;
