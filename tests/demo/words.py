"""Words that the lessons are made of, and how people vary a question.

Everything here is plain data.  A held-back item is one that held() chooses:
by a hash of its text, so that it does not depend on order or seed.
"""
import hashlib
import re

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


# what people say instead of each other, as whole words
SAME = [s.split("|") for s in """how do I|how can I|how does one|how to|what is the way to|I want to know how to
how do I|what do I do to|what must I do to|show me how to|I need to
can I|may I|is it possible to|am I able to|could I|am I allowed to
where is|where do I find|where can I find|where can I see|where would I look for
where are|where do I find|where can I see|in which place are
what is|what's|explain|define|tell me what is
what are|which are|tell me|name|list
what does|for what does|tell me what does
why is|how come it is|for what reason is
why does|how come|for what reason does|what makes it so that
what happens if|what happens when|what if|what follows when|what does it do if
what happens to|what becomes of|what is done with
is there|do you have|does it have|does there exist|has it got
does it|can it|will it|does ngx_llm|does the server
how many|what number of|how large a number of
how much|what amount of
how big|how large|of what size
how long|for what time
which|what
which file|in what file|what file
server|ngx_llm
show|list|print|display|see|view
set|configure|choose|define|specify
change|alter|modify|adjust|set
request|call|query
requests|calls|queries
answer|reply|response
answers|replies|responses
client|caller|user
clients|callers|users
directory|folder
machine|computer|host|box
invalid|wrong|bad
damaged|broken|corrupt
documentation|docs|manual
program|process
supported|available|offered|there
support|offer|provide|handle
default|standard|usual
mean|stand for|say
get|obtain|receive|have
send|post|submit
remove|delete|drop
turn on|enable|switch on|activate
turn off|disable|switch off
check|verify|test
need|require
use|employ|work with
used for|good for|meant for
error|failure|problem
fails|breaks|goes wrong
dies|crashes|is killed
slow|not fast
begin|start
quit|end|finish
written in|made with|coded in
made|built|created
small|little|tiny
also|too
at once|at the same time|in parallel|together
memory|RAM""".split("\n")]
SAID = {}
for group in SAME:
    for phrase in group:
        SAID.setdefault(phrase, set()).update(p for p in group if p != phrase)
SAID = {phrase: sorted(others) for phrase, others in SAID.items()}
PHRASE = re.compile(r"(?<![\w/_.-])(" + "|".join(sorted(map(re.escape, SAID), key=len, reverse=True))
                    + r")(?![\w/_.-])", re.I)


def said_otherwise(rng, ask):
    """With some of its phrases replaced."""
    def other(m):
        others = SAID.get(m.group(0)) or SAID.get(m.group(0).lower())
        return rng.choice(others) if others and rng.random() < 0.4 else m.group(0)
    return PHRASE.sub(other, ask)


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
