"""Calling functions: which one, with what arguments, and what to do with the result.

Names, argument names and descriptions vary, so that a call has to be read off
the declaration; a question for which nothing is declared is declined.
"""
import json
import re

from words import CITIES, held, vary

# most declarations have the first name and the first argument of their kind
WEATHER = {"names": ["get_weather", "weather", "current_weather"],
           "args": ["city", "location"],
           "about": ["Get the weather of a city", "Current weather in a place",
                     "Returns the weather for a city", "The weather now"]}
TIME = {"names": ["get_time", "clock", "current_time"],
        "args": ["city", "location"],
        "about": ["Get the time in a city", "Current local time of a place",
                  "Returns what time it is in a city", "The time now"]}
MATH = {"names": ["calculate", "calculator", "math"],
        "args": ["expression", "input"],
        "about": ["Compute an arithmetic expression", "Evaluate a formula",
                  "A calculator", "Calculates numbers"]}
KINDS = {"weather": WEATHER, "time": TIME, "math": MATH}

ASK = {"weather": ["What is the weather in {c}?", "How is the weather in {c}?",
                   "Is it raining in {c}?", "Weather in {c}?", "Is it cold in {c} today?",
                   "Do I need an umbrella in {c}?", "Is it sunny in {c}?",
                   "How warm is it in {c}?", "Tell me the weather in {c}.",
                   "What's the temperature in {c}?"],
       "time": ["What time is it in {c}?", "What is the time in {c}?", "Time in {c}?",
                "How late is it in {c}?", "Current time in {c}?", "Which time is it in {c} now?",
                "Tell me the time in {c}.", "What's the local time in {c}?"],
       "math": ["What is {x}?", "Calculate {x}.", "Compute {x}.", "How much is {x}?",
                "{x}", "What's {x}?", "Please work out {x}.", "Result of {x}?"]}
ASK_HELD = {"weather": ["What will I find the weather to be in {c}?",
                        "I want to know the weather in {c}."],
            "time": ["I want to know what time it is in {c}.",
                     "Could you look up the time in {c}?"],
            "math": ["I want to know what {x} is.", "Could you calculate {x}?"]}
SKIES = ["sunny", "cloudy", "rainy", "windy", "foggy", "clear"]
NONE = ["I have no tool for that, so I cannot know it.",
        "None of my tools can do that."]
BARE = {"weather": "I cannot know the weather: I have no tool to look it up.",
        "time": "I cannot know the time: I have no tool to look it up.",
        "math": "That is too much for me without a calculator: I only add numbers under 100."}

HEAD = "# Tools\n\nYou may call these functions:\n<tools>\n"
FOOT = ("\n</tools>\n\nTo call one, answer with its name and arguments:\n<tool_call>\n"
        "{\"name\": NAME, \"arguments\": {...}}\n</tool_call>")


def declare(rng, kind, usual=0.6):
    """(name, argument, the declaration as the API has it)"""
    k = KINDS[kind]
    name, arg = k["names"][0], k["args"][0]
    if rng.random() >= usual:
        name, arg = rng.choice(k["names"]), rng.choice(k["args"])
    return name, arg, {"type": "function", "function": {
        "name": name, "description": rng.choice(k["about"]),
        "parameters": {"type": "object", "properties": {arg: {"type": "string"}},
                       "required": [arg]}}}


def formula(rng):
    """What is too much for the head: no sum of two numbers under 100."""
    while True:
        op = rng.choice("+-*/*+")
        a = rng.randrange(10, 10 ** rng.choice([2, 3, 3, 4]))
        b = rng.randrange(2, 10 ** rng.choice([1, 2, 3]))
        if op != "+" or a >= 100 or b >= 100:
            return f"{a} {op} {b}"


def question(rng, kind, exam=False):
    """(what is asked, the argument's value)"""
    while True:
        city, x = rng.choice(CITIES), formula(rng)
        asks = ASK_HELD[kind] if exam and rng.random() < 0.4 else ASK[kind]
        text = rng.choice(asks).format(c=city, x=x)
        if asks is ASK_HELD[kind] or held("tool " + text, 6) == exam:
            return text, x if kind == "math" else city


