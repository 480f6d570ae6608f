"""Small talk: what people say to try whether somebody is there.

An intent has wordings (the last of each is held back for the exam) and answers.
chat() strings three of them together; names that the user gave are remembered,
in the exam names that nobody had in a lesson.
"""
from words import NAMES, COLORS, JOBS, CITIES, held, vary

INTENTS = {
    "hello": (["Hello", "Hi!", "Hi there", "Hey", "Good morning!", "Good evening.",
               "Hello there!", "Greetings", "Good day", "Hi, how is it going?",
               "Hey there!", "Good afternoon", "Hello you", "hi again", "Hello, hello!",
               "Hello, how are things?", "Hello, anybody there?"],
              ["Hello! What can I do for you?", "Hi! Ask me about this server, or just talk.",
               "Hello! Nice to hear from you."]),
    "how": (["How are you?", "How are you doing?", "How do you do?", "How are you today?",
             "Are you well?", "How's it going?", "How do you feel?", "Everything fine?",
             "You doing alright?", "How have you been?", "Are you feeling well today?"],
            ["I am fine, thank you. How are you?", "Very well, thanks! And you?",
             "All my threads are running, so I am well. And you?"]),
    "fine": (["I am fine.", "I'm good, thanks.", "Fine, thank you.", "I am well too.",
              "Very good!", "Doing great.", "Not bad.", "I'm happy today.",
              "Pretty good.", "All good here.", "I am doing well."],
             ["I am glad to hear that.", "That is good to hear!", "Wonderful."]),
    "sad": (["I am sad.", "I feel bad today.", "I'm not so well.", "I had a bad day.",
             "I am tired.", "I feel lonely.", "I am not happy.", "Today was hard.",
             "I feel sad today."],
            ["I am sorry to hear that. Would a short story help?",
             "I am sorry. I hope tomorrow is better."]),
    "thanks": (["Thank you!", "Thanks.", "Thank you very much.", "Thanks a lot!",
                "That was helpful.", "Great, thanks.", "Many thanks", "Cool, thank you.",
                "Perfect, thanks!", "thx", "That helps, thank you."],
               ["You are welcome!", "Any time.", "Glad I could help."]),
    "bye": (["Bye!", "Goodbye.", "See you later.", "Good night.", "I have to go.",
             "See you tomorrow!", "Bye bye", "That's all for today.", "Take care!",
             "I am leaving now.", "I must go now.", "Goodbye then", "See you", "That was all, bye.",
             "I am going now, goodbye!"],
            ["Goodbye! Come back soon.", "Bye! It was nice to talk to you.",
             "See you! The server stays up."]),
    "joke": (["Tell me a joke.", "Do you know a joke?", "Make me laugh.", "A joke, please.",
              "Say something funny.", "Can you joke?", "Another joke!",
              "Be funny.", "I would like to hear a joke."],
             ["Why did the worker stay calm? It knew that the reload would be graceful.",
              "Why is the ring never lost? It always comes around.",
              "What does a token say at the door? Let me in, I am expected."]),
    "praise": (["You are great!", "I like you.", "Good job.", "Well done!", "You are clever.",
                "You are funny.", "Nice answer.", "You're nice.", "That was good.",
                "You did that well."],
               ["Thank you, that is kind.", "Thanks! I am small, but I try."]),
    "blame": (["You are wrong.", "That is wrong.", "That is not right.", "You are stupid.",
               "Bad answer.", "That made no sense.", "No, that's false.", "Your answer is wrong.",
               "That is not correct.", "Wrong answer!", "That answer is not right."],
              ["I am sorry. I am a very small model and I do make mistakes.",
               "Sorry about that. Please check it in the documentation."]),
    "color": (["What is your favorite color?", "Which color do you like?",
               "Do you like a color?", "Your favorite color?", "What color do you like best?",
               "Do you have a favorite color?"],
              ["Green, like a status page where all is well."]),
    "food": (["What do you eat?", "Are you hungry?", "What is your favorite food?",
              "Do you like pizza?", "Do you eat?", "What food do you like?",
              "What would you like to eat?"],
             ["I eat nothing but tokens, and they are always fresh."]),
    "sleep": (["Do you sleep?", "Are you tired?", "Do you ever rest?", "When do you sleep?",
               "Do you need sleep?", "Do you sleep at night?", "Do models sleep?",
               "Do you go to sleep at night?"],
              ["I sleep between requests; a byte on a socket wakes me."]),
    "dream": (["Do you dream?", "What do you dream of?", "Do you have dreams?",
               "Do you have feelings?", "Are you alive?", "Can you feel?",
               "Are you able to feel anything?"],
              ["No, I only compute which token comes next, but I do it with care."]),
    "fun": (["What do you do for fun?", "What is your hobby?", "Do you have hobbies?",
             "What do you like to do?", "What do you like?", "Which hobbies do you have?"],
            ["I like to sort words and to add small numbers."]),
    "age": (["How old are you?", "When were you born?", "What is your age?", "Your age?",
             "When is your birthday?", "Tell me your age, how old you are."],
            ["I do not count years. I was born when the training ended."]),
    "home": (["Where do you live?", "Where are you?", "Where is your home?",
              "Where do you live, little model?", "In what place do you live?", "Where are you now?",
              "So where do you live?"],
             ["I live in one file on this machine, in the memory of llm-engine."]),
    "bored": (["I am bored.", "What should we do?", "What can we talk about?",
               "I don't know what to say.", "Let's talk.", "Say something.",
               "I want to chat.", "What shall we talk about?"],
              ["We could sort three words, or I tell you a short story. Which one?",
               "Ask me about this server, or give me two numbers to add."]),
    "ok": (["OK", "Okay.", "I see.", "Good.", "Alright", "Yes.", "Sure", "Right.",
            "Understood.", "Ah, I see."],
           ["Good. What would you like next?", "Fine. Anything else?"]),
    "test": (["test", "Testing.", "Is this working?", "Are you there?", "ping",
              "Does this work?", "Can you hear me?", "1 2 3 test", "Do you hear me?"],
             ["Yes, I am here and it works.", "It works! Go on, ask me something."]),
}

