"""Counting, spelling, sorting, adding and repeating.

A lesson is (question, answer); an exam case is (messages, judge).  What the
exam asks (number pairs, triples of words) never occurs in a lesson.
"""
from words import CITIES, COLORS, NAMES, WORDS, held, vary

ADD = ["What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "Add {a} and {b}.",
       "What is {a} plus {b}?", "{a} plus {b}", "How much is {a} + {b}?",
       "Sum of {a} and {b}?", "Calculate {a} + {b}.", "{a} + {b} = ?",
       "What is the sum of {a} and {b}?", "Compute {a}+{b}.", "What's {a}+{b}?",
       "How much is {a} and {b} together?", "What do {a} and {b} add up to?",
       "Add {a} to {b}.", "Can you add {a} and {b}?",
       "Would you add {a} to {b}, please?", "I want to add {a} and {b}.", "Give me the sum of {a} and {b}."]
ADD_HELD = ["Could you add {a} to {b} for me?", "I need the sum {a} + {b}."]

COUNT = ["Count from {a} to {b}.", "Count {a} to {b}.", "Can you count from {a} to {b}?",
         "List the numbers from {a} to {b}.", "Numbers from {a} to {b}?",
         "Write the numbers {a} to {b}.", "Start at {a} and count to {b}."]
COUNT_TO = ["Count to {b}.", "Count from 1 to {b}.", "Can you count to {b}?", "Count up to {b}.",
            "Please count to {b}."]
COUNT_DOWN = ["Count down from {b} to {a}.", "Count backwards from {b} to {a}.",
              "Count from {b} down to {a}.", "Countdown from {b} to {a}!"]

SPELL = ["Spell {w}.", "How do you spell {w}?", "Spell the word {w}.",
         "Can you spell {w}?", "How is {w} spelled?", "Spelling of {w}?",
         'Spell "{w}".', "Spell {w} letter by letter.", "What is the spelling of {w}?"]
SPELL_HELD = ["Would you spell {w} for me?", "I want to know how to spell {w}."]
LETTERS = ["How many letters are in {w}?", "How many letters does {w} have?",
           "Count the letters in {w}.", "Number of letters in {w}?",
           "How long is the word {w}?"]

SORT = ["Sort: {x}, {y}, {z}", "Sort these words: {x}, {y}, {z}.",
        "Sort {x}, {y} and {z}.", "Put {x}, {y}, {z} in alphabetical order.",
        "Put {x}, {y} and {z} in order.", "Alphabetical order of {x}, {y}, {z}?",
        "Sort the words {x}, {y}, {z}.", "Order these by the alphabet: {x}, {y}, {z}",
        "Can you sort {x}, {y} and {z}?", "Sort these three: {x} {y} {z}",
        "Which order do {x}, {y} and {z} have in the alphabet?",
        "Sort alphabetically: {x}, {y}, {z}", "Order the words {x}, {y} and {z}.",
        "I want {x}, {y} and {z} in order.", "Arrange {x}, {y} and {z} alphabetically.",
        "What is the alphabetical order of {x}, {y} and {z}?"]
SORT_TWO = ["Sort: {x}, {y}", "Sort {x} and {y}.", "Which comes first, {x} or {y}?",
            "Put {x} and {y} in alphabetical order.", "Sort the words {x} and {y}."]
SORT_HELD = ["I need {x}, {y} and {z} sorted.",
             "I would like {x}, {y}, {z} in alphabetical order."]

REPEAT = ["Repeat: {t}", "Repeat after me: {t}", "Please repeat: {t}", "Say this again: {t}",
          "Say: {t}", "What did I say? {t}", "Write this down: {t}", "Echo: {t}"]


def added(a, b):
    """27 + 48, the way it is done on paper."""
    if a < 10 and b < 10:
        return f"{a} + {b} = {a + b}."
    return (f"{a // 10 * 10} + {b // 10 * 10} = {a // 10 * 10 + b // 10 * 10} and "
            f"{a % 10} + {b % 10} = {a % 10 + b % 10}, so {a} + {b} = {a + b}.")


def ordered(words):
    return "In order: " + ", ".join(sorted(words))


