//! Routes from the configuration, each kind of handler with what it stands in front of.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use common::{ask, get, key_file, start};
use portyard_testkit::python;

#[test]
fn a_template_shows_values_harmlessly() {
    let daemon = start(
        "",
        r#"
[[route]]
path = "/greet/{who}"
template = { body = "<p title=\"{{query.t}}\">{{path.who}} {{header.x-a|none}} {{method}}</p>" }
cache = "public, max-age=60"
headers = { "X-Own" = "yes" }

[[route]]
path = "/json/{who}"
template = { body = '{"who": "{{path.who}}"}', content_type = "application/json", status = 201 }
"#,
    );
    let told = ask(&daemon, "GET", "/greet/%3Cb%3E?t=%22x", "X-A: <i>\r\n", "");
    assert_eq!(
        told.text(),
        "<p title=\"&quot;x\">&lt;b&gt; &lt;i&gt; GET</p>"
    );
    assert_eq!(told.field("cache-control"), Some("public, max-age=60"));
    assert_eq!(told.field("x-own"), Some("yes"));
    let json = get(&daemon, "/json/a%22b%0A");
    assert_eq!(
        (json.status, json.text().as_str()),
        (201, "{\"who\": \"a\\\"b\\n\"}")
    );
    assert_eq!(ask(&daemon, "POST", "/greet/x", "", "").status, 405);
    assert_eq!(get(&daemon, "/greet/a%2f..%2fb").status, 400);
    assert_eq!(get(&daemon, "/greet/../hello").status, 400);
    assert_eq!(get(&daemon, "/hello").status, 200);
    let counted = "portyard_http_requests_total{route=\"/greet/{who}\",class=\"4xx\"}";
    assert_eq!(daemon.count(counted), 1);
}

