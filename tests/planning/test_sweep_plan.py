"""Plans: the compiler's figures for devices that are not here, how many runs fit, what the command says."""

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxconcepts.experiments.regression import Regression
from jaxconcepts.planning import chips, program_cost
from jaxconcepts.planning import sweep_plan as plan
from jaxconcepts.runs import packs, points

pytestmark = pytest.mark.usefixtures("compiles_fast")

ROOT = Path(__file__).parents[2]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="compiling for a TPU needs libtpu: pip install '.[plan]'"
)


def config(**model):
    base = json.loads(json.dumps(Regression.default_config()))
    base["task"] |= {"num_concepts": 2, "dim": 4, "rank": 2, "num_pairs": 3}
    base["model"] |= {"layers": 2, "heads": 2, "width": 8} | model
    base["train"] |= {"batch_size": 5, "steps": 3_600}
    base["measure"] |= {"per_concept": 16, "cd_per_concept": 16, "neighbours": 3}
    return base


def group(runs, **model):
    return [points.make_point(config(**model) | {"seed": seed}) for seed in range(runs)]


def flops_by_hand(layers, width, tokens, batch, dim):
    """FLOPs of the products of one training step: per token and block 12 d^2 in weights and 2 T d in attention."""
    rows = batch * tokens
    blocks = layers * (rows * 12 * width**2 + 2 * batch * tokens**2 * width)
    read_in, read_out = rows * dim * width, rows * width
    # The backward pass has two products for each of the forward pass, but the inputs need no gradient.
    return 2 * (3 * (blocks + read_in + read_out) - read_in)


@pytest.mark.parametrize(("how", "layers"), [("map", 1), ("vmap", 3)])
def test_flops_count_a_loop_as_often_as_it_runs(how, layers):
    (point,) = group(1, layers=layers, unroll=1)
    program = packs.make_program(point.experiment, 2, packs.Layout(how), jax.devices()[:1])
    cost = program_cost.compile_chunk(program, point.experiment, point.numbers)
    # The sampler's products of weights and inputs: 5 sequences of 3 pairs of 4 dimensions.
    assert cost.flops == 2 * (flops_by_hand(layers, width=8, tokens=6, batch=5, dim=4) + 2 * 5 * 3 * 4)
    assert cost.cycles is None and cost.collectives == {}


def test_flops_agree_with_xla_where_no_loop_hides_any():
    def product(a, b):
        return jnp.einsum("bij,bjk->bik", a, b) @ jnp.ones((7, 9))

    a, b = jnp.ones((3, 4, 50)), jnp.ones((3, 50, 7))
    compiled = jax.jit(product).lower(a, b).compile()
    ours = program_cost.flops_of_products(jax.make_jaxpr(product)(a, b).jaxpr)
    assert ours == 2 * 3 * 4 * (50 * 7 + 7 * 9) == pytest.approx(compiled.cost_analysis()["flops"], rel=0.01)


HLO = """HloModule jit_everywhere

%cond_inner (p.1: (s32[])) -> pred[] {
  %bound = s32[]{:T(128)} constant(3), metadata={op_name="x"}
  %p.1 = (s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p.1), index=0
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

%fused (q: f32[]) -> f32[] {
  ROOT %add.1 = f32[] add(%q, %q), backend_config={"window_config":{"estimated_cycles":"1000000"}}
}

%body_inner (p.2: (s32[])) -> (s32[]) {
  %work = f32[] fusion(%p.2), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"10"}}
  %sum = f32[8]{0} all-reduce(%work), replica_groups={}, to_apply=%fused
}

%cond_steps (p.3: (s32[], s32[])) -> pred[] {
  %i.2 = s32[] get-tuple-element(%p.3), index=0
  %n = s32[] get-tuple-element(%p.3), index=1
  ROOT %lt.2 = pred[] compare(%i.2, %n), direction=LT
}

%body_steps (p.4: (s32[], s32[])) -> (s32[], s32[]) {
  %inner = (s32[]) while(%p.4), condition=%cond_inner, body=%body_inner
  %known = (s32[]) while(%p.4), condition=%cond_steps, body=%body_inner, backend_config={"known_trip_count":{"n":"4"}}
  %update = f32[] fusion(%p.4), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"7"}}
}

ENTRY %main (p.5: (s32[], s32[])) -> (s32[], s32[]) {
  %before = f32[] fusion(%p.5), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"500"}}
  %gathered = (f32[4]{0}, f32[8]{0}) all-gather-start(%before), dimensions={0}
  %done = f32[8]{0} all-gather-done(%gathered)
  ROOT %steps = (s32[], s32[]) while(%p.5), condition=%cond_steps, body=%body_steps
}
"""


