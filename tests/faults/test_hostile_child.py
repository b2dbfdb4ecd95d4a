"""A decoding process that is controlled by a video: what it can read and reach, and what it can do to its parent.

The attack runs in the real child while it decodes: an external `sitecustomize` executes the file
that FEATRAY_ATTACK names.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from featray.config import DecodeConfig, DetectConfig, EveryNth, InputConfig
from featray.errors import ErrorCode
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import UnitTask
from featray.sources.listing import list_videos
from featray.video.units import Unit

HOOK = """
import os, sys
if "featray.extract.forkserver" in sys.orig_argv:
    import multiprocessing.connection
    import featray.extract.chunks as chunks
    real = chunks.extract_chunks

    def extract_chunks(*arguments):
        if os.path.exists(os.environ["FEATRAY_ATTACK"]):
            (connection,) = multiprocessing.connection.opened
            exec(open(os.environ["FEATRAY_ATTACK"]).read(), {"connection": connection})
        yield from real(*arguments)

    chunks.extract_chunks = extract_chunks

    class Connection(multiprocessing.connection.Connection):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            multiprocessing.connection.opened = [self]

    multiprocessing.connection.Connection = Connection
"""

SECRETS = {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-of-the-environment", "HF_TOKEN": "hf_of_the_environment"}
SIGNATURE, HEADER = "signature-of-the-link", "cookie-of-the-options"

LOOK = """
import json, os, re, resource, socket

def tried(call):
    try:
        call()
    except OSError as error:
        return error.strerror
    return "done"

memory = []
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as file:
    for line in maps:
        first, last, rights = re.match(r"(\\w+)-(\\w+) (\\S+)", line).groups()
        if rights.startswith("rw"):
            try:
                file.seek(int(first, 16))
                memory.append(file.read(int(last, 16) - int(first, 16)))
            except (OSError, ValueError, OverflowError):
                pass
found = {
    "secrets": [i for i, one in enumerate(SECRETS) if any(bytes(one) in part for part in memory)],
    "canary": any(b"face.mp4" in part for part in memory),
    "inet": tried(lambda: socket.socket().connect(("127.0.0.1", PORT))),
    "unix": tried(lambda: socket.socket(socket.AF_UNIX)),
    "program": tried(lambda: os.execv("/bin/true", ["true"])),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    "file_bytes": resource.getrlimit(resource.RLIMIT_FSIZE)[1],
}
with open(os.environ["FEATRAY_ATTACK"] + ".found", "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module")
def hooked(tmp_path_factory):
    """Return one environment for all these tests, so that they share one fork server."""
    folder = tmp_path_factory.mktemp("hooked")
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    paths = [str(folder / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "FEATRAY_ATTACK": str(folder / "attack.py")}


@pytest.fixture
def attack(hooked, monkeypatch):
    """Yield the path for the code that the child runs."""
    for name, value in hooked.items():
        monkeypatch.setenv(name, value)
    place = Path(hooked["FEATRAY_ATTACK"])
    yield place
    for left in place.parent.glob("attack.py*"):
        left.unlink()


@pytest.fixture
def web(clips):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(clips))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def decoded(uri, options, *, times=1):
    """Yield the chunks of a unit of a video, decoded `times` times with one decoder."""
    settings = DecodeConfig(sample=EveryNth(every=118), timeout_seconds=60)
    decoder = IsolatedDecoder(ChildSettings(settings, DetectConfig(), options))
    (video,) = list_videos(InputConfig(uris=[uri], storage_options=options))
    try:
        for _ in range(times):
            yield list(decoder.chunks(UnitTask(video, "key", "shard", Unit(0), 1, 1)))
    finally:
        decoder.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the filter of system calls is Linux's")
