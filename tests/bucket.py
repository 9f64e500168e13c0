# SPDX-License-Identifier: Apache-2.0
"""A bucket of Google Cloud Storage on the loopback address: lists objects and sends them, by the JSON API."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.server import Handler, Server, serving

BUCKET = "bucket"
OBJECTS = f"/storage/v1/b/{BUCKET}/o"
ENVIRONMENT = {  # of clients: no credentials are looked for
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    "NO_GCE_CHECK": "true",
    "NO_PROXY": "127.0.0.1",
}


@contextmanager
def bucket_of(folder: Path) -> Iterator[Server]:
    """Serves the files of a folder as `gs://bucket/...`; clients find it by `STORAGE_EMULATOR_HOST`."""

    def answer(handler: Handler) -> None:
        path, query = unquote(urlsplit(handler.path).path), parse_qs(urlsplit(handler.path).query)
        files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
        name = path.removeprefix("/download").removeprefix(f"{OBJECTS}/")
        if path == OBJECTS:
            send(handler, listing(files, query.get("prefix", [""])[0], query.get("delimiter", [""])[0]))
        elif name in files and "alt" in query:
            send_part(handler, files[name].read_bytes())
        elif name in files:
            send(handler, described(name, files[name]))
        else:
            handler.send(404, b"{}")

    with serving({"": answer}) as server:
        yield server


def listing(files: dict[str, Path], prefix: str, delimiter: str) -> dict:
    found = {name: file for name, file in files.items() if name.startswith(prefix)}
    deeper = {name: name.removeprefix(prefix).partition(delimiter) for name in found} if delimiter else {}
    folders = sorted({prefix + head + delimiter for head, slash, _ in deeper.values() if slash})
    items = [described(name, file) for name, file in found.items() if not (name in deeper and deeper[name][1])]
    return {"kind": "storage#objects", "items": items, "prefixes": folders}


def described(name: str, file: Path) -> dict:
    times = dict.fromkeys(("timeCreated", "updated"), "2024-01-01T00:00:00.000Z")
    size = str(file.stat().st_size)
    return {"kind": "storage#object", "name": name, "bucket": BUCKET, "size": size, "generation": "1", **times}


def send(handler: Handler, content: dict) -> None:
    handler.send(200, json.dumps(content).encode(), Content_Type="application/json")


def send_part(handler: Handler, content: bytes) -> None:
    first, _, last = handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last or len(content)) + 1, len(content))
    handler.send(206, content[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(content)}")
