"""A plugin for pytest in place of pytest-httpbin's: its fixtures lead to a server that runs already.

The server's URLs are in HTTPBIN_URL and HTTPBIN_SECURE_URL.
"""
import os
from urllib.parse import urljoin, urlsplit

import pytest
from pytest_httpbin import certs


class Server:
    """What suites ask of pytest-httpbin's server."""

    def __init__(self, url):
        self.url = url
        parts = urlsplit(url)
        self.protocol, self.host, self.port = parts.scheme, parts.hostname, parts.port

    def __str__(self):
        return self.url

    def __add__(self, path):
        return self.url + path

    def join(self, path, allow_fragments=True):
        return urljoin(self.url, path, allow_fragments)


@pytest.fixture(scope="session")
def httpbin():
    return Server(os.environ["HTTPBIN_URL"])


@pytest.fixture(scope="session")
def httpbin_secure():
    return Server(os.environ["HTTPBIN_SECURE_URL"])


@pytest.fixture(scope="session", params=["http", "https"])
def httpbin_both(request, httpbin, httpbin_secure):
    return httpbin if request.param == "http" else httpbin_secure


@pytest.fixture
def httpbin_ca_bundle(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certs.where())
