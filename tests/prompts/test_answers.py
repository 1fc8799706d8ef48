"""What of a language model's answers is taken for a prompt."""

from collections.abc import Sequence

import numpy as np
import pytest

from wanray.errors import InfrastructureError, InputError
from wanray.prompts import CutAnswerError, EndpointError, Question, clean, extended, problem_of

CAT = "A grey cat walks along a brick wall in soft evening light, seen from a low angle."
MAO = "傍晚柔和的光线里，一只灰猫沿着砖墙缓步前行，低角度中景，镜头缓慢跟随。"  # noqa: RUF001
ASKED = Question(text="a cat", system="Write it out.", seed=7)


@pytest.mark.parametrize(
    ("answer", "prompt"),
    [
        (f"  {CAT}\n", CAT),
        (f'"{CAT}"', CAT),
        (f"“{CAT}”", CAT),
        (f"Prompt: {CAT}", CAT),
        (f'**Rewritten Prompt:** "{CAT}"', CAT),
        (f"提示词：{MAO}", MAO),  # noqa: RUF001
        (f"<think>\nThe user wants a cat.\n</think>\n\n{CAT}", CAT),
        (f"A cat, then.</think>{CAT}", CAT),
        ("A cat.\n\nIt walks\r\non.", "A cat. It walks on."),
        ('"Stop," she says, "or I leave"', '"Stop," she says, "or I leave"'),
        ('""A cat.""', '""A cat.""'),
        ("Promptly: a cat.", "Promptly: a cat."),
        ('"', '"'),
        ("", ""),
    ],
)
def test_clean(answer: str, prompt: str) -> None:
    assert clean(answer) == prompt
    assert clean(prompt) == prompt


@pytest.mark.parametrize(
    ("answer", "language"),
    [
        (CAT, "en"),
        (MAO, "zh"),
        ("A neon sign reads “欢迎光临 欢迎光临 欢迎光临 欢迎光临”.", "en"),
        ('一块招牌上写着"WELCOME TO OUR LITTLE SHOP, COME IN AND STAY A WHILE"。', "zh"),
        ("一名戴着 New York Yankees 棒球帽的男子走过 Times Square。", "zh"),
        ('A robot says "I\'m sorry, I cannot do that" and turns away.', "en"),
        ("“I'm sorry.” A woman whispers it, and the door falls shut.", "en"),
        ("一个男人低声说：“抱歉，我无法帮助你。”随后转身离开。", "zh"),  # noqa: RUF001
        ("A screen shows the text \"# Menu\", below it '**Soup** <5 $>'.", "en"),
        ("An astronaut who can't move hangs from a tether; her visor's glass is cracked.", "en"),
        ("As an AI-powered robot turns, dogs' bowls and cats' toys fall over.", "en"),
        ("A man - tall, thin - walks on. 1920s Paris, f/2.8, 35mm; hearts <3 on a wall.", "en"),
        ("Here is a market at dawn: stalls open one by one.", "en"),
        ("As a model walks down the runway, cameras flash. We see her smile.", "en"),
        ("作为模特的女子走上舞台，我们看到灯光亮起。", "zh"),  # noqa: RUF001
        ("A first paragraph.\n\nAnd a second one.", "en"),
        ("A café in Málaga, naïve paintings on its façade.", "en"),
    ],
)
def test_prompts_are_prompts(answer: str, language: str) -> None:
    assert problem_of(answer, ASKED, language) is None
    assert problem_of(clean(answer), ASKED, language) is None


