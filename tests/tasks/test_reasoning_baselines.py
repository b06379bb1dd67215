"""Baselines against plain loops and a closed form."""

from collections import Counter
from random import Random

import numpy as np
import pytest

from jaxconcepts.tasks import reasoning_bank, reasoning_baselines, reasoning_text
from jaxconcepts.tasks.reasoning import ReasoningConfig, generate


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("banks")
    config = ReasoningConfig(operations=(1, 4))
    longer = ReasoningConfig(operations=(1, 6))
    train = reasoning_bank.write(folder / "train", config, count=200, seed=1)
    return train, reasoning_bank.write(folder / "test", longer, count=60, seed=2), config, longer


def test_the_commonest_answer(banks):
    train = banks[0]
    counts = Counter(train.answers.tolist())
    assert counts[reasoning_baselines.commonest_answer(train)] == max(counts.values())


def test_copied_answers_against_a_plain_loop(banks):
    train, test, config, longer = banks
    seen = [generate(config, 2**32 + number) for number in range(len(train))]
    words = [Counter(reasoning_text.words(problem.question)) for problem in seen]
    expected = []
    for number in range(len(test)):
        problem = generate(longer, 2 * 2**32 + number)
        mine = Counter(reasoning_text.words(problem.question))

        def likeness(i, problem=problem, mine=mine):
            same = seen[i].template_hash == problem.template_hash
            away = 0 if same else 1 + abs(seen[i].operations - problem.operations)
            return away, -(mine & words[i]).total(), i

        expected.append(seen[min(range(len(seen)), key=likeness)].answer)
    answers = reasoning_baselines.copied_answers(train, test)
    assert answers.tolist() == expected
    # Each problem is most like itself.
    assert (reasoning_baselines.copied_answers(train, train) == train.answers).mean() > 0.9


def test_accuracy_by_operations(banks):
    _, test, _, _ = banks
    answers = np.where(test.operations > 2, test.answers, test.answers + 1)
    accuracy = reasoning_baselines.accuracy_by_operations(answers, test)
    assert accuracy == {number: float(number > 2) for number in sorted(set(test.operations.tolist()))}


def test_the_share_of_problems_that_were_seen(banks, tmp_path):
    train, _, config, _ = banks
    assert reasoning_baselines.share_seen(train, train) == 1
    again = reasoning_bank.write(tmp_path / "again", config, count=20, seed=1)
    assert reasoning_baselines.share_seen(train, again) == 1
    other = [generate(config, 3 * 2**32 + number).question for number in range(40)]
    seen = {generate(config, 2**32 + number).question for number in range(len(train))}
    others = reasoning_bank.write(tmp_path / "other", config, count=40, seed=3)
    assert reasoning_baselines.share_seen(train, others) == pytest.approx(np.mean([q in seen for q in other]))


def test_words_must_agree(banks, tmp_path):
    other = reasoning_bank.write(tmp_path, ReasoningConfig(modulus=5), count=2)
    with pytest.raises(ValueError, match="one vocabulary"):
        reasoning_baselines.copied_answers(banks[0], other)


def test_computing_all_writes_unneeded_steps():
    """One needed leaf among n leaves, none of which others depend on: (n - 1) / 2 come before it on average."""
    rng, compared = Random(0), 0
    for _ in range(300):
        problem = generate(ReasoningConfig(operations=(1, 1)), rng.randrange(10**6))
        definitions = problem.graph.definitions
        leaves = sum(not definitions[parameter].inputs for parameter in problem.graph.named)
        if leaves == len(problem.graph.named) and len(problem.needed) == 1:
            compared += 1
            # 32 draws of a uniform number from 0 to n - 1: five standard errors.
            error = 5 * np.sqrt((leaves**2 - 1) / 12 / 32) + 1e-9
            assert abs(reasoning_baselines.unneeded_if_all_is_computed(problem) - (leaves - 1) / 2) <= error
    assert compared > 3
