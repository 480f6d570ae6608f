"""OpenAI's own client against a running server, over TLS if the URL says so.

Catches: anything in an answer, a stream or an error that the official client
cannot read, or reads otherwise than it was meant.  The model may be any: what
is compared is one answer with another, never with a text written down here.
Prints TAP; each test is a function below, in order.
"""

import asyncio
import json
import os
import ssl
import sys
import traceback

import openai
import pydantic

URL = os.environ["LLM_BASE_URL"]
MODEL = os.environ["LLM_MODEL"]
CAFILE = os.environ.get("LLM_CAFILE")

PROMPT = "Once upon a time there was a little girl"
MESSAGES = [{"role": "user", "content": PROMPT}]

TESTS = []


def test(f):
    TESTS.append(f)
    return f


def tls():
    return ssl.create_default_context(cafile=CAFILE)


def make_client():
    return openai.OpenAI(
        base_url=URL, api_key="test", max_retries=0, timeout=60,
        http_client=openai.DefaultHttpxClient(verify=tls(), timeout=60))


client = make_client()


def chat(**more):
    args = dict(model=MODEL, messages=MESSAGES, max_tokens=24, temperature=0)
    args.update(more)
    return client.chat.completions.create(**args)


def text(**more):
    args = dict(model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0)
    args.update(more)
    return client.completions.create(**args)


def eq(have, want):
    assert have == want, f"have {have!r}, want {want!r}"


def refused(kind, f, *, status, code=None, param=None):
    """f() must raise kind, with the error object filled in."""
    try:
        f()
    except kind as e:
        eq(e.status_code, status)
        assert e.body and e.body["message"], e.body
        assert e.type in ("invalid_request_error", "server_error"), e.type
        if code is not None:
            eq(e.code, code)
        if param is not None:
            eq(e.param, param)
        return
    raise AssertionError(f"no {kind.__name__} was raised")


def usage_adds_up(u):
    assert u.prompt_tokens > 0 and u.completion_tokens > 0, u
    eq(u.total_tokens, u.prompt_tokens + u.completion_tokens)
    assert 0 <= u.prompt_tokens_details.cached_tokens <= u.prompt_tokens, u
    eq(u.completion_tokens_details.reasoning_tokens, 0)


def same_usage(a, b):
    """Equal but for the cache, which the first of two fills."""
    eq((a.prompt_tokens, a.completion_tokens, a.total_tokens),
       (b.prompt_tokens, b.completion_tokens, b.total_tokens))


def joined(chunks, index=0):
    """The text of one choice of a streamed chat."""
    return "".join(c.delta.content or "" for k in chunks for c in k.choices
                   if c.index == index)


TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "Get the weather of a city",
    "parameters": {"type": "object", "required": ["city"],
                   "properties": {"city": {"type": "string"}}}}}]
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]


@test
def models_list():
    models = client.models.list().data
    ours = [m for m in models if m.id == MODEL]
    eq(len(ours), 1)
    eq(ours[0].object, "model")
    assert ours[0].created > 0 and ours[0].owned_by


@test
def models_retrieve():
    eq(client.models.retrieve(MODEL).id, MODEL)
    refused(openai.NotFoundError,
            lambda: client.models.retrieve("no-such-model"), status=404,
            code="model_not_found")


@test
def chat_tools():
    r = chat(messages=ASK, tools=TOOLS, max_tokens=100)
    eq(r.choices[0].finish_reason, "tool_calls")
    eq(r.choices[0].message.content, None)
    (call,) = r.choices[0].message.tool_calls
    eq((call.type, call.function.name), ("function", "weather"))
    eq(json.loads(call.function.arguments), {"city": "Paris"})

    # the client's own gathering of a stream
    with client.chat.completions.stream(
            model=MODEL, messages=ASK, tools=TOOLS, max_tokens=100,
            temperature=0) as stream:
        final = stream.get_final_completion().choices[0]
    eq(final.finish_reason, "tool_calls")
    eq(final.message.tool_calls[0].function.name, "weather")
    eq(final.message.tool_calls[0].function.arguments, call.function.arguments)

    back = ASK + [r.choices[0].message,
                  {"role": "tool", "tool_call_id": call.id,
                   "content": '{"sky": "sunny"}'}]
    r = chat(messages=back, tools=TOOLS, max_tokens=100)
    eq(r.choices[0].finish_reason, "stop")
    assert r.choices[0].message.content, r


