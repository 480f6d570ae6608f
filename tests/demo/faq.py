"""Questions about this server: reads faq.txt.

    = id            an entry
    ? wording       what a lesson asks
    ! wording       what only the exam asks
    > answer        one, word for word
    @ key           a string that a right answer must contain
"""
import difflib
import os

from words import capital, vary

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


def faq_lesson(rng):
    entry = rng.choice(ENTRIES)
    ask = rng.choice(entry["ask"])
    return vary(rng, capital(ask)), entry["answer"]


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
