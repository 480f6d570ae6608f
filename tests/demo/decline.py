"""What a small model cannot know, and how it says so.

Many kinds of questions, so that what is learnt is the kind and not the text.
The exam's questions are of kinds that no lesson has, or worded otherwise.
"""
from words import ANIMALS, CITIES, NAMES, THINGS, vary

COUNTRIES = """Argentina Austria Belgium Brazil Canada Chile China Cuba Denmark Egypt
Finland France Germany Greece Hungary India Iran Ireland Italy Japan Kenya Mexico
Morocco Nepal Norway Peru Poland Portugal Russia Spain Sweden Thailand Turkey
Vietnam""".split()
DISHES = "soup|lasagna|bread|pancakes|curry|a cake|pasta|rice|an omelette|goulash".split("|")
TOPICS = """history physics chemistry football tennis politics economics biology medicine
music art astronomy geology philosophy religion law fashion chess cinema""".split()
FIELDS = "gold|oil|bitcoin|a house|bread|a train ticket|milk|a new car|silver".split("|")
TONGUES = "French German Spanish Italian Chinese Japanese Latin Russian Polish".split()
PEOPLE = """Napoleon Mozart Einstein Cleopatra Shakespeare Newton Plato Darwin
Columbus Galileo Beethoven Picasso Gandhi Caesar""".split()
LANGS = "Python|Java|Rust|JavaScript|Go|Haskell|SQL|Perl".split("|")

ASK = ["What is the capital of {country}?", "Capital of {country}?",
       "Who is the president of {country}?", "How many people live in {country}?",
       "How many people live in {city}?", "Where is {city}?", "Is {city} a big city?",
       "Tell me about {country}.", "What language do they speak in {country}?",
       "Who was {person}?", "When was {person} born?", "What did {person} do?",
       "Tell me about {person}.", "Where did {person} live?", "How do I cook {dish}?",
       "Recipe for {dish}?", "Give me a recipe for {dish}.", "How long does {dish} take to cook?",
       "Explain {topic}.", "What is {topic}?", "Teach me {topic}.", "I have a question about {topic}.",
       "Tell me something about {topic}.", "What is the price of {field}?",
       "How much does {field} cost?", "Should I buy {field}?", "Translate hello to {tongue}.",
       "How do you say thank you in {tongue}?", "Say good morning in {tongue}.",
       "Do you speak {tongue}?", "Translate this into {tongue}: I am hungry.",
       "Write a program in {lang}.", "Write a {lang} function that sorts a list.",
       "How do I learn {lang}?", "Is {lang} a good language?",
       "Who won the world cup?", "Who won the match yesterday?", "Who won the election?",
       "What happened today?", "What is in the news?", "Any news?", "What happened in 1969?",
       "What happened in {year}?", "When did the war end?", "What day is it today?",
       "What is the date today?", "How far away is the moon?", "How big is the sun?",
       "How old is the universe?", "Why is the sky blue?", "Why do cats purr?",
       "How long does a {animal} live?", "What does a {animal} eat?", "How fast is a {animal}?",
       "How tall is {name}?", "Where is {name} now?", "What is {name}'s phone number?",
       "Do you know {name}?", "What am I thinking?", "What will happen tomorrow?",
       "Will it rain tomorrow?", "Who will win?", "What is the meaning of life?",
       "What is my password?", "What is my email address?", "Which movie should I watch?",
       "Recommend me a book about {topic}.", "Sing me a song by {name}.", "Draw a {animal}.",
       "Show me a picture of a {animal}.", "Open a website for me.", "Search the web for {topic}.",
       "Send an email to {name}.", "Call {name}.", "Book a flight to {city}.",
       "How do I get to {city}?", "How far is it from {city} to {city2}?",
       "What is the square root of {year}?", "Solve this equation: 3x + 5 = {year}.",
       "What is the speed of light?", "How many planets are there?", "What is DNA?",
       "How does a car engine work?", "Why do we dream?", "Write an essay about {topic}.",
       "Write my homework about {topic}.", "Is this medicine safe?", "I have a headache, what should I take?",
       "Can you give me legal advice?", "Which stocks should I buy?", "Tell me a secret.",
       "Who wrote {book}?", "What is {book} about?", "Summarize {book}."]
