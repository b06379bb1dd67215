"""What prompts hold, what they depend on, and what is refused."""

from collections import Counter

import pytest

from jaxconcepts.prompts import bitwise, family, render
from jaxconcepts.prompts.family import Example, Family


def tiny(train=3, test=2, **others):
    """A family of one concept with these counts of examples."""
    pools = [
        {"double": tuple(Example(f"{side}{i}", f"{side}{i}{side}{i}", "double") for i in range(count))}
        for side, count in (("a", train), ("b", test))
    ]
    return Family(name="tiny", concepts=("double",), null=None, train=pools[0], test=pools[1], **others)


def test_a_prompt_is_demonstrations_and_a_query():
    (prompt,) = render.prompts(tiny(train=2, test=1), "double", 2, 1, seed=0)
    first, second = (example.input for example in prompt.demonstrations)
    assert {first, second} == {"a0", "a1"}
    assert (
        prompt.text
        == f"Input: {first}\nOutput: {first}{first}\n\nInput: {second}\nOutput: {second}{second}\n\nInput: b0\nOutput:"
    )
    assert (prompt.answer, prompt.concept, prompt.lead, prompt.stop) == ("b0b0", "double", " ", "\n")
    assert prompt.query == Example("b0", "b0b0", "double")
    assert prompt.whole == prompt.text + " b0b0"
    assert render.STOP == "\n"


def test_a_template_is_a_setting():
    template = render.Template(example="<{input}> is <{output}>", separator=" ; ", rule="Do: {rule}", name="[{name}]")
    made = tiny(train=1, test=1, rules={"double": "Say it {twice}."}, names={"double": "twice"})
    texts = {
        variant: render.prompts(made, "double", 1, 1, seed=0, template=template, variant=variant)[0]
        for variant in render.VARIANTS
    }
    shown = "<a0> is <a0a0> ; <b0> is <"
    assert texts["plain"].text == shown
    assert texts["rule"].text == "Do: Say it {twice}. ; " + shown
    assert texts["name"].text == "[twice] ; " + shown
    assert (texts["plain"].stop, texts["plain"].lead) == ("> ;", "")


@pytest.mark.parametrize(
    ("template", "stop", "lead"),
    [
        (render.Template(), "\n", " "),
        (render.Template(example="{input} = {output}.\n#", separator="---"), ".\n", " "),
        (render.Template(example="{input}:\n{output}", separator=" | "), " |", ""),
    ],
)
def test_an_answer_ends_where_a_demonstration_s_does(template, stop, lead):
    assert (template.stop, template.lead) == (stop, lead)


def test_braces_in_an_input_are_text():
    pools = {"c": (Example("{output} {rule}", "x", "c"),)}, {"c": (Example("{input}", "{output}", "c"),)}
    (prompt,) = render.prompts(Family("f", ("c",), None, *pools), "c", 1, 1, seed=0)
    assert prompt.whole == "Input: {output} {rule}\nOutput: x\n\nInput: {input}\nOutput: {output}"


def test_a_prompt_depends_on_seed_concept_and_number_alone(families):
    made = families["bitwise"]
    many = render.prompts(made, "XOR", 4, 300, seed=5)
    assert render.prompts(made, "XOR", 4, 7, seed=5) == many[:7]
    longer = render.prompts(made, "XOR", 9, 300, seed=5)
    assert [p.query for p in longer] == [p.query for p in many]
    assert all(p.demonstrations[:4] == q.demonstrations for p, q in zip(longer, many, strict=True))
    stated = render.prompts(made, "XOR", 4, 300, seed=5, variant="rule")
    assert all(
        p.text.endswith("\n\n" + q.text) and len(p.text) > len(q.text) + 2 for p, q in zip(stated, many, strict=True)
    )
    assert all(p.text.startswith("Write 1 where the numbers differ, and 0 elsewhere.\n\n") for p in stated)
    assert [p.query.input for p in render.prompts(made, "XOR", 4, 20, seed=6)] != [p.query.input for p in many[:20]]
    # The sentences of all concepts are the same and stand in the same order.
    nouns, verbs = (render.prompts(families["pos"], concept, 2, 20, seed=5) for concept in ("Noun", "Verb"))
    assert [p.query.input for p in nouns] != [p.query.input for p in verbs]
    assert [p.demonstrations[0].input for p in nouns] != [p.demonstrations[0].input for p in verbs]


