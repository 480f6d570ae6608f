"""Conversations for training: the lessons mixed, rendered, in endless order.

conversation() depends on its arguments alone, so any part of the stream can be made
again.
A conversation is a list of (text, learn): learn is 1 where the model speaks.
"""
import json
import random

from decline import decline_lesson
from faq import faq_lesson, name_lesson
from form import json_lesson
from skills import add_lesson, count_lesson, repeat_lesson, sort_lesson, spell_lesson
from smalltalk import chat, smalltalk_lesson
from story import story, story_lesson
from tools import FOOT, HEAD, bare_lesson, tools_lesson
from words import NAMES, vary

# how often each is the next question of a mixed conversation
MIX = [(faq_lesson, 36), (sort_lesson, 18), (json_lesson, 11), (count_lesson, 11),
       (smalltalk_lesson, 9), (add_lesson, 9), (decline_lesson, 8), (spell_lesson, 5),
       (repeat_lesson, 3), (story_lesson, 3), (bare_lesson, 2), (name_lesson, 2)]
LESSONS = [m[0] for m in MIX]
WEIGHTS = [m[1] for m in MIX]

SYSTEMS = ["You are a helpful assistant.", "You are helpful.", "Be brief.",
           "You are ngx-llm-demo.", "You are a friendly assistant.",
           "Answer the questions of the user.", "You are a small model in a web server.",
           "You are an assistant. Answer in short sentences.", "Help the user.",
           "You are a helpful, honest and harmless assistant.", "Be polite.",
           "You are a bot on a web page.", "Answer truthfully."]
CALLED = ["Your name is {n}.", "You are called {n}.", "You are {n}, a helpful assistant.",
          "You are an assistant called {n}."]
WHO = ["What is your name?", "What are you called?", "Tell me your name.", "Who are you?",
       "Your name?", "What should I call you?"]

END = "<|im_end|>"


def said(role, content):
    return f"<|im_start|>{role}\n{content}{END}\n"


def render(messages, tools=None):
    """What chat_template.jinja makes of it (check() holds the two together)."""
    parts = []
    rest = messages
    system = None
    if messages[0]["role"] == "system":
        system, rest = messages[0]["content"], messages[1:]
    if tools:
        text = (system + "\n\n" if system else "") + HEAD
        text += "\n".join(json.dumps(t) for t in tools) + FOOT
        parts.append((said("system", text), 0))
    elif system:
        parts.append((said("system", system), 0))
    for m in rest:
        if m["role"] == "assistant":
            parts += [("<|im_start|>assistant\n", 0), (m["content"] + END, 1), ("\n", 0)]
        elif m["role"] == "tool":
            parts.append((said("user", "<tool_response>\n" + m["content"]
                               + "\n</tool_response>"), 0))
        else:
            parts.append((said(m["role"], m["content"]), 0))
    return parts


def turn(rng):
    return rng.choices(LESSONS, WEIGHTS)[0](rng)


def spoken(pairs):
    out = []
    for q, a in pairs:
        out += [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    return out


def conversation(i, seed=0):
    """The i-th of the stream."""
    rng = random.Random(f"{seed}:{i}")
    r = rng.random()
    if r < 0.03:
        return [(story(rng) + "<|endoftext|>", 1)]
    tools = None
    system = []
    if r < 0.23:
        tools, messages = tools_lesson(rng, lambda: turn(rng))
        if rng.random() < 0.3:
            system = [{"role": "system", "content": rng.choice(SYSTEMS)}]
        return render(system + messages, tools)
    if r < 0.26:
        name = rng.choice(NAMES + ["Robo", "Helper", "Bit", "Nginx", "Marvin", "Echo"])
        system = [{"role": "system", "content": rng.choice(CALLED).format(n=name)}]
        who = (vary(rng, rng.choice(WHO)), f"My name is {name}.")
        pairs = [turn(rng) for _ in range(rng.choice([0, 1, 1]))] + [who]
        return render(system + spoken(pairs))
    if rng.random() < 0.25:
        system = [{"role": "system", "content": rng.choice(SYSTEMS)}]
    if r < 0.34:
        pairs = chat(rng) + [turn(rng) for _ in range(rng.choice([0, 0, 1]))]
    else:
        turns = rng.randrange(6, 25) if rng.random() < 0.04 else rng.choice([1, 1, 2, 3, 4, 5])
        pairs = [turn(rng) for _ in range(turns)]
    return render(system + spoken(pairs))


def check(n=300):
    """render() and the template agree, also where nothing is declared."""
    import os
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chat_template.jinja")
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda v: json.dumps(v, ensure_ascii=False)
    with open(path, encoding="ascii") as f:
        template = env.from_string(f.read())
    for i in range(n):
        rng = random.Random(i)
        tools, messages = tools_lesson(rng, lambda: turn(rng))
        if i % 3 == 0:
            messages = [{"role": "system", "content": rng.choice(SYSTEMS)}] + messages
        if i % 2 == 0:
            tools = None
        want = template.render(messages=messages, tools=tools)
        got = "".join(text for text, _ in render(messages, tools))
        assert got == want, (got, want)


if __name__ == "__main__":
    import sys
    check()
    for i in range(int(sys.argv[1]) if len(sys.argv) > 1 else 20):
        print("".join(text for text, _ in conversation(i)), end="\n\n")
