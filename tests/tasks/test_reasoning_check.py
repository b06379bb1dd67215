"""The checker: accepts every generated solution, and names every single mutation."""

import time
from dataclasses import replace
from random import Random

import pytest

from jaxconcepts.tasks import reasoning_check, reasoning_text
from jaxconcepts.tasks.reasoning import ReasoningConfig, generate
from jaxconcepts.tasks.reasoning_check import check

FORMS = ("compact", "english")
CONFIGS = [
    {},
    {"retry": 0.5, "retry_kind": "weak"},
    {"retry": 0.3, "retry_kind": "miss", "question_first": True},
    {"modulus": 23, "max_instances": 20, "operations": (1, 15)},
]


def accepts(form, fields, seeds):
    config = ReasoningConfig(form=form, **fields)
    for seed in seeds:
        problem = generate(config, seed)
        verdict = check(problem, problem.solution)
        assert verdict.steps == [(name, "ok") for name in problem.needed], problem.solution
        assert verdict.correct and verdict.ending == "right" and verdict.first_mistake is None
        assert len(verdict.retries) == problem.solution.count("BACK")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fields", CONFIGS)
def test_every_solution_is_accepted(form, fields):
    accepts(form, fields, range(50))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fields", CONFIGS)
def test_thousands_of_solutions_are_accepted(form, fields):
    accepts(form, fields, range(1000, 3500 if fields else 11_000))


class Written:
    """A solution as lists of words, one list a sentence, to be changed."""

    def __init__(self, form, seed, operations=(3, 8)):
        self.form = form
        self.problem = generate(ReasoningConfig(form=form, operations=operations, max_instances=10), seed)
        self.end = reasoning_text.END[form]
        self.order = self.problem.graph.order
        self.definitions = [self.problem.graph.definitions[parameter] for parameter in self.order]
        self.sentences = self.split(self.problem.solution)
        # Words of a name; where the value's computation begins.
        self.name = slice(0, 1) if form == "compact" else slice(1, 8)
        self.body = 1 if form == "compact" else 11

    def split(self, text):
        parts = " ".join(reasoning_text.words(text)).split(f" {self.end}")
        return [part.split() for part in parts if part.strip()]

    def check(self, sentences):
        return check(self.problem, "".join(" ".join([*sentence, self.end]) + " " for sentence in sentences))

    def changed(self, index, words):
        return self.check([*self.sentences[:index], words, *self.sentences[index + 1 :]])

    def letters(self):
        return [sentence[9] for sentence in self.sentences]


def expect(verdict, index, kind, ending=None):
    """The sentence has the kind, all before it are ok, and the solution is not correct."""
    kinds = [kind for _, kind in verdict.steps]
    assert kinds[: index + 1] == ["ok"] * index + [kind], verdict
    assert not verdict.correct and (ending is None or verdict.ending == ending), verdict


@pytest.fixture(scope="module", params=FORMS)
def solutions(request):
    return [Written(request.param, seed) for seed in range(60)]


def test_unchanged_sentences_are_accepted(solutions):
    for written in solutions:
        assert written.check(written.sentences).correct


def test_a_wrong_value_is_wrong_arithmetic(solutions):
    """Every result, and every value copied from before, each replaced by another number."""
    for written in solutions:
        for index, words in enumerate(written.sentences):
            definition = written.definitions[index]
            for position in range(written.body, len(words)):
                if not words[position].isdigit() or is_constant(written, definition, words, position):
                    continue
                for number in ((int(words[position]) + 1) % 7, 7 + int(words[position])):
                    verdict = written.changed(index, [*words[:position], str(number), *words[position + 1 :]])
                    last = index + 1 == len(written.order) and position + 1 == len(words)
                    expect(verdict, index, "wrong_arithmetic", "wrong_value" if last else None)


def is_constant(written, definition, words, position):
    """Whether the number is the constant of a definition with inputs: the last operand, before the last equals sign."""
    if definition.constant is None or not definition.inputs:
        return False
    last_sign = max(i for i, word in enumerate(words) if word == "=")
    if written.form == "compact":
        return position == last_sign - 1
    # "a + 3 = 5 + 3 = 1": as a symbol and as a number; "5 + 3 = 1" once.
    return words[position - 1] == definition.apply and position in (last_sign - 1, last_sign - 5)