def test_queries_come_round_evenly_and_demonstrations_differ(families):
    made = render.prompts(families["bitwise"], "AND", 12, 450, seed=2)
    inputs = [prompt.query.input for prompt in made]
    # 200 queries to ask, of different inputs.
    assert len(set(inputs[:200])) == len(set(inputs[200:400])) == 200
    assert max(Counter(inputs).values()) == 3
    assert inputs[:200] != inputs[200:400]
    assert all(len({example.input for example in prompt.demonstrations}) == 12 for prompt in made)
    times = Counter(example.input for prompt in made for example in prompt.demonstrations)
    assert len(times) > 0.95 * len(family.inputs(families["bitwise"].train))
    assert len({prompt.text for prompt in made}) == 450


def test_equal_inputs_are_asked_again_only_after_all_others():
    made = bitwise.family(bits=3, train=20, test=30)
    assert len({prompt.query.input for prompt in render.prompts(made, "Null", 2, 12, seed=0)}) == 12


def test_a_query_of_train_is_not_among_its_demonstrations(families):
    for prompt in render.prompts(families["pos"], "Noun", 20, 400, seed=0, split="train"):
        assert prompt.query.input not in {example.input for example in prompt.demonstrations}
    made = render.prompts(tiny(), "double", 2, 3, seed=0, split="train")
    assert all({p.query, *p.demonstrations} == set(tiny().train["double"]) for p in made)


def test_demonstrations_of_every_input_can_be_shown_in_any_order():
    made = render.prompts(tiny(train=3), "double", 3, 200, seed=0)
    assert len({prompt.demonstrations for prompt in made}) == 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"concept": "AMD"}, "bitwise has the concepts AND, NAND, OR, NOR, XOR, XNOR, Null; got 'AMD'"),
        ({"variant": "hint"}, "variant must be one of plain, rule, name; got 'hint'"),
        ({"split": "dev"}, "split must be train or test, got 'dev'"),
        ({"shots": -1}, "shots must be an integer of at least 0, got -1"),
        ({"count": 2.5}, "count must be an integer of at least 0, got 2.5"),
        ({"seed": None}, "seed must be an integer of at least 0, got None"),
        ({"shots": 14}, "14 shots of 'AND' need 14 distinct inputs in train beside the query's; there are 13"),
        ({"shots": 13, "split": "train"}, "13 shots of 'AND' need 13 distinct .*; there are 12"),
    ],
)
def test_wrong_requests_are_named(wrong, message):
    made = bitwise.family(bits=2, train=40, test=10)
    with pytest.raises(ValueError, match=message):
        render.prompts(made, **{"concept": "AND", "shots": 1, "count": 1, "seed": 0, **wrong})
    assert len(render.prompts(made, "AND", 13, 2, seed=0)[0].demonstrations) == 13


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"example": "Output: {output}"},
            r"template.example must hold {input} and after it {output}, each once; got 'Outp",
        ),
        ({"example": "{input}{input} {output}"}, "template.example must hold {input}"),
        ({"example": "{output} from {input}"}, "template.example must hold {input} and after it"),
        ({"example": "{input} {output}"}, "template.example must have text between {input} and {output}"),
        (
            {"separator": " "},
            "template.separator, or .* must end an answer by something else than spaces; got separator ' '",
        ),
        ({"rule": "Rule"}, "template.rule must hold {rule} once; got 'Rule'"),
        ({"name": "{rule}"}, "template.name must hold {name} once; got '{rule}'"),
    ],
)
def test_wrong_templates_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        render.Template(**wrong)


def test_an_output_that_the_template_would_cut_is_named():
    pools = [{"c": (Example(side, "two\nlines", "c"),)} for side in "ab"]
    made = Family("poems", ("c",), None, *pools)
    with pytest.raises(ValueError, match=r"an answer ends at '\\n', which is inside an output: .*two"):
        render.prompts(made, "c", 1, 1, seed=0)
    template = render.Template(separator=" ##\n")
    assert render.prompts(made, "c", 1, 1, seed=0, template=template)[0].answer == "two\nlines"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"concepts": ()}, "tiny: concepts and null must be distinct and not empty"),
        ({"null": "double"}, "tiny: concepts and null must be distinct"),
        ({"null": "Null"}, "tiny.train must hold double, Null; got double"),
        ({"test": {"double": ()}}, "tiny.test: concept 'double' has no example"),
        ({"test": {"double": (Example("c", " ", "double"),)}}, "tiny.test: no example of 'double' with an output"),
        ({"test": {"double": (Example("c", "cc", "triple"),)}}, "tiny.test: no example of 'double' with an output"),
        ({"test": {"double": (Example("a1", "a1a1", "double"),)}}, "tiny: 1 inputs are in train and in test, .* 'a1'"),
    ],
)
def test_a_family_that_does_not_hold_together_is_named(wrong, message):
    made = tiny()
    with pytest.raises(ValueError, match=message):
        Family(
            **{"name": "tiny", "concepts": ("double",), "null": None, "train": made.train, "test": made.test, **wrong}
        )
