"""The launch scripts: what they would submit, that it does what it says, and that they are clean shell."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="manifests are read with PyYAML")

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))


def launch(script, *arguments, path=None, **environment):
    if path is not None:
        environment["PATH"] = f"{path}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", ROOT / "launch" / script, *arguments],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def dry_run(script, *arguments, **environment):
    result = launch(script, "--dry-run", *arguments, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_syntax(script):
    subprocess.run(["bash", "-n", script], check=True)


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: apt-get install shellcheck")
    result = subprocess.run(
        ["shellcheck", *SCRIPTS, ROOT / ".ci" / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


USAGE = {
    "slurm.sh": ["configs/a.py"],
    "slurm_array.sh": ["configs/a.py"],
    "gke.sh": ["cpu", "configs/a.py", "gs://b/w"],
    "tpu_vm.sh": ["pod", "configs/a.py"],
}


@pytest.mark.parametrize("script", USAGE)
def test_wrong_arguments_print_the_usage(script):
    result = launch(script, "--dry-run", *USAGE[script], IMAGE="image")
    assert result.returncode == 2 and result.stderr.startswith("usage: ") and script in result.stderr


@pytest.mark.parametrize(("script", "first"), [("gke.sh", "tpu"), ("tpu_vm.sh", "pod")])
def test_a_workdir_that_is_not_shared_is_refused(script, first):
    result = launch(script, "--dry-run", first, "configs/a.py", "/home/me/run", IMAGE="image")
    assert result.returncode == 2 and "gs://" in result.stderr and "/home/me/run" in result.stderr


def directives(job):
    lines = [line.removeprefix("#SBATCH --") for line in job.splitlines() if line.startswith("#SBATCH --")]
    return dict(line.split("=", 1) if "=" in line else (line, "") for line in lines)


def test_slurm_asks_for_a_task_a_gpu():
    asked = directives(dry_run("slurm.sh", "configs/a.py", "/shared/w", NODES="3", GPUS="4", TIME="1:00:00"))
    assert (asked["nodes"], asked["ntasks-per-node"], asked["gpus-per-node"]) == ("3", "4", "4")
    assert asked["time"] == "1:00:00" and asked["signal"] == "TERM@90" and "requeue" in asked
    asked = directives(dry_run("slurm.sh", "configs/a.py", "/shared/w", GPUS="0"))
    assert asked["ntasks-per-node"] == "1" and "gpus-per-node" not in asked


@pytest.fixture
def cluster(tmp_path):
    """A folder of programs that stand for Slurm's and Kubernetes', each noting how it is called."""

    def stub(name, last=""):
        program = tmp_path / name
        program.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" {name} "$@" >> {tmp_path}/calls\n{last}\n')
        program.chmod(0o755)

    for name, last in {"srun": 'exit "$CODE"', "scontrol": "", "sbatch": "bash", "kubectl": "cat > /dev/null"}.items():
        stub(name, last)
    return tmp_path


def calls(cluster):
    return (cluster / "calls").read_text().split("\n")[:-1]


JOBS = {"slurm.sh": "17", "slurm_array.sh": "17_2"}
SLURM = {"SLURM_JOB_ID": "17", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"}


@pytest.mark.parametrize("script", JOBS)
@pytest.mark.parametrize("code", [0, 1, 75])
def test_only_a_checkpointed_job_is_queued_again(script, code, cluster):
    result = launch(script, "configs/a b.py", "/shared/w", "--config.x=(1, 2)", path=cluster, CODE=str(code), **SLURM)
    assert result.returncode == code
    made = calls(cluster)
    assert made[0] == "sbatch" and made[1] == "srun"
    command = made[made.index("-m") :]
    assert command[:5] == ["-m", "jaxconcepts", "sweep", "--config=configs/a b.py", "--workdir=/shared/w"]
    assert command[5] == "--config.x=(1, 2)"
    assert ("scontrol" in made) == (code == 75)
    if code == 75:
        assert made[-3:] == ["scontrol", "requeue", JOBS[script]]
    if script == "slurm_array.sh":
        assert command[6] == "--shard=2/8"


def test_the_array_has_a_task_a_shard():
    job = dry_run("slurm_array.sh", "configs/a.py", "/shared/w", SHARDS="5")
    assert directives(job)["array"] == "0-4" and '"--shard=$SLURM_ARRAY_TASK_ID/5"' in job


# The fields that these manifests may have, by the JobSet v1alpha2 and Kubernetes batch/v1 and core/v1 references: a
# type stands for a value, a dict for the fields below (of each element, where it is a list), * marks required ones.
POD = {
    "restartPolicy": str, "terminationGracePeriodSeconds": int, "nodeSelector": "labels",
    "containers*": {
        "name*": str, "image*": str, "command": list,
        "env": {"name*": str, "value": str, "valueFrom": {"fieldRef": {"fieldPath*": str}}},
        "resources": {"requests": "labels", "limits": "labels"},
    },
}  # fmt: skip
JOB = {
    "completionMode": str, "parallelism": int, "completions": int, "backoffLimit": int,
    "podFailurePolicy": {"rules*": {
        "action*": str, "onExitCodes": {"containerName": str, "operator*": str, "values*": list},
        "onPodConditions": {"type*": str, "status*": str},
    }},
    "template*": {"spec*": POD},
}  # fmt: skip
JOBSET = {
    "apiVersion*": str, "kind*": str, "metadata*": {"name*": str, "annotations": "labels"},
    "spec*": {
        "failurePolicy": {"maxRestarts": int, "rules": {"name*": str, "action*": str, "onJobFailureReasons": list}},
        "replicatedJobs*": {"name*": str, "replicas": int, "template*": {"spec*": JOB}},
    },
}  # fmt: skip


def check(value, schema, where="manifest"):
    if isinstance(schema, dict):
        for element in value if isinstance(value, list) else [value]:
            known = {name.rstrip("*"): below for name, below in schema.items()}
            assert not set(element) - set(known), where
            assert not {name[:-1] for name in schema if name.endswith("*")} - set(element), where
            for name, below in element.items():
                check(below, known[name], f"{where}.{name}")
    elif schema == "labels":
        assert isinstance(value, dict) and all(isinstance(name, str) for name in value), where
    else:
        assert type(value) is schema, f"{where}: {value!r}"


def manifest(kind, *flags, **environment):
    text = dry_run("gke.sh", kind, "configs/a.py", "gs://b/w", *flags, IMAGE="registry/a:1", **environment)
    made = yaml.safe_load(text)
    check(made, JOBSET)
    assert (made["apiVersion"], made["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    job = made["spec"]["replicatedJobs"][0]
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"][:4] == ["python", "-m", "jaxconcepts", "sweep"]
    return made, job, pod


@pytest.mark.parametrize("kind", ["tpu", "gpu"])
def test_a_checkpointed_or_evicted_pod_restarts_the_jobset_without_counting(kind):
    made, job, pod = manifest(kind)
    (rule,) = made["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    exits, evicted = job["template"]["spec"]["podFailurePolicy"]["rules"]
    assert exits["onExitCodes"] == {"containerName": "sweep", "operator": "In", "values": [75]}
    assert evicted["onPodConditions"][0]["type"] == "DisruptionTarget"
    # A pod failure policy is only allowed with this.
    assert pod["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("topology", "accelerator", "hosts", "chips"),
    [
        ("v5p:4x4x4", "tpu-v5p-slice", 16, 4),
        ("v6e:8x8", "tpu-v6e-slice", 16, 4),
        ("v5e:2x2", "tpu-v5-lite-podslice", 1, 4),
        ("v6e:1x1", "tpu-v6e-slice", 1, 1),
    ],
)
def test_tpu_slices_by_their_topology(topology, accelerator, hosts, chips):
    _, job, pod = manifest("tpu", TOPOLOGY=topology, SLICES="2")
    assert job["replicas"] == 2
    assert job["template"]["spec"]["parallelism"] == job["template"]["spec"]["completions"] == hosts
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology.split(":")[1],
    }
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}


@pytest.mark.parametrize("topology", ["v2:2x2", "v5p", "v5p:4x", "v5p:4x4x4;rm"])
def test_an_unknown_topology_is_refused(topology):
    result = launch("gke.sh", "--dry-run", "tpu", "configs/a.py", "gs://b/w", IMAGE="image", TOPOLOGY=topology)
    assert result.returncode == 2 and "TOPOLOGY must" in result.stderr and topology in result.stderr


def test_gpu_nodes_find_each_other():
    made, job, pod = manifest("gpu", NAME="mine", NODES="3", GPUS="4", ACCELERATOR="nvidia-l4")
    environment = {entry["name"]: entry for entry in pod["containers"][0]["env"]}
    # A JobSet's pods are called <set>-<job>-<job index>-<pod index>, in a subdomain of the set's name.
    assert environment["JAX_COORDINATOR_ADDRESS"]["value"] == f"mine-{job['name']}-0-0.{made['metadata']['name']}:1234"
    assert environment["JAX_NUM_PROCESSES"]["value"] == "3" and job["template"]["spec"]["completions"] == 3
    assert "job-completion-index" in environment["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 4}


def test_flags_survive_the_manifest():
    awkward = ['--config.a="x, \\ y"', "--config.b=: #1 & $HOME", "--config.c=it's"]
    _, _, pod = manifest("tpu", *awkward)
    assert pod["containers"][0]["command"][4:] == ["--config=configs/a.py", "--workdir=gs://b/w", *awkward]


def test_without_dry_run_the_manifest_is_applied(cluster):
    assert launch("gke.sh", "gpu", "configs/a.py", "gs://b/w", IMAGE="image", path=cluster).returncode == 0
    assert calls(cluster) == ["kubectl", "apply", "--filename=-"]


def test_tpu_vm_goes_to_all_workers():
    lines = dry_run("tpu_vm.sh", "pod", "configs/a b.py", "gs://b/w", "--config.x=(1, 2)", ZONE="z", PROJECT="p")
    archive, *commands = [shlex.split(line) for line in lines.splitlines()]
    assert archive[:2] == ["git", "archive"] and len(commands) == 3
    for command in commands:
        assert command[:4] == ["gcloud", "compute", "tpus", "tpu-vm"]
        assert {"--worker=all", "--zone=z", "--project=p"} <= set(command)
    start = commands[-1][-1].removeprefix("--command=")
    script = shlex.split(start.split("bash -c ")[1])[0]
    assert shlex.split(script.split("code=0; ")[1].split("||")[0]) == [
        ".venv/bin/python", "-m", "jaxconcepts", "sweep", "--config=configs/a b.py", "--workdir=gs://b/w",
        "--config.x=(1, 2)",
    ]  # fmt: skip


def test_tpu_vm_starts_again_after_a_checkpoint_only(tmp_path):
    lines = dry_run("tpu_vm.sh", "pod", "configs/a.py", "gs://b/w")
    start = shlex.split(lines.splitlines()[-1])[-1].removeprefix("--command=")
    script = shlex.split(start.split("bash -c ")[1])[0]
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    # Leaves with 75 twice, then with 3.
    python.write_text('#!/usr/bin/env bash\necho x >> times\n[ "$(wc -l < times)" -lt 3 ] && exit 75\nexit 3\n')
    python.chmod(0o755)
    assert subprocess.run(["bash", "-c", script], cwd=tmp_path, timeout=20, check=False).returncode == 3
    assert (tmp_path / "times").read_text().count("x") == 3


@pytest.fixture
def venv(tmp_path):
    """A virtual environment whose Python says that it is 3.11 and notes how it is called."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        f'#!/usr/bin/env bash\nif [ "$1" = -c ]; then echo 3.11; else printf "%s\\n" "$*" >> {tmp_path}/calls; fi\n'
    )
    python.chmod(0o755)
    return tmp_path