def test_it_holds_no_secret_and_reaches_nobody(attack, web, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    secrets = [list(one.encode()) for one in (*SECRETS.values(), SIGNATURE, HEADER)]  # encoded, not to be found
    attack.write_text(LOOK.replace("SECRETS", json.dumps(secrets)).replace("PORT", str(web)))
    link = f"http://127.0.0.1:{web}/face.mp4?X-Amz-Signature={SIGNATURE}"
    ((chunk,),) = decoded(link, {"headers": {"Cookie": HEADER}})
    assert not chunk.outcome.failures and len(chunk.chips) == 4, "it has read the video all the same"
    assert chunk.outcome.bytes_read > 0
    found = json.loads(attack.with_name("attack.py.found").read_text())
    assert found["canary"] and found["secrets"] == []
    assert found["inet"] == found["unix"] == found["program"] == "Permission denied"
    assert found["core"] == [0, 0] and found["files"] <= 256 and found["file_bytes"] <= 1 << 30


FOUR_CHIPS = """
import json, os
from featray.schema import DETECTED_SCHEMA
connection.send_bytes(b"A" + json.dumps({"part": 0, "last": False, "chips": 4, "outcome": {}}).encode())
rows = [dict.fromkeys(DETECTED_SCHEMA.names) | {"chip": chip} for chip in range(4)]
connection.send_bytes(b"A" + json.dumps(rows).encode())
connection.send_bytes(b"A[]")
"""

ANSWERS = {
    "a pickle": "import os, pickle\n"
    "class Evil:\n"
    "    def __reduce__(self):\n"
    "        return os.system, (f'touch {os.environ[\"FEATRAY_ATTACK\"]}.ran',)\n"
    "connection.send(Evil())",
    "a size that cannot be": "import os\nos.write(connection.fileno(), b'\\xff' * 12)",
    "no JSON": "connection.send_bytes(b'A{')",
    "JSON without end": "connection.send_bytes(b'A' + b'[' * 1000000)",
    "an unknown code": """
import json
outcome = {"failures": [["decode", "<script>", "x"]]}
connection.send_bytes(b"A" + json.dumps({"part": 0, "last": True, "chips": 0, "outcome": outcome}).encode())
""",
    "more chips than rows": """
import json
connection.send_bytes(b"A" + json.dumps({"part": 0, "last": True, "chips": 10**9, "outcome": {}}).encode())
connection.send_bytes(b"A[]")
connection.send_bytes(b"A[]")
""",
    "less chips than it said": FOUR_CHIPS + "os.write(connection.fileno(), bytes(3 * 196608))\nos._exit(0)",
    "rows of other columns": """
import json
connection.send_bytes(b"A" + json.dumps({"part": 0, "last": True, "chips": 0, "outcome": {}}).encode())
connection.send_bytes(b'A[{"a": 1}]')
connection.send_bytes(b"A[]")
""",
    "a face of a chip that is not there": """
import json
from featray.schema import DETECTED_SCHEMA
row = dict.fromkeys(DETECTED_SCHEMA.names) | {"chip": 3}
connection.send_bytes(b"A" + json.dumps({"part": 0, "last": True, "chips": 0, "outcome": {}}).encode())
connection.send_bytes(b"A" + json.dumps([row]).encode())
connection.send_bytes(b"A[]")
""",
    "a part that does not follow": """
import json
connection.send_bytes(b"A" + json.dumps({"part": 7, "last": True, "chips": 0, "outcome": {}}).encode())
connection.send_bytes(b"A[]")
connection.send_bytes(b"A[]")
""",
    "a file that it was not given": "connection.send_bytes(b'R' + bytes(16) + b'/etc/passwd')",
    "a range without end": "connection.send_bytes(b'R' + bytes(8) + b'\\xff' * 8 + b'video')",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_it_sends_costs_its_unit_and_not_the_next(answer, attack, face_clip):
    attack.write_text(ANSWERS[answer] + "\nimport time\ntime.sleep(600)")
    units = decoded(str(face_clip), {}, times=2)
    (bad,) = next(units)
    assert [code for _, code, _ in bad.outcome.failures] == [ErrorCode.DECODER_CRASHED]
    assert not len(bad.chips)
    attack.unlink()
    (good,) = next(units)
    assert not good.outcome.failures and len(good.chips) == 4
    assert not attack.with_name("attack.py.ran").exists()


def test_more_chips_than_it_said_are_not_taken(attack, face_clip):
    """The child announces four chips, and sends more as long as the parent reads."""
    attack.write_text(FOUR_CHIPS + "while True:\n    os.write(connection.fileno(), bytes(1 << 20))")
    units = decoded(str(face_clip), {}, times=2)
    *said, bad = next(units)
    assert [len(chunk.chips) for chunk in said] == [4] and not len(bad.chips)
    assert [code for _, code, _ in bad.outcome.failures] == [ErrorCode.DECODER_CRASHED]
    attack.unlink()
    (good,) = next(units)
    assert not good.outcome.failures and len(good.chips) == 4
