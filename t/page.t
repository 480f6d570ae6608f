#!/usr/bin/env perl
# The page at / in a real browser, without a screen: asking, streaming,
# stopping, keys, refusals, engines that die; that it sends what it should and
# shows what a model writes as text.  Pictures are left in build/page.

use strict;
use warnings;
use utf8;
use FindBin;
use lib "$FindBin::Bin/lib";
use Browser;
use LLM;
use Test::More;

my $why = Browser->missing;
plan skip_all => "no $why" if $why;

# --- servers: the sample's own location; under prefixes a stand-in each
my %canned = (
    markup => sse('<img src=x onerror="hit=1">', " `<b>` **strong** <i>no</i>\n\n```html\n",
        "<script>hit=1</script>\n" . 'x' x 300, "\n```\n\nEnd – 終わり 🙂"),
    silent => sse(''),
    cut => sse('Half of') =~ s/data: \[DONE\]\n\n//r,
    garbled => "data: {\"choices\n\n",
    event => sse('Half of') =~ s/data: \[DONE\]/data: {"error":{"message":"Lost it.","code":"lost"}}/r,
);

sub sse {
    return join '', (map { 'data: ' . LLM->encode({ choices => [
        { index => 0, delta => { content => $_ } }] }) . "\n\n" } @_), "data: [DONE]\n\n";
}

