"""infra/slurm/ on a real Slurm of two nodes: jobs that finish, are stopped, preempted, cancelled, or lose a node.

Not covered: GPUs, a node's cgroups, and a file system on which nodes see each other's files late.
"""

import re
import shutil
import time
from pathlib import Path

import pytest
import yaml

from featray.tables.layout import list_partitions, open_output
from featray.tables.lease import EXPIRY_SECONDS
from featray.tables.status import read_status
from featray.upkeep.verify import verify
from tests.fixtures.hosts import wait_for
from tests.fixtures.infra_files import INFRA, REPOSITORY
from tests.fixtures.outputs import rows, tables_of
from tests.fixtures.runs import make_config, run_here
from tests.fixtures.slurm import PROGRAMS, Slurm, give_to_user

pytestmark = [pytest.mark.infra(*PROGRAMS), pytest.mark.timeout(3600)]

DECODE = {"sample": {"every": 12}, "unit_frames": 16}
MINUTES = "--time=60"


@pytest.fixture(scope="module")
def slurm(kept_cache, clips, tmp_path_factory):
    with Slurm() as slurm:
        folder = slurm.shared / "clips"
        folder.mkdir()
        for number in range(4):
            shutil.copy(clips / "face.mp4", folder / f"{number}.mp4")
        shutil.copy(clips / "no_face.mp4", folder)
        for script in ("run.sbatch", "array.sbatch"):
            shutil.copy(INFRA / "slurm" / script, slurm.shared)
        slurm.calm = tmp_path_factory.mktemp("calm") / "out"
        run_here(config(slurm, slurm.calm))  # a run on one machine; all others must have its tables
        shutil.copytree(kept_cache, slurm.shared / ".cache" / "featray")
        give_to_user(slurm.shared)
        yield slurm


def config(slurm, out):
    return make_config(
        [f"{slurm.shared}/clips/"],
        out,
        decode=DECODE,
        cluster={"decode_workers": "auto", "infer_workers": "auto", "gpus_per_worker": "auto"},
    )


@pytest.fixture
def out(slurm, request):
    """Write a config in the user's folder, and return the folder for its tables."""
    name = request.node.name.translate(str.maketrans("[]", "__"))
    place = slurm.shared / name
    text = yaml.safe_dump(config(slurm, place).model_dump(mode="json", exclude_unset=True))
    (slurm.shared / f"{name}.yaml").write_text(text)
    return place


def submit_run(slurm, out, *words):
    return slurm.submit(MINUTES, *words, "run.sbatch", f"{out.name}.yaml")


def wait_for_landing(slurm, out, job):
    """Wait until something has landed; check that the job still runs."""
    wait_for(lambda: landed(out), 900, f"job {job} to land something")
    assert slurm.states(job) == ["RUNNING"], slurm.logs()


def wait_for_expiry(out):
    """Wait until the lease of a run whose node was lost has expired, as during Slurm's own delay of two minutes."""
    (partition,) = list_partitions(open_output(str(out)))
    leases = Path(partition.lease().path)
    renewed = max(lease.stat().st_mtime for lease in leases.iterdir())
    wait_for(lambda: time.time() > renewed + EXPIRY_SECONDS, 2 * EXPIRY_SECONDS, "the lease to expire")


def landed(out):
    return len(list(out.glob("_featray/landing/**/*.arrow")))


def check(slurm, out):
    """Check that the tables are those of the undisturbed run, and that no temporary files remain."""
    assert tables_of(out) == tables_of(slurm.calm), slurm.logs()
    output = open_output(str(out))
    assert verify(output).problems == []
    assert read_status(output)["live"] == []
    assert not list(slurm.shared.glob(".featray-*")) and not list(slurm.hosts.folder.glob("node*/tmp/ray-*"))


def frames_of_last_run(out):
    """Return the number of frames that the last run processed itself, and of all frames."""
    last = max(rows(out, "runs"), key=lambda row: row["started_at"])["run_id"]
    made_by = [row["run_id"] for row in rows(out, "frames")]
    return made_by.count(last), len(made_by)


