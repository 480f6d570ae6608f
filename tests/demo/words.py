"""Words that the lessons are made of, and how people vary a question.

Everything here is plain data.  A held-back item is one that held() chooses:
by a hash of its text, so that it does not depend on order or seed.
"""
import hashlib

ANIMALS = """ant badger bear bee bird cat cow crab crow deer dog dolphin duck
eagle fish fox frog goat goose hare hen horse lamb lion lizard mole monkey moose
mouse otter owl panda parrot pig pony rabbit raven robin seal sheep snail snake
spider squirrel swan tiger toad turtle whale wolf""".split()

THINGS = """apple arrow basket bell boat book bottle bread bridge brush bucket
butter button candle carpet chair cheese cherry clock cloud coat coin corn cup
desk door drum engine fence field fig flag floor flower forest fork garden gate
glass glove grape hammer harbor hat hill honey house ink island jacket jar kettle
key kite knife ladder lake lamp leaf lemon letter lock map meadow melon milk mirror
moon mountain nail needle nest night nut ocean oil onion orange oven paper path
pear pencil pepper piano pillow plate plum pocket potato queen quilt rain ribbon
ring river road rock roof rope rose sail salt sand school shell ship shoe silver
sky snow soap sock spoon star stone storm street sugar summer sun table tea tent
thread ticket tomato tower town train tree tunnel umbrella valley village violin
wagon wall watch water wheel wind window winter wood wool yard zebra""".split()

WORDS = sorted(set(ANIMALS + THINGS))

NAMES = """Ada Alice Amir Anna Ben Bruno Carla Clara David Dora Elena Emil Emma
Eva Felix Finn Grace Greta Hana Hugo Ida Ines Ivan Jack Jana Jonas Karl Kim Lara
Laura Leo Lena Lily Lucas Luis Maria Marta Max Maya Mia Milan Nina Noah Nora
Olga Oscar Otto Paul Petra Pia Rosa Ruth Sam Sara Sofia Tom Tina Vera Viktor
Yuki Zoe""".split()

SURNAMES = """Adams Baker Berg Blum Brown Carter Cole Costa Cruz Dahl Evans Fischer
Ford Garcia Gray Hall Hill Jensen Keller King Kovac Lang Lopez Marsh Meyer Moore
Novak Park Rossi Silva Stone Tanaka Wagner Walker Weber Wood Young""".split()

CITIES = """Amsterdam Athens Austin Bangkok Barcelona Beijing Berlin Bern Bogota
Boston Brussels Budapest Cairo Chicago Copenhagen Dakar Delhi Denver Dublin
Edinburgh Geneva Hamburg Hanoi Helsinki Houston Istanbul Jakarta Kyoto Lagos Lima
Lisbon London Lyon Madrid Manila Melbourne Miami Milan Montreal Moscow Mumbai
Munich Nairobi Naples Osaka Oslo Paris Porto Prague Quito Riga Rome Santiago
Seattle Seoul Shanghai Singapore Sofia Stockholm Sydney Taipei Tallinn Tokyo
Toronto Tunis Turin Vienna Vilnius Warsaw Zagreb Zurich""".split()

COLORS = "red blue green yellow white black brown gray orange purple".split()

JOBS = """baker carpenter doctor driver engineer farmer gardener nurse painter
pilot sailor singer teacher writer""".split()

FRUITS = "apple cherry fig grape lemon melon orange pear plum tomato".split()


def held(text, share=10):
    """Is this item kept out of the lessons, for the exam?  One of share is."""
    digest = hashlib.sha256(text.encode()).digest()
    return digest[0] * 256 + digest[1] < 65536 // share


HEADS = ["Please ", "Hey, ", "Hello! ", "Can you tell me: ", "Tell me, ", "Hi. ",
         "Quick question: ", "One more: ", "And ", "OK, ", "So, ", "Now: "]
TAILS = [" Please.", " Thanks.", " Thank you!"]


def capital(text):
    """As a sentence begins; a directive's name stays as it is."""
    word = text.split()[0]
    return text[0].upper() + text[1:] if word.islower() and "_" not in word else text


def small(text):
    word = text.split()[0]
    keep = word[1:] != word[1:].lower() or word.rstrip(",.!?") in NAMES
    return text if keep or word == "I" or word[:2] == "I'" else text[0].lower() + text[1:]


def vary(rng, text):
    """The same question as another person would type it."""
    r = rng.random()
    if r < 0.16:
        text = rng.choice(HEADS) + small(text)
    elif r < 0.32:
        text = small(text)
    if rng.random() < 0.2:
        text = text.rstrip("?.!")
    elif rng.random() < 0.06:
        text += rng.choice(TAILS)
    return text
