"""The page that is drawn while runs go on: as often as there is something new, and never in the way."""

import logging
import time

from jaxconcepts.figures import live


def until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited for a minute in vain")


def test_the_page_is_there_while_a_run_goes_on_and_is_drawn_again_for_new_rows(make_workdir, monkeypatch):
    workdir = make_workdir(seeds=1, measurements=2, layers=1, pairs=2)
    drawings = []
    honest = live.write_report
    monkeypatch.setattr(live, "write_report", lambda root, **how: drawings.append(how) or honest(root, **how))
    with live.page(workdir, every=0.05):
        until((workdir / "report.html").exists)
        time.sleep(1)
        assert drawings == [{"light": True}]  # Nothing new has come.
        parts = list((workdir / "metrics").iterdir())
        monkeypatch.setattr(live.files, "listing", lambda folder: [*parts, folder / "another.parquet"])
        until(lambda: len(drawings) == 2)
    html = (workdir / "report.html").read_text()
    assert '<figure id="loss_last">' in html and '<figure id="cd_curves">' in html and "distance" not in html
    assert not (workdir / "figures").exists()


def test_a_drawing_that_fails_ends_nothing(make_workdir, monkeypatch, caplog):
    def fail(*_, **__):
        raise ValueError("no ink")

    monkeypatch.setattr(live, "write_report", fail)
    with caplog.at_level(logging.WARNING, "jaxconcepts"), live.page(make_workdir(seeds=1, measurements=2, layers=1)):
        until(lambda: "the page could not be drawn: ValueError: no ink" in caplog.text)