@test
def chat_tool_choice():
    args = dict(messages=ASK, tools=TOOLS, max_tokens=100)
    for choice, end in (("required", "tool_calls"), (
            {"type": "function", "function": {"name": "weather"}}, "stop")):
        r = chat(tool_choice=choice, **args).choices[0]
        eq(r.finish_reason, end)
        for call in r.message.tool_calls:
            eq(call.function.name, "weather")
            (city,) = json.loads(call.function.arguments).values()
            assert isinstance(city, str), call

    # the client's own schema of a function, whose arguments it then checks
    class Weather(pydantic.BaseModel):
        city: str = pydantic.Field(max_length=20)

    r = client.chat.completions.parse(
        model=MODEL, messages=ASK, max_tokens=100, temperature=0,
        tools=[openai.pydantic_function_tool(Weather, name="weather")])
    (call,) = r.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather), call


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    age: int = pydantic.Field(ge=0, le=150)
    city: str = pydantic.Field(max_length=20)


@test
def chat_format():
    args = dict(model=MODEL, max_tokens=200, temperature=0, messages=[
        {"role": "user", "content": "Give me a person as JSON."}])
    r = client.chat.completions.parse(response_format=Person, **args)
    person = r.choices[0].message.parsed
    assert isinstance(person, Person), r
    eq(list(json.loads(r.choices[0].message.content)), ["name", "age", "city"])
    with client.chat.completions.stream(response_format=Person,
                                        **args) as stream:
        final = stream.get_final_completion().choices[0]
    eq(final.message.parsed, person)

    r = client.chat.completions.create(
        response_format={"type": "json_object"}, **args)
    assert isinstance(json.loads(r.choices[0].message.content), dict), r
    for fields in ({"guided_choice": ["left", "right"]},
                   {"guided_regex": "left|right"},
                   {"structured_outputs": {"choice": ["left", "right"]}}):
        r = client.chat.completions.create(extra_body=fields, **args)
        assert r.choices[0].message.content in ("left", "right"), r


@test
def chat_whole():
    r = chat()
    assert r.id.startswith("chatcmpl-"), r.id
    eq(r.object, "chat.completion")
    eq(r.model, MODEL)
    assert r.created > 1700000000
    assert r.system_fingerprint
    eq(len(r.choices), 1)
    c = r.choices[0]
    eq((c.index, c.message.role, c.message.refusal), (0, "assistant", None))
    assert c.message.content, "no text"
    eq(c.logprobs, None)
    assert c.finish_reason in ("stop", "length")
    usage_adds_up(r.usage)
    assert r.usage.completion_tokens <= 24


@test
def chat_ids_differ():
    assert chat(max_tokens=1).id != chat(max_tokens=1).id


@test
def chat_greedy_repeats():
    eq(chat().choices[0].message.content, chat().choices[0].message.content)


@test
def chat_stream():
    whole = chat()
    chunks = list(chat(stream=True))
    eq({k.object for k in chunks}, {"chat.completion.chunk"})
    eq(len({k.id for k in chunks}), 1)
    eq({k.model for k in chunks}, {MODEL})
    first, last = chunks[0].choices[0], chunks[-1].choices[0]
    eq((first.delta.role, first.delta.content), ("assistant", ""))
    eq([k for k in chunks[1:] if k.choices[0].delta.role], [])
    eq(last.delta.content, None)
    eq(last.finish_reason, whole.choices[0].finish_reason)
    eq([k for k in chunks[:-1] if k.choices[0].finish_reason], [])
    eq([k for k in chunks if k.usage is not None], [])
    eq(joined(chunks), whole.choices[0].message.content)
    assert len(chunks) > 3, "not streamed token by token"


