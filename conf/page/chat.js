/*
 * A chat over POST v1/chat/completions, in five parts: what is kept, the
 * stream, errors, what is shown, what the user does.
 *
 * A turn is a question and what became of it.  The turns are the only state;
 * a request is made of them anew each time, so stopped and failed answers
 * need no special care: half an answer is sent back as it stands, and a turn
 * without any is left out.
 *
 * What the model says is text, never markup: it enters the document through
 * textContent only, and the server's Content-Security-Policy forbids the rest.
 */
"use strict";

const $ = (id) => document.getElementById(id);

let turns = [];     /* as shown, the oldest first */
let running = null; /* the turn that is being answered */
let swapped = -1e3; /* when Send and Stop last changed places */


/* --- kept in this tab: settings, and the key, which must not outlive it --- */

function recall(name) {
    try {
        return sessionStorage.getItem(name);
    } catch {
        return null; /* storage may be forbidden; then nothing is kept */
    }
}

function keep(name, value) {
    try {
        sessionStorage.setItem(name, value);
    } catch {
        /* as above */
    }
}

function keepFields() {
    for (const field of document.querySelectorAll("[data-keep]")) {
        const value = recall(field.id);
        if (value !== null && field.id !== "model") {
            field.value = value;
        }
        field.addEventListener("input", () => keep(field.id, field.value));
    }
}


/* --- the stream ---------------------------------------------------------- */

/*
 * Server-sent events from bytes cut anywhere: calls emit with the data of
 * each event.  The decoder holds what is left of a character, rest what is
 * left of a line, data what is there of an event.
 */
function sseParser(emit) {
    const decoder = new TextDecoder();
    let rest = "";
    let data = [];
    let afterReturn = false; /* a line feed now belongs to the line before */

    function line(text) {
        if (text === "") {
            if (data.length > 0) {
                const event = data.join("\n");
                data = [];
                emit(event);
            }
        } else if (text === "data") {
            data.push("");
        } else if (text.startsWith("data:")) {
            data.push(text.slice(text[5] === " " ? 6 : 5));
        }
    }

    return function push(bytes) {
        let text = decoder.decode(bytes, { stream: true });
        if (afterReturn && text !== "") {
            text = text.startsWith("\n") ? text.slice(1) : text;
            afterReturn = false;
        }
        rest += text;
        for (;;) {
            const at = rest.search(/[\r\n]/);
            if (at < 0) {
                return;
            }
            const ended = rest.slice(0, at);
            const pair = rest.startsWith("\r\n", at);
            afterReturn = rest[at] === "\r" && at + 1 === rest.length;
            rest = rest.slice(at + (pair ? 2 : 1));
            line(ended);
        }
    };
}

function headers() {
    const all = { "Content-Type": "application/json" };
    const key = $("key").value.trim();
    if (/[^\x21-\x7e]/.test(key)) {
        const failure = new Failure(
            "The API key has characters no header can hold.");
        failure.passing = false;
        throw failure;
    }
    if (key !== "") {
        all.Authorization = `Bearer ${key}`;
    }
    return all;
}

function requestOf(turn) {
    const messages = [];
    if ($("system").value.trim() !== "") {
        messages.push({ role: "system", content: $("system").value });
    }
    for (const { question, text } of turns.slice(0, turns.indexOf(turn))) {
        if (text !== "") {
            messages.push({ role: "user", content: question });
            messages.push({ role: "assistant", content: text });
        }
    }
    messages.push({ role: "user", content: turn.question });

    const request = { model: $("model").value, messages };
    if ($("temperature").value !== "") {
        request.temperature = Number($("temperature").value);
    }
    if ($("max-tokens").value !== "") {
        request.max_tokens = Number($("max-tokens").value);
    }
    request.stream = true;
    request.stream_options = { include_usage: true };
    return request;
}

async function call(path, options) {
    let response;
    try {
        response = await fetch(path, { cache: "no-store", ...options });
    } catch (error) {
        throw error.name === "AbortError" ? error
            : new Failure("The server cannot be reached.",
                "Is it running, and is the network up?");
    }
    if (!response.ok) {
        throw await refusal(response);
    }
    return response;
}

