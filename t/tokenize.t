# Catches: ids that are not those the model would be given; a text that does not
# come back; tokens charged for what no model ran; a count beyond what a context
# holds; a body of another shape taken for this one.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use Test::More;

my $t = LLM->new(engine => ['--model', LLM->demo], workers => 2,
    location => 'llm_tenant_key $http_x_tenant; llm_auth optional;', conf => <<'CONF');
    llm_tenant some { requests 600; tokens 600 burst=50; max_input_tokens 10; }
CONF
my $model = LLM->demo_name;
my $false = JSON::PP::false();

sub ask {
    my ($what, $body, @more) = @_;
    my $r = $t->post("/v1/$what", { model => $model, %$body }, @more);
    return ($r, eval { LLM->decode($r->{body}) } // {});
}
sub ids { my (undef, $d) = ask('tokenize', @_); return $d->{tokens} }

my ($r, $d) = ask('tokenize', { prompt => 'Hello world, how are you?' });
is("$r->{status} $r->{headers}{'content-type'}", '200 application/json', 'tokenize');
is($d->{count}, scalar @{ $d->{tokens} }, 'the count');
is($d->{max_model_len}, 1024, 'the context');

# what the model would be given
my $usage = LLM->decode($t->post('/v1/completions', { model => $model, max_tokens => 1,
    prompt => 'Hello world, how are you?' })->{body})->{usage};
is($d->{count}, $usage->{prompt_tokens}, 'as many as a completion has');
my @messages = ({ role => 'system', content => 'Be brief.' }, { role => 'user', content => 'Hi!' });
my $chat = LLM->decode($t->post('/v1/chat/completions', { model => $model, max_tokens => 1,
    messages => \@messages })->{body})->{usage};
is(scalar @{ ids({ messages => \@messages }) }, $chat->{prompt_tokens}, 'as many as a chat has');
cmp_ok(scalar @{ ids({ messages => \@messages }) }, '>', scalar @{ ids({ prompt => 'Be brief.Hi!' }) },
    'with its template');

# there and back, in pieces of all sizes
for my $n (1, 2, 7, 30, 70) {
    my $text = substr("One day, a word \x{e9}t\x{e9} \x{4e16}\x{754c} came. " x $n, 0, $n * 20);
    my $tokens = ids({ prompt => $text, add_special_tokens => $false });
    ($r, $d) = ask('detokenize', { tokens => $tokens });
    is($d->{prompt}, $text, scalar(@$tokens) . ' ids and back');
}
my $quoted = qq{"\\ \n\t\x01};
is((ask('detokenize', { tokens => ids({ prompt => $quoted }) }))[1]{prompt}, $quoted, 'escapes');

# nothing runs, so nothing is charged, and limits of tokens are not asked
my $before = $t->metric('completion_tokens') . ' ' . $t->metric('prompt_tokens');
my @limited = map { (ask('tokenize', { prompt => 'word ' x 40 }, 'X-Tenant' => 'some'))[0] } 1 .. 5;
is(join(' ', map { $_->{status} } @limited), '200 200 200 200 200', 'more than the limit');
is($limited[4]{headers}{'x-ratelimit-remaining-requests'}, 595, 'it is a request');
is($limited[4]{headers}{'x-ratelimit-remaining-tokens'}, 50, 'that costs no tokens');
is($t->metric('completion_tokens') . ' ' . $t->metric('prompt_tokens'), $before, 'as no model ran');

# --- what is wrong -----------------------------------------------------------------

for (
    ['tokenize', {}, 400, 'messages'],
    ['tokenize', { prompt => 5 }, 400, 'prompt'],
    ['tokenize', { prompt => ['a', 'b'] }, 400, 'prompt'],
    ['tokenize', { prompt => 'a', add_special_tokens => 'no' }, 400, 'add_special_tokens'],
    ['tokenize', { prompt => 'word ' x 2000 }, 400, 'prompt'],
    ['tokenize', { prompt => 'a', model => 'none' }, 404, 'model'],
    ['tokenize', { messages => [{ role => 'user', content => 'a' }], documents => [{}] }, 400, 'documents'],
    ['detokenize', {}, 400, 'tokens'],
    ['detokenize', { tokens => [] }, 400, 'tokens'],
    ['detokenize', { tokens => 'a' }, 400, 'tokens'],
    ['detokenize', { tokens => [1, 'a'] }, 400, 'tokens'],
    ['detokenize', { tokens => [1, -1] }, 400, 'tokens'],
    ['detokenize', { tokens => [1, 1.5] }, 400, 'tokens'],
) {
    my ($what, $body, $status, $param) = @$_;
    ($r, $d) = ask($what, $body);
    is("$r->{status} $d->{error}{param}", "$status $param", "$what: " . substr(LLM->encode($body), 0, 50));
}
($r, $d) = ask('detokenize', { tokens => [99999] });
is("$r->{status} $d->{error}{message}", "400 Token 99999 is outside the model's vocabulary of 3072.",
    'an id that does not exist');
is($t->get('/v1/tokenize')->{status}, 405, 'GET');

# a client that leaves, and a stream beside it that goes on
my $s = $t->stream('/v1/completions', { model => $model, prompt => 'Once', max_tokens => 60,
    ignore_eos => JSON::PP::true() });
for (1 .. 10) {
    my $c = $t->connect;
    print $c $t->request_text('POST', '/v1/tokenize', { model => $model, prompt => 'word ' x 900 });
    close $c;
}
$s->events(20);
ok($s->{done_seen}, 'clients leave, a stream goes on');
ok($t->pool_is_full, 'at rest');

$t->done;