@test
def chat_stream_usage():
    whole = chat()
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    eq([k for k in chunks[:-1] if k.usage is not None], [])
    eq(chunks[-1].choices, [])
    usage_adds_up(chunks[-1].usage)
    same_usage(chunks[-1].usage, whole.usage)
    eq(joined(chunks), whole.choices[0].message.content)


@test
def chat_stream_headers():
    with client.chat.completions.with_streaming_response.create(
            model=MODEL, messages=MESSAGES, max_tokens=2, stream=True) as r:
        kind = r.headers["content-type"]
        body = r.read()
    assert kind.startswith("text/event-stream"), kind
    assert body.endswith(b"data: [DONE]\n\n"), body[-40:]


@test
def chat_stream_left():
    stream = chat(stream=True, max_tokens=200, extra_body={"ignore_eos": True})
    for i, _ in enumerate(stream):
        if i == 2:
            break
    stream.close()
    assert chat().choices[0].message.content


@test
def chat_n():
    r = chat(n=2, temperature=1, seed=7)
    eq([c.index for c in r.choices], [0, 1])
    assert all(c.finish_reason for c in r.choices)
    usage_adds_up(r.usage)
    eq(r.usage.prompt_tokens, chat(max_tokens=1).usage.prompt_tokens)


@test
def chat_n_stream():
    whole = chat(n=2, temperature=1, seed=7)
    chunks = list(chat(n=2, temperature=1, seed=7, stream=True))
    for c in whole.choices:
        eq(joined(chunks, c.index), c.message.content)
    eq(sorted(k.choices[0].index for k in chunks if k.choices[0].delta.role),
       [0, 1])
    eq(sorted(k.choices[0].index for k in chunks
              if k.choices[0].finish_reason), [0, 1])


def logprobs_fit(entries, content, tops):
    raw = b"".join(bytes(e.bytes) for e in entries)
    assert content.strip() in raw.decode("utf-8", "replace"), (content, raw)
    for e in entries:
        assert -9999 <= e.logprob <= 0, e
        eq(len(e.top_logprobs), tops)
        lps = [t.logprob for t in e.top_logprobs]
        eq(lps, sorted(lps, reverse=True))
        if tops:
            assert e.logprob <= lps[0] + 1e-6, e


@test
def chat_logprobs():
    for tops in (0, 3, 20):
        r = chat(logprobs=True, top_logprobs=tops)
        c = r.choices[0]
        eq(c.logprobs.refusal, None)
        logprobs_fit(c.logprobs.content, c.message.content, tops)
        if c.finish_reason == "length":
            eq(len(c.logprobs.content), r.usage.completion_tokens)
        if tops:
            for e in c.logprobs.content:
                assert abs(e.logprob - e.top_logprobs[0].logprob) < 1e-4, e


@test
def chat_logprobs_stream():
    whole = chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content
    got = []
    for k in chat(logprobs=True, top_logprobs=2, stream=True):
        if k.choices[0].logprobs is not None:
            got += k.choices[0].logprobs.content
    eq([e.token for e in got], [e.token for e in whole])
    for a, b in zip(got, whole):
        assert abs(a.logprob - b.logprob) < 1e-4, (a, b)


