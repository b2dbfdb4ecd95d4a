"""The schedule: its script in a shell, the real kubectl, and an API that enforces the role and KubeRay's finalizer."""

import copy
import os
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml

from tests.fixtures import kube_api
from tests.fixtures.infra_files import INFRA, document
from tests.fixtures.manifests import built, kubectl, kustomize, one, unknown_fields

pytestmark = pytest.mark.slow

BASE = built("")
CRON = one(BASE, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
ROLE = one(BASE, "Role")
(CONTAINER,) = CRON["containers"]
(SCRIPT,) = CONTAINER["args"]
JOB = one(built("job"), "RayJob")
NAME = JOB["metadata"]["name"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder for kubectl's cache, as in the pod's HOME, with the job as built."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "rayjob.yaml").write_text(yaml.safe_dump(JOB))
    return folder


class Night:
    """A cluster, and the schedule's pod in it."""

    def __init__(self, home, state=None, *, finalizer_seconds=0.3, role=ROLE, labels=None):
        self.cluster = kube_api.Cluster(finalizer_seconds=finalizer_seconds, unknown=unknown_fields)
        self._home = home
        for value in (role, one(BASE, "RoleBinding")):
            self.cluster.create(kube_api.resource_of(value), copy.deepcopy(value))
        if state is not None:
            job = copy.deepcopy(JOB) | ({"status": {"jobDeploymentStatus": state}} if state else {})
            job["metadata"]["labels"] |= labels or {}
            self.cluster.create("rayjobs", job)

    def run(self, script=SCRIPT):
        """Return the finished script with status and messages, and its requests to the API: verb and status."""
        started = len(self.cluster.requests)
        with kube_api.serve(self.cluster) as url:
            (self._home / "config").write_text(kube_api.kubeconfig(url, CRON["serviceAccountName"]))
            path = f"{Path(kubectl()).parent}:{os.environ['PATH']}"
            environment = {"PATH": path, "HOME": str(self._home), "KUBECONFIG": str(self._home / "config")}
            command = [*CONTAINER["command"], script.replace("/manifests/", f"{self._home}/")]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        asked = [(r.verb, r.status) for r in self.cluster.requests[started:] if r.resource == "rayjobs"]
        return done, asked

    @property
    def job(self):
        """Return the RayJob that is there."""
        return self.cluster.objects["rayjobs", NAME]


GET, CREATE = ("get", 200), ("create", 201)


def test_a_first_run_is_created(home):
    night = Night(home)
    done, asked = night.run()
    assert (done.returncode, asked) == (0, [("get", 404), CREATE]), done.stderr
    assert night.job["spec"] == JOB["spec"]


@pytest.mark.parametrize("state", ["Complete", "Failed"])
def test_a_run_that_has_ended_makes_room_once_the_operator_lets_go_of_it(state, home):
    night = Night(home, state, finalizer_seconds=0.7)
    before = night.job["metadata"]["uid"]
    done, asked = night.run()
    assert done.returncode == 0, done.stderr
    assert asked[:2] == [GET, ("delete", 200)] and asked[-1] == CREATE
    assert night.job["metadata"]["uid"] != before and "deletionTimestamp" not in night.job["metadata"]


@pytest.mark.parametrize("state", ["Running", ""])  # created a moment ago, not seen by the operator yet
def test_a_run_that_is_going_on_is_left_alone(state, home):
    done, asked = Night(home, state).run()
    assert (done.returncode, asked) == (0, [GET]), done.stderr
    assert "still active or queued" in done.stdout


@pytest.mark.parametrize("state", ["Suspended", "ValidationFailed", "WhatKubeRayMaySayOneDay"])
def test_a_run_that_nobody_goes_on_with_is_said(state, home):
    done, asked = Night(home, state).run()
    assert (done.returncode, asked) == (1, [GET])
    assert f"/{state}/" in done.stderr and "resume or delete" in done.stderr


def test_a_run_that_waits_in_a_queue_is_left_alone(home):
    queued = one(built("job", "../components/kueue"), "RayJob")["metadata"]["labels"]
    done, asked = Night(home, "Suspended", labels=queued).run()
    assert (done.returncode, asked) == (0, [GET]), done.stderr


def test_every_state_of_kuberay_is_told_from_the_others():
    """Runs the cases of the script for each state in a shell, with a kubectl that only prints."""
    case = SCRIPT[: SCRIPT.index("kubectl create")].replace("state=$(kubectl get", "state=$(: ")
    case = re.sub(r"state=\$\(.*?\)\n", "", case, flags=re.S).replace("kubectl delete", "echo delete")
    going_on = ["", "Initializing", "Running", "Waiting", "Retrying", "Suspending"]
    wanted = {state: 0 for state in [*going_on, "Complete", "Failed"]} | {"Suspended": 1, "ValidationFailed": 1, "X": 1}
    for state, status in wanted.items():
        variables = {"PATH": os.environ["PATH"], "state": f"{NAME}/{state}/"}
        done = subprocess.run(["/bin/sh", "-eu", "-c", case], env=variables, capture_output=True, text=True)
        assert done.returncode == status, (state, done.stderr)
        assert ("still active or queued" in done.stdout) == (state in going_on), state
        assert done.stdout.startswith("delete") == (state in ("Complete", "Failed")), state


def test_a_run_whose_finalizer_stays_ends_the_night(home):
    night = Night(home, "Failed", finalizer_seconds=None)
    done, asked = night.run(SCRIPT.replace("--timeout 20m", "--timeout 2s"))
    assert done.returncode != 0 and "timed out" in done.stderr
    assert CREATE not in asked and "deletionTimestamp" in night.job["metadata"]


def test_without_list_and_watch_the_night_would_hang(home):
    """The reason why the role has both: after a 403, kubectl retries until its timeout."""
    role = copy.deepcopy(ROLE)
    role["rules"][1]["verbs"] = ["get", "delete"]
    night = Night(home, "Complete", role=role)
    done, asked = night.run(SCRIPT.replace("--timeout 20m", "--timeout 2s"))
    assert done.returncode != 0 and CREATE not in asked
    assert any(status == 403 for _, status in asked), asked


def test_another_who_is_quicker_is_not_run_beside(home):
    night = Night(home, "Complete")
    deleted = threading.Event()

    def somebody_creates():
        while ("rayjobs", NAME) in night.cluster.objects:
            time.sleep(0.002)
        night.cluster.create("rayjobs", copy.deepcopy(JOB))
        deleted.set()

    threading.Thread(target=somebody_creates, daemon=True).start()
    done, asked = night.run()
    assert deleted.is_set() and done.returncode != 0
    assert ("create", 409) in asked or CREATE not in asked, asked


def test_the_role_allows_that_and_nothing_else():
    cluster = kube_api.Cluster()
    for value in (ROLE, one(BASE, "RoleBinding")):
        cluster.create(kube_api.resource_of(value), copy.deepcopy(value))
    user = CRON["serviceAccountName"]
    verbs = ["create", "get", "list", "watch", "delete", "deletecollection", "patch", "update"]
    resources = ["rayjobs", "rayclusters", "pods", "secrets", "configmaps", "rayjobs/status"]
    groups = {"rayjobs": "ray.io", "rayclusters": "ray.io", "rayjobs/status": "ray.io"}
    allowed = {
        (verb, resource, name)
        for verb in verbs
        for resource in resources
        for name in ("", NAME, "another")
        if cluster.allows(user, verb, groups.get(resource, ""), resource, name)
    }
    assert allowed == {("create", "rayjobs", name) for name in ("", NAME, "another")} | {
        (verb, "rayjobs", NAME) for verb in ("get", "list", "watch", "delete")
    }
    assert document("kuberay/schedule.yaml", "CronJob")["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_commands_of_the_guide(home, tmp_path):
    """Runs the commands of "Start" for Kubernetes as an administrator, from the repository's root."""
    blocks = re.findall(r"```sh\n(.*?)```", (INFRA.parent / "docs/guides/kubernetes.md").read_text(), re.S)
    (block,) = [block for block in blocks if re.search(r"apply -k infra/kuberay\b(?!/)", block)]
    commands = [line for line in block.replace("\\\n", " ").splitlines() if "secret" not in line]
    cluster = kube_api.Cluster(unknown=unknown_fields)
    with kube_api.serve(cluster) as url:
        (tmp_path / "config").write_text(kube_api.kubeconfig(url, kube_api.ADMIN))
        path = f"{Path(kubectl()).parent}:{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": str(home), "KUBECONFIG": str(tmp_path / "config")}
        for command in commands:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                env=environment,
                cwd=INFRA.parent,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
    there = {(resource, name) for resource, name in cluster.objects}
    assert there == {(kube_api.resource_of(o), o["metadata"]["name"]) for o in (*BASE, JOB)} | {
        ("configmaps", "featray-rayjob")
    }
    (manifest,) = cluster.objects["configmaps", "featray-rayjob"]["data"].items()
    (mount,) = [m for m in CONTAINER["volumeMounts"] if m["name"] == "manifests"]
    (volume,) = [v for v in CRON["volumes"] if v["name"] == "manifests"]
    assert volume["configMap"] == {"name": "featray-rayjob"}
    assert f"--filename {mount['mountPath']}/{manifest[0]}" in SCRIPT
    assert yaml.safe_load(manifest[1]) == JOB


def test_the_stand_in_refuses_what_the_api_would(home, tmp_path):
    """It rejects unknown fields, and every request of a user without a role."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(JOB).replace("entrypoint:", "entryPoint:"))
    cluster = kube_api.Cluster(unknown=unknown_fields)
    with kube_api.serve(cluster) as url:
        for user, message in ((kube_api.ADMIN, "strict decoding error"), ("somebody", "forbidden")):
            (tmp_path / "config").write_text(kube_api.kubeconfig(url, user))
            command = [kubectl(), "--kubeconfig", str(tmp_path / "config"), "create", "--filename", str(wrong)]
            done = subprocess.run(command, env={"HOME": str(home)}, capture_output=True, text=True)
            assert done.returncode == 1 and message in done.stderr, done.stderr


def test_third_party_images_are_versioned():
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", CONTAINER["image"])
    assert kustomize(INFRA / "kuberay/job") and ":latest" not in (INFRA / "kuberay/job/rayjob.yaml").read_text()
