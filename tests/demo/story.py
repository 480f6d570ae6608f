"""Short stories that come to an end.

Five plots, filled with a hero, a place, a friend and a thing.  A lesson is a
request with its story, or the bare story as a base model would continue it.
"""
from words import NAMES, vary

HEROES = ["fox", "bear", "rabbit", "owl", "cat", "dog", "frog", "duck", "mouse",
          "hen", "horse", "lamb", "goat", "robot", "dragon", "turtle", "bird",
          "pony", "whale", "hedgehog"]
ADJECTIVES = ["little", "small", "young", "brave", "shy", "clever", "gentle", "old"]
PLACES = ["in a green forest", "near a quiet lake", "on a small farm",
          "in a house on a hill", "by the sea", "in a warm valley",
          "at the edge of a village", "under a big tree"]
LOST = ["a red ball", "a small key", "a blue scarf", "a golden ring",
        "a paper boat", "a silver bell", "a wool hat", "a drum"]
FINDS = ["under the bridge", "behind the old mill", "in the tall grass",
         "beside the well", "near the garden gate", "inside a hollow log"]
WISHES = ["to see the sea", "to learn to swim", "to sing a song",
          "to climb the hill", "to bake a cake", "to paint a picture"]
FOODS = ["apples", "pears", "nuts", "berries", "plums", "carrots"]

ASK = ["Tell me a story about a {h}.", "Tell me a short story about a {h}.",
       "Can you tell a story about a {h}?", "A story about a {h}.",
       "Write a short story about a {h}.", "I want a story with a {h}.",
       "Story about a {h}?", "Write a story about a {a} {h}.",
       "Tell me about a {h} in a short story.", "Make up a story about a {h}.",
       "I would like a short story about a {h}.", "Do you know a story about a {h}?",
       "Please write a story with a {h} in it.", "One story about a {h}, please."]
ASK_ANY = ["Tell me a story.", "Tell me a short story.", "Can you tell me a story?",
           "Write a short story.", "I want to hear a story.", "A short story!",
           "Tell a story.", "Do you know a story?", "Make up a short story.",
           "Tell me a bedtime story.", "I would like a story.", "Story please", "A little story?"]
ASK_HELD = ["Would you write me a little story about a {h}?",
            "I would love to hear a story about a {h}."]


def an(word):
    return ("an " if word[0] in "aeio" else "a ") + word


def lost(o, r):
    return (f"One day {o['n']} lost {o['t']}. {o['n']} looked in the house and in the "
            f"yard, but it was not there. \"I will help you,\" said {o['f']}. They "
            f"searched together, and {o['p']} they found it. {o['n']} was so happy that "
            f"the two friends danced all the way home.")


def wish(o, r):
    return (f"{o['n']} had one wish: {o['w']}. \"That is too hard for you,\" said the "
            f"others. But {o['f']} said, \"Try a little every day.\" So {o['n']} tried "
            f"in the morning and tried in the evening. After ten days the wish came "
            f"true, and everyone cheered.")


def storm(o, r):
    return (f"One night a big storm came. The wind was loud and the rain was cold. "
            f"{o['n']} heard somebody cry outside. It was {o['f']}, wet and afraid. "
            f"\"Come in,\" said {o['n']}, and made a warm fire. They told each other "
            f"stories until the sun came out. From that day on they were friends.")


def share(o, r):
    return (f"In autumn {o['n']} found a basket of {o['e']}. \"All of them are mine,\" "
            f"thought {o['n']}. Then {o['f']} came by and looked very hungry. {o['n']} "
            f"thought for a while and gave half of the {o['e']} away. In winter, when "
            f"{o['n']} had nothing left, {o['f']} came back with bread. Sharing had made "
            f"them both rich.")


def way(o, r):
    return (f"One morning {o['n']} went for a walk and did not look at the path. Soon "
            f"every tree looked the same. \"I am lost,\" said {o['n']} and sat down. "
            f"Then {o['f']} came along and said, \"Follow the river, it knows the way.\" "
            f"{o['n']} followed the river and was home before dark.")


PLOTS = [lost, wish, storm, share, way]


def story(rng, hero=None):
    """One story; it names its hero as "a fox" first and "the fox" or a name then."""
    hero = hero or rng.choice(HEROES)
    friend = rng.choice([h for h in HEROES if h != hero])
    adjective = rng.choice(ADJECTIVES)
    named = rng.random() < 0.5
    name = rng.choice(NAMES[:40])
    o = {"n": name if named else f"the {hero}", "f": f"the {friend}",
         "t": rng.choice(LOST), "p": rng.choice(FINDS), "w": rng.choice(WISHES),
         "e": rng.choice(FOODS)}
    first = (f"Once upon a time there was {an(adjective)} {hero}"
             + (f" called {name}" if named else "")
             + f" who lived {rng.choice(PLACES)}. ")
    text = first + rng.choice(PLOTS)(o, rng) + " The end."
    # a sentence begins with a capital, also when it begins with "the fox"
    out = []
    for part in text.split(". "):
        out.append(part[0].upper() + part[1:])
    return ". ".join(out).replace('" The', '" the')


def story_lesson(rng):
    if rng.random() < 0.35:
        return vary(rng, rng.choice(ASK_ANY)), story(rng)
    hero = rng.choice(HEROES)
    ask = rng.choice(ASK).format(h=hero, a=rng.choice(ADJECTIVES))
    return vary(rng, ask.replace("a owl", "an owl").replace("a old", "an old")), \
        story(rng, hero)


def story_exam(rng, n):
    for _ in range(n):
        hero = rng.choice(HEROES)
        ask = rng.choice(ASK_HELD).format(h=hero).replace("a owl", "an owl")
        yield ([{"role": "user", "content": ask}],
               lambda reply, h=hero: good(reply, h))


def good(reply, hero):
    """A story: about its hero, of some length, told to the end, no sentence twice."""
    parts = [p for p in reply.strip().split(". ") if p]
    return (reply.strip().endswith("The end.") and hero in reply
            and 35 <= len(reply.split()) <= 130 and len(set(parts)) == len(parts))
