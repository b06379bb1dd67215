"""Malformed command lines and configs: each ends in exit code 2 and one line that names the field, before anything is
compiled or written."""

import itertools
import json
import sys
from pathlib import Path

import pytest

from jaxconcepts import __main__
from jaxconcepts.commands import command_line

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tests" / "small_train.py"


WHOLE = (
    "seed", "num_seeds", "task.num_concepts", "task.dim", "task.rank", "task.num_pairs", "model.layers", "model.heads",
    "model.width", "train.steps", "train.batch_size", "train.warmup_steps", "measure.count", "measure.per_concept",
    "measure.cd_per_concept", "measure.neighbours", "run.data", "run.at_once", "run.cpu_devices",
)  # fmt: skip
REAL = (
    "task.noise", "train.learning_rate", "train.weight_decay", "train.eps", "train.b1", "init.weights", "init.read_in",
    "curriculum.concept_ratio", "curriculum.dim_interval", "train.decay_fraction", "run.checkpoint_seconds",
)  # fmt: skip
YES_OR_NO = ("model.qk_norm", "model.remat")
CHOICES = (
    "task.bases", "model.activation", "model.dtype", "train.optimizer", "train.schedule", "train.loss",
    "measure.spacing", "measure.detail", "run.how", "run.unroll",
)  # fmt: skip
TRAINING = [
    *itertools.product(WHOLE, ("1.5", "x", "-1", "1000000000000", "true", "")),
    *itertools.product(REAL, ("nan", "inf", "1e300", "-1", "yes", "")),
    *itertools.product(YES_OR_NO, ("yes", "1", "none")),
    *itertools.product(CHOICES, ("nonsense", "")),
    *itertools.product(("measure.steps", "measure.checkpoint_steps"), ("25", "-1", "x", "1.5", "(1,", "2,true")),
    *itertools.product(
        ("task.masks", "task.concept_weights"), ("x", "1", "((1,0),(0,nan))", "((1,),(0,))", "1e300,1", "((1,'a'),)")
    ),
]


@pytest.mark.parametrize(("field", "text"), TRAINING)
def test_a_field_of_a_training_is_named(refused, field, text):
    error = refused("train", f"--config={CONFIG}", f"--config.{field}={text}")
    assert field in error or field.rpartition(".")[2] in error
    assert "must" in error


COMMANDS = [
    (("train", "--config.tsk.dim=3"), "unknown config field tsk.dim; did you mean task.dim?"),
    (("train", "--config.task=3"), "task is a section"),
    (("train", "--config.task.dimm=3"), "did you mean task.dim?"),
    (("train", "--config.noise=3"), "did you mean task.noise?"),
    (("train", "--config..=3"), "unknown config field"),
    (("train", "--wrkdir=x"), "unknown flag --wrkdir; did you mean --workdir?"),
    (("train", "--k=3"), "unknown flag --k; there are workdir, extend, config"),
    (("train", "steps=3"), "arguments must be flags of the form --name=value, got 'steps=3'"),
    (("train", "-x"), "arguments must be flags"),
    (("train", "--"), "arguments must be flags"),
    (("train", "--=3"), "arguments must be flags"),
    (("train", "--\u2028x=3"), "unknown flag"),
    (("train", "--config.model.layers=4096", "--config.model.width=65536"), "does not fit on one device"),
    (("sweep",), "has no get_sweep(); see `train`"),
    (("sweep", "--shard=2/2"), "--shard must be i/n with 0 <= i < n, got '2/2'"),
    (("sweep", "--shard=a"), "--shard must be i/n"),
    (("sweep", "--shard=-1/2"), "--shard must be i/n"),
    (("sweep", "--num_processes=0"), "--num_processes must be a positive integer"),
    (("sweep", "--process_id=x"), "--process_id must be an integer of at least 0"),
    (("sweep", "--tune=maybe"), "--tune must be true or false, got 'maybe'"),
    (("sweep", "--coordinator="), "--coordinator must be a text that is not empty"),
]


@pytest.mark.parametrize(("arguments", "message"), COMMANDS)
def test_a_flag_is_named(refused, arguments, message):
    command, *flags = arguments
    assert message in refused(command, f"--config={CONFIG}", *flags)


