"""JSON: an object for a plain request, and one made of a sentence.

The exam's sentences are held back, so what they say has to be copied and
cannot be remembered.
"""
import json

from words import NAMES, SURNAMES, CITIES, COLORS, JOBS, FRUITS, ANIMALS, held, vary

TITLES = ["The Long Road", "Winter Light", "A Small Garden", "The Blue Door",
          "Night Train", "The Last Bridge", "Salt and Stone", "The Quiet Sea"]


def person(rng):
    return {"name": rng.choice(NAMES) + " " + rng.choice(SURNAMES),
            "age": rng.randrange(18, 80), "city": rng.choice(CITIES)}


def book(rng):
    return {"title": rng.choice(TITLES),
            "author": rng.choice(NAMES) + " " + rng.choice(SURNAMES),
            "pages": rng.randrange(90, 500, 10)}


def car(rng):
    return {"color": rng.choice(COLORS), "doors": rng.choice([3, 5]),
            "electric": rng.random() < 0.5}


def pet(rng):
    return {"name": rng.choice(["Rex", "Luna", "Momo", "Coco", "Bella", "Max"]),
            "animal": rng.choice(["cat", "dog", "rabbit", "parrot", "pony"]),
            "age": rng.randrange(1, 15)}


def product(rng):
    return {"name": rng.choice(["lamp", "chair", "table", "kettle", "pillow", "clock"]),
            "price": rng.randrange(5, 200), "in_stock": rng.random() < 0.7}


def basket(rng):
    return {"fruits": rng.sample(FRUITS, 3), "count": 3}


THINGS = {"person": person, "book": book, "car": car, "pet": pet, "product": product,
          "fruit basket": basket}
KEYS = {"person": {"name", "age", "city"}, "book": {"title", "author", "pages"},
        "car": {"color", "doors", "electric"}, "pet": {"name", "animal", "age"},
        "product": {"name", "price", "in_stock"}, "fruit basket": {"fruits", "count"}}

ASK = ["Give me a {t} as JSON.", "A {t} as JSON, please.", "Write a {t} as a JSON object.",
       "JSON of a {t}.", "Describe a {t} in JSON.", "Make up a {t}, in JSON.",
       "I need a JSON object for a {t}.", "Show me a {t} as JSON.", "{t} as JSON",
       "Return a {t} in JSON format.", "Give me JSON for a {t}.", "Print a {t} as JSON.",
       "Create a JSON object of a {t}.", "Generate a {t} in JSON.", "Can I have a {t} as JSON?",
       "I want a {t} as a JSON object."]
ASK_HELD = ["Could I have a {t} in the form of a JSON object?", "Please output a {t} as JSON."]

SAY = [("{name} is {age} and lives in {city}.", ["name", "age", "city"]),
       ("{name} is {age} years old and comes from {city}.", ["name", "age", "city"]),
       ("{name} from {city} is {age}.", ["name", "city", "age"]),
       ("{name} is a {job} in {city}.", ["name", "job", "city"]),
       ("{name} works as a {job} and lives in {city}.", ["name", "job", "city"]),
       ("{name} has a {color} {animal}.", ["name", "color", "animal"]),
       ("{name} bought {count} {color} hats.", ["name", "count", "color"])]
INTO = ["Make JSON of this: {s}", "Turn this into JSON: {s}", "As JSON: {s}",
        "Write this as JSON: {s}", "Convert to JSON: {s}", "Extract JSON: {s}",
        "{s} Write that as JSON."]
INTO_HELD = ["Give me this sentence as a JSON object: {s}", "Put this in JSON: {s}"]


def text(value):
    return json.dumps(value)


def sentence(rng, exam=False):
    """A sentence and the object that says the same."""
    while True:
        say, keys = rng.choice(SAY)
        value = {"name": rng.choice(NAMES), "city": rng.choice(CITIES),
                 "age": rng.randrange(5, 90), "job": rng.choice(JOBS),
                 "color": rng.choice(COLORS), "animal": rng.choice(ANIMALS),
                 "count": rng.randrange(2, 20)}
        s = say.format(**value).replace("a engineer", "an engineer")
        s = s.replace("a orange", "an orange")
        if held("json " + s) == exam:
            return s, {k: value[k] for k in keys}


def json_lesson(rng):
    if rng.random() < 0.45:
        s, value = sentence(rng)
        return rng.choice(INTO).format(s=s), text(value)
    kind = rng.choice(list(THINGS))
    if rng.random() < 0.3:
        kind = "person"
    return vary(rng, rng.choice(ASK).format(t=kind)), text(THINGS[kind](rng))


def parsed(reply):
    try:
        value = json.loads(reply)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def json_exam(rng, n):
    for i in range(n):
        kind = list(THINGS)[i % len(THINGS)]
        yield ([{"role": "user", "content": rng.choice(ASK_HELD).format(t=kind)}],
               lambda reply, k=kind: set(parsed(reply) or ()) == KEYS[k])


def extract_exam(rng, n):
    for _ in range(n):
        s, value = sentence(rng, True)
        texts = INTO_HELD if rng.random() < 0.3 else INTO
        yield ([{"role": "user", "content": rng.choice(texts).format(s=s)}],
               lambda reply, v=value: parsed(reply) == v)