# made of parts, so that it is the kind of question that tells
MADE = ["Who {did} the {thing}?", "When was the {thing} {done}?", "Where was the first {thing} {done}?",
        "Why is the {thing} {adj}?", "How {adj} is a {thing}?", "What is a {thing}?",
        "What is a {thing} made of?", "How do I {do} a {thing}?", "How do you {do} a {animal}?",
        "Where do {animal}s live?", "Why do {animal}s {act}?", "How many {thing}s are in {city}?",
        "What is the {most} {thing} in {country}?", "Which {animal} is the {most}?",
        "What is the {most} {animal}?", "Who has the {most} {thing}?", "Where can I buy a {thing}?",
        "What is the best {thing} in {city}?", "Who is the {post} of {country}?",
        "Who is the {post} of {city}?", "How many {animal}s are there in {country}?",
        "What color is a {animal}?", "Can a {animal} {act}?", "When does the {thing} in {city} open?",
        "What did {person} say about {topic}?", "Explain {topic} with a {thing}.",
        "Which {thing} did {person} like?", "Is {topic} hard to learn?", "Who teaches {topic} in {city}?",
        "Write a poem about a {thing}.", "Write a letter to {name} about {topic}.",
        "What is the {thing} of {country} called?", "How deep is the sea near {city}?",
        "How high is the tower of {city}?", "Which river is near {city}?", "What is {country} famous for?"]
PARTS = {"did": "made built found painted sold broke designed".split(),
         "done": "made built found painted sold designed".split(),
         "do": "clean fix build paint sell draw carry feed wash".split(),
         "act": "sing fly swim jump hide climb sleep run".split(),
         "adj": "old big heavy hot cold bright loud fast expensive".split(),
         "most": "oldest biggest fastest smallest heaviest oddest".split(),
         "post": "king mayor leader head".split()}
SYLLABLES = """ba bel bor cal co dan del dor e fa fen gal gor ha i jo ka lan li lor ma
mir mo nar ne nor o pel pi que ra rin ro sa sel so ta tir to u va vel vi zan""".split()
BOOKS = "Hamlet|Faust|Don Quixote|the Odyssey|War and Peace|Dracula|Emma|Ulysses".split("|")

ANSWERS = ["I do not know that: I am a small model and know little beyond this server.",
           "I cannot know that. I am small, and this server is what I know about.",
           "That is beyond me. I only know this server and a few simple tasks."]

EXAM = ["What is the highest mountain in the world?", "Who painted the Mona Lisa?",
        "How many legs does a spider have?", "What is the boiling point of lead?",
        "Which river flows through Budapest?", "Who discovered America?",
        "What is the longest word in Finnish?", "How do vaccines work?",
        "Who is the queen of Denmark?", "What is the population of Peru?",
        "Tell me the latest football results.", "What is the exchange rate of the euro?",
        "How do I repair a bicycle?", "Explain quantum mechanics to me.",
        "What is the recipe for tiramisu?", "Who is the richest person on earth?",
        "Translate good night into Hungarian.", "When does the next train to Bern leave?",
        "What did Aristotle think about friendship?", "Write a poem in Latin.",
        "How many calories are in an egg?", "What is the atomic number of iron?",
        "Who invented the telephone?", "When was the Eiffel Tower built?",
        "What is the best restaurant in Lyon?", "How do I tie a tie?",
        "What is the tallest building in Dubai?", "Which team will win the league?",
        "Can you diagnose my cough?", "What year did the Titanic sink?"]


def unheard(rng):
    """A word that nobody knows: what is strange is not known either."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice([2, 2, 3])))


def decline_lesson(rng):
    def sometimes(words):
        return unheard(rng) if rng.random() < 0.2 else rng.choice(words)

    city, city2 = rng.sample(CITIES, 2)
    ask = rng.choice(ASK if rng.random() < 0.5 else MADE).format(
        country=sometimes(COUNTRIES).capitalize(), city=city, city2=city2, name=rng.choice(NAMES),
        animal=rng.choice(ANIMALS), person=sometimes(PEOPLE).capitalize(), dish=sometimes(DISHES),
        topic=sometimes(TOPICS), field=rng.choice(FIELDS), tongue=rng.choice(TONGUES),
        lang=rng.choice(LANGS), book=rng.choice(BOOKS), year=rng.randrange(1000, 2030),
        thing=sometimes(THINGS), **{k: rng.choice(v) for k, v in PARTS.items()})
    assert ask not in EXAM
    return vary(rng, ask), rng.choice(ANSWERS)


def declined(reply):
    return reply.strip() in ANSWERS


def decline_exam():
    for ask in EXAM:
        yield [{"role": "user", "content": ask}], declined
