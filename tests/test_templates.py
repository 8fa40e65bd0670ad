"""Chat templates that run away are refused in time, and usual ones are not."""

from types import SimpleNamespace

import pytest

from isara import templates
from isara.templates import runs_away

MESSAGES = [{"role": "user", "content": "Who guards the Temple of Time?"}]


def tokenizer(template: object) -> SimpleNamespace:
    return SimpleNamespace(chat_template=template, special_tokens_map={"bos_token": "<s>"})


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for message in messages %}{{ bos_token + message['content'] }}{% endfor %}", None),
        ("{% generation %}{{ messages | tojson }}{% endgeneration %}", None),
        ("{{ raise_exception('no') }}", None),  # the library says that
        ("{% for a in range(99999) %}{{ 'Navi' * 99 }}{% endfor %}", "writes without end"),
        ("{% set n = namespace(x='Hey!') %}{% for a in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
         "writes without end"),
        (None, None),
    ],
)  # fmt: skip
def test_what_a_template_does(template: str | None, said: str | None) -> None:
    assert runs_away(tokenizer(template), MESSAGES) == said


def test_one_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "SECONDS", 3)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    assert runs_away(tokenizer(loop), MESSAGES) == "does not end within 3 seconds"
