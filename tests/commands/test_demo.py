"""The demo in its smallest form: it ends with a page, and says its result and its limits."""

import pytest

from jaxconcepts.commands import command_line, demo

SMALL = {
    "train.steps": 4, "train.batch_size": 4, "train.warmup_steps": 0, "train.optimizer": "adam", "model.layers": 1,
    "model.heads": 1, "model.width": 4, "measure.count": 2, "measure.per_concept": 8, "measure.cd_per_concept": 8,
    "measure.neighbours": 3, "measure.hidden_count": 2,
}  # fmt: skip


@pytest.mark.slow
def test_the_demo_ends_with_a_page_and_says_what_it_is_too_short_for(tmp_path, capsys, monkeypatch):
    # Other tests of this process have started the backend.
    monkeypatch.setattr(command_line, "make_cpu_devices", lambda count: None)
    workdir = tmp_path / "demo"
    changed = [f"--config.{name}={value}" for name, value in SMALL.items()]
    assert demo.run(["demo", f"--workdir={workdir}", *changed]) == 0
    out = capsys.readouterr().out
    html = (workdir / "report.html").read_text()
    assert "hidden concepts" in out and "* seed 0: CD " in out and f"page: {workdir}/report.html" in out
    assert "Limits: " in out and "4 steps of one seed say nothing" in out
    assert '<figure id="cd_curves">' in html and "refresh" not in html
