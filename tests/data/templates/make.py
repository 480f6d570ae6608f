"""go_on.json: what Hugging Face transformers makes of conversations whose last
message is to be continued, by every template of LLM_DATA (chat-templates/).

Run by hand:  pip install transformers==4.57.1 jinja2
              python tests/data/templates/make.py ../shared/data

Per case the messages, and per template the prompt, or null where transformers
or the template refuses.  Begin and end token are <s> and </s>, the clock
stands at 2025-01-15 12:34:56.
"""
import datetime
import json
import pathlib
import sys

from transformers.utils import chat_template_utils as utils


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2025, 1, 15, 12, 34, 56)


utils.datetime = Clock

CASES = [
    ("Once upon a time", "Once upon a time"),
    ("spaces", "  two words \n "),
    ("said before", "Tell me"),
]


def render(template, messages):
    try:
        out, _ = utils.render_jinja_template(
            [messages], chat_template=template, continue_final_message=True,
            add_generation_prompt=False, bos_token="<s>", eos_token="</s>")
    except Exception:
        return None
    return out[0]


def main():
    data = pathlib.Path(sys.argv[1]) / "chat-templates"
    cases = []
    for _, text in CASES:
        messages = [{"role": "user", "content": "Tell me a story."},
                    {"role": "assistant", "content": text}]
        cases.append({
            "messages": messages,
            "prompts": {t.stem: render(t.read_text(), messages)
                        for t in sorted(data.glob("*.jinja"))}})
    out = pathlib.Path(__file__).parent / "go_on.json"
    out.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")


main()