OTHERS = [
    (("trian",), "unknown command 'trian'; did you mean train?"),
    (("zzzz",), "unknown command 'zzzz'; there are train, "),
    (("train",), "--workdir is needed"),
    (("train", "--workdir=x"), "--config=FILE is needed, e.g. --config=quickstart"),
    (("train", "--workdir=", "--config=quickstart"), "--workdir must be a text that is not empty"),
    (("train", "--workdir=x", "--config="), "--config must be a config file or one of "),
    (("train", "--workdir=x", "--config=quickstrat"), "did you mean quickstart?"),
    (("train", "--workdir=x", "--config=nowhere/quickstart.py"), "with the package comes quickstart"),
    (("train", "--workdir"), "--workdir needs a value: --workdir=VALUE"),
    (("train", "--workdir=x", "--config=quickstart", "--config.seed"), "--config.seed needs a value"),
    (("status", "--workdir"), "--workdir needs a value"),
    (("status", "--workdir=nowhere"), "nowhere"),
    (("report", "--workdir=nowhere"), "nowhere"),
    (("report", "--config=quickstart"), "unknown flag --config"),
    (("plan", "--config=quickstart"), "plan needs one of --topology=NAME"),
    (("plan", "--config=quickstart", "--local", "--topology=v5p:2x2x1"), "plan needs one of"),
    (("plan", "--model=llama-9", "--local"), "llama-9"),
    (("plan", "--model=gpt-2", "--local", "--length=0"), "--length must be"),
    (("plan", "--model=gpt-2", "--local", "--length=2000"), "--length must be at most the model's context of 1024"),
    (("plan", "--model=gpt-2", "--local", "--dtype=int8"), "--dtype must be one of bfloat16, float32"),
    (("plan", "--model=gpt-2", "--local", "--batch_size=x"), "--batch_size must be"),
    (("decodability", "--workdir=nowhere"), "--label is needed: the name of a label in the prompts file"),
    (("decodability", "--workdir=nowhere", "--label=a", "--k=0"), "--k must be a positive integer, got 0"),
    (("decodability", "--workdir=nowhere", "--label=a", "--k=ten"), "--k must be a positive integer, got 'ten'"),
    (("decodability", "--workdir=nowhere", "--label=a"), "nowhere"),
    (("extract", "--workdir=x"), "--model is needed"),
    (("extract", "--workdir=x", "--model=m", "--prompts=p"), "--bos is needed"),
    (("extract", "--workdir=x", "--model=m", "--prompts=p", "--bos=yes"), "--bos must be true or false, got 'yes'"),
    (("extract", "--workdir=x", "--model=m", "--prompts=p", "--bos", "--dtype=half"), "--dtype must be one of"),
    (("extract", "--workdir=x", "--model=m", "--prompts=p", "--bos", "--batch_size=0"), "--batch_size must be"),
    (("extract", "--workdir=x", "--model=m", "--prompts=nowhere.jsonl", "--bos"), "nowhere.jsonl"),
    (("patch", "--workdir=nowhere", "--head=1"), "--head must be BLOCK.HEAD, e.g. 1.0, got '1'"),
    (("patch", "--workdir=nowhere", "--layer=x"), "--layer must be a tuple, each element an integer of at least 0"),
    (("patch", "--workdir=nowhere", "--step=-1"), "--step must be a tuple"),
    (("patch", "--workdir=nowhere", "--per_concept=1"), "--per_concept must be an integer from 2"),
    (("patch", "--workdir=nowhere"), "nowhere"),
    (("icl", "--workdir=x", "--config=icl"), "icl needs one of --model=FOLDER|ID and --checkpoints"),
    (("icl", "--workdir=x", "--config=icl", "--model=m", "--config.k=100"), "k must be below per_draw = 100"),
    (("icl", "--workdir=x", "--config=icl", "--model=m", "--config.bos=yes"), "bos must be true or false, got 'yes'"),
    (("icl", "--workdir=x", "--config=icl", "--model=m", "--config.shots=4,x"), "shots must be a tuple"),
    (("icl", "--workdir=x", "--config=icl", "--model=m"), "'m' is neither a folder nor a GGUF file, a repository id"),
    (("icl", "--workdir=x", "--config=icl", "--model=m", "--config.variants=plain,nme"), "got 'nme'"),
    (("icl", "--workdir=x", "--config=icl", "--model=m", "--config.bitwise.bits=99"), "bitwise.bits must be"),
    (("icl", "--workdir=x", "--config=icl", "--model=m", "--config.prompts=10"), "prompts must be at least 2 * per_"),
    (("icl", "--workdir=x", "--config=quickstart", "--model=m"), "unknown config field"),
    (("icl", "--workdir=x", "--config=icl", "--checkpoints=1000"), "STEP=SOURCE"),
    (("causal", "--workdir=x", "--config=causal"), "--model is needed"),
    (("causal", "--workdir=x", "--config=causal", "--model=/nowhere"), "/nowhere"),
    (("causal", "--workdir=x", "--config=causal", "--model=m", "--config.scales=x"), "scales must be a tuple"),
    (("causal", "--workdir=x", "--config=causal", "--model=m", "--config.scales=inf"), "scales must be a tuple"),
    (("causal", "--workdir=x", "--config=causal", "--model=m", "--config.replicates=1"), "replicates must be"),
    (("causal", "--workdir=x", "--config=causal", "--model=m", "--config.tuning.arms=a,a"), "arms must name"),
    (("finetune", "--workdir=x", "--config=finetune", "--model=/nowhere"), "/nowhere"),
    (("finetune", "--workdir=x", "--config=finetune", "--model=m", "--config.lora.rank=-1"), "lora.rank must be"),
    (("finetune", "--workdir=x", "--config=finetune", "--model=m", "--config.tune.b1=1"), "tune.b1 must be"),
    (("finetune", "--workdir=x", "--config=finetune", "--model=m", "--config.seeds=0,0"), "seeds must name"),
    (("finetune", "--workdir=x", "--config=finetune", "--model=m", "--config.patterns=x"), "patterns must be a"),
    (("finetune", "--workdir=x", "--config=finetune", "--model=m", "--config.merged=last-3"), "merged must name arms"),
    (("icl_from_scratch", "--workdir=x", "--config=icl_from_scratch", "--config.model.heads=3"), "model.heads must"),
    (("icl_from_scratch", "--workdir=x", "--config=icl_from_scratch", "--config.train.optimizer=sgd"), "one of adam"),
    (("icl_from_scratch", "--workdir=x", "--config=icl_from_scratch", "--config.checkpoint_steps=9999"), "train.steps"),
    (("icl_from_scratch", "--workdir=x", "--config=icl_from_scratch", "--config.study.k=200"), "study.k must be below"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), OTHERS, ids=lambda case: " ".join(case)[:70])