/* Streams the answer to a turn, to its end or to an exception. */
async function streamAnswer(turn, signal) {
    turn.sent = performance.now();
    const response = await call("v1/chat/completions", {
        method: "POST", headers: headers(), signal,
        body: JSON.stringify(requestOf(turn)),
    });
    const type = response.headers.get("Content-Type") ?? "";
    if (!type.startsWith("text/event-stream")) {
        throw new Failure("The answer is not the stream that was asked for.",
            `Its type is ${type || "not given"}.`);
    }
    const push = sseParser((data) => take(turn, data));
    const reader = response.body.getReader();
    while (!turn.done) {
        const { done, value } = await reader.read().catch((error) => {
            throw error.name === "AbortError" ? error
                : new Failure("The connection broke off.");
        });
        if (done) {
            throw new Failure("The connection ended before the answer did.");
        }
        push(value);
    }
}

/* One event of the stream. */
function take(turn, data) {
    if (data === "[DONE]") {
        turn.done = true;
        return;
    }
    const event = parseJson(data);
    if (event?.error) {
        throw failureOf(event.error, [], null);
    }
    if (!Array.isArray(event?.choices)) {
        throw new Failure("The server sent an event that makes no sense.");
    }
    turn.usage = event.usage ?? turn.usage;
    const choice = event.choices[0];
    turn.finish = choice?.finish_reason ?? turn.finish;
    const text = choice?.delta?.content;
    if (text) {
        turn.last = performance.now();
        turn.first ??= turn.last;
        turn.text += text;
        drawSoon(turn);
    }
}


/* --- errors: each becomes a sentence, and what an administrator needs ----- */

class Failure extends Error {
    constructor(sentence, detail = "") {
        super(sentence);
        this.detail = detail;
        this.passing = true;    /* may be over when asked again */
        this.retryAfter = null; /* seconds */
    }
}

function parseJson(text) {
    try {
        return JSON.parse(text);
    } catch {
        return null;
    }
}

function secondsUntil(retryAfter) {
    if (retryAfter === null || retryAfter === "") {
        return null;
    }
    const seconds = Number.isNaN(Number(retryAfter))
        ? (Date.parse(retryAfter) - Date.now()) / 1000
        : Number(retryAfter);
    return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : null;
}

/* The API's error object; what else is known comes before its code. */
function failureOf(error, known, seconds) {
    const details = [...known];
    if (error.code) {
        details.push(error.code);
    }
    if (error.param) {
        details.push(`field ${error.param}`);
    }
    let detail = details.length > 0 ? details.join(", ") + "." : "";
    if (seconds !== null) {
        detail += ` Try again in ${seconds} second${seconds === 1 ? "" : "s"}.`;
    }
    const failure = new Failure(error.message || "The server gave no reason.",
        detail);
    failure.retryAfter = seconds;
    return failure;
}

async function refusal(response) {
    const status = `HTTP ${response.status} ${response.statusText}`.trim();
    const seconds = secondsUntil(response.headers.get("Retry-After"));
    const body = parseJson(await response.text().catch(() => ""));
    const error = typeof body?.error === "object" && body.error !== null
        ? body.error
        : { message: "The server refused, and did not say why." };
    const failure = failureOf(error, [status], seconds);
    failure.passing = response.status >= 500 || seconds !== null;
    return failure;
}


/* --- models --------------------------------------------------------------- */

let modelTimer = 0;
let modelRun = 0; /* counts: what an older run finds is of no interest */

function fillModels(names) {
    const select = $("model");
    const wanted = select.value || recall("model");
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(wanted)) {
        select.value = wanted;
    }
    select.disabled = names.length === 0;
}

async function loadModels(signal) {
    const run = ++modelRun;
    clearTimeout(modelTimer);
    const response = await call("v1/models", { headers: headers(), signal });
    const list = parseJson(await response.text().catch(() => ""))?.data;
    if (!Array.isArray(list) || list.length === 0) {
        throw new Failure("The server names no model.");
    }
    if (run === modelRun) {
        fillModels(list.map((model) => model.id));
        $("notice").textContent = "";
    }
}

/* Until there are models: an engine may take a while to load one. */
async function watchModels() {
    const run = modelRun + 1;
    try {
        await loadModels();
    } catch (error) {
        if (run !== modelRun) {
            return;
        }
        $("notice").textContent = error.message
            + (error.passing ? " Trying again\u2026" : "");
        if (error.passing) {
            modelTimer = setTimeout(watchModels,
                1000 * Math.min(error.retryAfter || 5, 60));
        }
    }
}


