"""What a lab proves, a row for each, and how it is told."""

import json
import time
import traceback


class Failed(Exception):
    """A proof that failed, with what was seen."""


class Table:
    """Proofs in the order in which they are made. One that fails does not stop those behind it."""

    def __init__(self, title):
        self.title = title
        self.proofs = []
        self.rows = []

    def proof(self, name):
        """Marks a function as a proof: it returns the figure or the words for the table, or raises."""

        def register(function):
            self.proofs.append((name, function))
            return function

        return register

    def run(self, tell=print, first=(), autopsy=None):
        """Makes every proof; `first` are arguments to each. `autopsy()` tells more about one that failed."""
        for name, function in self.proofs:
            began = time.monotonic()
            try:
                said, good = function(*first), True
            except Exception as error:
                said, good = f"{type(error).__name__}: {error}", False
                tell(traceback.format_exc())
                if autopsy:
                    tell(autopsy())
            self.rows.append([name, good, said or "", round(time.monotonic() - began, 1)])
            tell(f"{'ok' if good else 'FAILED':6} {name}: {said} ({self.rows[-1][3]} s)")

    def good(self):
        return bool(self.rows) and all(row[1] for row in self.rows)

    def save(self, path):
        with open(path, "w") as file:
            json.dump({"title": self.title, "rows": self.rows}, file)

    @classmethod
    def load(cls, path):
        with open(path) as file:
            saved = json.load(file)
        table = cls(saved["title"])
        table.rows = saved["rows"]
        return table

    def __str__(self):
        width = max([len(row[0]) for row in self.rows], default=0)
        lines = [self.title, "-" * len(self.title)]
        for name, good, said, _ in self.rows:
            lines.append(f"{'ok' if good else 'FAILED':6}  {name:{width}}  {said}")
        return "\n".join(lines)


def wait_for(what, condition, seconds=20):
    """Waits until `condition()` is true and returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.05)