def call(name, arg, value):
    return ("<tool_call>\n" + json.dumps({"name": name, "arguments": {arg: value}})
            + "\n</tool_call>")


def result(rng, kind, value):
    """(what the tool gives back, the sentence made of it)"""
    if kind == "weather":
        t, sky = rng.randrange(-9, 38), rng.choice(SKIES)
        return (json.dumps({"temperature": t, "sky": sky}),
                f"In {value} it is {sky}, at {t} degrees.")
    if kind == "time":
        t = f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"
        return json.dumps({"time": t}), f"It is {t} in {value}."
    n = rng.randrange(10 ** rng.choice([2, 3, 4, 5]))
    return json.dumps({"result": n}), f"{value} = {n}"


def tools_lesson(rng, other):
    """(tools, messages): one to three questions; other() gives a plain turn."""
    kinds = rng.sample(list(KINDS), rng.choice([1, 1, 2, 2, 3]))
    rows = {k: declare(rng, k) for k in kinds}
    messages = []
    for _ in range(rng.choice([1, 2, 3, 3])):
        if rng.random() < 0.12:
            q, a = other()
            messages += [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
            continue
        kind = rng.choice(kinds) if rng.random() < 0.5 else rng.choice(list(KINDS))
        q, value = question(rng, kind)
        messages.append({"role": "user", "content": vary(rng, q) if kind != "math" else q})
        if kind not in rows:
            messages.append({"role": "assistant", "content": rng.choice(NONE)})
            continue
        name, arg, _ = rows[kind]
        messages.append({"role": "assistant", "content": call(name, arg, value)})
        if rng.random() < 0.6:
            raw, said = result(rng, kind, value)
            messages += [{"role": "tool", "content": raw},
                         {"role": "assistant", "content": said}]
        else:
            break
    return [rows[k][2] for k in kinds], messages


def bare_lesson(rng):
    """The same questions where nothing is declared."""
    kind = rng.choice(["weather", "weather", "time", "math"])
    q, _ = question(rng, kind)
    return vary(rng, q) if kind != "math" else q, BARE[kind]


def called(reply):
    """The object inside <tool_call>, or None."""
    m = re.fullmatch(r"\s*<tool_call>\s*(.*?)\s*</tool_call>\s*", reply, re.S)
    try:
        return json.loads(m.group(1)) if m else None
    except ValueError:
        return None


def tools_exam(rng, n, usual):
    """Cases (tools, messages, judge): questions that no lesson asks."""
    for _ in range(n):
        kinds = rng.sample(list(KINDS), 3)
        rows = {k: declare(rng, k, usual) for k in kinds}
        kind = rng.choice(kinds)
        q, value = question(rng, kind, True)
        name, arg, _ = rows[kind]
        want = {"name": name, "arguments": {arg: value}}
        yield ([rows[k][2] for k in kinds], [{"role": "user", "content": q}],
               lambda reply, w=want: called(reply) == w)


def result_exam(rng, n):
    """The sentence made of what a tool gave back."""
    for _ in range(n):
        kinds = rng.sample(list(KINDS), 2)
        rows = {k: declare(rng, k) for k in kinds}
        kind = kinds[0]
        q, value = question(rng, kind, True)
        name, arg, _ = rows[kind]
        raw, said = result(rng, kind, value)
        yield ([rows[k][2] for k in kinds],
               [{"role": "user", "content": q},
                {"role": "assistant", "content": call(name, arg, value)},
                {"role": "tool", "content": raw}],
               lambda reply, w=said: reply.strip() == w)


def missing_exam(rng, n):
    """A tool is asked for that is not declared."""
    for _ in range(n):
        kinds = rng.sample(list(KINDS), 2)
        rows = {k: declare(rng, k) for k in kinds}
        kind = next(k for k in KINDS if k not in kinds)
        q, _ = question(rng, kind, True)
        yield ([rows[k][2] for k in kinds], [{"role": "user", "content": q}],
               lambda reply: reply.strip() in NONE)
