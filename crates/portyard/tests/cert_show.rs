//! `portyard cert show`: what it says of good and bad files, of ours and of openssl's.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod yard;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use portyard_testkit::Certificates;
use yard::{Yard, text};

#[test]
fn show_says_what_would_fail() {
    let (yard, made, stranger) = (Yard::new(), Certificates::new(), Certificates::new());
    let ca = text(made.ca());
    let names = ["localhost", "127.0.0.1", "::1"];
    let good = made.server(&names);
    let chain = text(&good.chain);
    for words in [
        chain.to_string(),
        format!(
            "{chain} --ca {ca} --name localhost --key {}",
            text(&good.key)
        ),
        format!(
            "{} --ca {ca} --name ::1",
            text(&made.intermediate(&names).chain)
        ),
        format!("{} --ca {ca}", text(&made.client("alice").chain)),
        format!("{ca} {}", text(&made.crl(&[&good]))),
    ] {
        assert_eq!(yard.fails(&words), [""; 0], "{words}");
    }
    let client = made.client("alice");
    for (words, because) in [
        (text(&made.expired(&names).chain).into(), "it expired on"),
        (
            text(&made.not_yet(&names).chain).into(),
            "is not valid before",
        ),
        (text(&made.expiring(&names, 20).chain).into(), "in 20 days"),
        (
            text(&made.self_signed(&names).chain).into(),
            "signed by itself",
        ),
        (
            text(&made.expired_crl(&[])).into(),
            "should have been renewed",
        ),
        (
            format!("{chain} --name example.org"),
            "not good for example.org",
        ),
        (
            format!("{chain} --key {}", text(&client.key)),
            "that of another certificate",
        ),
        (format!("{chain} --key {ca}"), "no private key"),
        (
            format!("{chain} --ca {}", text(stranger.ca())),
            "does not have who signed",
        ),
        (
            format!("{} --name alice", text(&client.chain)),
            "lacks serverAuth",
        ),
        (
            format!("{ca} --name localhost"),
            "refused as a server's own",
        ),
        (text(&made.server(&[]).chain).into(), "no alternative names"),
    ] {
        yard.fails_once(&words, because);
    }
    assert_eq!(yard.fails(text(&made.expiring(&names, 21).chain)), [""; 0]);
    fs::set_permissions(&good.key, Permissions::from_mode(0o640)).unwrap();
    yard.fails_once(text(&good.key), "chmod 600");
    yard.fails_once(&format!("{chain} --key {}", text(&good.key)), "chmod 600");

    let one_name = made.server(&["host.example.org"]);
    let shown = yard.made("cert show", &[text(&one_name.chain)]);
    for part in [
        "note: it is not good for localhost, 127.0.0.1, ::1",
        "dns:host.example.org",
        "30 days left",
        "EC P-256",
        "serverAuth",
        "nothing here would fail",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let words = format!(
        "x509 -in {} -noout -fingerprint -sha256",
        text(&one_name.chain)
    );
    let fingerprint = yard.openssl(&words).success();
    let digits = fingerprint.trim().split_once('=').unwrap().1;
    let pin = format!("sha256:{}", digits.replace(':', "").to_lowercase());
    assert!(shown.contains(&pin), "{pin}\n{shown}");
}

#[test]
fn show_knows_what_openssl_makes() {
    let yard = Yard::new();
    let req = "req -x509 -nodes -days 100 -subj /CN=localhost";
    let names = "-addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1";
    for words in [
        format!("{req} -newkey rsa:2048 -keyout good.key -out tutorial.pem"),
        format!("{req} -newkey rsa:1024 -keyout weak.key -out weak.pem {names}"),
        format!("{req} -newkey ec -pkeyopt ec_paramgen_curve:secp256k1 -keyout odd.key -out odd.pem {names}"),
        "req -new -nodes -key good.key -subj /CN=wanted -out request.csr".into(),
        "req -new -nodes -newkey rsa:2048 -keyout leaf.key -subj /CN=localhost -out leaf.csr".into(),
        "x509 -in tutorial.pem -outform DER -out tutorial.der".into(),
        "x509 -req -in leaf.csr -CA tutorial.pem -CAkey good.key -CAcreateserial -sha1 -days 100 -out sha1.pem".into(),
        "pkey -in good.key -aes128 -passout pass:x -out locked.key".into(),
        "pkcs12 -export -inkey good.key -in tutorial.pem -passout pass:x -out bundle.p12".into(),
    ] {
        yard.openssl(&words).success();
    }
    for name in ["good.key", "weak.key", "odd.key", "leaf.key", "locked.key"] {
        fs::set_permissions(yard.path(name), Permissions::from_mode(0o600)).unwrap();
    }
    // openssl's own default makes an authority of it.
    yard.fails_once("tutorial.pem --name localhost", "refused as a server's own");
    let sha1 = yard.fails("sha1.pem --ca tutorial.pem");
    assert!(
        sha1.iter()
            .any(|text| text.contains("signature is weak: sha1With")),
        "{sha1:?}"
    );
    assert!(
        sha1.iter()
            .any(|text| text.contains("no alternative names")),
        "{sha1:?}"
    );
    let weak = yard.fails("weak.pem");
    assert!(
        weak.iter().any(|text| text.contains("RSA 1024 bits")),
        "{weak:?}"
    );
    let odd = yard.fails("odd.pem odd.key");
    assert!(
        odd.iter().any(|text| text.contains("EC 1.3.132.0.10")),
        "{odd:?}"
    );
    assert!(
        odd.iter()
            .any(|text| text.contains("private key is of a kind")),
        "{odd:?}"
    );
    yard.fails_once("locked.key", "password");
    yard.fails_once("bundle.p12", "PKCS #12");
    assert!(yard.fails("tutorial.der request.csr good.key").is_empty());
    let shown = yard.made("cert show tutorial.der request.csr good.key", &[]);
    for part in [
        "it is DER",
        "an authority has to sign it",
        "CN=wanted",
        "RSA 2048 bits",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn who_must_not_sign_is_found_out() {
    let yard = Yard::furnished("ec");
    let new = "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256";
    let names = "-addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1";
    let usages = "-addext keyUsage=critical,keyCertSign,cRLSign";
    for words in [
        // A server signs another.
        format!("{new} -keyout low.key -out low.csr -subj /CN=low {names}"),
        "x509 -req -in low.csr -copy_extensions copy -CA server.pem -CAkey server.key \
         -CAcreateserial -days 100 -out low.pem"
            .into(),
        // An authority that may only sign for a domain.
        format!(
            "{new} -x509 -keyout ca.key -out ca.pem -subj /CN=Narrow -days 1000 {usages} \
                 -addext nameConstraints=critical,permitted;DNS:example.org"
        ),
    ] {
        yard.openssl(&words).success();
    }
    let [low, server] = ["low.pem", "server.pem"].map(|name| fs::read(yard.path(name)).unwrap());
    fs::write(yard.path("chain.pem"), [low, server].concat()).unwrap();
    yard.fails_once("chain.pem --ca ca/ca.pem", "its CA flag is missing");
    yard.made("cert server localhost --out narrow", &[]);
    yard.fails_once("narrow.pem --ca ca.pem", "it is refused: ");
    yard.made("cert server www.example.org --out narrow --force", &[]);
    assert!(yard.fails("narrow.pem --ca ca.pem").is_empty());
}

#[test]
fn what_a_certificate_says_reaches_no_terminal() {
    let yard = Yard::new();
    let config = "[req]\ndistinguished_name=dn\nprompt=no\nutf8=yes\nstring_mask=utf8only\n[dn]\nCN=\x1b[31mred\n";
    fs::write(yard.path("config"), config).unwrap();
    yard.openssl("req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout key -out evil.pem -config config")
        .success();
    let run = yard.portyard("cert show evil.pem", &[]);
    assert!(!run.stdout.contains('\x1b'), "{run:?}");
    assert!(run.stdout.contains("\\x1b[31mred"), "{run:?}");
}