sub stand_in_conf { # a server below /NAME/ that always answers with this text
    my ($name, $type, $text, $status, $header) = @_;
    $text =~ s/([\\"])/\\$1/g;
    $text =~ s/\n/\\n/g;
    return <<"CONF";
location = /$name/v1/models {
    default_type application/json;
    return 200 '{"data":[{"id":"canned"}]}';
}
location = /$name/v1/chat/completions {
    default_type $type;
    @{[ $header // '' ]}
    return @{[ $status // 200 ]} "$text";
}
CONF
}

sub slurp { open my $f, '<', $_[0] or die "$_[0]: $!"; local $/; <$f> }

my ($page) = slurp(LLM->root . '/conf/nginx.conf') =~ m/^( +location \/ \{.*?^ {8}\})/ms;
ok($page, 'nginx.conf has the page');
my $elsewhere = $page =~ s{location /}{location ~ ^/\\w+/(|index.html|chat.js|chat.css)\$}r
    =~ s{root \S+;}{alias PAGE/\$1;}r;
my $server = "$page\n$elsewhere\n";
$server .= stand_in_conf($_, 'text/event-stream', $canned{$_}) for sort keys %canned;
$server .= stand_in_conf(bare => 'text/html', '<h1>no</h1>', 502)
    . stand_in_conf(json => 'application/json', '{}')
    . stand_in_conf(later => 'application/json',
        '{"error":{"message":"Not now.","code":"rate_limit"}}', 429,
        'add_header Retry-After 7 always;');

my $t = LLM->new(no_nginx => 1, workers => 1,
    conf => 'log_format seen escape=json \'{"auth":"$http_authorization","uri":"$uri",'
        . '"body":"$request_body"}\'; proxy_buffering off;',
    engine => [qw(--device null --model_name canned --context 60000 --step_min 20ms)]);
$server .= "location /seen/v1/ { proxy_pass http://127.0.0.1:$t->{port}/v1/; "
    . "access_log $t->{dir}/seen.log seen; }\n";
$server =~ s{/usr/share/ngx_llm/page|PAGE}{$t->page}ge;
utf8::encode($server) if utf8::is_utf8($server);
$t->{server} = $server;
$t->start_nginx or BAIL_OUT($t->error_log);
$t->wait_ready;

# interrupted, nothing stays behind
$SIG{INT} = $SIG{TERM} = sub { exit 1 };

my $origin = "http://127.0.0.1:$t->{port}";
my $b = Browser->new("$t->{dir}/browser");
my $pictures = LLM->build . '/page';
mkdir $pictures;

sub shot { $b->shot("$pictures/$_[0].png") }

# --- what a person does and sees; the page may be slow to notice a key
sub soon { my ($what, @script) = @_; ok($b->wait_for(@script), $what) }

sub ask {
    my $n = turns();
    $b->type('#input', "$_[0]\n");
    $b->wait_for('return document.querySelectorAll(".turn").length > arguments[0]', $n);
}

sub retry {
    $b->js('window.before = turns.at(-1).abort');
    $b->click('.turn:last-child .retry');
    $b->wait_for('return turns.at(-1).abort !== before');
}

sub set { # a blank and its end are what makes an empty field an edited one
    my ($id, $text) = @_;
    $b->clear("#$id");
    $b->type("#$id", length $text ? $text : "0\x{e003}");
}
sub ended { $b->wait_for('return running === null') }
sub answer { $b->js('return document.querySelector(".turn:last-child .answer").innerText') }
sub error { $b->js('return document.querySelector(".turn:last-child .error").innerText') }
sub stats { $b->js('return document.querySelector(".turn:last-child .stats").innerText') =~ tr/\xa0/ /r }
sub turns { $b->js('return document.querySelectorAll(".turn").length') }
sub focused { $b->js('return document.activeElement.id') }
sub models { $b->wait_for('return document.getElementById("model").value') }

sub words { # until the last answer has so many
    $b->wait_for('return document.querySelector(".turn:last-child .answer")'
        . '?.textContent.split(" ").length > arguments[0]', $_[0]);
}

sub no_sideways {
    my ($what) = @_;
    cmp_ok($b->js('return document.documentElement.scrollWidth'), '<=', 360, "$what: fits 360 pixels");
    is($b->js('return document.getElementById("log").scrollWidth - document.getElementById("log").clientWidth'),
        0, "$what: nothing to scroll sideways");
}

sub clean { # the console: nothing but refusals that were asked for
    my ($what) = @_;
    is(join("\n", grep { !/Failed to load resource/ } map { $_->{message} } $b->logs('browser')),
        '', "$what: a quiet console");
}

# --- the first screen
$b->dark(0);
$b->size(1280, 800);
$b->visit("$origin/");
is(models(), 'canned', 'the list of models is filled');
is($b->js('return document.title'), 'ngx_llm', 'title');
is(focused(), 'input', 'ready to type');
is(scalar $b->logs('browser'), 0, 'the console is empty');
my %asked = map { $_->{url} => 1 } grep { $_->{url} !~ /^(?:data|chrome):/ } $b->requests;
is_deeply([sort keys %asked], [map { "$origin$_" } '/', '/chat.css', '/chat.js', '/v1/models'],
    'four requests, all to this server');
my $size = 0;
$size += -s for glob LLM->root . '/conf/page/*';
cmp_ok($size, '<', 100_000, "the page has $size bytes");
shot('light-first');

# --- the parser: events cut anywhere, in the middle of a character too
is($b->js(<<'JS'), 'ok', 'events cut at every byte, and at every two');
const text = ": ping\n\ndata: {\"a\":\"é€🙂\"}\n\ndata:x\r\ndata: y\r\n\r\n\revent: z\rdata\rdata:  w\r\r"
    + "id: 1\n\ndata: \ndata: [DONE]\n\ndata: never ended";
const want = JSON.stringify(["{\"a\":\"é€🙂\"}", "x\ny", "\n w", "\n[DONE]"]);
const bytes = new TextEncoder().encode(text);
function parse(...cuts) {
    const events = [];
    const push = sseParser((data) => events.push(data));
    let from = 0;
    for (const to of [...cuts, bytes.length]) {
        push(bytes.slice(from, to));
        from = to;
    }
    return JSON.stringify(events);
}
if (parse() !== want) return parse();
if (parse(...bytes.keys()) !== want) return "single bytes: " + parse(...bytes.keys());
for (let i = 0; i < bytes.length; i++) {
    for (let j = i; j < bytes.length; j++) {
        if (parse(i, j) !== want) return `${i} ${j}: ` + parse(i, j);
    }
}
return "ok";
JS

# --- a question
my $question = 'Wie geht’s – gut?';
set('temperature', '0');
set('max-tokens', '60');
$b->js(<<'JS');
window.lengths = [];
const look = () => lengths.push(document.querySelector(".answer")?.textContent.length ?? 0);
new MutationObserver(look).observe(document.getElementById("turns"),
    { childList: true, subtree: true });
JS
ask($question);
ok(words(3), 'words come');
ok(ended(), 'and end');
my @grown = do { my $last = 0; grep { my $new = $_ > $last; $last = $_; $new }
    @{ $b->js('return lengths') } };
cmp_ok(@grown, '>', 5, 'the text grew while it came: ' . @grown . ' times');
my $r = $t->decode($t->post('/v1/chat/completions', { model => 'canned', temperature => 0,
    max_tokens => 60, messages => [{ role => 'user', content => $question }] })->{body});
is(answer(), $r->{choices}[0]{message}{content} =~ s/^\s+//r, 'it is what the API says');
like(stats(), qr/^Cut at the token limit · 60 tokens · [\d.]+ tokens\/s · first token after [\d.]+ m?s$/,
    'its figures');
my ($rate, $first, $unit) = stats() =~ /([\d.]+) tokens\/s.* ([\d.]+) (m?s)$/;
cmp_ok($rate, '>', 1, "$rate tokens/s");
cmp_ok($rate, '<', 1000, 'are possible');
cmp_ok($first * ($unit eq 's' ? 1000 : 1), '>', 1, "$first $unit are, too");
is(focused(), 'input', 'ready for the next');
is($b->js('return document.querySelector(".answer").ariaBusy'), 'false', 'read out when whole');
shot('light');
$b->click('.copy');
soon('copied', 'return document.querySelector(".copy").textContent === "Copied"');
$b->click('#input');
$b->press($Browser::key{control}, 'v');
soon('and pasted', 'return document.getElementById("input").value === turns[0].text.trim()');
$b->clear('#input');

# --- stop: the half answer stays, and goes back as it is
set('max-tokens', '50000');
ask('A long one');
ok(words(5), 'a long one streams');
is($b->js('return document.getElementById("send").hidden'), 1, 'stop stands in send\'s place');
shot('light-streaming');
$b->click('#stop');
ok(ended(), 'stopped');
ok($t->pool_is_full(5), 'its blocks are free');
like(stats(), qr/^Stopped/, 'is marked');
my $half = answer();
like($half, qr/\w \w/, 'half an answer stays');
is(error(), '', 'and is no error');
is(focused(), 'input', 'ready to type');
set('max-tokens', '5');
ask('And now?');
ok(ended(), 'the next one');
like(stats(), qr/5 tokens/, 'works');
is($b->js('return requestOf(turns[2]).messages[3].content.trim()'), $half, 'after the half one');
set('max-tokens', '50000');
ask('Another long one');
ok(words(5), 'another one streams');
$b->press($Browser::key{escape});
ok(ended(), 'Escape stops it');
like(stats(), qr/^Stopped/, 'marked');
ok($t->pool_is_full(5), 'free again');

# --- a reader who has scrolled up is left there
$b->size(1280, 500);
ask('Read this');
ok(words(5), 'streams');
$b->js('document.getElementById("log").scrollTop = 0');
soon('a way to the end', 'return !document.getElementById("end").hidden');
my $words = $b->js('return running.text.split(" ").length');
ok(words($words + 20), 'more text');
is($b->js('return document.getElementById("log").scrollTop'), 0, 'above it nothing moves');
$b->click('#end');
ok(words($words + 60), 'at the end');
soon('it follows', 'return atEnd()');
is($b->js('return document.getElementById("end").hidden'), 1, 'and needs no way');

# --- a new chat stops what runs
$b->size(1280, 800);
$b->click('#new');
soon('a new chat', 'return turns.length === 0');
ok($t->pool_is_full(5), 'ends the old');
clean('so far');

# --- by keyboard
$b->type('#input', 'one');
$b->press(@Browser::key{qw(shift enter)});
$b->type('#input', 'two');
soon('Shift+Enter starts a line', 'return document.getElementById("input").value === "one\\ntwo"');
is(turns(), 0, 'and sends nothing');
$b->js('document.activeElement.blur()');
$b->press('/');
soon('a key for the input', 'return document.activeElement.id === "input"');
is($b->js('return document.getElementById("input").value'), "one\ntwo", 'that it does not type');
$b->clear('#input');
my %reached;
for (1 .. 30) {
    $b->js('window.before = document.activeElement');
    $b->press($Browser::key{tab});
    my $name = $b->wait_for('const e = document.activeElement; return e !== before'
        . ' && (e.id || e.textContent)') or last;
    last if $reached{$name}++;
}
my @controls = @{ $b->js('return [...document.querySelectorAll("button, input, select, textarea")]'
    . '.filter((e) => e.checkVisibility()).map((e) => e.id || e.textContent)') };
cmp_ok(@controls, '>', 12, @controls . ' controls');
is(join(' ', grep { !$reached{$_} } @controls), '', 'Tab reaches all of them');

# --- refusals
set('temperature', '3');
set('max-tokens', '20');
ask('Too hot');
ok(ended(), 'refused');
like(error(), qr/temperature.*from 0 to 2.*400.*invalid_value/s, 'with the reason');
set('temperature', '0');
retry();
ok(ended(), 'asked again');
is(error(), '', 'the reason is gone');
like(answer(), qr/lorem|ipsum/, 'an answer');
is(turns(), 1, 'in the same place');
$b->js('document.getElementById("input").value = "long ".repeat(13000)');
ask(' ');
ok(ended(), 'too long');
like(error(), qr/at most 60000 tokens.*400.*context_length_exceeded/s, 'says so');
$b->click('.turn:last-child .edit');
soon('edit: back in the input', 'return document.getElementById("input").value.startsWith("long")');
is(turns(), 1, 'and out of the way');
$b->clear('#input');
set('max-tokens', '0');
ask('Nothing');
ok(ended(), 'no tokens');
like(error(), qr/max_tokens.*400/s, 'are too few');

# --- the engine dies in the middle
set('max-tokens', '50000');
ask('Until the end');
ok(words(5), 'streams');
$t->signal(engine => 'KILL');
$t->reap('engine');
ok(ended(), 'the engine is killed');
like(error(), qr/engine.*engine_lost/s, 'the answer says so');
like(answer(), qr/\w \w/, 'and keeps what it had');
set('max-tokens', '20');
ask('Anybody?');
ok(ended(), 'nobody');
like(error(), qr/503.*engine_unavailable.*Try again in \d+ second/s, 'and when to try again');
like($b->js('return document.getElementById("notice").textContent'), qr/^No engine .* Trying again/, 'a notice');
shot('light-error');
$t->start_engine;
$t->wait_ready;
soon('the notice goes when the engine is back',
    'return document.getElementById("notice").textContent === ""');
retry();
ok(ended(), 'asked again');
like(answer(), qr/lorem|ipsum/, 'answered');

# --- no server at all
$t->stop(nginx => 'TERM');
ask('Hello?');
ok(ended(), 'nginx is gone');
like(error(), qr/cannot be reached/, 'says so');
$t->start_nginx;
$t->wait_ready;
retry();
ok(ended(), 'nginx is back');
like(answer(), qr/lorem|ipsum/, 'answered');
clean('refusals');

# --- what it sends, through a proxy and below a prefix
$b->visit("$origin/seen/");
is(models(), 'canned', 'below a prefix');
is($b->js('return document.getElementById("max-tokens").value'), '20', 'fields outlive a reload');
set('system', "Be brief.\nAnd kind.");
set('temperature', '0.5');
set('max-tokens', '7');
set('key', 'sk-test');
ask('One');
ok(ended(), 'first');
ask('Zwölf');
ok(ended(), 'second');
my @seen = map { LLM->decode($_) } grep { length } split /\n/, slurp("$t->{dir}/seen.log");
my ($last) = grep { $_->{uri} =~ /chat/ } reverse @seen;
is($last->{auth}, 'Bearer sk-test', 'the key');
utf8::encode($last->{body});
my $sent = LLM->decode($last->{body});
my @roles = map { $_->{role} } @{ $sent->{messages} };
is("@roles", 'system user assistant user', 'the whole conversation');
is($sent->{messages}[0]{content}, "Be brief.\nAnd kind.", 'system prompt');
is($sent->{messages}[3]{content}, 'Zwölf', 'question');
is($sent->{temperature}, 0.5, 'temperature');
is($sent->{max_tokens}, 7, 'max tokens');
is($sent->{model}, 'canned', 'model');
ok($sent->{stream} && $sent->{stream_options}{include_usage}, 'streamed, with usage');
ok((grep { $_->{uri} =~ /models/ && $_->{auth} eq 'Bearer sk-test' } @seen), 'models, with the key');
is($b->js('return localStorage.length'), 0, 'nothing is kept');
is($b->js('return sessionStorage.getItem("key")'), 'sk-test', 'but in this tab');
is($b->js('return getComputedStyle(document.getElementById("key")).webkitTextSecurity'), 'disc',
    'and is not shown');
unlike($b->js('return curlOf(requestOf(turns[1]))'), qr/sk-test/, 'nor copied');
set('system', '');
set('temperature', '');
set('max-tokens', '');
set('key', '');
is_deeply([sort keys %{ $b->js('return requestOf(turns[1])') }],
    [qw(messages model stream stream_options)], 'empty fields are left out');

# --- the command that it copies does the same
set('max-tokens', '7');
my $command = $b->js('return curlOf(requestOf(turns[1]))') =~ s/^curl -N/curl -sN/r;
utf8::encode($command);
like(`$command`, qr/"content":.*\[DONE\]/s, 'the same by curl');

# --- stand-ins
sub stand_in {
    my ($name, $like) = @_;
    $b->visit("$origin/$name/");
    models();
    ask('x');
    ok(ended(), "stand-in $name");
    like(error(), $like, 'says so') if $like;
}
stand_in(bare => qr/did not say why.*502/s);
stand_in(json => qr/not the stream.*application\/json/s);
stand_in(later => qr/Not now\..*429.*rate_limit.*Try again in 7 seconds\./s);
stand_in(garbled => qr/makes no sense/);
stand_in(cut => qr/ended before the answer/);
is(answer(), 'Half of', 'what came stays');
stand_in(event => qr/Lost it\..*lost/s);
is(answer(), 'Half of', 'what came stays');
stand_in('silent');
like(answer(), qr/said nothing/, 'an empty answer');
clean('stand-ins');

$b->size(360, 740, 1);
stand_in('markup');
is(error(), '', 'markup is no error');
my $shown = $b->js('return document.querySelector(".answer").textContent');
like($shown, qr/^<img src=x onerror="hit=1"> <b> strong <i>no<\/i>/, 'markup is text');
like($shown, qr/<script>hit=1<\/script>/, 'in code as well');
is($b->js('return document.querySelectorAll(".answer :is(img, script, b, i)").length'), 0, 'and nothing else');
is($b->js('return typeof hit'), 'undefined', 'nothing ran');
is($b->js('return [...document.querySelectorAll(".answer *")].map((e) => e.tagName).join()'),
    'P,CODE,STRONG,PRE,CODE,P', 'but code and emphasis are what they are');
like($shown, qr/End – 終わり 🙂$/, 'characters are whole');

# --- phone, dark
no_sideways('long lines');
shot('phone-code');
$b->visit("$origin/");
models();
no_sideways('the first screen');
shot('phone-first');
$b->click('#settings-button');
soon('settings open', 'return document.activeElement.id === "system"');
no_sideways('settings');
shot('phone-settings');
$b->press($Browser::key{escape});
soon('and close', 'return document.activeElement.id === "settings-button"');
$b->js('document.getElementById("max-tokens").value = 60');
$b->click('#examples button');
$b->wait_for('return turns.length > 0');
ok(ended(), 'an example');
is($b->js('return document.querySelector(".question").textContent'), 'What are you?', 'is asked');
no_sideways('an answer');
shot('phone');
$b->dark(1);
my $paper = 'return getComputedStyle(document.body).backgroundColor.match(/\d+/g)[0] < 128';
ok($b->js($paper), 'dark where the system is');
shot('phone-dark');
$b->size(1280, 800);
shot('dark');
$b->click('#theme');
soon('light by the button', $paper =~ s/</>/r);
$b->visit("$origin/");
ok(!$b->js($paper), 'and still, loaded anew');
$b->click('#theme');
soon('back to the system\'s', $paper);
$b->dark(0);
soon('which it follows again', $paper =~ s/</>/r);
clean('themes');
unlike($b->js('return document.getElementById("system").value'), qr/brief/, 'an emptied field stays so');

# --- what an answer may hold, and fingers that are quick
is_deeply($b->js('return blocksOf(arguments[0]).map(({ kind, source }) => `${kind} ${source}`)',
    "a\n```js\n```py\nx\n```\n```y``` z"), ['p a', "pre ```py\nx", 'p ```y``` z'],
    'a fence ends where it does');
set('max-tokens', '5000');
$b->type('#input', 'twice');
$b->js('$("send").click(); $("stop").click()');
ok($b->js('return running !== null && !running.stopped'), 'the second click of two stops nothing');
$b->wait_for('return settled()');
$b->click('#stop');
ok(ended(), 'a later one does');

# --- the second lock
is($b->js(<<'JS'), 'undefined none', 'the policy stops what is none of the page');
const script = document.createElement("script");
script.textContent = "window.hit = 1";
document.body.append(script);
const other = location.origin.replace("127.0.0.1", "localhost");
return fetch(other + "/health").then(() => "some", () => "none")
    .then((answers) => typeof hit + " " + answers);
JS
isnt(scalar $b->logs('browser'), 0, 'and complains on the console');

# --- the demo model
$t->stop(engine => 'TERM');
$t->{engine} = ['--model', LLM->demo];
$t->start_engine;
$t->wait_ready;
$b->{patience} = 120;
$b->visit("$origin/");
my $model = models();
isnt($model, 'canned', "the demo model: $model");
set('temperature', '0');
set('max-tokens', '200');
my @questions = ('What are you?', 'What is 27 + 48?', 'Give me a person as JSON');
for my $q (@questions) {
    ask($q);
    ok(ended(), $q);
    is(error(), '', 'is answered');
}
$r = $t->decode($t->post('/v1/chat/completions', { model => $model, temperature => 0,
    max_tokens => 200, messages => [{ role => 'user', content => $questions[0] }] })->{body});
is($b->js('return turns[0].text'), $r->{choices}[0]{message}{content}, 'as the API answers');
shot('demo');
$b->dark(1);
shot('demo-dark');
$b->size(360, 740, 1);
no_sideways('demo');
shot('demo-phone');
clean('demo');

my @foreign = grep { !m{^(?:\Q$origin\E/|data:|chrome:)} && !m{^http://localhost:\d+/health$} } map { $_->{url} } $b->requests;
is("@foreign", '', 'in all this, no request to anybody else');

$b->quit;
$t->done;