#[test]
fn values_leave_a_document_well_formed_for_python() {
    let daemon = start(
        "",
        r#"
[[route]]
path = "/xml/{a}"
template = { body = "<?xml version=\"1.0\"?><a b=\"{{query.b}}\">{{path.a}}</a>", content_type = "application/xml" }

[[route]]
path = "/json"
template = { body = '{"a": {{query.a}}, "b": [{{query.b|0}}], "c": "{{query.c}}"}', content_type = "application/json" }
"#,
    );
    let script = r"
import sys, urllib.request
import xml.etree.ElementTree as tree
found = tree.fromstring(urllib.request.urlopen(sys.argv[1]).read())
print(ascii(found.text), ascii(found.attrib))
";
    let url = common::url(&daemon, "/xml/a%01%1B%3Cb?b=%00%22%26%EF%BF%BF");
    let told = python(script, &[&url]).success();
    assert_eq!(told.trim(), r#"'a\ufffd\ufffd<b' {'b': '\ufffd"&\ufffd'}"#);
    let script = "import json, sys; print(json.loads(sys.argv[1]))";
    for (query, expected) in [
        ("a=7&c=7", "{'a': 7, 'b': [0], 'c': '7'}"),
        (
            "a=7,%22b%22:8&b=true&c=%22",
            r#"{'a': '7,"b":8', 'b': [True], 'c': '"'}"#,
        ),
    ] {
        let told = get(&daemon, &format!("/json?{query}")).text();
        assert_eq!(python(script, &[&told]).success().trim(), expected);
    }
}

#[test]
fn a_table_that_would_not_do_what_it_says_is_refused() {
    let text = "template = { body = \"x\" }";
    for (table, part) in [
        ("listeners = [\"othr\"]\nTEXT", "'othr'; there are http"),
        (
            "TEXT\n[[route]]\npath = \"/{b}\"\nTEXT\n[[route]]\npath = \"/c\"\nmethods = [\"HEAD\"]\nTEXT",
            "\"/c\": no request reaches it, as \"/{b}\"",
        ),
        ("headers = { Content-Length = \"5\" }\nTEXT", "take it out"),
        ("headers = { Connection = \"close\" }\nTEXT", "take it out"),
        ("timeout = \"0s\"\nTEXT", "timeout must be longer"),
        (
            "template = { body = \"x\", status = 204 }",
            "leave the body empty",
        ),
        (
            "template = { body = \"x\", content_type = \"html\" }",
            "media type",
        ),
        (
            "template = { body = \"<p title={{query.a}}>\" }",
            "{{query.a}} is not safe there: write quotes",
        ),
        (
            "template = { body = \"<script>{{query.a}}</script>\" }",
            "data-value",
        ),
        (
            "template = { body = '\"a\",{{query.a}}', content_type = \"text/csv\" }",
            "write quotes",
        ),
        ("file = { path = \"/usr\" }", "is a directory"),
        ("cgi = { program = \"/etc/passwd\" }", "chmod +x"),
        (
            "cgi = { program = \"/bin/sh\", directory = \"/no\" }",
            "cgi.directory",
        ),
        ("cgi = { program = \"/bin/sh\", run = \"0s\" }", "cgi.run"),
        ("proxy = { to = \"http://u:p@a\" }", "before the @"),
        (
            "kv = { server = \"tcp://a:1\", key = \"k\", prefix = \"p\" }",
            "kv.prefix",
        ),
        (
            "rpc = { server = \"tcp://a:1\", method = \"\" }",
            "rpc.method",
        ),
    ] {
        let builder = common::builder();
        let table = format!(
            "[[route]]\npath = \"/a\"\n{}\n",
            table.replace("TEXT", text)
        );
        let config = common::config(&builder, "", &table);
        let said = builder.config(&config).arg("--check").run();
        assert_eq!(said.code, Some(78), "{table}: {}", said.stderr);
        assert!(said.stderr.contains(part), "{table}: {}", said.stderr);
    }
    for (options, part) in [
        ("hosts = [\"a:80\"]", "'a:80' is no host"),
        ("header = \"0s\"", "options.header"),
        ("max_header = 0", "options.max_header"),
        ("cors = { origins = [\"https://A\"] }", "small letters"),
        (
            "cors = { origins = [\"https://a\"], methods = [\"get\"] }",
            "'get'",
        ),
    ] {
        let builder = common::builder();
        let config = common::config(&builder, options, "");
        let said = builder.config(&config).arg("--check").run();
        assert_eq!(said.code, Some(78), "{options}: {}", said.stderr);
        assert!(said.stderr.contains(part), "{options}: {}", said.stderr);
    }
    // What the command line listens on stands for whatever the file has.
    let builder = common::builder();
    let table = format!("[[route]]\npath = \"/a\"\nlisteners = [\"other\"]\n{text}\n");
    let config = common::config(&builder, "", &table);
    let said = builder
        .config(&config)
        .arg("--listen")
        .arg("tcp://127.0.0.1:0")
        .arg("--check")
        .run();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    fs::create_dir_all(path.join("public/sub")).unwrap();
    fs::write(path.join("secret.txt"), "secret").unwrap();
    fs::write(path.join("public/index.html"), "<p>index").unwrap();
    fs::write(path.join("public/a b.txt"), "spaced").unwrap();
    fs::write(path.join("public/.hidden"), "hidden").unwrap();
    fs::write(path.join("public/big.js"), "x".repeat(1000)).unwrap();
    fs::write(path.join("public/big.js.gz"), "packed").unwrap();
    fs::write(path.join("public/sub/x.css"), "p {}").unwrap();
    symlink("../secret.txt", path.join("public/out")).unwrap();
    symlink("/etc/passwd", path.join("public/far")).unwrap();
    nix::unistd::mkfifo(&path.join("public/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    root
}

#[test]
fn a_directory_is_served_and_nothing_outside_of_it() {
    let root = tree();
    let public = root.path().join("public");
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/files/{{name..}}\"\ndirectory = {{ path = \"{0}\", precompressed = true }}\n\
             [[route]]\npath = \"/list/{{name..}}\"\n\
             directory = {{ path = \"{0}\", index = \"\", listing = true }}\n",
            public.display()
        ),
    );
    assert_eq!(get(&daemon, "/files/").text(), "<p>index");
    assert_eq!(get(&daemon, "/files/a%20b.txt").text(), "spaced");
    let css = get(&daemon, "/files/sub/x.css");
    assert_eq!(css.field("content-type"), Some("text/css; charset=utf-8"));
    let moved = get(&daemon, "/files/sub?a=b");
    assert_eq!(
        (moved.status, moved.field("location")),
        (301, Some("/files/sub/?a=b"))
    );
    for path in [
        "/files/sub/",
        "/files/nothing",
        "/files/.hidden",
        "/files/out",
        "/files/far",
        "/files/fifo",
        "/files/index.html/",
        "/files/a%00b",
    ] {
        let status = get(&daemon, path).status;
        assert!(status == 404 || status == 400, "{path} {status}");
    }
    for path in [
        "/files/../secret.txt",
        "/files/%2e%2e/secret.txt",
        "/files/sub%2f..%2f..%2fsecret.txt",
        "/files//etc/passwd",
    ] {
        let told = get(&daemon, path);
        assert!(
            told.status >= 400 && !told.text().contains("root:"),
            "{path} {}",
            told.status
        );
    }
    let packed = ask(
        &daemon,
        "GET",
        "/files/big.js",
        "Accept-Encoding: gzip\r\n",
        "",
    );
    assert_eq!(
        (packed.field("content-encoding"), packed.text().as_str()),
        (Some("gzip"), "packed")
    );
    // What it likes better need not lie there.
    let fields = "Accept-Encoding: zstd, br, gzip;q=0.5\r\n";
    assert_eq!(
        ask(&daemon, "GET", "/files/big.js", fields, "").text(),
        "packed"
    );
    let plain = get(&daemon, "/files/big.js");
    assert_eq!(plain.body.len(), 1000);
    assert_eq!(
        plain.head.matches("accept-encoding").count(),
        1,
        "{}",
        plain.head
    );
    assert_eq!(get(&daemon, "/files/%ff").status, 400);
    assert_eq!(
        ask(&daemon, "GET", "/list/", "Accept: image/png\r\n", "").status,
        406
    );
    let list = ask(&daemon, "GET", "/list/", "Accept: application/json\r\n", "").text();
    assert!(
        list.contains("\"sub/\"") && list.contains("a b.txt") && !list.contains(".hidden"),
        "{list}"
    );
    assert!(
        get(&daemon, "/list/")
            .text()
            .contains("<a href=\"./a%20b.txt\">a b.txt</a>")
    );
}

#[test]
fn a_redirect_keeps_slashes_and_where_that_is_wanted_the_query() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/old/{rest..}\"\nredirect = { to = \"https://new.example/{{path.rest}}\" }\n\
         [[route]]\npath = \"/kept/{rest..}\"\n\
         redirect = { to = \"/new/{{path.rest}}\", keep_query = true }\n\
         [[route]]\npath = \"/part\"\nredirect = { to = \"/new#part\", keep_query = true }\n\
         [[route]]\npath = \"/both\"\nredirect = { to = \"/new?a=b\", keep_query = true }\n",
    );
    for (path, to) in [
        ("/old/a/b%20c?x=1", "https://new.example/a/b%20c"),
        ("/old//evil.example", "https://new.example//evil.example"),
        ("/kept/a/b?x=%20&y", "/new/a/b?x=%20&y"),
        ("/kept/a", "/new/a"),
        ("/both?x=1", "/new?a=b&x=1"),
        ("/both", "/new?a=b"),
        ("/part?x=1", "/new?x=1#part"),
    ] {
        assert_eq!(get(&daemon, path).field("location"), Some(to), "{path}");
    }
}