def test_a_wrong_input_is_named(solutions):
    changes = 0
    for written in solutions:
        for index, words in enumerate(written.sentences):
            symbols = (
                [" ".join(s[written.name]) for s in written.sentences]
                if written.form == "compact"
                else written.letters()
            )
            inputs = written.definitions[index].inputs
            for position in range(written.body, len(words)):
                if words[position] not in symbols:
                    continue
                for other in range(index):
                    if written.order[other] not in inputs:
                        changes += 1
                        expect(
                            written.changed(index, [*words[:position], symbols[other], *words[position + 1 :]]),
                            index,
                            "wrong_inputs",
                        )
    assert changes > 100


def test_a_wrong_operator_or_constant_is_a_wrong_input(solutions):
    changes = 0
    for written in solutions:
        for index, words in enumerate(written.sentences):
            definition = written.definitions[index]
            operators = [i for i in range(written.body, len(words)) if words[i] in "+-*"]
            if written.form == "compact":
                for position in operators:
                    changes += 1
                    other = "-" if words[position] == "+" else "+"
                    expect(
                        written.changed(index, [*words[:position], other, *words[position + 1 :]]),
                        index,
                        "wrong_inputs",
                    )
                if definition.constant is not None and definition.inputs:
                    other = str((definition.constant + 1) % 7)
                    expect(written.changed(index, [*words[:-3], other, *words[-2:]]), index, "wrong_inputs")
            elif definition.inputs and operators:
                text = [
                    {"+": "-", "-": "+", "*": "+"}.get(w, w) if i >= written.body else w for i, w in enumerate(words)
                ]
                changes += 1
                expect(written.changed(index, text), index, "wrong_inputs")
    assert changes > 100


def test_a_wrong_order_is_not_computable(solutions):
    free = 0
    for written in solutions:
        for index in range(len(written.order) - 1):
            first, second = written.sentences[index : index + 2]
            verdict = written.check([*written.sentences[:index], second, first, *written.sentences[index + 2 :]])
            last = index + 2 == len(written.order)
            if written.order[index] in written.definitions[index + 1].inputs:
                expect(verdict, index, "not_computable", "too_long" if last else "right")
                assert [kind for _, kind in verdict.steps].count("ok") == len(written.order) - 1
            else:
                free += 1
                assert verdict.correct == (not last)
    assert free > 10


def test_a_wrong_name_is_named(solutions):
    seen = dict.fromkeys(("repeated", "not_computable", "wrong_inputs", "unparsable"), 0)
    for written in solutions:
        graph, names = written.problem.graph, written.problem.names
        for index, words in enumerate(written.sentences):
            stated = written.order[:index]
            for parameter in graph.named:
                if parameter == written.order[index]:
                    continue
                definition = graph.definitions[parameter]
                name = reasoning_text.words(names[parameter])
                text = [*words[: written.name.start], *name, *words[written.name.stop :]]
                if parameter in stated:
                    kind = "repeated"
                elif not set(definition.inputs) <= set(stated):
                    kind = "not_computable"
                elif definition.inputs:
                    if set(definition.inputs) == set(written.definitions[index].inputs):
                        continue
                    kind = "wrong_inputs"
                else:
                    continue
                seen[kind] += 1
                verdict = written.changed(index, text)
                expect(verdict, index, kind)
                assert verdict.steps[index][0] == names[parameter]
            absent = next(parameter for parameter in names if parameter not in graph.definitions)
            text = [*words[: written.name.start], *reasoning_text.words(names[absent]), *words[written.name.stop :]]
            seen["unparsable"] += 1
            expect(written.changed(index, text), index, "unparsable")
    assert min(seen.values()) > 20, seen


def test_an_early_stop_is_named(solutions):
    for written in solutions:
        for count in range(len(written.sentences)):
            verdict = written.check(written.sentences[:count])
            assert verdict.steps == [(name, "ok") for name in written.problem.needed[:count]]
            assert verdict.ending == "early_stop" and not verdict.correct
        # Cut inside the last sentence, at every word that leaves something to say.
        text = " ".join(reasoning_text.words(written.problem.solution)).split()
        for cut in range(1, len(written.sentences[-1]) - written.body):
            verdict = check(written.problem, " ".join(text[: -1 - cut]))
            assert not verdict.correct and verdict.ending == "early_stop"
            assert verdict.steps[-1] == (written.problem.needed[-1], "unparsable")


def test_what_follows_the_answer_is_too_long(solutions):
    for written in solutions:
        for extra in (written.sentences[0], written.sentences[-1], ["nonsense"]):
            verdict = written.check([*written.sentences, extra])
            kind = "unparsable" if extra == ["nonsense"] else "repeated"
            expect(verdict, len(written.sentences), kind, "too_long")
        looped = written.check([written.sentences[0]] * 30) if len(written.sentences) > 1 else None
        if looped:
            expect(looped, 1, "repeated", "too_long")