def test_other_arguments_are_named(refused, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments, with_workdir=False)
    assert not list(tmp_path.iterdir())


BASE = "from jaxconcepts.runs.loop import default_config\ndef get_config():\n    config = default_config()\n"
GOOD = BASE + "    return config\n"
CONFIG_DICT = BASE.replace("= default_config()", "= ConfigDict(default_config())")
CONFIG_DICT = "from ml_collections.config_dict import ConfigDict\n" + CONFIG_DICT
FILES = [
    ("", "must have a function get_config(), and has none"),
    ("get_config = 3", "must have a function get_config(), and has none"),
    ("def get_config(:", "line 1: SyntaxError"),
    ("import no_such_module", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
    ("\n\nraise RuntimeError('so')", "line 3: RuntimeError: so"),
    ("import sys\nsys.exit(3)", "line 2: SystemExit"),
    ("def get_config():\n    return 3", "get_config() must return a ConfigDict, a dict or a dataclass, got 3"),
    ("def get_config():\n    return None", "got None"),
    ("def get_config():\n    return [1]", "got [1]"),
    ("def get_config(size):\n    return {}", "TypeError: get_config() missing 1 required positional argument"),
    ("def get_config():\n    return {1: 2}", "unknown config field 1"),
    (BASE + "    config['task']['dim'] = True\n    return config", "task.dim must be an integer from 1 to 65536"),
    (BASE + "    config['seed'] = None\n    return config", "seed must be an integer from 0 to 4294967295, got None"),
    (BASE + "    config['seed'] = '0'\n    return config", "seed must be an integer from 0 to 4294967295, got '0'"),
    (BASE + "    config['seed'] = 1.5\n    return config", "seed must be an integer from 0 to 4294967295, got 1.5"),
    (BASE + "    config['model']['qk_norm'] = 1\n    return config", "model.qk_norm must be true or false, got 1"),
    (BASE + "    config['task'] = 3\n    return config", "task must be a section with"),
    (BASE + "    config['run'] = None\n    return config", "run must be a section with how"),
    (BASE + "    config['run']['how'] = 1\n    return config", "run.how must be one of auto, vmap, map, got 1"),
    (BASE + "    config['run']['hwo'] = 1\n    return config", "unknown config field run.hwo; did you mean run.how?"),
    (BASE + "    config['measure']['steps'] = 5\n    return config", "measure.steps must be a tuple"),
    (BASE + "    config['train']['learning_rate'] = object()\n    return config", "train.learning_rate must be a"),
    (
        CONFIG_DICT + "    config.train.stps = 3\n    return config",
        "unknown config field train.stps; did you mean train.steps?",
    ),
    (
        CONFIG_DICT + "    config.train.steps = 'x'\n    return config",
        "line 5: TypeError",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), FILES, ids=lambda text: text[-50:])
def test_what_a_config_file_does_wrong_is_named(refused, tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    assert message in refused("train", f"--config={tmp_path}/mine.py")


SWEEPS = [
    ("return 3", "must return dicts of overrides by dotted field, such as product(seed=range(3)), got 3"),
    ("return 'seed'", "got 'seed'"),
    ("return {'seed': [1]}", "got {'seed': [1]}"),
    ("return [3]", "must return dicts of overrides by dotted field, got 3"),
    ("raise KeyError('seed')", "line 6: KeyError: seed"),
    ("return (1 / 0 for _ in range(2))", "ZeroDivisionError"),
    ("return []", "a sweep must have at least one point, got none"),
    ("return [{'sed': 1}]", "sed"),
    ("return [{'task': {}}]", "task"),
    ("return [{'seed': 1.5}]", "seed must be"),
    ("return [{'seed': True}]", "seed must be"),
    ("return [{'task.noise': float('nan')}]", "task.noise must be"),
    ("return [{'task.noise': float('inf')}]", "task.noise must be"),
    ("return [{'task.noise': 1e300}]", "task.noise must be"),
    ("return [{'task.noise': 'x'}]", "task.noise must be"),
    ("return [{'task.rank': 99}]", "rank"),
    ("return [{'model.qk_norm': 'yes'}]", "model.qk_norm must be"),
    ("return [{'train.steps': 10**12}]", "train.steps must be"),
    ("return [{'run.how': 'map'}]", "run.how"),
    ("return [{'num_seeds': 2}]", "num_seeds"),
    ("return [{1: 2}]", "1"),
]


@pytest.mark.parametrize(("body", "message"), SWEEPS)
@pytest.mark.parametrize("command", ["sweep", "plan"])
def test_what_a_sweep_does_wrong_is_named(refused, tmp_path, command, body, message):
    (tmp_path / "mine.py").write_text(f"{GOOD}def get_sweep():\n    {body}\n")
    flags = ["--local"] if command == "plan" else []
    assert message in refused(command, f"--config={tmp_path}/mine.py", *flags, with_workdir=command == "sweep")


def test_a_swept_field_that_the_command_line_gives_too_is_named(refused, tmp_path):
    (tmp_path / "mine.py").write_text(f"{GOOD}def get_sweep():\n    return [{{'seed': 1}}]\n")
    error = refused("sweep", f"--config={tmp_path}/mine.py", "--config.seed=2")
    assert "seed is given twice: by --config.seed and by get_sweep()" in error


LLAMA = {
    "model_type": "llama", "vocab_size": 64, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "intermediate_size": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}, "tie_word_embeddings": True,
}  # fmt: skip
MISSING = [
    ("transformers", "hf", ("icl", "--config=icl", "--model={folder}", "--config.families=bitwise")),
    ("huggingface_hub", "hf", ("icl", "--config=icl", "--model=some/repository")),
    ("conllu", "prompts", ("icl", "--config=icl", "--model={folder}", "--config.pos.corpus={folder}/a.conllu")),
    ("libtpu", "plan", ("plan", "--config=quickstart", "--topology=v5p:2x2x1")),
]


@pytest.mark.parametrize(("library", "extra", "arguments"), MISSING, ids=[case[0] for case in MISSING])
def test_a_library_that_is_missing_is_named_with_its_extra(library, extra, arguments, tmp_path, monkeypatch, capsys):
    """The import fails as it does where the extra is not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "a.conllu").write_text("1\tA\ta\tNOUN\t_\t_\t0\troot\t_\t_\n\n")
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "tokenizer.json").write_text("{}")
    given = [argument.replace("{folder}", str(tmp_path)) for argument in arguments]
    given += [] if arguments[0] == "plan" else [f"--workdir={tmp_path}/run"]
    monkeypatch.setattr(command_line, "make_cpu_devices", lambda count: None)
    code = __main__.main(["jaxconcepts", *given])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and library in error
    assert f'pip install "jaxconcepts[{extra}]"' in error or f"pip install 'jaxconcepts[{extra}]'" in error