#[test]
fn a_redirect_leads_where_the_configuration_says() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/old/{id}\"\nredirect = { to = \"https://new.example/{{path.id}}?q={{query.q}}\", status = 308 }\n",
    );
    let told = get(&daemon, "/old/a%2Bb?q=%0D%0ASet-Cookie:x");
    assert_eq!(told.status, 308);
    assert_eq!(
        told.field("location"),
        Some("https://new.example/a%2Bb?q=%0D%0ASet-Cookie%3Ax")
    );
    for to in [
        "{{query.to}}",
        "//{{path.id}}",
        "https://{{path.id}}/",
        "ftp://a/",
    ] {
        let builder = common::builder();
        let route = format!("[[route]]\npath = \"/a/{{id}}\"\nredirect = {{ to = \"{to}\" }}\n");
        let text = common::config(&builder, "", &route);
        assert_eq!(
            builder.config(&text).arg("--check").run().code,
            Some(78),
            "{to}"
        );
    }
}

#[test]
fn a_key_is_shown_as_a_token_a_password_or_a_signature() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path());
    let route = |scheme: &str| {
        format!(
            "[[route]]\npath = \"/{scheme}\"\nmethods = [\"GET\", \"POST\"]\ntemplate = {{ body = \"in\" }}\n\
             key = {{ scheme = \"{scheme}\", file = \"{keys}\" }}\n"
        )
    };
    let routes = [route("bearer"), route("basic"), route("hmac")].concat();
    let builder = common::builder();
    let text = common::config(&builder, "", &routes);
    let text = text.replace(
        "[listener.options]",
        "limits.penalty = \"0s\"\n[listener.options]",
    );
    let daemon = builder.config(&text).start();
    for (path, fields, status) in [
        ("/bearer", "Authorization: Bearer open sesame 1234\r\n", 200),
        (
            "/bearer",
            "Authorization: bearer b3BlbiBzZXNhbWUgMTIzNA==\r\n",
            200,
        ),
        ("/bearer", "Authorization: Bearer open sesame 1235\r\n", 401),
        ("/bearer", "", 401),
        (
            "/basic",
            "Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWUgMTIzNA==\r\n",
            200,
        ),
        // bob with the key of alice.
        (
            "/basic",
            "Authorization: Basic Ym9iOm9wZW4gc2VzYW1lIDEyMzQ=\r\n",
            401,
        ),
        ("/basic", "", 401),
        ("/hmac", "", 401),
    ] {
        let told = ask(&daemon, "GET", path, fields, "");
        assert_eq!(told.status, status, "{path} {fields}");
        assert_eq!(told.field("www-authenticate").is_some(), status == 401);
    }
    let script = r#"
