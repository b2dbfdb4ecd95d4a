"""A Ray head and a run as in infra/kuberay/job: read-only root, uid 1000, and the pod's volumes; in bubblewrap.

The content of the image is not covered, since the root is this machine's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from featray.tables.layout import open_output
from featray.tables.status import read_status
from tests.fixtures.infra_files import REPOSITORY, image_environment
from tests.fixtures.manifests import built, one
from tests.fixtures.s3 import free_port

pytestmark = pytest.mark.infra("bwrap")

JOB = one(built("job"), "RayJob")["spec"]
SUBMITTER = """
if ! ray job status --address $RAY_ADDRESS extract > /dev/null 2>&1; then
  ray job submit --address $RAY_ADDRESS --submission-id extract --no-wait -- \\
    python {repository}/jobs/extract.py --config /tmp/config.yaml || exit 3
fi
ray job logs --address $RAY_ADDRESS --follow extract
"""
"""A short version of KubeRay's submitter; it is restarted while it fails (submitterConfig.backoffLimit)."""

HEAD = """
set -u
{{ touch /x || touch /usr/x || touch $HOME/x; }} 2> /dev/null && echo "the root is not read-only" && exit 9
featray models list > /dev/null || exit 8
for attempt in $(seq 6); do  # on a busy machine Ray's dashboard may come too late for Ray
  ray start --head --num-cpus=2 --port={gcs} --dashboard-host=127.0.0.1 --dashboard-port={dashboard} \\
    --metrics-export-port={metrics} --object-store-memory=300000000 --object-spilling-directory=/spill \\
    --disable-usage-stats > /tmp/start.log 2>&1 && started=yes && break
  ray stop --force > /dev/null 2>&1
done
[ "${{started:-}}" ] || {{ cat /tmp/start.log; exit 7; }}
for attempt in $(seq 20); do bash /tmp/submitter.sh > /tmp/submitted.log 2>&1 && break; sleep 5; done
bash /tmp/submitter.sh > /tmp/again.log 2>&1
python -c "
import json
from ray.job_submission import JobSubmissionClient
print(json.dumps([[job.submission_id, job.status] for job in JobSubmissionClient().list_jobs()]))
" > /tmp/jobs.json
"""


def volumes():
    """Return the mount paths at which the head's pod may write."""
    container = JOB["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    workers = JOB["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    mounts = [*container["volumeMounts"], *workers["volumeMounts"]]
    return {mount["mountPath"] for mount in mounts if not mount.get("readOnly")}


def sandbox(folder):
    """Return bwrap's options: this machine read-only, the pod's volumes from folders, `/out` for the tables."""
    options = ["--unshare-user", "--uid", "1000", "--gid", "1000", "--unshare-pid", "--die-with-parent", "--tmpfs", "/"]
    for path in sorted(Path("/").iterdir()):
        if path.name in ("proc", "dev", "tmp", "sys", "home"):
            continue
        options += (
            ["--symlink", os.readlink(path), str(path)] if path.is_symlink() else ["--ro-bind", str(path), str(path)]
        )
    options += ["--proc", "/proc", "--dev", "/dev", "--dir", "/home/featray"]
    for target in sorted(volumes() | {"/out"}):
        source = folder / target.strip("/").replace("/", "-")
        source.mkdir(exist_ok=True)
        options += ["--tmpfs", target] if target == "/dev/shm" else ["--bind", str(source), target]
    for needed in (REPOSITORY, sys.prefix, sys.base_prefix):
        options += ["--ro-bind", str(needed), str(needed)]
    return [*options, "--remount-ro", "/"]


@pytest.fixture(scope="module")
def done(tmp_path_factory, clips):
    folder = tmp_path_factory.mktemp("ro")
    command = ["bwrap", *sandbox(folder), "--chdir", "/tmp", "bash", "/tmp/head.sh"]
    ports = {name: free_port() for name in ("gcs", "dashboard", "metrics")}
    (folder / "tmp/head.sh").write_text(HEAD.format(**ports))
    (folder / "tmp/submitter.sh").write_text(SUBMITTER.format(repository=REPOSITORY))
    config = {
        "dataset": "ro",
        "input": {"uris": [f"{clips}/face.mp4"]},
        "output": {"uri": "/out"},
        "decode": {"sample": {"every": 48}},
    }
    (folder / "tmp/config.yaml").write_text(json.dumps(config))
    environment = image_environment() | {
        "HOME": "/home/featray",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_ADDRESS": f"http://127.0.0.1:{ports['dashboard']}",
    }
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    logs = [path.read_text()[-3000:] for path in sorted((folder / "tmp").glob("*.log"))]
    assert ended.returncode == 0, ended.stdout + ended.stderr + "\n".join(logs)
    return folder


def test_the_run_is_done_with_a_read_only_root(done):
    assert read_status(open_output(str(done / "out")))["videos"] == {"ok": 1, "partial": 0, "failed": 0}
    assert list((done / "cache").iterdir()), "weights or converted networks"


def test_what_is_submitted_again_is_followed_and_not_started_again(done):
    assert json.loads((done / "tmp/jobs.json").read_text()) == [["extract", "SUCCEEDED"]]
    assert "extract" in (done / "tmp/submitted.log").read_text()
    assert len(read_status(open_output(str(done / "out")))["runs"]) == 1