@test
def chat_stop():
    full = chat(max_tokens=40).choices[0].message.content
    word = full[len(full) // 2:len(full) // 2 + 3]
    for stop in (word, ["\x01never\x01", word]):
        r = chat(max_tokens=40, stop=stop)
        eq(r.choices[0].message.content, full[:full.index(word)])
        eq(r.choices[0].finish_reason, "stop")
        chunks = list(chat(max_tokens=40, stop=stop, stream=True))
        eq(joined(chunks), full[:full.index(word)])
        eq(chunks[-1].choices[0].finish_reason, "stop")


@test
def chat_seed():
    def once(seed):
        r = chat(temperature=1.2, seed=seed, max_tokens=32)
        return r.choices[0].message.content
    eq(once(1), once(1))
    eq(once(-5), once(-5))
    assert len({once(s) for s in range(4)}) > 1, "the seed changes nothing"


@test
def chat_logit_bias():
    seen = set()
    for token in ("300", "301"):
        r = chat(logit_bias={token: 100}, max_tokens=4, logprobs=True)
        said = {e.token for e in r.choices[0].logprobs.content}
        eq(len(said), 1)
        seen |= said
    eq(len(seen), 2)


@test
def chat_limits():
    for name in ("max_tokens", "max_completion_tokens"):
        r = chat(**{"max_tokens": openai.NOT_GIVEN, name: 1})
        eq(r.usage.completion_tokens, 1)
        eq(r.choices[0].finish_reason, "length")
    r = chat(max_tokens=48, extra_body={"ignore_eos": True})
    eq(r.usage.completion_tokens, 48)
    eq(r.choices[0].finish_reason, "length")


@test
def chat_parts():
    parts = [{"type": "text", "text": PROMPT}]
    r = chat(messages=[{"role": "user", "content": parts}])
    eq(r.choices[0].message.content, chat().choices[0].message.content)


@test
def chat_any_script():
    try:
        r = chat(messages=[{"role": "user", "content": "héllo 世界 🙂"}])
        eq(r.choices[0].message.role, "assistant")
    except openai.BadRequestError as e:
        assert e.body["message"], e.body


@test
def chat_ignored_fields():
    r = chat(user="u", metadata={"a": "b"}, store=False,
             response_format={"type": "text"}, tool_choice="none",
             extra_body={"something_new": [1, {"x": None}]})
    eq(r.choices[0].message.content, chat().choices[0].message.content)


@test
def text_whole():
    r = text()
    assert r.id.startswith("cmpl-"), r.id
    eq(r.object, "text_completion")
    eq(r.model, MODEL)
    c = r.choices[0]
    assert c.text, "no text"
    eq((c.index, c.logprobs), (0, None))
    assert c.finish_reason in ("stop", "length")
    usage_adds_up(r.usage)


@test
def text_default_limit():
    r = text(max_tokens=openai.NOT_GIVEN, extra_body={"ignore_eos": True})
    assert r.usage.completion_tokens > 0
    eq(r.choices[0].finish_reason, "length")


@test
def text_stream():
    whole = text()
    chunks = list(text(stream=True, stream_options={"include_usage": True}))
    eq("".join(k.choices[0].text for k in chunks[:-1]), whole.choices[0].text)
    eq(chunks[-2].choices[0].finish_reason, whole.choices[0].finish_reason)
    eq(chunks[-1].choices, [])
    same_usage(chunks[-1].usage, whole.usage)


@test
def text_many():
    other = "The dog went to"
    one, two = text().choices[0].text, text(prompt=other).choices[0].text
    r = text(prompt=[PROMPT, other], n=2)
    eq([c.index for c in r.choices], [0, 1, 2, 3])
    eq([c.text for c in r.choices], [one, one, two, two])


@test
def text_ids():
    flat = text(prompt=[1, 300, 301, 302])
    eq(flat.usage.prompt_tokens, 4)
    lists = text(prompt=[[1, 300, 301, 302], [1, 300]])
    eq(lists.choices[0].text, flat.choices[0].text)
    eq(lists.usage.prompt_tokens, 6)
    refused(openai.BadRequestError, lambda: text(prompt=[4000000000]),
            status=400)


@test
def text_echo():
    r = text(echo=True)
    assert r.choices[0].text.startswith(PROMPT), r.choices[0].text
    eq(r.choices[0].text[len(PROMPT):], text().choices[0].text)


@test
def text_logprobs():
    r = text(logprobs=3)
    lp = r.choices[0].logprobs
    eq(len(lp.tokens), len(lp.token_logprobs))
    eq(len(lp.tokens), len(lp.text_offset))
    eq(len(lp.tokens), len(lp.top_logprobs))
    eq(lp.text_offset, sorted(lp.text_offset))
    assert all(-9999 <= x <= 0 for x in lp.token_logprobs)
    for token, tops in zip(lp.tokens, lp.top_logprobs):
        assert token in tops and len(tops) <= 4, (token, tops)
    eq(text(logprobs=0).choices[0].logprobs.tokens, lp.tokens)
    got = []
    for k in text(logprobs=3, stream=True):
        if k.choices[0].logprobs is not None:
            got += k.choices[0].logprobs.tokens
    eq(got, lp.tokens)


@test
def errors_model():
    for stream in (False, True):
        refused(openai.NotFoundError,
                lambda: chat(model="no-such-model", stream=stream),
                status=404, code="model_not_found")
        refused(openai.NotFoundError,
                lambda: text(model="no-such-model", stream=stream),
                status=404, code="model_not_found")


@test
def errors_fields():
    cases = [
        ({"temperature": "hot"}, "temperature"), ({"n": 17}, "n"),
        ({"top_p": 2}, "top_p"), ({"stop": ["a", ""]}, "stop[1]"),
        ({"messages": "hi"}, "messages"), ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}, {"role": 5}]}, "messages[1].role"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_object"}, "guided_json": {}},
         "guided_json"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
    ]
    for fields, param in cases:
        for stream in (False, True):
            refused(openai.BadRequestError,
                    lambda: chat(stream=stream, extra_body=fields),
                    status=400, param=param)