import base64, hashlib, hmac, http.client, sys, time
port, key = int(sys.argv[1]), b"open sesame 1234"
def ask(method, query, body, change=None, created=None, name="alice"):
    names = ["@method", "@authority", "@path", "@query"]
    values = {"@method": method, "@authority": "127.0.0.1:%d" % port, "@path": "/hmac", "@query": "?" + query}
    headers = {}
    if body:
        names.append("content-digest")
        values["content-digest"] = headers["Content-Digest"] = \
            "sha-256=:%s:" % base64.b64encode(hashlib.sha256(body).digest()).decode()
    parameters = '(%s);created=%d;keyid="%s";alg="hmac-sha256"' % (
        " ".join('"%s"' % n for n in names), created or time.time(), name)
    base = "".join('"%s": %s\n' % (n, values[n]) for n in names) + '"@signature-params": ' + parameters
    proof = base64.b64encode(hmac.new(key, base.encode(), "sha256").digest()).decode()
    headers["Signature-Input"], headers["Signature"] = "sig=" + parameters, "sig=:%s:" % proof
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, "/hmac" + ("?" + query if query else "") , change or body, headers)
    return connection.getresponse().status
print(ask("GET", "", b""), ask("GET", "a=b", b""), ask("POST", "", b"body"), ask("POST", "", b"body", b"BODY"),
      ask("GET", "", b"", created=time.time() - 400), ask("GET", "", b"", name="bob"))
"#;
    let port = daemon.address("http").port().to_string();
    assert_eq!(
        python(script, &[&port]).success().trim(),
        "200 200 200 401 401 401"
    );
}

#[test]
fn wrong_keys_cost_their_source_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path());
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/in\"\ntemplate = {{ body = \"in\" }}\nkey = {{ scheme = \"bearer\", file = \"{keys}\" }}\n"
        ),
    );
    let try_with = |key: &str| {
        ask(
            &daemon,
            "GET",
            "/in",
            &format!("Authorization: Bearer {key}\r\n"),
            "",
        )
        .status
    };
    let guesses: Vec<u16> = (0..8).map(|n| try_with(&format!("guess {n}"))).collect();
    assert!(guesses.contains(&429), "{guesses:?}");
}