def test_cycles_are_those_of_a_step():
    assert program_cost.step_cycles(HLO) == (3 + 4) * 10 + 7
    assert program_cost.count_collectives(HLO) == {"all-gather": 1, "all-reduce": 1}


def fake_costs(fixed, per_run, limit):
    """Stands for the compiler: memory in a straight line, refusing what is above the limit."""
    tried = []

    def compile_with(runs):
        tried.append(runs)
        memory = fixed + per_run * runs
        return program_cost.Cost(memory, 0, 0, 0, 0, 0.0, None, {}) if memory <= limit else None

    return compile_with, tried


@pytest.mark.parametrize(
    ("fixed", "per_run", "wanted", "most"),
    [(0, 10, 3, 3), (50, 10, 95, 95), (50, 10, 1000, 95), (900, 10, 1000, 10), (0, 400, 8, 2), (600, 300, 9, 1)],
)
def test_the_search_finds_how_many_fit_in_few_compilations(fixed, per_run, wanted, most):
    compile_with, tried = fake_costs(fixed, per_run, limit=1000)
    found, cost = plan.largest_fitting(compile_with, wanted, 1000)
    assert 0.95 * most <= found <= most
    assert cost.memory == fixed + per_run * found and len(tried) <= 4


def test_the_search_finds_that_nothing_fits():
    compile_with, tried = fake_costs(0, 1001, limit=1000)
    assert plan.largest_fitting(compile_with, 9, 1000) == (0, None)
    assert tried == [4, 2, 1]


def test_hours_add_up(monkeypatch):
    # 10 runs, 2 at once on each of 2 rows of 2 chips: two packs of 4, and one of 2, which is one a row.
    cost = program_cost.Cost(0, 0, 0, 0, 0, 1e9, None, {})
    made = plan.GroupPlan(group(1)[0].experiment, 10, 2, 2, 2, cost, seconds=0.5, estimate="peak")
    assert made.at_once == 4 and made.hours == pytest.approx((2 + 0.5) * 0.5 * 3_600 / 3_600)


def test_a_plan_for_this_machine():
    lines = []
    (made,) = plan.plan([group(3)], packs.Layout(), jax.devices()[:1], lines.append)
    assert made.per_chip == 3 and made.seconds is None
    text = "\n".join(lines)
    assert "plan, not a measurement" in text and "collectives      none" in text and "3 run(s)" in text


def test_a_group_that_cannot_fit_is_named(monkeypatch):
    def refuse(program, experiment, numbers):
        raise program_cost.DoesNotFitError("out of memory")

    lines = []
    monkeypatch.setattr(plan, "compile_chunk", refuse)
    with pytest.raises(plan.CannotFitError, match=r"group 1, 2 layers x 8 wide.*; group 2, 2 layers x 16 wide"):
        plan.plan([group(2), group(1, width=16)], packs.Layout(), jax.devices()[:1], lines.append)
    assert "does not fit" in "\n".join(lines)


def test_a_program_above_the_chip_s_memory_does_not_fit(monkeypatch):
    cost = program_cost.Cost(600, 0, 300, 0, 101, 1.0, None, {})
    monkeypatch.setattr(plan, "compile_chunk", lambda program, experiment, numbers: cost)
    monkeypatch.setattr(chips, "describe", lambda device: chips.Chip("small chip", 1000, None))
    with pytest.raises(plan.CannotFitError, match="not even one run fits a small chip"):
        plan.plan_group(group(1), packs.Layout(), jax.devices()[:1])
    monkeypatch.setattr(chips, "describe", lambda device: chips.Chip("chip", 1001, None))
    assert plan.plan_group(group(1), packs.Layout(), jax.devices()[:1]).cost == cost


@pytest.mark.parametrize(("each_group", "compilations"), [(False, 2), (True, 3)])
def test_groups_that_differ_in_concepts_alone_share_a_compilation(each_group, compilations, monkeypatch):
    made, lines = [], []

    def compile_chunk(program, experiment, numbers):
        made.append(program)
        return program_cost.Cost(1, 0, 0, 0, 0, 1e9 * len(made), None, {})

    monkeypatch.setattr(plan, "compile_chunk", compile_chunk)
    monkeypatch.setattr(chips, "describe", lambda device: chips.Chip("chip", 1000, 1e9))
    other = config()
    other["task"]["rank"] = 1
    groups = [group(1), [points.make_point(other)], group(1, width=16)]
    plans = plan.plan(groups, packs.Layout(), jax.devices()[:1], lines.append, each_group=each_group)
    assert len(made) == compilations and [p.experiment for p in plans] == [g[0].experiment for g in groups]
    assert [p.seconds for p in plans] == ([1, 2, 3] if each_group else [1, 1, 2])
    assert ("as group 1" in "\n".join(lines)) == (not each_group)
    total = sum(p.hours for p in plans)
    assert f"about {total:.3g} h" in lines[-1]


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "jaxconcepts", "plan", *arguments],
        cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("flags", [(), ("--local", "--topology=v5p:2x2x1")])
