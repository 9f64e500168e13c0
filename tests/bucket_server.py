# SPDX-License-Identifier: Apache-2.0
"""An emulated store of Google Cloud on the loopback address, with what the emulator lacks: conditions, and faults."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import gcsfs
import pytest
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

from ncjax import buckets

BUCKET = "bucket1"
UPLOAD, OBJECT = f"/upload/storage/v1/b/{BUCKET}/o", f"/storage/v1/b/{BUCKET}/o/"


class Store:
    """A running server: what was asked of it, every how many requests it fails, and how long it takes for each."""

    def __init__(self) -> None:
        self.storage = Storage(use_memory_fs=True)
        self.turn = threading.RLock()
        self.requests: list[str] = []
        self.fail_every = 0
        self.delay_secs = 0.0
        create_bucket(BUCKET, self.storage)

    def generation(self, name: str) -> int:
        """0: there is no such object."""
        try:
            return int(self.storage.get_file_obj(BUCKET, name)["generation"])
        except (NotFound, FileNotFoundError):
            return 0


class _Handler(RequestHandler):
    def __init__(self, store: Store, *args: Any, **kwargs: Any) -> None:
        self.store = store
        super().__init__(store.storage, *args, **kwargs)

    def __getattribute__(self, name: str) -> Any:
        """Every `do_METHOD` of the emulator goes through `_answer`."""
        found = super().__getattribute__(name)
        return partial(self._answer, found) if name.startswith("do_") else found

    def _answer(self, answer: Any) -> None:
        url, store = urlsplit(self.path), self.store
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.known = query.get("name", "") if url.path == UPLOAD else unquote(url.path.removeprefix(OBJECT))
        time.sleep(store.delay_secs)
        with store.turn:
            store.requests.append(f"{self.command} {self.path}")
            if store.fail_every and len(store.requests) % store.fail_every == 0:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._refuse(503)
            elif int(query.get("ifGenerationMatch", there := store.generation(self.known))) != there:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._refuse(412)
            elif self.command == "GET" and query.get("ifGenerationNotMatch") == str(there):
                self._refuse(304)
            else:
                answer()

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def end_headers(self) -> None:
        if "alt=media" in self.path:
            self.send_header("x-goog-generation", str(self.store.generation(self.known)))
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        return


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A client that has read enough hangs up."""


@contextmanager
def bucket_server() -> Iterator[tuple[Store, Mapping[str, str]]]:
    """A store, and the variables of the environment with which gcsfs and TensorStore find it."""
    store = Store()
    server = _Server(("127.0.0.1", 0), partial(_Handler, store))
    address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield (
            store,
            {
                "STORAGE_EMULATOR_HOST": address,
                "TENSORSTORE_GCS_HTTP_URL": address,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
                "NO_GCE_CHECK": "true",
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            },
        )
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def bucket_in_this_process() -> Iterator[Store]:
    """A store that this process finds too."""
    with bucket_server() as (store, environment), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        _forget_stores()
        yield store
    _forget_stores()


def _forget_stores() -> None:
    gcsfs.GCSFileSystem.clear_instance_cache()
    buckets._store.cache_clear()