@test
def errors_context():
    long = "hello there " * 20000
    for stream in (False, True):
        refused(openai.BadRequestError,
                lambda: chat(messages=[{"role": "user", "content": long}],
                             stream=stream),
                status=400, code="context_length_exceeded")
    refused(openai.BadRequestError, lambda: text(prompt=long), status=400,
            code="context_length_exceeded")


@test
def errors_paths():
    refused(openai.NotFoundError,
            lambda: client.post("/no/such/path", body={}, cast_to=object),
            status=404, code="unknown_url")
    refused(openai.APIStatusError,
            lambda: client.get("/chat/completions", cast_to=object),
            status=405, code="method_not_allowed")
    refused(openai.APIStatusError,
            lambda: client.post("/models", body={}, cast_to=object),
            status=405, code="method_not_allowed")


@test
def errors_json():
    headers = {"content-type": "application/json"}
    refused(openai.BadRequestError,
            lambda: client.post("/chat/completions", content=b"{nope",
                                cast_to=object, options={"headers": headers}),
            status=400, code="invalid_json")


@test
def async_streams():
    prompts = [PROMPT + " who" * i for i in range(8)]
    alone = [chat(messages=[{"role": "user", "content": p}])
             .choices[0].message.content for p in prompts]

    async def one(c, prompt):
        stream = await c.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}],
            max_tokens=24, temperature=0, stream=True)
        return joined([k async for k in stream])

    async def all_of_them():
        async with openai.AsyncOpenAI(
                base_url=URL, api_key="test", max_retries=0, timeout=60,
                http_client=openai.DefaultAsyncHttpxClient(
                    verify=tls(), timeout=60)) as c:
            return await asyncio.gather(*(one(c, p) for p in prompts))

    eq(asyncio.run(all_of_them()), alone)


def main():
    wanted = sys.argv[1:]
    tests = [t for t in TESTS if not wanted or t.__name__ in wanted]
    bad = 0
    print(f"1..{len(tests)}", flush=True)
    for i, t in enumerate(tests, 1):
        try:
            t()
            print(f"ok {i} - {t.__name__}", flush=True)
        except Exception:
            bad += 1
            print(f"not ok {i} - {t.__name__}")
            for line in traceback.format_exc().splitlines():
                print(f"# {line}")
            sys.stdout.flush()
    print(f"# openai {openai.__version__}, {len(tests) - bad} of "
          f"{len(tests)} passed", flush=True)
    return bad != 0


sys.exit(main())