def test_the_command_wants_one_of_topology_and_local(flags):
    result = command("--config=configs/paper.py", *flags)
    assert result.returncode == 2 and "plan needs one of --topology=NAME" in result.stderr


@pytest.mark.slow
def test_the_command_exits_with_1_where_a_group_cannot_fit():
    huge = [
        "--config.num_seeds=1",
        "--config.train.batch_size=1000000",
        "--config.model.layers=1",
        "--config.model.width=8",
    ]
    result = command("--config=configs/paper.py", "--local", *huge)
    assert result.returncode == 1 and "plan, not a measurement" in result.stdout and "does not fit" in result.stdout
    assert "error: group 1, 1 layers x 8 wide" in result.stderr and "not even one run fits a CPU" in result.stderr


@needs_libtpu
@pytest.mark.parametrize(("topology", "chip"), [("v5e:2x2", "TPU v5e"), ("v5p:2x2x1", "TPU v5p")])
def test_a_plan_for_tpus(topology, chip):
    lines = []
    devices = chips.of_topology(topology)
    (made,) = plan.plan([group(3)], packs.Layout(), devices, lines.append)
    assert made.rows == 3 and made.per_chip == 1 and made.cost.collectives == {} and chip in lines[1]
    assert made.cost.flops == pytest.approx(flops_by_hand(2, 8, 6, 5, 4), rel=0.01)
    # Slower than the peak by far, as so small a model is, and still below a millisecond a step.
    assert made.cost.flops / devices_peak(devices) < made.seconds < 1e-3
    assert made.hours == pytest.approx(made.seconds)


def devices_peak(devices):
    return chips.describe(devices[0]).peak


@needs_libtpu
def test_layers_are_unrolled_for_the_target_not_the_host():
    (point,) = group(1, layers=3)
    program = packs.make_program(point.experiment, 1, packs.Layout(), chips.of_topology("v5e:2x2"))
    stacked = packs.abstract_numbers(program, point.numbers)
    state = packs.abstract_state(program, stacked, None)
    text = str(program.chunk.trace(state, stacked, None, packs.step_count(1)).jaxpr)
    assert jax.default_backend() == "cpu" and "unroll=1\n" in text and "unroll=3" not in text


@needs_libtpu
@pytest.mark.slow
def test_chips_that_share_a_run_communicate():
    sharded = config()
    sharded["train"]["batch_size"] = 8
    devices = chips.of_topology("v5e:2x2")
    made = plan.plan_group([points.make_point(sharded)], packs.Layout(data=4), devices)
    assert made.cost.collectives.get("all-reduce") and (made.rows, made.data) == (1, 4)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5p:4x4x4", "v6e:8x8"])
@pytest.mark.parametrize("name", ["paper", "sweep_emergence"])
def test_64_chips(name, topology):
    """The command on the paper's config; of the sweep, its largest group, because all of them take long to compile."""
    if name == "paper":
        result = command(f"--config=configs/{name}.py", f"--topology={topology}")
        assert result.returncode == 0, result.stderr
        assert "5 run(s) in 1 group(s) on 64 x" in result.stdout and "collectives      none" in result.stdout
        return
    path = ROOT / "configs" / f"{name}.py"
    if not path.exists():
        pytest.skip(f"there is no {path.name}")
    module = runpy.run_path(str(path))
    base = json.loads(json.dumps(module["get_config"]().to_dict()))
    run, _ = base.pop("run"), base.pop("num_seeds")
    groups = points.group(points.expand(base, module["get_sweep"]()))
    largest = max(groups, key=lambda group: group[0].experiment.model.layers * group[0].experiment.model.width ** 2)
    made = plan.plan_group(largest, packs.Layout(run["how"], run["data"]), chips.of_topology(topology))
    assert made.cost.collectives == {} and made.rows == min(64, len(largest)) and made.hours > 0


@needs_libtpu
def test_an_unknown_topology_is_refused():
    with pytest.raises(ValueError, match=r"--topology must be a TPU slice, such as v5e:4x4.* got 'v5p:banana'"):
        chips.of_topology("v5p:banana")


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxconcepts\[plan\]'"):
        chips.of_topology("v5e:2x2")
