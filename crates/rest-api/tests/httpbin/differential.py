"""Sends the same requests to an original and to ours, and prints each difference that is not known.

usage: differential.py ORIGINAL OURS [PREFIX]     two of HOST:PORT, and the path of our API

Exit code 1 when there is a difference. The last line counts the requests.
"""
import http.client
import json
import re
import sys

BOUNDARY = "b0undary"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=" + BOUNDARY
JSON = "application/json"


def parts(*fields):
    """A form with files: (name, filename or None, type or None, content)."""
    out = b""
    for name, filename, kind, content in fields:
        out += b"--" + BOUNDARY.encode() + b"\r\n"
        disposition = 'form-data; name="%s"' % name
        if filename is not None:
            disposition += '; filename="%s"' % filename
        out += b"Content-Disposition: " + disposition.encode() + b"\r\n"
        if kind:
            out += b"Content-Type: " + kind.encode() + b"\r\n"
        out += b"\r\n" + content + b"\r\n"
    return out + b"--" + BOUNDARY.encode() + b"--\r\n"


def basic(token="dTpw"):
    return {"Authorization": "Basic " + token}


# Method, path, fields, body.
REQUESTS = [
    ("GET", "/get", {}, None),
    ("GET", "/get?a=1&a=2&b=x+y&c=%C3%A4&d", {}, None),
    ("GET", "/get?x=%ff%41&y=%zz&&=e", {}, None),
    ("GET", "/get?%3C=%3E&amp=&q=%F0%9F%98%80%7F", {}, None),
    ("GET", "/get?b=1&a=2&B=3", {"X-b3-traceid": "1", "X-2x": "2", "Cookie": "a=b"}, None),
    ("GET", "/get", {"X-Umlaut": "\xe4\xff", "X-Empty": ""}, None),
    ("GET", "/get", {"X-Forwarded-For": "1.2.3.4, 5.6.7.8", "Via": "x", "X-Request-Id": "y"}, None),
    ("GET", "/get?show_env=1", {"X-Forwarded-For": "1.2.3.4", "Via": "x"}, None),
    ("GET", "/get", {"X-Forwarded-Proto": "https"}, None),
    ("GET", "/get", {"X-Forwarded-Ssl": "on"}, None),
    ("GET", "/get", {"X-Forwarded-Protocol": "foo"}, None),
    ("GET", "/get", {"Host": "EXAMPLE.com:80"}, None),
    ("GET", "/get", {"Host": "example.com:443"}, None),
    ("HEAD", "/get", {}, None),
    ("POST", "/get", {}, b""),
    ("GET", "/get/", {}, None),
    ("GET", "/nothing", {}, None),
    ("OPTIONS", "/get", {"Origin": "http://o", "Access-Control-Request-Headers": "x-y"}, None),
    ("OPTIONS", "/post", {}, None),
    ("OPTIONS", "/anything/x", {}, None),
    ("GET", "/get", {"Origin": "null"}, None),
    ("GET", "/headers", {"Accept-Language": "de"}, None),
    ("GET", "/ip", {}, None),
    ("GET", "/ip", {"X-Forwarded-For": "::1"}, None),
    ("GET", "/user-agent", {"User-Agent": "me/1"}, None),
    ("GET", "/user-agent", {}, None),
    ("GET", "/uuid", {}, None),
    ("POST", "/post", {"Content-Type": FORM}, b"a=1&b=2&b=3&c=%C3%A4+x&d"),
    ("POST", "/post", {"Content-Type": FORM + "; charset=utf-8"}, b"a=%ff"),
    ("POST", "/post", {"Content-Type": FORM}, b"\xff=1"),
    ("POST", "/post", {"Content-Type": "text/plain"}, "ä<>&\"\\\u2028😀".encode()),
    ("POST", "/post", {"Content-Type": "image/png"}, b"\x89PNG\xff\x00"),
    ("POST", "/post", {}, b"no type"),
    ("POST", "/post", {"Content-Type": JSON}, b'{"b": [1, 2.50, 1e3, 1E400, -0, -0.0], "a": {"z": null}}'),
    ("POST", "/post", {"Content-Type": JSON}, b'{"k": "\\ud83d\\ude00 \\ud800 \\u0000 \xc3\xa4", "k": 1}'),
    ("POST", "/post", {"Content-Type": JSON}, b'[NaN, Infinity, -Infinity, 123456789012345678901234567890]'),
    ("POST", "/post", {"Content-Type": JSON}, b'{"a": 1,}'),
    ("POST", "/post", {"Content-Type": JSON}, b'0.00001'),
    ("POST", "/post", {"Content-Type": "text/x"}, b'"a string"'),
    ("POST", "/post", {"Content-Type": MULTIPART}, parts(("a", None, None, b"1"), ("a", None, None, b"2"))),
    ("POST", "/post", {"Content-Type": MULTIPART}, parts(("f", "x.txt", "text/plain", b"hello\r\n"))),
    ("POST", "/post", {"Content-Type": MULTIPART}, parts(("f", "x.bin", None, b"\xff\x00"), ("t", None, None, "ä".encode()))),
    ("POST", "/post", {"Content-Type": MULTIPART}, parts(("f", "x", "image/png", b"\xff"), ("f", "y", None, b"2"))),
    ("POST", "/post", {"Content-Type": MULTIPART}, parts(("f", "", None, b"x"))),
    ("POST", "/post", {"Content-Type": MULTIPART}, b"%ZZ"),
    ("POST", "/post", {"Content-Type": "multipart/form-data"}, b"x"),
    # Parts without a body, whose delimiter follows the head at once.
    ("POST", "/post", {"Content-Type": MULTIPART}, parts(("a", None, None, b"x"), ("b", "", None, b"")).replace(b"\r\n\r\nx\r\n", b"\r\n\r\n")),
    ("POST", "/post", {"Content-Type": "multipart/form-data; boundary="}, parts(("a", None, None, b"1"))),
    ("POST", "/post", {"Content-Type": ""}, b"x"),
    ("POST", "/post?q=1", {"Content-Type": FORM}, b"f=2"),
    ("POST", "/post", {"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n0\r\n\r\n"),
    ("PUT", "/put", {}, b"x"),
    ("PATCH", "/patch", {}, b"x"),
    ("DELETE", "/delete", {}, b"x"),
    ("DELETE", "/delete", {}, None),
    ("GET", "/post", {}, None),
    ("GET", "/anything", {}, None),
    ("PUT", "/anything/a/b%2Fc%41%25?d=e", {}, b'{"x": 1}'),
    ("GET", "/anything/%C3%A4%20x%3Fy%23z", {}, None),
    ("GET", "/anything/a//b/", {}, None),
    ("GET", "/anything/", {}, None),
    ("TRACE", "/anything", {}, None),
    ("HEAD", "/anything", {}, None),
    ("GET", "/gzip", {}, None),
    ("GET", "/deflate", {}, None),
    ("GET", "/brotli", {}, None),
] + [("GET", "/status/%d" % code, {}, None) for code in (
    200, 201, 202, 203, 204, 205, 206, 207, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308, 400, 401,
    402, 403, 404, 405, 406, 407, 408, 409, 410, 413, 414, 415, 416, 417, 418, 421, 422, 425, 429, 431,
    449, 451, 500, 501, 503, 511, 599)] + [
    ("POST", "/status/404", {}, b"x"),
    ("HEAD", "/status/404", {}, None),
    ("DELETE", "/status/200,200:3", {}, None),
    ("GET", "/status/foo", {}, None),
    ("GET", "/status/200,foo", {}, None),
    ("GET", "/status/200:x,300", {}, None),
    ("GET", "/redirect/1", {}, None),
    ("GET", "/redirect/3", {}, None),
    ("GET", "/redirect/3?absolute=TRUE", {}, None),
    ("GET", "/redirect/1?absolute=true", {}, None),
    ("GET", "/redirect/x", {}, None),
    ("GET", "/relative-redirect/1", {}, None),
    ("GET", "/relative-redirect/2", {}, None),
    ("GET", "/absolute-redirect/1", {}, None),
    ("GET", "/absolute-redirect/2", {"Host": "example.com"}, None),
    ("GET", "/redirect-to?url=http://example.com/x?y=z%26", {}, None),
    ("GET", "/redirect-to?url=/a%20b%C3%A4", {}, None),
    ("POST", "/redirect-to?URL=/a&status_code=307", {}, b""),
    ("GET", "/redirect-to?url=/a&status_code=200", {}, None),
    ("GET", "/redirect-to?url=/a&status_code=304", {}, None),
    ("GET", "/absolute-redirect/2", {"X-Forwarded-Proto": "https"}, None),
    ("GET", "/cookies/set?a=b", {"X-Forwarded-Proto": "https"}, None),
    ("GET", "/cookies", {"Cookie": 'a=b; c="d e"; f; a=g; h="\\"\\054"; __utma=1'}, None),
    ("GET", "/cookies?show_env=1", {"Cookie": "__utma=1"}, None),
    ("GET", "/cookies", {"Cookie": 'foo="bar:baz"'}, None),
    ("GET", "/cookies", {"Cookie": "a=\xe4; b=\xc3\xa4"}, None),
    ("GET", "/cookies", {}, None),
    ("GET", "/cookies/set?a=b&c=d%20e&a=x", {}, None),
    ("GET", "/cookies/set?a=%C3%A4%3B%22%5C", {}, None),
    ("GET", "/cookies/set/k/v", {}, None),
    ("GET", "/cookies/delete?a=b&c", {}, None),
    ("GET", "/basic-auth/u/p", {}, None),
    ("GET", "/basic-auth/u/p", basic(), None),
    ("GET", "/basic-auth/u/x", basic(), None),
    ("GET", "/basic-auth/u/p", basic("!!"), None),
    ("GET", "/hidden-basic-auth/u/p", basic(), None),
    ("GET", "/hidden-basic-auth/u/p", {}, None),
    ("GET", "/bearer", {}, None),
    ("GET", "/bearer", {"Authorization": "Bearer abc def"}, None),
    ("GET", "/bearer", {"Authorization": "bearer abc"}, None),
    ("GET", "/digest-auth/auth/u/p", {}, None),
    ("GET", "/digest-auth/x/u/p/SHA-512/3", {}, None),
    ("GET", "/digest-auth/auth-int/u/p/FOO", {}, None),
    ("GET", "/digest-auth/auth/u/p", {"Authorization": "Digest nonce=x", "Cookie": "stale_after=0"}, None),
    ("GET", "/digest-auth/auth/u/p?require-cookie=1", {"Authorization": "Digest nonce=x", "Cookie": "a=b"}, None),
    ("GET", "/response-headers?a=b&c=d&c=e", {}, None),
    ("POST", "/response-headers?X-Y=%C3%A4", {}, b""),
    ("GET", "/response-headers?Server=x&ETag=y", {}, None),
    ("GET", "/cache", {}, None),
    ("GET", "/cache", {"If-None-Match": "x"}, None),
    ("GET", "/cache", {"If-Modified-Since": "x"}, None),
    ("GET", "/cache/60", {}, None),
    ("GET", "/cache/007", {}, None),
    ("GET", "/etag/t", {}, None),
    ("GET", "/etag/t", {"If-None-Match": 'W/"t", "u"'}, None),
    ("GET", "/etag/t", {"If-None-Match": "u"}, None),
    ("GET", "/etag/t", {"If-Match": '"u"'}, None),
    ("GET", "/etag/t", {"If-Match": "*"}, None),
    ("GET", "/stream/2?b=1&a=2", {"B": "1", "A": "2"}, None),
    ("GET", "/stream/0", {}, None),
    ("GET", "/stream/101", {}, None),
    ("GET", "/bytes/10?seed=1", {}, None),
    ("GET", "/bytes/1000?seed=-12345678901234567890", {}, None),
    ("GET", "/bytes/200000?seed=5", {}, None),
    ("GET", "/bytes/0", {}, None),
    ("GET", "/stream-bytes/100?seed=9&chunk_size=7", {}, None),
    ("GET", "/stream-bytes/5?seed=9&Chunk_Size=0", {}, None),
    ("GET", "/range/26", {}, None),
    ("GET", "/range/26", {"Range": "bytes=0-4"}, None),
    ("GET", "/range/26", {"Range": "bytes=20-"}, None),
    ("GET", "/range/26", {"Range": "bytes=-3"}, None),
    ("GET", "/range/26", {"Range": "bytes=26-"}, None),
    ("GET", "/range/26", {"Range": "bytes=5-4"}, None),
    ("GET", "/range/26", {"Range": "lines=1-2"}, None),
    ("GET", "/range/26", {"Range": "bytes=+1-3"}, None),
    ("GET", "/range/26", {"Range": "bytes=0-99999999999999999999999"}, None),
    ("GET", "/range/26?chunk_size=5&duration=0.01", {}, None),
    ("GET", "/range/0", {}, None),
    ("GET", "/range/102401", {}, None),
    ("GET", "/delay/0", {}, None),
    ("POST", "/delay/0.01?a=b", {"Content-Type": FORM}, b"c=d"),
    ("GET", "/drip?duration=0&numbytes=5", {}, None),
    ("GET", "/drip?duration=0.01&numbytes=5&code=500&delay=0.01", {}, None),
    ("GET", "/drip?numbytes=0", {}, None),
    ("GET", "/links/3/1", {}, None),
    ("GET", "/links/0/0", {}, None),
    ("GET", "/links/300/299", {}, None),
    ("GET", "/links/3", {}, None),
    ("GET", "/base64/aGVsbG8=", {}, None),
    ("GET", "/base64/4pyT", {}, None),
    ("GET", "/base64/x", {}, None),
    ("GET", "/base64/_-8=", {}, None),
    ("GET", "/base64/aGVs%0AbG8=", {}, None),
    ("GET", "/base64/YQ==YQ==", {}, None),
    ("GET", "/base64/YQ=", {}, None),
    ("GET", "/base64/%3D%3D%3D%3D", {}, None),
    ("GET", "/image", {}, None),
    ("GET", "/image", {"Accept": "image/webp,*/*"}, None),
    ("GET", "/image", {"Accept": "image/svg+xml"}, None),
    ("GET", "/image", {"Accept": "image/*"}, None),
    ("GET", "/image", {"Accept": "text/html"}, None),
    ("GET", "/image/png", {}, None),
    ("GET", "/image/gif", {}, None),
    ("GET", "/html", {}, None),
    ("GET", "/xml", {}, None),
    ("GET", "/json", {}, None),
    ("GET", "/robots.txt", {}, None),
    ("GET", "/deny", {}, None),
    ("GET", "/encoding/utf8", {}, None),
    ("GET", "/forms/post", {}, None),
]

# Fields of the server, not of the API.
SERVER = {"date", "server", "connection", "keep-alive", "x-content-type-options", "vary"}

# What differs on purpose: the path, what is left out of the comparison, and why.
KNOWN = [
    (r"/(status/402)$", {"body", "x-more-info"}, "a kinder text"),
    (r"/(status/418)$", {"body"}, "a teapot of our own"),
    (r"/(html|xml|json|deny|encoding/utf8|forms/post)$", {"body"}, "documents of our own"),
    (r"/image", {"body"}, "images of our own"),
    (r"/base64/", {"content-type"}, "text, not HTML: what a stranger chose is no page"),
    (r"/(uuid|cache)$", {"body", "etag", "last-modified"}, "new each time"),
    (r"/digest-auth/", {"www-authenticate"}, "a nonce of its own"),
    (r"/status/407$", {"proxy-authenticate"}, "gunicorn takes it for its own and leaves it out"),
    (r"/(gzip|deflate|brotli)$", {"content-length", "coded"}, "another compressor"),
]


def ask(address, prefix, method, path, fields, body):
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.putrequest(method, prefix + path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", fields.get("Host", "test.example:8080"))
    for name, value in fields.items():
        if name != "Host":
            connection.putheader(name, value.encode("latin-1"))
    if body is not None and "Transfer-Encoding" not in fields:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def seen(answer, content, prefix):
    """What of an answer is compared."""
    found = {"status": "%d %s" % (answer.status, answer.reason)}
    for name, value in answer.getheaders():
        spelled, name = name, name.lower()
        if name in SERVER:
            continue
        found["the name " + name] = spelled
        if name == "allow":
            value = ", ".join(sorted(value.split(", ")))
        if prefix:
            value = value.replace(prefix, "")
        found[name] = found[name] + "\n" + value if name in found else value
    if prefix:
        # The answers name it, and are longer for it.
        content = content.replace(prefix.encode(), b"")
        found.pop("content-length", None)
    coding = found.get("content-encoding")
    if coding:
        # Whoever compresses has other bytes; that they hold the same is for the clients' tests.
        found["coded"] = content
    elif content.startswith(b"<!doctype html>\n<html lang=en>"):
        # A page that tells of an error, or of a redirect, in words of its own.
        found["body"] = "a page"
        found.pop("content-length", None)
    else:
        found["body"] = content
    return found


def main():
    original, ours = sys.argv[1:3]
    prefix = sys.argv[3] if len(sys.argv) > 3 else ""
    wrong = 0
    for request in REQUESTS:
        method, path = request[:2]
        left = seen(*ask(original, "", *request), "")
        right = seen(*ask(ours, prefix, *request), prefix)
        ignored = set()
        for pattern, names, _ in KNOWN:
            if re.search(pattern, path.split("?")[0]):
                ignored |= names
        if "body" in ignored or prefix:
            ignored.add("content-length")
        for name in sorted(set(left) | set(right)):
            if name.replace("the name ", "") not in ignored and left.get(name) != right.get(name):
                wrong += 1
                print("%s %s: %s" % (method, path, name))
                print("  original: %.500r\n  ours:     %.500r" % (left.get(name), right.get(name)))
    print("%d requests, %d differences" % (len(REQUESTS), wrong))
    sys.exit(1 if wrong else 0)


main()
