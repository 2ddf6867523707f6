"""A plugin for pytest: what httpbin's own tests ask of its application goes to a server that runs already.

The server's URL is in HTTPBIN_URL.
"""
import http.client
import os
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

import httpbin
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response


class Client:
    """What the tests ask of Flask's test client, which keeps cookies."""

    def __init__(self):
        self.cookies = SimpleCookie()

    def open(self, path, method="GET", headers=(), **options):
        # The environment of WSGI has no use here; a field without a name cannot be sent.
        options.pop("environ_base", None)
        headers = headers.items() if hasattr(headers, "items") else headers
        headers = [(name, value) for name, value in headers if name]
        request = EnvironBuilder(path, method=method, headers=headers, **options)
        body = request.get_environ()["wsgi.input"].read()
        connection = http.client.HTTPConnection(
            urlsplit(os.environ["HTTPBIN_URL"]).netloc, timeout=30
        )
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        fields = dict(request.headers.to_wsgi_list())
        fields.setdefault("Host", request.host)
        if self.cookies:
            cookies = (f"{name}={kept.value}" for name, kept in self.cookies.items())
            fields.setdefault("Cookie", "; ".join(cookies))
        if request.content_type:
            fields.setdefault("Content-Type", request.content_type)
        if body or method != "GET":
            fields["Content-Length"] = str(len(body))
        for name, value in fields.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        response = Response(content, answer.status)
        response.headers.clear()
        for name, value in answer.getheaders():
            response.headers.add(name, value)
            if name.lower() == "set-cookie":
                self.cookies.load(value)
        return response

    def get(self, path, **options):
        return self.open(path, "GET", **options)

    def post(self, path, **options):
        return self.open(path, "POST", **options)

    def delete(self, path, **options):
        return self.open(path, "DELETE", **options)


httpbin.app.test_client = Client
