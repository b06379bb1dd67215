"""What tests of bad input share."""

import jax
import pytest

from jaxconcepts import __main__
from jaxconcepts.commands import command_line


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """refused(command, *flags, workdir=True) -> the line that a command ends with."""
    # Other tests of this process have started the backend.
    monkeypatch.setattr(command_line, "make_cpu_devices", lambda count: None)
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_, **__: pytest.fail("something was compiled"))
    workdir = tmp_path / "run"

    def run(*arguments, with_workdir=True):
        argv = ["jaxconcepts", *arguments, *[f"--workdir={workdir}"] * with_workdir]
        code = __main__.main(argv)
        error = capsys.readouterr().err
        assert code == 2 and error.startswith("error: ") and error.count("\n") == 1 and error.endswith("\n"), error
        assert len(error) < 1500 and "Traceback" not in error and not workdir.exists()
        return error

    return run