/* --- what is shown -------------------------------------------------------- */

function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) {
        node.className = className;
    }
    if (text !== undefined) {
        node.textContent = text;
    }
    return node;
}

function makeButton(label, what, action) {
    const button = make("button", label.split(" ").pop().toLowerCase(), label);
    button.type = "button";
    button.title = what;
    button.addEventListener("click", action);
    return button;
}

/* Text as blocks: paragraphs, headings, fenced code (closed or not yet). */
function blocksOf(text) {
    const blocks = [];
    let lines = [];
    let fence = "";

    function flush(kind) {
        if (lines.length > 0 || kind === "pre") {
            blocks.push({ kind, source: lines.join("\n") });
        }
        lines = [];
    }

    for (const line of text.trimStart().split("\n")) {
        const [, mark = "", info = ""]
            = /^ {0,3}(```+|~~~+)(.*)$/.exec(line) ?? [];
        if (fence !== "" && mark.startsWith(fence) && info.trim() === "") {
            flush("pre");
            fence = "";
        } else if (fence === "" && mark !== ""
            && !(mark[0] === "`" && info.includes("`"))) {
            flush("p");
            fence = mark;
        } else if (fence !== "") {
            lines.push(line);
        } else if (line.trim() === "") {
            flush("p");
        } else if (/^#{1,6} /.test(line)) {
            flush("p");
            lines.push(line.replace(/^#+ +/, ""));
            flush("h3");
        } else {
            lines.push(line);
        }
    }
    flush(fence === "" ? "p" : "pre");
    return blocks;
}

/* `code` and **strong** inside a line; all else stays as it is. */
function inlineNodes(source) {
    return source.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).map((part, i) => {
        if (i % 2 === 0) {
            return document.createTextNode(part);
        }
        return part[0] === "`" ? make("code", "", part.slice(1, -1))
            : make("strong", "", part.slice(2, -2));
    });
}

function blockNode({ kind, source }) {
    const node = make(kind);
    if (kind === "pre") {
        node.tabIndex = 0; /* it may scroll sideways */
        node.append(make("code", "", source));
    } else {
        node.append(...inlineNodes(source));
    }
    return node;
}

/* Only blocks that changed are made anew, so a selection above stays. */
function drawText(root, text) {
    const blocks = blocksOf(text);
    blocks.forEach((block, i) => {
        const old = root.children[i];
        const id = `${block.kind} ${block.source}`;
        if (old?.block !== id) {
            const node = blockNode(block);
            node.block = id;
            old ? old.replaceWith(node) : root.append(node);
        }
    });
    while (root.children.length > blocks.length) {
        root.lastChild.remove();
    }
}

function atEnd() {
    const log = $("log");
    return log.scrollHeight - log.scrollTop - log.clientHeight < 48;
}

function goToEnd() {
    $("log").scrollTop = $("log").scrollHeight;
}

/* Changes the log; a reader at its end stays there, others are left alone. */
function change(draw) {
    const follow = atEnd();
    draw();
    if (follow) {
        goToEnd();
    }
    $("end").hidden = atEnd();
}

function drawSoon(turn) {
    turn.frame ||= requestAnimationFrame(() => {
        turn.frame = 0;
        change(() => drawText(turn.answer, turn.text));
    });
}

function statsOf(turn) {
    const all = [];
    const tokens = turn.usage?.completion_tokens;
    if (turn.stopped) {
        all.push("Stopped");
    }
    if (turn.finish === "length") {
        all.push("Cut at the token limit");
    }
    if (tokens !== undefined) {
        all.push(`${tokens} token${tokens === 1 ? "" : "s"}`);
        // an answer that came in one piece has no rate of its own
        const piece = turn.last - turn.first < 50;
        const seconds = (turn.last - (piece ? turn.sent : turn.first)) / 1000;
        if (tokens > 1 && seconds > 0) {
            const rate = (tokens - (piece ? 0 : 1)) / seconds;
            all.push(`${rate.toFixed(rate < 100 ? 1 : 0)} tokens/s`);
        }
    }
    if (turn.first) {
        const ms = turn.first - turn.sent;
        all.push("first token after "
            + (ms < 1000 ? `${ms.toFixed(0)} ms`
                : `${(ms / 1000).toFixed(1)} s`));
    }
    return all;
}

