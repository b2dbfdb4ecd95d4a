"""The alert rules, checked and unit-tested by promtool (Debian: prometheus)."""

import shutil
import subprocess

import pytest
import yaml

from tests.fixtures.infra_files import REPOSITORY
from tests.fixtures.manifests import built, one

pytestmark = pytest.mark.infra("promtool")

CASES = REPOSITORY / "tests/data/infra/alerts.yaml"


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the rules in Prometheus' format and their unit tests."""
    rules = one(built("", "monitoring"), "PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    shutil.copy(CASES, tmp_path)
    return tmp_path


def promtool(folder, *arguments):
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True)


def test_prometheus_takes_the_rules(folder):
    done = promtool(folder, "check", "rules", "rules.yaml")
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_each_alert_is_raised_when_it_should_and_not_else(folder):
    done = promtool(folder, "test", "rules", "alerts.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    raised = {
        one["alertname"] for case in yaml.safe_load(CASES.read_text())["tests"] for one in case["alert_rule_test"]
    }
    (group,) = yaml.safe_load((folder / "rules.yaml").read_text())["groups"]
    assert raised == {rule["alert"] for rule in group["rules"]}


@pytest.mark.parametrize("index", range(5))
def test_a_rule_that_is_never_true_is_found(index, folder):
    rules = yaml.safe_load((folder / "rules.yaml").read_text())
    rules["groups"][0]["rules"][index]["expr"] = "vector(0) > 1"
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    assert promtool(folder, "test", "rules", "alerts.yaml").returncode == 1