def add_lesson(rng):
    while True:
        a, b = rng.randrange(100), rng.randrange(100)
        if rng.random() < 0.2:
            a = rng.randrange(10)
        if rng.random() < 0.2:
            b = rng.randrange(10)
        if not held(f"{min(a, b)}+{max(a, b)}"):
            return vary(rng, rng.choice(ADD).format(a=a, b=b)), added(a, b)


def count_range(rng, want_held):
    while True:
        a = rng.choice([1, 1, rng.randrange(0, 60)])
        b = a + rng.randrange(2, 20)
        if held(f"count {a} {b}") == want_held:
            return a, b


def listed(numbers):
    return ", ".join(map(str, numbers)) + "."


def count_lesson(rng):
    a, b = count_range(rng, False)
    r = rng.random()
    if r < 0.3:
        return (vary(rng, rng.choice(COUNT_DOWN).format(a=a, b=b)),
                listed(range(b, a - 1, -1)))
    texts = COUNT_TO if a == 1 and r < 0.6 else COUNT
    return vary(rng, rng.choice(texts).format(a=a, b=b)), listed(range(a, b + 1))


def spelled(word):
    return "-".join(word)


def spell_lesson(rng):
    word = rng.choice(WORDS) if rng.random() < 0.85 else rng.choice(NAMES)
    if rng.random() < 0.25:
        return (vary(rng, rng.choice(LETTERS).format(w=word)),
                f"{spelled(word)}: {len(word)} letters.")
    return vary(rng, rng.choice(SPELL).format(w=word)), spelled(word)


def triple(rng, want_held):
    while True:
        words = rng.sample(WORDS, 3)
        if rng.random() < 0.2:  # words that begin alike are the hard ones
            same = [w for w in WORDS if w[0] == words[0][0]]
            if len(same) >= 3:
                words = rng.sample(same, 3)
        if held("sort " + " ".join(sorted(words))) == want_held:
            return words


def sort_lesson(rng):
    x, y, z = triple(rng, False)
    if rng.random() < 0.15:
        return vary(rng, rng.choice(SORT_TWO).format(x=x, y=y)), ordered((x, y))
    return vary(rng, rng.choice(SORT).format(x=x, y=y, z=z)), ordered((x, y, z))


def repeat_text(rng, want_held):
    while True:
        text = ", ".join(rng.sample(WORDS + NAMES + CITIES + COLORS, rng.randrange(2, 6)))
        if held("repeat " + text) == want_held:
            return text


def repeat_lesson(rng):
    text = repeat_text(rng, False)
    return rng.choice(REPEAT).format(t=text), f"You said: {text}"


def user(text):
    return [{"role": "user", "content": text}]


def exact(want):
    return lambda reply: reply.strip().rstrip(".").lower() == want.rstrip(".").lower()


def add_exam(rng, n):
    pairs = [(a, b) for a in range(100) for b in range(100)
             if held(f"{min(a, b)}+{max(a, b)}")]
    for a, b in rng.sample(pairs, n):
        yield (user(rng.choice(ADD[:10]).format(a=a, b=b)),
               lambda reply, s=a + b: reply.strip().endswith(f"= {s}."))


def add_wording_exam(rng, n):
    for _ in range(n):
        a, b = rng.randrange(100), rng.randrange(100)
        yield (user(rng.choice(ADD_HELD).format(a=a, b=b)),
               lambda reply, s=a + b: reply.strip().endswith(f"= {s}."))


def count_exam(rng, n):
    for _ in range(n):
        a, b = count_range(rng, True)
        yield user(rng.choice(COUNT).format(a=a, b=b)), exact(listed(range(a, b + 1)))


def spell_exam(rng, n):
    for word in rng.sample(WORDS, n):
        yield user(rng.choice(SPELL_HELD).format(w=word)), exact(spelled(word))


def sort_exam(rng, n):
    for _ in range(n):
        x, y, z = triple(rng, True)
        texts = SORT_HELD if rng.random() < 0.3 else SORT
        yield (user(rng.choice(texts).format(x=x, y=y, z=z)),
               exact(ordered((x, y, z))))


def repeat_exam(rng, n):
    for _ in range(n):
        text = repeat_text(rng, True)
        yield user(rng.choice(REPEAT).format(t=text)), exact(f"You said: {text}")
