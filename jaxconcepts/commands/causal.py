"""causal: patches, task and function vectors, steering, head ablation and interchange patching of a language model."""

from __future__ import annotations

from jaxconcepts.commands import command_line


def run(argv: list[str]) -> int:
    values = command_line.text_flags(
        ("workdir", None, "where to store, local or gs://"),
        ("model", None, "a checkpoint folder, or a Hugging Face repository id"),
        ("revision", None, "branch, tag or commit of the repository"),
        required=["workdir", "model"],
    )
    values, fields = command_line.parse_with_config(
        argv, values, needs=("families", "experiments"), example="configs/causal.py",
        source="studies.causal_config.default_fields()",
    )  # fmt: skip
    from etils import epath

    from jaxconcepts.figures.causal_catalogue import write_report
    from jaxconcepts.studies import causal, causal_config

    config = causal_config.from_fields(fields)
    workdir = epath.Path(values.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    command_line.log_to(workdir / "log.txt")
    causal.run(config, values.model, workdir, values.revision)
    command_line.log.info("report: %s", write_report(workdir))
    return 0
