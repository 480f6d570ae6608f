"""Questions about this server: reads faq.txt.

    = id            an entry
    ? wording       what a lesson asks
    ! wording       what only the exam asks
    > answer        one, word for word
    @ key           a string that a right answer must contain
"""
import difflib
import os
import re

from words import capital, said_otherwise, vary

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "faq.txt")


def load(path=PATH):
    entries = []
    with open(path, encoding="ascii") as f:
        for number, line in enumerate(f, 1):
            line = line.rstrip("\n")
            if not line or line[0] == "#":
                continue
            mark, text = line[0], line[2:].strip()
            if mark == "=":
                entries.append({"id": text, "ask": [], "held": [], "answer": "", "keys": []})
            elif mark == "?":
                entries[-1]["ask"].append(text)
            elif mark == "!":
                entries[-1]["held"].append(text)
            elif mark == ">":
                entries[-1]["answer"] = text
            elif mark == "@":
                entries[-1]["keys"].append(text)
            else:
                raise ValueError(f"{path}:{number}: a line begins with = ? ! > or @")
    return entries


ENTRIES = load()


FRAMES = ["I want to know: {q}", "Do you know this: {q}", "My question: {q}", "About the server: {q}",
          "Explain: {q}"]


def worn(rng, ask):
    """Other words, fewer, or more around them: what is left still tells what is asked."""
    if rng.random() < 0.5:
        ask = said_otherwise(rng, ask)
    r = rng.random()
    words = ask.split()
    if r < 0.35 and len(words) > 3:
        words = [w for w in words if "_" in w or "/" in w or rng.random() > 0.15] or words
        return " ".join(words)
    if r < 0.42:
        return rng.choice(FRAMES).format(q=ask)
    return ask


def bare(text):
    return re.sub(r"\W+", " ", text.lower()).strip()


HELD = {bare(ask) for e in ENTRIES for ask in e["held"]}


def faq_lesson(rng):
    entry = rng.choice(ENTRIES)
    ask = worn(rng, rng.choice(entry["ask"]))
    while bare(ask) in HELD:
        ask = rng.choice(entry["ask"])
    return vary(rng, capital(ask)), entry["answer"]


def name_lesson(rng):
    """What it is, asked where no system prompt gives it another name."""
    entry = ENTRIES[0]
    assert entry["id"] == "self-name"
    return vary(rng, capital(rng.choice(entry["ask"]))), entry["answer"]


def right(entry):
    """The facts are there, and the sentence is the one that was learnt, nearly."""
    def judge(reply):
        words = reply.split()
        near = difflib.SequenceMatcher(None, words, entry["answer"].split()).ratio()
        return near >= 0.9 and all(k in reply for k in entry["keys"])
    return judge


def faq_exam():
    for entry in ENTRIES:
        for ask in entry["held"]:
            yield ([{"role": "user", "content": capital(ask)}], right(entry),
                   entry["id"])