@pytest.mark.parametrize(
    ("answer", "language", "problem"),
    [
        ("", "en", "empty"),
        (" \n", "en", "empty"),
        ("...", "zh", "empty"),
        (MAO, "en", "not in language 'en'"),
        (CAT, "zh", "not in language 'zh'"),
        ("Серый кот идёт вдоль стены.", "en", "not in language 'en'"),
        ("I'm sorry, but I can't help with that.", "en", "refuses"),
        ("I’m unable to assist with this request.", "en", "refuses"),  # noqa: RUF001
        ("Thank you for asking. Unfortunately, I cannot write this.", "en", "refuses"),
        ("As an AI language model, I do not see images.", "en", "refuses"),
        ("As a large language model, I have no eyes.", "en", "refuses"),
        ("I can’t create this.", "zh", "refuses"),  # noqa: RUF001
        ("很抱歉，我不能提供这样的内容。", "zh", "refuses"),  # noqa: RUF001
        ("我无法描述这张图像。", "zh", "refuses"),
        ("作为一个人工智能助手，我只能描述合适的场景。", "zh", "refuses"),  # noqa: RUF001
        ("您的请求违反了相关规定。", "zh", "refuses"),
        (f"```\n{CAT}\n```", "en", "code fence"),
        (f"## Scene\n{CAT}", "en", "heading"),
        (f"- {CAT}\n- {CAT}", "en", "list"),
        (f"1. {CAT}\n2. {CAT}", "en", "list"),
        (f"1、{MAO}", "zh", "list"),
        (f"**Light**, then {CAT}", "en", "emphasis"),
        (f"| a | b |\n|---|---|\n{CAT}", "en", "table"),
        (f'{{"prompt": "{CAT}"}}', "en", "JSON"),
        (f'["{CAT}"]', "en", "JSON"),
        (f"<think>A cat. {CAT}", "en", "tag"),
        (f"<prompt>{CAT}</prompt>", "en", "tag"),
        (f"Sure! {CAT}", "en", "talks"),
        (f"Here's the extended prompt: {CAT}", "en", "talks"),
        (f"好的，以下是扩写后的描述：{MAO}", "zh", "talks"),  # noqa: RUF001
        ("A cat. " * 300, "en", "has 2100 characters, more than 2000"),
    ],
)
def test_what_is_no_prompt(answer: str, language: str, problem: str) -> None:
    assert problem in (problem_of(answer, ASKED, language) or "")


def test_what_the_user_wrote_is_no_refusal() -> None:
    asked = Question(text="I can't sleep. A man turns in his bed.", system="", seed=0)
    assert problem_of("A man turns in his bed. I can't sleep, he mutters.", asked, "en") is None


def test_the_longest_answer_can_be_chosen() -> None:
    assert problem_of(CAT, ASKED, "en", max_chars=len(CAT)) is None
    assert problem_of(CAT, ASKED, "en", max_chars=len(CAT) - 1) is not None


class Script:
    """An extender that answers, or raises, one after the other."""

    def __init__(self, outcomes: Sequence[str | Exception]) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[Question] = []

    def ask(self, question: Question) -> str:
        self.asked.append(question)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self) -> None:
        pass


def test_a_good_answer_is_taken_at_once() -> None:
    script = Script([f'<think>Hm.</think>Prompt: "{CAT}"\n'])
    assert extended(script, ASKED, "en") == CAT
    assert [question.seed for question in script.asked] == [7]


@pytest.mark.parametrize("bad", ["", MAO, f"- {CAT}\n- {CAT}", CutAnswerError("it has no end")])
def test_a_bad_answer_is_asked_for_anew_with_the_next_seed(bad: str | Exception) -> None:
    script = Script([bad, CAT])
    image = np.zeros((2, 2, 3), np.uint8)
    asked = Question(text="a cat", images=(image,), system="S", seed=7, max_tokens=99)
    assert extended(script, asked, "en") == CAT
    assert [question.seed for question in script.asked] == [7, 8]
    again = script.asked[1]
    assert (again.text, again.images[0] is image, again.system, again.max_tokens) == ("a cat", True, "S", 99)


def test_the_last_problem_is_named() -> None:
    with pytest.raises(InputError, match="extended in 2 tries: the answer is empty: "):
        extended(Script([CutAnswerError("it has no end"), " "]), ASKED, "en")
    with pytest.raises(InputError, match="it has no end"):
        extended(Script(["", CutAnswerError("it has no end")]), ASKED, "en")


@pytest.mark.parametrize("error", [InputError("HTTP 400"), EndpointError("away")])
def test_what_the_extender_raises_is_passed_on(error: Exception) -> None:
    script = Script([error])
    with pytest.raises((InputError, InfrastructureError), match=str(error)):
        extended(script, ASKED, "en")
    assert len(script.asked) == 1