def test_an_unneeded_step_is_named_and_accepted():
    steps = 0
    for form in FORMS:
        for seed in range(40):
            problem = generate(ReasoningConfig(form=form), seed)
            graph = problem.graph
            before = graph.order[:-1]
            for extra in graph.definitions:
                if extra in graph.order or not set(graph.definitions[extra].inputs) <= set(before):
                    continue
                longer = replace(graph, order=(*before, extra, graph.order[-1]))
                sentences = reasoning_text.solution(Random(0), form, problem.names, longer)
                verdict = check(problem, " ".join(s.name + s.rest for s in sentences))
                assert verdict.correct and verdict.ending == "right"
                assert verdict.steps[-2] == (problem.names[extra], "unneeded")
                steps += 1
    assert steps > 40


def test_what_was_taken_back_counts_for_nothing(solutions):
    for written in solutions:
        name = " ".join(written.sentences[-1][: written.name.stop])
        body = " ".join(written.sentences[-1][:-1])
        for struck, kind in ((name, None), (body, None), ("nonsense", "unparsable"), ("", "unparsable")):
            verdict = check(written.problem, f"{struck} BACK {written.problem.solution}")
            assert verdict.correct and len(verdict.retries) == 1
            assert kind is None or verdict.retries[0][1] == kind


def test_sums_and_products_may_be_written_in_any_order():
    problem = generate(ReasoningConfig(operations=(8, 8)), 0)
    swapped = 0
    for seed in range(200):
        problem = generate(ReasoningConfig(operations=(6, 6)), seed)
        words = problem.solution.split()
        for i in range(len(words) - 6):
            # name x a + y b = c ; with nothing after it
            if (
                i + 8 <= len(words)
                and words[i + 3] == "+"
                and words[i + 6] == "="
                and words[i + 8 : i + 9] in ([";"], [])
                and words[i + 4] in problem.parameters
                and words[i] in problem.parameters
            ):
                text = [*words[: i + 1], *words[i + 4 : i + 6], "+", *words[i + 1 : i + 3], *words[i + 6 :]]
                assert check(problem, " ".join(text)).correct
                swapped += 1
    assert swapped > 20


TEXTS = {
    "empty": "",
    "spaces": " \n\t\u2028\x85 ",
    "japanese": "数は五です。" * 1000,
    "arabic digits": "A0B2 ٣ ; " * 10,
    "null and surrogate": "\x00\ud800 ; BACK",
    "long word": "A" * 1_000_000,
    "long number": "A0B2 " + "9" * 1_000_000 + " ;",
    "many ends": ";." * 500_000,
    "many sentences": "A0B2 1 ; " * 110_000,
    "english": "The number of all barns per amber valley is a: 5. " * 20_000,
    "operators": "+=,*-:?" * 150_000,
    "back": "BACK " * 200_000,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TEXTS)
def test_any_text_has_a_verdict(form, name):
    problem = generate(ReasoningConfig(form=form, operations=(3, 3)), 0)
    start = time.perf_counter()
    verdict = check(problem, TEXTS[name])
    # Linear in the text: 1 MB takes about a second; a quadratic reading would take hours.
    assert time.perf_counter() - start < 60
    assert not verdict.correct and verdict.ending in ("early_stop", "too_long", "wrong_value")
    assert {kind for _, kind in verdict.steps} <= set(reasoning_check.KINDS)
    assert all(len(name) < 1000 for name, _ in verdict.steps)
    if name in ("empty", "spaces"):
        assert verdict.steps == [] and verdict.ending == "early_stop"


def test_digits_of_another_script_are_no_numbers():
    problem = generate(ReasoningConfig(form="english"), 3)
    text = problem.solution.translate({ord("0") + digit: chr(0x660 + digit) for digit in range(10)})
    verdict = check(problem, text)
    assert [kind for _, kind in verdict.steps] == ["unparsable"] * len(problem.needed)


def test_a_solution_after_a_megabyte_of_noise_is_not_right():
    problem = generate(ReasoningConfig(), 0)
    assert not check(problem, "数 ; " * 200_000 + problem.solution).correct


@pytest.mark.parametrize("text", [None, 3, b"A0B2 1 ;", ["A0B2"]])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(TypeError, match="text must be a str, got"):
        check(generate(ReasoningConfig(), 0), text)