def log_of(slurm, job):
    log = slurm.shared / f"featray-{job}.log"
    return log.read_text() if log.exists() else ""  # the log appears shortly after the job has started


@pytest.mark.parametrize("bound", ["--cpu-bind=cores", "--cpu-bind=none"])
def test_a_job_has_the_cpus_that_slurm_gave_it(slurm, bound):
    """With and without binding, and without `--cpus-per-task`, so that SLURM_CPUS_PER_TASK is not set."""
    told = "import os; from featray.graph.machine import local_cpus; print(len(os.sched_getaffinity(0)), local_cpus())"
    affinity, counted = slurm.run("srun", "--ntasks=1", bound, "python", "-c", told).split()
    assert counted == "1"
    assert affinity == "1" or bound == "--cpu-bind=none"


def test_a_run_on_two_nodes(slurm, out, report):
    start = time.monotonic()
    job = submit_run(slurm, out)
    wait_for(lambda: "workers:" in (log_of(slurm, job) if slurm.states(job) == ["RUNNING"] else ""), 600, "Ray")
    started = time.monotonic() - start
    slurm.wait(job)
    # Two inference workers use a CPU of each node. With RAY_ADDRESS unset, the run would use only the first node.
    text = log_of(slurm, job)
    told = [line for line in text.splitlines() if line.startswith(("executor:", "workers:"))]
    assert "executor: ray, a Ray cluster was found" in text and "2 infer (CPU)" in text, told
    check(slurm, out)
    report(f"slurm: {started:.0f} s from sbatch to Ray on two nodes, {time.monotonic() - start:.0f} s to the end")


def test_a_run_that_comes_to_its_time_limit_goes_on(slurm, out, report):
    job = submit_run(slurm, out)
    wait_for_landing(slurm, out, job)
    told = time.monotonic()
    slurm.run("scancel", "--batch", "--signal=TERM", job)  # as --signal=B:TERM@120 does two minutes before the limit
    wait_for(lambda: slurm.states(job) == ["PENDING"], 120, f"job {job} to be requeued")
    stopped = time.monotonic() - told
    assert "featray: stopped; run the same command again" in log_of(slurm, job)
    kept = landed(out)
    assert kept and read_status(open_output(str(out)))["live"] == []  # the lease was given back
    slurm.at_once(job)
    slurm.wait(job)
    check(slurm, out)
    again, whole = frames_of_last_run(out)
    assert slurm.field(job, "Restarts") == "1" and 0 < again < whole
    report(f"slurm: stopped {stopped:.0f} s after SIGTERM; {kept} units kept, {whole - again} of {whole} frames")