def test_what_was_tested_is_what_is_installed(venv):
    assert launch("test.sh", "-m", "not slow", VENV=str(venv)).returncode == 0
    install, test = calls(venv)
    assert "--constraint=launch/constraints-3.11.txt --editable .[test]" in install and "--upgrade" not in install
    assert test.startswith("-m pytest ") and test.endswith(" -m not slow")


def test_latest_installs_the_newest_of_everything(venv):
    assert launch("test.sh", "--latest", "-x", VENV=str(venv)).returncode == 0
    install, test = calls(venv)
    assert "--upgrade --upgrade-strategy=eager --editable .[test]" in install and "constraint" not in install
    assert test.endswith("--no-loadscope-reorder --max-worker-restart=0 -x")


@pytest.mark.parametrize(
    ("given", "extras"), [({}, "cuda,hf"), ({"EXTRAS": "cuda,torch"}, "cuda,torch"), ({"EXTRAS": "hf"}, "hf")]
)
def test_the_gpu_battery_installs_what_a_gpu_needs(venv, given, extras):
    (venv / "nvidia-smi").write_text("#!/usr/bin/env bash\n")
    (venv / "nvidia-smi").chmod(0o755)
    assert launch("bench_gpu.sh", "cd", "--quick", path=venv, VENV=str(venv), **given).returncode == 0
    install, battery = calls(venv)
    assert install.endswith(f"--editable .[{extras}]") and battery == "tests/benchmarks/gpu.py cd --quick"


def test_a_python_without_tested_versions_is_told_so(venv):
    python = venv / "bin" / "python"
    python.write_text(python.read_text().replace("echo 3.11", "echo 3.99"))
    result = launch("test.sh", VENV=str(venv))
    assert result.returncode == 0 and "there is no launch/constraints-3.99.txt" in result.stdout
    assert "constraint" not in calls(venv)[0]


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_constraints_are_versions_alone(version):
    lines = (ROOT / "launch" / f"constraints-{version}.txt").read_text().splitlines()
    assert len(lines) > 50 and all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    names = {line.split("==")[0].lower() for line in lines}
    assert {"jax", "jaxlib", "orbax-checkpoint", "transformers", "pytest"} <= names
    assert ("torch==2.13.0" in lines) == (version == "3.11")