#[test]
fn a_rate_is_told_and_kept() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/r\"\ntemplate = { body = \"in\" }\nrate = \"1/min\"\nburst = 2\n",
    );
    let first = get(&daemon, "/r");
    assert_eq!(first.field("ratelimit-policy"), Some("\"route\";q=2;w=120"));
    assert_eq!(first.field("ratelimit"), Some("\"route\";r=1;t=60"));
    assert_eq!(get(&daemon, "/r").status, 200);
    let over = get(&daemon, "/r");
    assert_eq!(
        (over.status, over.field("ratelimit")),
        (429, Some("\"route\";r=0;t=120"))
    );
    let wait: u64 = over.field("retry-after").unwrap().parse().unwrap();
    assert!((50..=61).contains(&wait), "{wait}");
}

#[test]
fn a_route_can_be_for_some_only() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/none\"\ntemplate = { body = \"in\" }\nallow = [\"10.0.0.0/8\"]\n\
         [[route]]\npath = \"/us\"\ntemplate = { body = \"in\" }\nallow = [\"127.0.0.0/8\", \"::1\"]\n\
         [[route]]\npath = \"/elsewhere\"\ntemplate = { body = \"in\" }\nlisteners = [\"other\"]\n\
         [[listener]]\nservice = \"http\"\nname = \"other\"\nlisten = [\"tcp://127.0.0.1:0\"]\n",
    );
    for (path, status) in [("/none", 403), ("/us", 200), ("/elsewhere", 404)] {
        assert_eq!(get(&daemon, path).status, status, "{path}");
    }
}

#[test]
fn a_reload_replaces_routes_as_a_whole_or_not_at_all() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/v\"\ntemplate = { body = \"one\" }\n",
    );
    assert_eq!(get(&daemon, "/v").text(), "one");
    let config = fs::read_to_string(daemon.config_path()).unwrap();
    daemon.rewrite_config(&config.replace("one", "two"));
    daemon.reload();
    assert_eq!(get(&daemon, "/v").text(), "two");
    daemon.rewrite_config(&config.replace("one", "{{path.x}}"));
    let said = daemon.reload();
    assert!(said.contains("[[route]] \"/v\""), "{said}");
    assert_eq!(get(&daemon, "/v").text(), "two");
    daemon.rewrite_config(config.split("[[route]]").next().unwrap());
    daemon.reload();
    assert_eq!(get(&daemon, "/v").status, 404);
}

#[test]
fn a_wrong_route_is_refused_with_what_to_do() {
    for (route, part) in [
        (
            "path = \"x\"\ntemplate = { body = \"\" }",
            "must begin with a slash",
        ),
        ("path = \"/x\"", "write exactly one of"),
        (
            "path = \"/x\"\ntemplate = { body = \"\" }\nrpc = { server = \"unix:/x\", method = \"m\" }",
            "write exactly one of",
        ),
        (
            "path = \"/x\"\ntemplate = { body = \"{{query.a}}\", content_type = \"text/javascript\" }",
            "no value is safe",
        ),
        (
            "path = \"/x\"\ntemplate = { body = \"{{header.cookie}}\" }",
            "would show a secret",
        ),
        ("path = \"/x\"\ndirectory = { path = \"/\" }", "{name..}"),
        (
            "path = \"/x\"\nfile = { path = \"/nonexistent/x\" }",
            "cannot be opened",
        ),
        ("path = \"/x\"\ncgi = { program = \"ls\" }", "absolute path"),
        ("path = \"/x\"\nproxy = { to = \"ftp://x\" }", "proxy.to"),
        (
            "path = \"/x\"\nmethods = [\"PUT\"]\nfile = { path = \"/etc/passwd\" }",
            "means nothing here",
        ),
        (
            "path = \"/x\"\ntemplate = { body = \"\" }\nallow = [\"nobody\"]",
            "allow",
        ),
        (
            "path = \"/x\"\ntemplate = { body = \"\" }\nspeed = 1",
            "speed",
        ),
    ] {
        let builder = common::builder();
        let text = common::config(&builder, "", &format!("[[route]]\n{route}\n"));
        let said = builder.config(&text).arg("--check").run();
        assert_eq!(said.code, Some(78), "{route}");
        assert!(said.stderr.contains(part), "{route}: {}", said.stderr);
    }
}