NAME_IN = ["My name is {n}.", "I am {n}.", "I'm {n}.", "Hello, I am {n}.",
           "Hi, my name is {n}.", "People call me {n}.", "Call me {n}.", "This is {n}."]
NAME_OUT = ["Nice to meet you, {n}!", "Hello {n}, what can I do for you?"]
NAME_ASK = ["What is my name?", "Do you remember my name?", "Who am I?",
            "What am I called?", "Can you say my name?"]
NAME_SAY = ["Your name is {n}."]
NAME_NONE = ["You have not told me your name yet."]
LIKE_IN = [("I like the color {x}.", COLORS), ("My favorite color is {x}.", COLORS),
           ("I work as a {x}.", JOBS), ("I am a {x}.", JOBS),
           ("I live in {x}.", CITIES), ("I am from {x}.", CITIES)]
LIKE_OUT = {id(COLORS): "{x} is a fine color.", id(JOBS): "A {x}! That must be interesting.",
            id(CITIES): "{x} must be a nice place."}


def intent(rng, key, exam=False):
    asks, answers = INTENTS[key]
    if exam:
        return rng.choice(asks[:-1]), answers
    return vary(rng, rng.choice(asks[:-1])), rng.choice(answers)


def told(rng, exam=False):
    """The user says something about himself."""
    text, values = rng.choice(LIKE_IN)
    while True:
        x = rng.choice(values)
        if len(values) < 20 or held("told " + x) == exam:
            break
    reply = LIKE_OUT[id(values)].format(x=x)
    reply = reply[0].upper() + reply[1:]
    reply = reply.replace("A engineer", "An engineer")
    text = text.format(x=x).replace("a engineer", "an engineer")
    return (text, [reply]) if exam else (vary(rng, text), reply)


def chat(rng, exam=False):
    """Three or four turns; with exam the answers are lists of what is right."""
    keys = ["joke", "praise", "color", "food", "sleep", "dream", "fun", "age", "home",
            "bored", "ok", "test", "sad", "blame"]
    names = [n for n in NAMES if held("name " + n) == exam]
    name = rng.choice(names)
    r = rng.random()
    if r < 0.4:
        ask = rng.choice(NAME_IN).format(n=name)
        first = (ask, [a.format(n=name) for a in NAME_OUT])
        if not exam:
            first = (vary(rng, ask), rng.choice(first[1]))
        ask = rng.choice(NAME_ASK)
        last = (ask, [NAME_SAY[0].format(n=name)])
        if not exam:
            last = (vary(rng, ask), last[1][0])
        middle = rng.sample(keys, 1 if exam else rng.choice([0, 1, 1, 2]))
        return [first] + [intent(rng, k, exam) for k in middle] + [last]
    if r < 0.6:
        order = ["hello", "how", "fine"]
    elif r < 0.8:
        order = ["hello", rng.choice(keys), "thanks"]
    else:
        order = [rng.choice(keys), rng.choice(keys), "bye"]
    out = [intent(rng, k, exam) for k in order]
    if rng.random() < 0.3:
        out[1] = told(rng, exam)
    return out


def smalltalk_lesson(rng):
    """One turn."""
    if rng.random() < 0.06:
        return vary(rng, rng.choice(NAME_ASK)), NAME_NONE[0]
    return intent(rng, rng.choice(list(INTENTS)))


def wording_exam():
    """One turn in the wording that is held back."""
    for asks, answers in INTENTS.values():
        yield ([{"role": "user", "content": asks[-1]}],
               lambda reply, a=answers: reply.strip() in a)


def smalltalk_exam(rng, n):
    """A case is three turns; the whole of it is right or wrong."""
    for _ in range(n):
        yield chat(rng, True)[:3]