function drawEnd(turn) {
    cancelAnimationFrame(turn.frame);
    turn.frame = 0;
    drawText(turn.answer, turn.text);
    turn.answer.setAttribute("aria-busy", "false");
    turn.node.classList.toggle("stopped", turn.stopped);
    if (turn.done && turn.text.trim() === "") {
        turn.answer.append(make("p", "empty", "The model said nothing."));
    }
    turn.stats.textContent = statsOf(turn)
        .map((text) => text.replaceAll(" ", "\u00a0")).join("\u00a0\u00b7 ");
    turn.error.replaceChildren();
    if (turn.failure) {
        turn.error.append(make("strong", "", turn.failure.message),
            " ", make("span", "", turn.failure.detail ?? ""));
    }
    turn.copy.hidden = turn.text.trim() === "";
    turn.meta.hidden = false;
}

function addTurn(question) {
    const turn = { question };
    turn.node = make("article", "turn");
    turn.answer = make("div", "answer");
    turn.error = make("p", "error");
    turn.error.setAttribute("role", "alert");
    turn.meta = make("div", "meta");
    turn.stats = make("p", "stats");
    turn.copy = makeButton("Copy", "Copy the answer",
        (event) => copy(event.target, turn.text.trim()));
    const actions = make("div", "actions");
    actions.append(turn.copy,
        makeButton("As curl", "Copy this request as a command",
            (event) => copy(event.target, curlOf(requestOf(turn)))),
        makeButton("Edit", "Edit the question", () => edit(turn)),
        makeButton("Retry", "Ask the same again", () => answer(turn)));
    turn.meta.append(turn.stats, actions);
    turn.node.append(make("h2", "unseen", "Question"),
        make("p", "question", question), make("h2", "unseen", "Answer"),
        turn.answer, turn.error, turn.meta);
    turns.push(turn);
    $("turns").append(turn.node);
    return turn;
}

function drawState() {
    const busy = running !== null;
    const lost = document.activeElement?.closest("#send, #stop, .retry");
    if ($("stop").hidden === busy) {
        swapped = performance.now();
    }
    $("send").hidden = busy;
    $("stop").hidden = !busy;
    $("welcome").hidden = turns.length > 0;
    $("new").hidden = turns.length === 0;
    document.body.classList.toggle("busy", busy);
    if (lost && !lost.checkVisibility()) {
        (busy ? $("stop") : $("input")).focus();
    }
}

/* The second click of two is not meant for the button that came there. */
function settled() {
    return performance.now() - swapped > 400;
}


/* --- what the user does --------------------------------------------------- */

/* Answers a turn; what it had of an answer is thrown away. */
async function answer(turn) {
    if (running) {
        return;
    }
    Object.assign(turn, { text: "", usage: undefined, finish: "", done: false,
        stopped: false, failure: null, first: undefined, last: undefined,
        abort: new AbortController() });
    running = turn;
    turn.answer.replaceChildren();
    turn.error.replaceChildren();
    turn.meta.hidden = true;
    turn.answer.setAttribute("aria-busy", "true");
    drawState();
    goToEnd();
    try {
        if ($("model").value === "") {
            await loadModels(turn.abort.signal);
        }
        await streamAnswer(turn, turn.abort.signal);
    } catch (error) {
        turn.failure = turn.stopped ? null : error;
        turn.abort.abort(); /* an error in a stream leaves it open */
    }
    if (running === turn) {
        running = null;
    }
    change(() => drawEnd(turn));
    drawState();
    if (turn.failure) {
        watchModels(); /* another engine may have other models */
    }
}

function send() {
    const question = $("input").value.trim();
    if (question === "" || running) {
        return;
    }
    $("input").value = "";
    fitInput();
    answer(addTurn(question));
}

function stop() {
    if (running) {
        running.stopped = true;
        running.abort.abort();
        $("input").focus();
    }
}

function edit(turn) {
    if (running) {
        return;
    }
    turns = turns.filter((other) => other !== turn);
    turn.node.remove();
    drawState();
    const draft = $("input").value.trim();
    $("input").value = turn.question + (draft === "" ? "" : `\n\n${draft}`);
    fitInput();
    $("input").focus();
}

