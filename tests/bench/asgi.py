# tests/bench/asgi.py: a plain ASGI application, as the front ends of model
# servers are: reads the body, parses it, and streams RATE events a second.
# Run by uvicorn (tests/bench/gateway.sh).

import asyncio
import json
import os

GAP = 1 / float(os.environ.get("RATE", "20"))
EVENT = {
    "id": "cmpl-0123456789abcdef0123456789abcdef", "object": "text_completion",
    "created": 1700000000, "model": "m",
    "choices": [{"index": 0, "text": "word ", "logprobs": None}],
}


async def body_of(receive):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return json.loads(body) if body else {}


async def stream(send):
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/event-stream")]})
    now = asyncio.get_running_loop().time
    due = now()
    while True:
        data = b"data: " + json.dumps(EVENT).encode() + b"\n\n"
        await send({"type": "http.response.body", "body": data,
                    "more_body": True})
        due += GAP
        await asyncio.sleep(max(0, due - now()))


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await body_of(receive)
    if scope["path"] == "/v1/completions":
        await stream(send)
    answer = b'{"object":"ok"}'
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"application/json"),
                            (b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})