def test_a_preempted_run_goes_on(slurm, out, report):
    job = submit_run(slurm, out)
    wait_for_landing(slurm, out, job)
    told = time.monotonic()
    other = slurm.submit("--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
    wait_for(lambda: slurm.states(job) == ["PENDING"], 200, f"job {job} to be requeued")
    stopped = time.monotonic() - told
    assert landed(out) and read_status(open_output(str(out)))["live"] == [], log_of(slurm, job)
    slurm.wait(other)
    slurm.at_once(job)
    slurm.wait(job)
    check(slurm, out)
    again, whole = frames_of_last_run(out)
    assert slurm.field(job, "Restarts") == "1" and 0 < again < whole
    report(f"slurm: preempted, the nodes were free after {stopped:.0f} s")


def test_a_run_that_is_cancelled_stays_cancelled(slurm, out):
    job = submit_run(slurm, out)
    wait_for_landing(slurm, out, job)
    slurm.run("scancel", job)
    slurm.wait(job, ends="CANCELLED")
    assert slurm.field(job, "Restarts") == "0"
    wait_for(lambda: read_status(open_output(str(out)))["live"] == [], 120, "the lease to be given back")
    job = submit_run(slurm, out)
    slurm.wait(job)
    check(slurm, out)


@pytest.mark.parametrize("name", ["node2", "node1"])
def test_a_node_is_lost(slurm, out, name):
    """The first node has the run itself and Ray's head."""
    job = submit_run(slurm, out)
    wait_for_landing(slurm, out, job)
    slurm.hosts[name].cut_power()
    wait_for(lambda: slurm.states(job) == ["PENDING"] or slurm.states(job) == ["COMPLETED"], 300, f"job {job} to end")
    kept = landed(out)
    assert kept
    slurm.hosts[name].start()
    slurm.start_daemons(name)
    if name == "node1":
        wait_for_expiry(out)
    slurm.at_once(job)
    slurm.wait(job)
    check(slurm, out)


def test_ray_that_does_not_start_on_a_node_is_no_success(slurm, out):
    job = submit_run(slurm, out, "--hold", "--export=ALL,RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=30")
    (slurm.hosts["node2"].folder / "tmp" / f"ray-{job}").write_text("in the way")
    slurm.run("scontrol", "release", job)
    slurm.wait(job, ends="FAILED")
    assert "run.sbatch: Ray did not start on all 2 nodes" in log_of(slurm, job)
    assert slurm.field(job, "ExitCode") == "1:0" and not out.exists()
    (slurm.hosts["node2"].folder / "tmp" / f"ray-{job}").unlink()


def test_an_array_lands_parts_beside_each_other_and_a_job_publishes_them(slurm, out, report):
    options = [MINUTES, "--cpus-per-task=1"]
    tasks = slurm.submit(*options, "--array=1-3", "array.sbatch", f"{out.name}.yaml")
    publishes = slurm.submit(*options, f"--dependency=afterany:{tasks}", "array.sbatch", f"{out.name}.yaml")
    wait_for(lambda: landed(out), 900, "the tasks to land something")
    assert slurm.states(tasks).count("RUNNING") > 1, slurm.logs()
    hosts = slurm.run("squeue", "-h", "-t", "R", "-j", tasks, "-o", "%N").split()
    assert set(hosts) == {"node1", "node2"}
    slurm.run("scancel", "--batch", "--signal=TERM", f"{tasks}_1")
    wait_for(lambda: slurm.field(f"{tasks}_1", "Restarts") == "1", 120, "the first task to be requeued")
    slurm.at_once(f"{tasks}_1")
    slurm.wait(tasks)
    assert not list(out.glob("faces/**/*.parquet"))
    slurm.wait(publishes)
    assert "1 decode + detect (CPU), 1 infer (CPU)" in log_of(slurm, publishes)  # CPUs of the task, not of the node
    check(slurm, out)
    assert frames_of_last_run(out)[0] == 0  # everything had landed
    report(f"slurm: the array's publishing job took {slurm.field(publishes, 'RunTime')}")


def test_the_guide_word_for_word(slurm, clips):
    """Run the commands of docs/guides/slurm.md, except installation, weights and Apptainer; on nodes with one CPU."""
    study = slurm.shared / "study"
    (study / "clips").mkdir(parents=True)
    for name in ("face", "no_face"):
        shutil.copy(clips / f"{name}.mp4", study / "clips")
    (study / "featray").symlink_to(REPOSITORY)
    give_to_user(study)
    told = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "docs/guides/slurm.md").read_text(), re.S)
    done = [block for block in told if "pip install" not in block and "apptainer" not in block]
    assert len(done) == len(told) - 3
    said = []
    for block in done:
        said.append(slurm.run("bash", "-e", "-c", block, folder=study))
        if "cp featray/infra" in block:
            small = (study / "array.sbatch").read_text().replace("--cpus-per-task=8", "--cpus-per-task=1")
            (study / "array.sbatch").write_text(small)
        wait_for(lambda: not slurm.run("squeue", "-h"), 1800, "all jobs of a block")
    plan, one, _, _, status, results = said
    assert "2 videos" in plan and "face.mp4" in one
    logs = "\n".join(path.read_text() for path in study.glob("featray-*.log"))
    assert "1 of them failed" not in logs and "Nothing to do: all 2 videos are published" in logs
    assert "2 ok" in status and "no problems" in results and "no_face.mp4" not in results, said
    assert (study / "summary.csv").stat().st_size and (study / "report.html").stat().st_size