function newChat() {
    stop();
    turns = [];
    running = null;
    $("turns").replaceChildren();
    $("end").hidden = true;
    drawState();
    $("input").focus();
}

/* The request for a shell; the key is left to the reader. */
function curlOf(request) {
    const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
    const url = new URL("v1/chat/completions", document.baseURI);
    const key = $("key").value === "" ? []
        : ['-H "Authorization: Bearer $API_KEY"'];
    return [`curl -N ${quote(url.href)}`,
        "-H 'Content-Type: application/json'", ...key,
        `-d ${quote(JSON.stringify(request))}`].join(" \\\n    ");
}

/* navigator.clipboard is there only over TLS and on localhost. */
async function copy(button, text) {
    const label = button.dataset.label ??= button.textContent;
    let done = true;
    try {
        await navigator.clipboard.writeText(text);
    } catch {
        const field = make("textarea", "unseen", text);
        document.body.append(field);
        field.select();
        done = document.execCommand("copy");
        field.remove();
        button.focus();
    }
    button.textContent = done ? "Copied" : "Not copied";
    clearTimeout(button.timer);
    button.timer = setTimeout(() => { button.textContent = label; }, 1200);
}

function fitInput() {
    const input = $("input");
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight}px`;
}

/* Light or dark: the system's choice until the button says otherwise. */
const systemDark = matchMedia("(prefers-color-scheme: dark)");
let theme = recall("theme") || "";

function drawTheme() {
    const dark = theme === "" ? systemDark.matches : theme === "dark";
    document.documentElement.dataset.theme = theme;
    $("theme").textContent = dark ? "Light" : "Dark";
    return dark;
}

function switchTheme() {
    const dark = !drawTheme();
    theme = dark === systemDark.matches ? "" : dark ? "dark" : "light";
    keep("theme", theme);
    drawTheme();
}

function showSettings(open) {
    document.body.classList.toggle("settings-open", open);
    $("settings-button").setAttribute("aria-expanded", String(open));
    (open ? $("system") : $("settings-button")).focus();
}

function settingsOpen() {
    return document.body.classList.contains("settings-open");
}

/* Safari ends a composition before it tells of the key that did. */
function composing(event) {
    return event.isComposing || event.keyCode === 229;
}

function onKey(event) {
    if (composing(event)) {
        return;
    }
    const typing = event.target.closest("input, textarea, select");
    if (event.key === "Escape" && running) {
        stop();
    } else if (event.key === "Escape" && settingsOpen()) {
        showSettings(false);
    } else if (event.key === "/" && !typing && !event.ctrlKey
        && !event.metaKey && !event.altKey) {
        event.preventDefault();
        $("input").focus();
    }
}

function onInputKey(event) {
    /* Enter also ends the composition of a character */
    if (event.key === "Enter" && !event.shiftKey && !composing(event)) {
        event.preventDefault();
        send();
    }
}

function start() {
    keepFields();
    drawTheme();
    drawState();
    systemDark.addEventListener("change", drawTheme);
    $("theme").addEventListener("click", switchTheme);
    $("new").addEventListener("click", newChat);
    $("stop").addEventListener("click", () => settled() && stop());
    $("end").addEventListener("click", () => {
        change(goToEnd);
        $("log").focus();
    });
    $("log").addEventListener("scroll", () => { $("end").hidden = atEnd(); });
    $("key").addEventListener("change", watchModels);
    $("settings-button").addEventListener("click",
        () => showSettings(!settingsOpen()));
    for (const form of document.forms) {
        form.addEventListener("submit", (event) => event.preventDefault());
    }
    $("box").addEventListener("submit", () => settled() && send());
    $("input").addEventListener("input", fitInput);
    $("input").addEventListener("keydown", onInputKey);
    document.addEventListener("keydown", onKey);
    for (const button of $("examples").querySelectorAll("button")) {
        button.addEventListener("click", () => {
            if (!running) {
                answer(addTurn(button.textContent));
            }
            $("input").focus();
        });
    }
    if (!matchMedia("(pointer: coarse)").matches) {
        $("input").focus(); /* there it would raise a keyboard */
    }
    watchModels();
}

start();
